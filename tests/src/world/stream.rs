//! Core: the world's stream sink: sends batches to a service that is away or busy, refuses single items, or
//! whose answer is lost.
//!
//! A batch is cut once. Before its first call a plan in the journal names its bounds, the settings that
//! encode it and a checksum of its bytes; after a crash it is made again from that alone, and the service
//! knows it by the position where it begins. Its bounds are counted in rows and journal positions, never in
//! memory or by the time of a read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headwater_collector::interpret::{Depth, Feed, Interpreted};
use headwater_collector::pipeline::custody::{Custody, OpenError};
use headwater_collector::sink::worker::Worker;
use headwater_collector::sink::{Covers, Delivered, Due, Plan, Sink, SinkError};
use headwater_proto::ids::{JournalId, SeqRange, Stream};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::FakeDisk;

use super::copy::{CopyFaults, undecodable};
use super::dice::Dice;
use super::given::{Given, Number};

/// Name of the stream sink.
pub const STREAM: &str = "stream";

/// Rows of a batch, unless a single record has more.
const MAX_BATCH_ROWS: usize = 40;
/// Journal positions of a batch.
const MAX_BATCH_POSITIONS: u64 = 60;
/// Positions that are taken before a batch must go.
const MAX_TAKEN_POSITIONS: u64 = 3 * MAX_BATCH_POSITIONS;
/// Longest wait of a record.
const FLUSH_AFTER_MS: u64 = 500;

/// By which the service knows a batch: the journal, and the position where the batch begins.
pub type BatchId = (JournalId, u64);

/// A batch as the service saw it.
#[derive(Debug)]
struct Arrived {
    bytes: Vec<u8>,
    times: u64,
    /// How often it may come again: for an answer that was lost, for a death before its plan's end was
    /// noted.
    excused: u64,
}

/// What the service has.
#[derive(Debug, Default)]
pub struct Shelf {
    /// What it was given of each record.
    pub given: BTreeMap<Number, Given>,
    /// Records that it refused, or that were not sent again since their batch could not be made again.
    pub refused: BTreeSet<Number>,
    /// Records that it was told nobody can decode: the schema that they need rotted.
    pub undecodable: BTreeSet<Number>,
    /// Batches that could not be made again.
    pub broken: u64,
    /// What it was sent and should not have been; each a line.
    pub faults: Vec<String>,
    /// Batches that came.
    pub batches: u64,
    /// Of these, those that came again.
    pub repeats: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Batches that were made again from their plan.
    pub remade: u64,
    arrived: BTreeMap<BatchId, Arrived>,
    last: Option<BatchId>,
}

impl Shelf {
    fn arrive(&mut self, id: BatchId, bytes: &[u8], items: &[(Number, Given)], refuses: u64) {
        self.batches += 1;
        self.last = Some(id);
        match self.arrived.get_mut(&id) {
            None => {
                let arrived = Arrived {
                    bytes: bytes.to_vec(),
                    times: 1,
                    excused: 0,
                };
                self.arrived.insert(id, arrived);
            }
            Some(known) => {
                self.repeats += 1;
                known.times += 1;
                if known.bytes != bytes {
                    let (new, old) = (bytes.len(), known.bytes.len());
                    self.faults.push(format!(
                        "batch {id:?} came again with other bytes: {new} of them in place of {old}"
                    ));
                }
                if known.times > 1 + known.excused {
                    let (times, excused) = (known.times, known.excused);
                    self.faults.push(format!(
                        "batch {id:?} came {times} times, and {excused} repeats had a reason"
                    ));
                }
            }
        }
        for (number, given) in items {
            if is_refused(number, refuses) {
                self.refused.insert(number.clone());
            } else {
                self.given.entry(number.clone()).or_default().merge(given);
            }
        }
    }

    fn excuse(&mut self, id: BatchId) {
        if let Some(arrived) = self.arrived.get_mut(&id) {
            arrived.excused += 1;
        }
    }
}

/// Whether the service never takes a record; it refuses one in `most`, or none if that is 0.
fn is_refused((stream, seq): &Number, most: u64) -> bool {
    let drawn = Dice::new(stream.epoch.get() ^ seq.wrapping_mul(0x9e37_79b9) ^ 0x57e4).bits();
    most > 0 && drawn.is_multiple_of(most)
}

/// The service. It outlives the collector; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Service(Arc<Mutex<Shelf>>);

impl Service {
    /// What it has.
    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The collector died: what it sent last may come again, since nothing durable says that it was
    /// answered. All before that is shown to be by the plan of the last batch.
    pub fn collector_died(&self) {
        let mut shelf = self.shelf();
        if let Some(last) = shelf.last {
            shelf.excuse(last);
        }
    }
}

