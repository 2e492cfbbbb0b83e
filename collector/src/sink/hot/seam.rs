//! Core: the hot store behind the seam of sinks.

use std::future::{Future, ready};

use headwater_program::chain::chain;
use headwater_proto::ids::JournalId;
use headwater_proto::time::{Millis, Now};

use super::{HotStore, Kept};
use crate::interpret::Interpreted;
use crate::sink::{Covers, Delivered, Due, Sink, SinkError};
use crate::state::StateError;

/// How often old readings are dropped.
const EXPIRE_MS: u64 = 60_000;

/// The hot store as a sink of one journal.
#[derive(Debug)]
pub struct HotSink {
    store: HotStore,
    /// `None`: it is given records of no journal, and its own cursor stays where it is.
    journal: Option<JournalId>,
    /// Whether the journal waits for it: records that are not stored are then not passed over.
    is_required: bool,
    /// Records that an optional one left out.
    skipped: u64,
    /// Milliseconds between two commits.
    freshness_ms: u64,
    /// The first position not yet taken, and not yet committed.
    position: u64,
    cursor: u64,
    /// Whether custody has heard of `cursor`.
    is_told: bool,
    committed_at: Millis,
    expired_at: Option<Millis>,
    /// Numbers that were taken since the last commit.
    covers: Covers,
}

impl HotSink {
    /// Goes on with `journal` at `position`; `is_required`: the journal waits for it.
    #[must_use]
    pub fn new(
        store: HotStore,
        journal: JournalId,
        position: u64,
        freshness_ms: u64,
        is_required: bool,
    ) -> Self {
        Self {
            store,
            journal: Some(journal),
            is_required,
            skipped: 0,
            freshness_ms,
            position,
            cursor: position,
            is_told: true,
            committed_at: Millis(0),
            expired_at: None,
            covers: Covers::default(),
        }
    }

    /// Apart from any journal: what it is given has positions of its own. It refuses what it cannot hold.
    pub(super) fn apart(store: HotStore) -> Self {
        Self {
            journal: None,
            ..Self::new(store, JournalId(0), 0, 0, true)
        }
    }

    /// Its first delivery tells custody where it stands, also without a new record.
    #[must_use]
    pub(super) const fn untold(mut self) -> Self {
        self.is_told = false;
        self
    }
}

impl Sink for HotSink {
    fn take(&mut self, item: &Interpreted<'_>, _now: Now) -> Result<(), SinkError> {
        match self.store.take(item)? {
            Kept::Stored => {}
            Kept::NoRoom if self.is_required => {
                self.store.look_for_room();
                return Err(SinkError::Busy {
                    retry_after: None,
                    cause: "the hot store is full: raise max_mib of this sink".to_owned(),
                });
            }
            Kept::TooLarge if self.is_required => {
                return Err(SinkError::Refused {
                    items: item.covers.to_vec(),
                    cause: "more than the hot store holds of one record".to_owned(),
                });
            }
            Kept::NoRoom | Kept::TooLarge => self.skipped += 1,
        }
        self.covers.add(item.covers);
        Ok(())
    }

    fn passed(&mut self, next: u64, _now: Now) {
        self.position = self.position.max(next);
    }

    fn due(&self, _now: Millis) -> Due {
        if self.position == self.cursor && self.is_told {
            return Due::Never;
        }
        Due::At(self.committed_at.plus(self.freshness_ms))
    }

    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        let position = self.position;
        let committed = match self.journal {
            Some(journal) => self.store.commit(journal, position),
            None => self.store.settle(),
        };
        ready(match committed {
            Ok(()) => {
                (self.cursor, self.committed_at) = (position, now.mono);
                self.is_told = true;
                Ok(Delivered {
                    through: position,
                    streams: self.covers.take(),
                })
            }
            Err(error) => Err(error.into()),
        })
    }

    fn keep(&mut self, now: Now) -> Result<(), SinkError> {
        let is_due = |at: Millis| now.mono.since(at) >= EXPIRE_MS;
        if self.expired_at.is_none_or(is_due) {
            self.store.expire(now.wall)?;
            self.expired_at = Some(now.mono);
        }
        Ok(())
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        vec![("hot_skipped_total", self.skipped)]
    }
}

