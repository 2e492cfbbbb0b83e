//! Core: the names of epochs, and what the outbox is told of them.

use headwater_proto::delivery::{HeldEpoch, RecordRef};
use headwater_proto::ids::{Epoch, Lane, SeqRange};
use headwater_spool::Disk;

use super::Engine;
use crate::pipeline::record::Life;

impl<D: Disk> Engine<D> {
    /// The next epoch: mixed from the entropy of the start, so that no two are alike.
    pub(super) fn draw_epoch(&mut self) -> Epoch {
        let (a, b) = &mut self.random;
        *a = a.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *a ^ b.rotate_left(17);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        *b = b.wrapping_mul(0xd120_2b55_a4a4_9d37).wrapping_add(z | 1);
        Epoch::new(z ^ (z >> 31))
    }

    /// Tells the outbox that an epoch is over, and which record says so: a durable one, or one of the
    /// RAM epoch while there is no disk.
    pub(super) fn tell_ended(&mut self, at: usize, epoch: Epoch) {
        let lane = &self.lanes[at];
        let end = lane
            .durable
            .end_of(epoch)
            .or_else(|| lane.marks.end_of(epoch));
        let named = end.map(|end| end.named_in);
        let named = named.map(|(epoch, seq)| RecordRef {
            lane: lane.lane,
            epoch,
            seq,
        });
        self.outbox.ended(lane.lane, epoch, named);
    }
}

/// An epoch that goes on.
pub(super) const fn held_epoch(
    lane: Lane,
    epoch: Epoch,
    range: SeqRange,
    ram: bool,
    life: Life,
) -> HeldEpoch {
    HeldEpoch {
        lane,
        epoch,
        first: range.first,
        next: range.next,
        ram,
        ended: false,
        boot: life.boot,
        base: life.base,
        end_named_in: None,
        dated_by: None,
    }
}
