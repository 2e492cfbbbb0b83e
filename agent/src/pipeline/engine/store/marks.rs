//! Core: what the records of a lane say about its sources, its epochs and the boots.

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::time::UnixMicros;

use super::draft::{Draft, Says};
use crate::pipeline::record::{
    BootBase, Cursor, Ended, MAX_BASES, MAX_BASES_OF_ONE, MAX_ENDED, MAX_SOURCES, SourceMark,
};

/// What all records of a lane up to some point say about its sources and epochs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    pub(crate) sources: Vec<SourceMark>,
    pub(crate) ended: Vec<Ended>,
    /// Oldest first.
    pub(crate) bases: Vec<BootBase>,
    /// When this life began, as far as a clock knew.
    pub(crate) begun: Option<UnixMicros>,
}

impl Marks {
    pub(crate) fn source(&self, name: &str) -> Option<&SourceMark> {
        self.sources.iter().find(|mark| mark.name == name)
    }

    fn source_mut(&mut self, name: &str) -> Option<&mut SourceMark> {
        if self.source(name).is_none() && self.sources.len() < MAX_SOURCES {
            self.sources.push(SourceMark {
                name: name.to_owned(),
                cursor: None,
                live: false,
                stored_to: self.begun,
                unclean: None,
            });
        }
        self.sources.iter_mut().find(|mark| mark.name == name)
    }

    /// Takes in record `seq` of `epoch`.
    pub(crate) fn apply(&mut self, lane: Lane, epoch: Epoch, seq: u64, record: &Draft) {
        self.apply_undurable(lane, epoch, seq, record);
        self.stored(&record.source, record.stored_to);
    }

    /// Takes in a record of a source.
    pub(crate) fn gave(&mut self, source: &str, cursor: Option<Cursor>, live: bool) {
        if let Some(mark) = self.source_mut(source) {
            mark.cursor = cursor.or(mark.cursor);
            mark.live = live;
        }
    }

    /// All that the lane took up to then is durable. A source that can begin again may have more to give of before.
    pub(crate) fn stored(&mut self, source: &str, stored_to: Option<UnixMicros>) {
        let marks = self.sources.iter_mut();
        for mark in marks.filter(|mark| mark.live || mark.name == source) {
            mark.stored_to = stored_to.or(mark.stored_to);
        }
    }

    /// A life begins: all that was before is durable, or named, where a source cannot begin again.
    pub(crate) fn begin(&mut self, at: Option<UnixMicros>) {
        self.begun = at;
        for mark in self.sources.iter_mut().filter(|mark| mark.live) {
            mark.stored_to = at.or(mark.stored_to);
        }
    }

    /// Takes in a record that is in memory alone: it makes nothing durable.
    pub(crate) fn apply_undurable(&mut self, lane: Lane, epoch: Epoch, seq: u64, record: &Draft) {
        if record.is_own() {
            self.said(lane, (epoch, seq), &record.says);
        } else {
            self.gave(&record.source, record.cursor, record.live);
        }
    }

    /// Whether an unclean stop of a source is still to be named.
    pub(crate) fn owes_a_gap(&self) -> bool {
        self.sources.iter().any(|mark| mark.unclean.is_some())
    }

    /// Takes in what a record of the agent itself says: the one of this epoch and number.
    pub(crate) fn said(&mut self, of: Lane, named_in: (Epoch, u64), says: &Says) {
        match says {
            Says::End { lane, epoch, range } if *lane == of => self.end(Ended {
                epoch: *epoch,
                range: *range,
                named_in,
            }),
            Says::Unclean { source, until } => {
                for mark in self.sources.iter_mut().filter(|mark| mark.name == *source) {
                    mark.unclean = None;
                    mark.stored_to = until.or(mark.stored_to);
                }
            }
            Says::Dated { device, boot } => self.base(BootBase {
                device: device.clone(),
                boot: *boot,
                named_in,
            }),
            Says::End { .. } | Says::Nothing => {}
        }
    }

    fn base(&mut self, base: BootBase) {
        let is_of = |known: &BootBase| known.device == base.device;
        self.bases
            .retain(|known| !is_of(known) || known.boot != base.boot);
        let of_one = self.bases.iter().filter(|known| is_of(known)).count();
        let oldest = if of_one == MAX_BASES_OF_ONE {
            self.bases.iter().position(is_of)
        } else {
            (self.bases.len() == MAX_BASES).then_some(0)
        };
        if let Some(oldest) = oldest {
            self.bases.remove(oldest);
        }
        self.bases.push(base);
    }

    fn end(&mut self, ended: Ended) {
        self.ended.retain(|known| known.epoch != ended.epoch);
        if self.ended.len() == MAX_ENDED {
            self.ended.remove(0);
        }
        self.ended.push(ended);
    }

    pub(crate) fn end_of(&self, epoch: Epoch) -> Option<&Ended> {
        self.ended.iter().find(|ended| ended.epoch == epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::ids::SeqRange;

    fn end(marks: &mut Marks, lane: Lane, number: u64) {
        let says = Says::End {
            lane,
            epoch: Epoch::new(number),
            range: SeqRange::new(0, 1),
        };
        marks.said(Lane::Normal, (Epoch::new(0), number), &says);
    }

    #[test]
    fn as_many_ends_as_a_snapshot_lists_are_remembered_and_the_oldest_gives_way() {
        let mut marks = Marks::default();
        let all = 0..MAX_ENDED as u64;
        for number in all.clone() {
            end(&mut marks, Lane::Normal, number);
        }
        // One that is said again is no other, and those of another lane are its own.
        end(&mut marks, Lane::Normal, 0);
        end(&mut marks, Lane::Bulk, all.end);
        assert!(all.clone().all(|it| marks.end_of(Epoch::new(it)).is_some()));
        end(&mut marks, Lane::Normal, all.end);
        assert_eq!(marks.ended.len(), MAX_ENDED);
        // An epoch whose end is not known counts as one that a kill ended: it is said again.
        assert_eq!(marks.end_of(Epoch::new(1)), None);
        assert!(marks.end_of(Epoch::new(0)).is_some());
    }

    #[test]
    fn a_device_that_boots_often_displaces_no_other_ones_boots() {
        use headwater_proto::ids::DeviceId;
        let mut marks = Marks::default();
        let mut dated = |device: &str, boot| {
            let device = DeviceId::new(device).unwrap();
            let says = Says::Dated { device, boot };
            marks.said(Lane::Normal, (Epoch::new(0), boot), &says);
        };
        dated("a", 1);
        for boot in 0..=MAX_BASES_OF_ONE as u64 {
            dated("b", boot);
        }
        dated("b", 5);
        let of = |marks: &Marks, device: &str| {
            let all = marks.bases.iter();
            all.filter(|base| base.device.as_str() == device).count()
        };
        for k in 0..MAX_BASES - MAX_BASES_OF_ONE {
            dated(&format!("c{k}"), 1);
        }
        assert_eq!((of(&marks, "a"), of(&marks, "b")), (0, MAX_BASES_OF_ONE));
        assert_eq!(marks.bases.len(), MAX_BASES);
    }
}
