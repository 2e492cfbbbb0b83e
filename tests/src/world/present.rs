//! Core: the present, for a deliberate bug in code that has no clock.

use headwater_proto::time::UnixMicros;

/// Shows the present to such a bug.
#[cfg(feature = "sabotage")]
pub(super) fn show_present(now: UnixMicros) {
    headwater_proto::sabotage::set_present_us(now.0);
}

/// Without the `sabotage` feature nobody looks.
#[cfg(not(feature = "sabotage"))]
pub(super) const fn show_present(_now: UnixMicros) {}
