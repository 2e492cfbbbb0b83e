//! Core: the names of epochs.

use headwater_proto::ids::Epoch;

/// Draws epochs, mixed from the entropy of the start, so that no two are alike.
pub(super) struct EpochNames(u64, u64);

impl EpochNames {
    pub(super) const fn new((a, b): (u64, u64)) -> Self {
        Self(a, b)
    }

    pub(super) fn draw(&mut self) -> Epoch {
        let Self(a, b) = self;
        *a = a.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *a ^ b.rotate_left(17);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *b = b.wrapping_mul(0xd120_2b55_a4a4_9d37).wrapping_add(z | 1);
        Epoch::new(z ^ (z >> 31))
    }
}
