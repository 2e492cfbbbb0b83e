//! Core: what the records of a lane say about its sources, its epochs and the boots.

use headwater_proto::ids::{Epoch, Lane};

use super::draft::{Draft, Says};
use crate::pipeline::record::{
    BootBase, Cursor, Ended, MAX_BASES, MAX_ENDED, MAX_SOURCES, SourceMark,
};
use headwater_proto::time::UnixMicros;

/// What all records of a lane up to some point say about its sources and epochs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    pub(crate) sources: Vec<SourceMark>,
    pub(crate) ended: Vec<Ended>,
    /// Oldest first.
    pub(crate) bases: Vec<BootBase>,
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
                last_time: None,
                unclean: None,
            });
        }
        self.sources.iter_mut().find(|mark| mark.name == name)
    }

    /// Takes in record `seq` of `epoch`.
    pub(crate) fn apply(&mut self, lane: Lane, epoch: Epoch, seq: u64, record: &Draft) {
        if record.is_own() {
            self.said(lane, (epoch, seq), &record.says);
        } else {
            self.gave(&record.source, record.cursor, record.live, record.last_time);
        }
    }

    /// Takes in a record of a source.
    pub(crate) fn gave(
        &mut self,
        source: &str,
        cursor: Option<Cursor>,
        live: bool,
        last_time: Option<UnixMicros>,
    ) {
        if let Some(mark) = self.source_mut(source) {
            mark.cursor = cursor.or(mark.cursor);
            mark.live = live;
            mark.last_time = mark.last_time.max(last_time);
        }
    }

    /// Takes in what a record of the agent itself says: the one of this epoch and number.
    pub(crate) fn said(&mut self, of: Lane, named_in: (Epoch, u64), says: &Says) {
        match says {
            Says::End { lane, epoch, range } if *lane == of => self.end(Ended {
                epoch: *epoch,
                range: *range,
                named_in,
            }),
            Says::Unclean(source) => {
                for mark in self.sources.iter_mut().filter(|mark| mark.name == *source) {
                    mark.unclean = None;
                }
            }
            Says::Dated { boot } => self.base(BootBase {
                boot: *boot,
                named_in,
            }),
            Says::End { .. } | Says::Nothing => {}
        }
    }

    fn base(&mut self, base: BootBase) {
        self.bases.retain(|known| known.boot != base.boot);
        if self.bases.len() == MAX_BASES {
            self.bases.remove(0);
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