/// What is durable of a batch before its first call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    /// The first position of it, and the first after it.
    begin: u64,
    end: u64,
    /// How it is encoded.
    format: u8,
    /// Of its bytes.
    checksum: u64,
}

impl Cut {
    fn encode(self) -> Vec<u8> {
        let mut bytes = vec![self.format];
        for number in [self.begin, self.end, self.checksum] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        let number = |at: usize| {
            let bytes = rest.get(8 * at..8 * at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        Some(Self {
            begin: number(0)?,
            end: number(1)?,
            format: *format,
            checksum: number(2)?,
        })
    }
}

/// A record that was taken.
struct Taken {
    position: u64,
    number: Option<Number>,
    given: Given,
    covers: Vec<(Stream, SeqRange)>,
}

/// The batch that is on its way.
struct Batch {
    cut: Cut,
    items: Vec<(Number, Given)>,
    bytes: Vec<u8>,
    /// Its records cannot be read as they were when it was cut: it is not sent.
    is_broken: bool,
    is_answered: bool,
}

/// The sink in front of the service.
pub struct StreamSink {
    service: Service,
    journal: JournalId,
    faults: CopyFaults,
    away_until: Millis,
    dice: Dice,
    /// How batches are encoded from now on.
    format: u8,
    taken: VecDeque<Taken>,
    /// The first position not yet taken, and not yet delivered.
    position: u64,
    cursor: u64,
    first_at: Option<Millis>,
    /// A batch that was cut before a crash.
    pending: Option<Cut>,
    batch: Option<Batch>,
}

/// Starts the sink beside a journal, if custody has one of its name: from the batch that the journal has a
/// plan of, or from the cursor.
///
/// # Errors
/// [`OpenError`].
pub fn open(
    custody: &mut Custody<FakeDisk>,
    service: &Service,
    faults: CopyFaults,
    mut dice: Dice,
    now: Now,
) -> Result<Option<Worker<StreamSink, FakeDisk>>, OpenError> {
    let Some(cursor) = custody.cursor(STREAM) else {
        return Ok(None);
    };
    let plan = custody
        .plan(STREAM)
        .and_then(|plan| Cut::decode(&plan.bytes));
    let pending = plan.filter(|cut| cut.end > cursor);
    if let Some(cut) = pending {
        // The plan was made when all before it had been answered and named.
        custody.resume(STREAM, cut.begin)?;
    }
    let from = pending.map_or(cursor, |cut| cut.begin);
    let feed = Feed::new(custody.reader(), from, Depth::Samples).with_clock(custody.clock.book());
    let sink = StreamSink {
        service: service.clone(),
        journal: custody.journal(),
        faults,
        away_until: now.mono.plus(faults.away_ms),
        format: u8::from(dice.one_in(2)),
        dice,
        taken: VecDeque::new(),
        position: from,
        cursor: from,
        first_at: pending.map(|_| now.mono),
        pending,
        batch: None,
    };
    Ok(Some(Worker::new(sink, feed)))
}

impl StreamSink {
    fn busy(&self, cause: &str) -> SinkError {
        self.service.shelf().failed += 1;
        SinkError::Busy {
            retry_after: None,
            cause: cause.to_owned(),
        }
    }

    /// Where the next batch ends.
    fn end(&self) -> u64 {
        let mut rows = 0;
        for taken in &self.taken {
            if rows > 0 && rows + taken.given.len() > MAX_BATCH_ROWS {
                return taken.position.min(self.cursor + MAX_BATCH_POSITIONS);
            }
            rows += taken.given.len();
        }
        self.position.min(self.cursor + MAX_BATCH_POSITIONS)
    }

    fn make(&self, cut: Cut) -> Batch {
        let records = self.taken.iter().filter(|taken| taken.position < cut.end);
        let items: Vec<_> = records
            .filter(|taken| !taken.given.is_empty())
            .filter_map(|taken| Some((taken.number.clone()?, taken.given.clone())))
            .collect();
        let bytes = encode(&items, cut.format);
        Batch {
            cut,
            items,
            bytes,
            is_broken: false,
            is_answered: false,
        }
    }

    fn cut(&mut self) -> Batch {
        if let Some(cut) = self.pending.take() {
            if sabotage::is(Bug::BatchCutByReadTime) {
                let end = self.position;
                return self.make(Cut { end, ..cut });
            }
            let mut batch = self.make(cut);
            batch.is_broken = checksum(&batch.bytes) != cut.checksum;
            let mut shelf = self.service.shelf();
            shelf.remade += 1;
            if batch.is_broken {
                shelf.broken += 1;
                let numbers = batch.items.iter().map(|(number, _)| number.clone());
                shelf.refused.extend(numbers);
            }
            drop(shelf);
            return batch;
        }
        let cut = Cut {
            begin: self.cursor,
            end: self.end(),
            format: self.format,
            checksum: 0,
        };
        let mut batch = self.make(cut);
        batch.cut.checksum = checksum(&batch.bytes);
        batch
    }

    /// The records of the batch that the service does not have, for good.
    fn refused(&self, batch: &Batch) -> Vec<(Stream, SeqRange)> {
        let most = self.faults.refuses;
        let is_lacking = |number: &Number| batch.is_broken || is_refused(number, most);
        let numbers = batch.items.iter().map(|(number, _)| number);
        numbers
            .filter(|number| is_lacking(number))
            .map(|(stream, seq)| (stream.clone(), SeqRange::new(*seq, seq + 1)))
            .collect()
    }

    async fn send(&mut self, now: Now) -> Result<Delivered, SinkError> {
        let Some(batch) = &self.batch else {
            return Ok(self.finish(now));
        };
        if batch.items.is_empty() || batch.is_answered {
            return Ok(self.finish(now));
        }
        if !batch.is_broken {
            self.call(now).await?;
        }
        let Some(batch) = &mut self.batch else {
            return Ok(self.finish(now));
        };
        batch.is_answered = true;
        let items = self.batch.as_ref().map(|batch| self.refused(batch));
        match items.filter(|items| !items.is_empty()) {
            Some(items) => Err(SinkError::Refused {
                items,
                cause: "the service does not like it".to_owned(),
            }),
            None => Ok(self.finish(now)),
        }
    }

    /// One call of the service, with the batch that is on its way.
    async fn call(&mut self, now: Now) -> Result<(), SinkError> {
        if now.mono < self.away_until {
            self.service.shelf().failed += 1;
            return Err(SinkError::Busy {
                retry_after: Some(Duration::from_millis(300)),
                cause: "away".to_owned(),
            });
        }
        if self.dice.one_in(self.faults.busy) {
            return Err(self.busy("busy"));
        }
        let Some(batch) = &self.batch else {
            return Ok(());
        };
        let id = (self.journal, batch.cut.begin);
        let is_lost = self.dice.one_in(self.faults.lost);
        {
            let mut shelf = self.service.shelf();
            shelf.arrive(id, &batch.bytes, &batch.items, self.faults.refuses);
            if is_lost {
                shelf.excuse(id);
            }
        }
        if is_lost {
            if self.dice.one_in(2) {
                // Whoever waits for the answer gives up.
                pending::<()>().await;
            }
            return Err(self.busy("the answer was lost"));
        }
        Ok(())
    }

    fn finish(&mut self, now: Now) -> Delivered {
        let end = self.batch.take().map_or(self.cursor, |batch| batch.cut.end);
        let mut covers = Covers::default();
        let is_later = |taken: &Taken| taken.position >= end;
        let at = self.taken.iter().position(is_later);
        for taken in self.taken.drain(..at.unwrap_or(self.taken.len())) {
            covers.add(&taken.covers);
        }
        self.cursor = end;
        self.first_at = (self.position > end).then_some(now.mono);
        Delivered {
            through: end,
            streams: covers.take(),
        }
    }
}

impl Sink for StreamSink {
    fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), SinkError> {
        self.service.shelf().undecodable.extend(undecodable(item));
        self.taken.push_back(Taken {
            position: item.position,
            number: item.origin.map(|origin| (origin.stream(), origin.seq)),
            given: Given::of(item),
            covers: item.covers.to_vec(),
        });
        self.passed(item.position + 1, now);
        Ok(())
    }

    fn passed(&mut self, next: u64, now: Now) {
        if next > self.position {
            self.position = next;
            let _ = self.first_at.get_or_insert(now.mono);
        }
    }

    fn due(&self, now: Millis) -> Due {
        let waiting = self.position - self.cursor;
        match (self.pending, self.first_at) {
            (Some(cut), _) if self.position < cut.end => Due::Never,
            (Some(_), _) => Due::At(now),
            (None, Some(_)) if waiting >= MAX_TAKEN_POSITIONS => Due::Full,
            (None, Some(at)) => Due::At(at.plus(FLUSH_AFTER_MS)),
            (None, None) => Due::Never,
        }
    }

    fn plan(&mut self, _now: Now) -> Result<Option<Plan>, SinkError> {
        if self.batch.is_none() {
            self.batch = Some(self.cut());
        }
        let batch = self.batch.as_ref().filter(|batch| !batch.items.is_empty());
        Ok(batch.map(|batch| Plan(batch.cut.encode())))
    }

    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        self.send(now)
    }
}

fn encode(items: &[(Number, Given)], format: u8) -> Vec<u8> {
    let between = if format == 0 { '\n' } else { ';' };
    let text: String = items
        .iter()
        .map(|((stream, seq), given)| format!("{stream:?} {seq} {given:?}{between}"))
        .collect();
    text.into_bytes()
}

/// FNV-1a.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