impl From<StateError> for SinkError {
    fn from(error: StateError) -> Self {
        Self::Busy {
            retry_after: None,
            cause: chain(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret::Depth;
    use crate::sink::hot::HotSettings;
    use crate::sink::publishes::Publishes;
    use headwater_proto::ids::SeqRange;
    use headwater_proto::time::UnixMicros;

    const JOURNAL: JournalId = JournalId(7);
    const NOW: Now = Now {
        mono: Millis(5_000),
        wall: UnixMicros(1_700_000_000_000_000),
    };

    struct Rig {
        _folder: tempfile::TempDir,
        sink: HotSink,
        publishes: Publishes,
    }

    impl Rig {
        fn new(is_required: bool) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let settings = HotSettings {
                keep_us: i64::MAX,
                max_bytes: 16 << 20,
                cache_bytes: 1 << 20,
            };
            let (store, _) = HotStore::open(folder.path(), settings).unwrap();
            let mut sink = HotSink::new(store, JOURNAL, 0, 1_000, is_required);
            let take = |item: &Interpreted<'_>| sink.take(item, NOW);
            let (publishes, taken) = Publishes::new(Depth::Blocks, JOURNAL.0, NOW.wall, take);
            taken.unwrap();
            Self {
                _folder: folder,
                sink,
                publishes,
            }
        }

        /// One publish of a plain device, with as many texts of 15,000 bytes.
        fn publish(&mut self, seq: u64, texts: usize) -> Result<(), SinkError> {
            let long = "x".repeat(15_000);
            let fields = (0..texts).map(|n| format!("\"t{n}\":\"{long}\""));
            let fields: Vec<String> = fields.collect();
            let body = format!("{{\"level\":1,\"{seq}\":2{}}}", join(&fields));
            let take = |item: &Interpreted<'_>| self.sink.take(item, NOW);
            self.publishes.publish("pump", seq, &body, take)
        }

        /// The numbers that it tells with its next delivery.
        fn tells(&mut self) -> Vec<SeqRange> {
            self.sink.passed(self.publishes.position, NOW);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            let delivered = runtime.block_on(self.sink.deliver(NOW)).unwrap();
            assert_eq!(delivered.through, self.publishes.position);
            let streams = delivered.streams.into_iter();
            streams.flat_map(|(_, ranges)| ranges).collect()
        }
    }

    fn join(fields: &[String]) -> String {
        fields.iter().map(|field| format!(",{field}")).collect()
    }

    #[test]
    fn a_required_store_tells_of_nothing_that_it_does_not_have() {
        let mut rig = Rig::new(true);
        rig.publish(0, 0).unwrap();
        let error = rig.publish(1, 70).unwrap_err();
        assert!(matches!(error, SinkError::Refused { .. }), "{error}");
        rig.sink.store.fill_up();
        let error = rig.publish(2, 0).unwrap_err();
        assert!(matches!(error, SinkError::Busy { .. }), "{error}");
        // There is room again, which is seen at once.
        rig.publish(3, 0).unwrap();
        let has = [SeqRange::new(0, 1), SeqRange::new(3, 4)];
        assert_eq!(rig.tells(), has);
        assert_eq!(rig.sink.counts(), [("hot_skipped_total", 0)]);
    }

    #[test]
    fn an_optional_store_counts_what_it_leaves_out_and_goes_on() {
        let mut rig = Rig::new(false);
        rig.publish(0, 70).unwrap();
        rig.sink.store.fill_up();
        rig.publish(1, 0).unwrap();
        assert_eq!(rig.tells(), [SeqRange::new(0, 2)]);
        assert_eq!(rig.sink.counts(), [("hot_skipped_total", 2)]);
    }
}
