//! Core: deliberate bugs, to show that the world would notice them.

use headwater_proto::sabotage::Bug;

/// Runs seeds with `bug` switched on until one fails; how many it took and the first fault, `None`
/// if all of `most` passed.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn seeds_until_noticed(bug: Bug, most: u64) -> Option<(u64, String)> {
    headwater_proto::sabotage::set(Some(bug));
    let noticed = (0..most).find_map(|seed| {
        // A core that notices by itself counts too: its debug assertions are part of the net.
        match std::panic::catch_unwind(|| super::run::run(seed, false)) {
            Ok(Ok(_)) => None,
            Ok(Err(failure)) => Some((seed + 1, failure.faults.into_iter().next()?)),
            Err(_) => Some((seed + 1, "a core panics".to_owned())),
        }
    });
    headwater_proto::sabotage::set(None);
    noticed
}

/// Without the `sabotage` feature no bug can be switched on.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn seeds_until_noticed(_bug: Bug, _most: u64) -> Option<(u64, String)> {
    None
}
