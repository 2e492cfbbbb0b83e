//! Core: the world's second sink: keeps what it is handed, at a destination that is busy, away, refuses
//! some of it, or does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_collector::interpret::{Gap, Interpreted};
use headwater_collector::sink::{Delivered, Due, Sink, SinkError};
use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::message::GapReason;
use headwater_proto::time::{Millis, Now};

use super::dice::Dice;
use super::given::{Given, Number};

/// Name of the second sink.
pub const COPY: &str = "copy";

/// Records that wait at most.
const MOST_WAITING: usize = 60;
/// Longest wait of a record.
const FLUSH_AFTER_MS: u64 = 700;

/// How the destination treats who calls it; each once in so many calls, 0 is never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyFaults {
    /// Calls that it turns away.
    pub busy: u64,
    /// Calls of which only the answer is lost.
    pub lost: u64,
    /// Records that it refuses for good.
    pub refuses: u64,
    /// How long after a start of the collector it is away.
    pub away_ms: u64,
}

/// Numbers of streams.
pub type Arrived = BTreeMap<Stream, Ranges<{ usize::MAX }>>;

/// What the destination has.
#[derive(Debug, Default)]
pub struct Shelf {
    /// What it was given of each record.
    pub given: BTreeMap<Number, Given>,
    /// Records that it refused.
    pub refused: BTreeMap<Stream, Ranges<{ usize::MAX }>>,
    /// Records that it was told nobody can decode: the schema that they need rotted.
    pub undecodable: BTreeSet<Number>,
    /// Batches that came as they are in the journal.
    pub blocks: u64,
    /// Records that it took; those that came again count again.
    pub taken: u64,
    /// Calls that failed.
    pub failed: u64,
}

/// The destination. It outlives the collector; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Destination(Arc<Mutex<Shelf>>);

impl Destination {
    /// What it has.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The numbered record, if what it says is that nobody can decode it.
#[must_use]
pub fn undecodable(item: &Interpreted<'_>) -> Option<Number> {
    let number = item.origin.map(|origin| (origin.stream(), origin.seq));
    let is_lost = |gap: &Gap| gap.reason == GapReason::Undecodable && !gap.carried;
    number.filter(|_| item.gaps.iter().any(is_lost))
}

/// The sink in front of it.
pub struct CopySink {
    destination: Destination,
    faults: CopyFaults,
    away_until: Millis,
    dice: Dice,
    waiting: Vec<(Number, Given)>,
    position: u64,
    cursor: u64,
    first_at: Option<Millis>,
    covers: BTreeMap<Stream, Ranges<{ usize::MAX }>>,
}

impl CopySink {
    /// Goes on at `position`.
    #[must_use]
    pub fn new(
        destination: Destination,
        position: u64,
        faults: CopyFaults,
        dice: Dice,
        now: Now,
    ) -> Self {
        Self {
            destination,
            faults,
            away_until: now.mono.plus(faults.away_ms),
            dice,
            waiting: Vec::new(),
            position,
            cursor: position,
            first_at: None,
            covers: BTreeMap::new(),
        }
    }

    /// Whether the destination will never take a record, and whether that shows before it is sent.
    fn refuses(&self, (stream, seq): &Number) -> Option<bool> {
        let most = self.faults.refuses;
        let drawn = Dice::new(stream.epoch.get() ^ seq.wrapping_mul(0x9e37_79b9)).bits();
        (most > 0 && drawn.is_multiple_of(most)).then(|| (drawn / most).is_multiple_of(2))
    }

    fn note_refused(&self, items: &[(Stream, SeqRange)]) {
        let mut shelf = self.destination.shelf();
        for (stream, range) in items {
            // Without a bound on ranges nothing is refused.
            let _ = shelf
                .refused
                .entry(stream.clone())
                .or_default()
                .insert(*range);
        }
    }

    fn busy(&self, cause: &str) -> SinkError {
        self.destination.shelf().failed += 1;
        SinkError::Busy {
            retry_after: None,
            cause: cause.to_owned(),
        }
    }

    async fn send(&mut self, now: Now) -> Result<Delivered, SinkError> {
        if now.mono < self.away_until {
            self.destination.shelf().failed += 1;
            return Err(SinkError::Busy {
                retry_after: Some(Duration::from_millis(200)),
                cause: "away".to_owned(),
            });
        }
        if self.dice.one_in(self.faults.busy) {
            if self.dice.one_in(4) {
                return Err(SinkError::Denied {
                    cause: "the token has expired".to_owned(),
                    remedy: "wait".to_owned(),
                });
            }
            return Err(self.busy("busy"));
        }
        let refused: Vec<(Stream, SeqRange)> = self
            .waiting
            .iter()
            .filter(|(number, _)| self.refuses(number) == Some(false))
            .map(|((stream, seq), _)| (stream.clone(), SeqRange::new(*seq, seq + 1)))
            .collect();
        if !refused.is_empty() {
            let mut waiting = std::mem::take(&mut self.waiting);
            waiting.retain(|(number, _)| self.refuses(number).is_none());
            self.waiting = waiting;
            self.note_refused(&refused);
            return Err(SinkError::Refused {
                items: refused,
                cause: "the destination does not like it".to_owned(),
            });
        }
        for (number, given) in &self.waiting {
            let mut shelf = self.destination.shelf();
            shelf.taken += 1;
            shelf.given.entry(number.clone()).or_default().merge(given);
        }
        if self.dice.one_in(self.faults.lost) {
            if self.dice.one_in(2) {
                // Whoever waits for the answer gives up.
                pending::<()>().await;
            }
            return Err(self.busy("the answer was lost"));
        }
        self.waiting.clear();
        self.first_at = None;
        self.cursor = self.position;
        let covers = std::mem::take(&mut self.covers).into_iter();
        Ok(Delivered {
            through: self.position,
            streams: covers
                .map(|(stream, ranges)| (stream, ranges.as_slice().to_vec()))
                .collect(),
        })
    }
}

impl Sink for CopySink {
    fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), SinkError> {
        if let Some(origin) = item.origin {
            let number = (origin.stream(), origin.seq);
            if self.refuses(&number) == Some(true) {
                self.note_refused(item.covers);
                return Err(SinkError::Refused {
                    items: Vec::new(),
                    cause: "its kind is not known there".to_owned(),
                });
            }
            let lost = undecodable(item);
            self.destination.shelf().undecodable.extend(lost);
            self.destination.shelf().blocks += u64::from(item.block.is_some());
            let given = Given::of(item);
            if !given.is_empty() {
                self.waiting.push((number, given));
            }
        }
        for (stream, range) in item.covers {
            // Without a bound on ranges nothing is refused.
            let _ = self
                .covers
                .entry(stream.clone())
                .or_default()
                .insert(*range);
        }
        let _ = self.first_at.get_or_insert(now.mono);
        Ok(())
    }

    fn passed(&mut self, next: u64, now: Now) {
        if next > self.position {
            self.position = next;
            let _ = self.first_at.get_or_insert(now.mono);
        }
    }

    fn due(&self, _now: Millis) -> Due {
        match self.first_at {
            Some(_) if self.waiting.len() >= MOST_WAITING => Due::Full,
            Some(at) => Due::At(at.plus(FLUSH_AFTER_MS)),
            None => Due::Never,
        }
    }

    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        self.send(now)
    }
}
