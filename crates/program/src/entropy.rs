//! Random bits from the operating system.

use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};

/// 64 random bits. Early in a boot this waits until the kernel has gathered enough.
///
/// # Panics
/// If the kernel refuses `getrandom`, which the standard library needs as well.
#[must_use]
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled += retry_on_intr(|| getrandom(&mut bytes[filled..], GetRandomFlags::empty()))
            .expect("every Linux since 3.17 has getrandom");
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_thousand_draws_are_all_different_and_use_every_bit() {
        let drawn: BTreeSet<u64> = (0..1000).map(|_| random()).collect();
        assert_eq!(drawn.len(), 1000);
        assert_eq!(drawn.iter().fold(0, |bits, draw| bits | draw), u64::MAX);
        assert_eq!(drawn.iter().fold(u64::MAX, |bits, draw| bits & draw), 0);
    }
}
