//! Core: the calls of one batch: which records go into the next one, and what an answer makes of them.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use headwater_proto::sabotage::{self, Bug};

use super::cut::Cut;
use super::draft::{Batch, Pending, compress, numbers_of};
use super::service::{Answer, CallLimits, Failure, Record};
use crate::sink::{Covers, Delivered, SinkError};

/// Lines that a service which stored nothing yet may refuse before all is held back.
const MOST_SUSPECTS: usize = 8;
/// Times that all is held back before those lines are given up: nothing else of the batch may be left that could show
/// whether the service takes anything. So a wrong service costs few lines in minutes.
const MOST_ROUNDS: u32 = 3;

/// The calls of a batch.
#[derive(Debug)]
pub(super) struct Calls {
    cut: Cut,
    covers: Covers,
    /// Records that are not answered yet, in the order of each key.
    pending: Vec<Pending>,
    /// Places in `pending` of the call that is under way.
    sent: Vec<usize>,
    /// Records of a call at most, while one that the service refuses is looked for.
    most: Option<usize>,
    /// How many of the present call's records were sent before.
    again: u64,
    /// Lines that the service refused one by one. Whether it never takes them, or takes none at all, shows when
    /// the others were sent.
    suspects: Vec<Pending>,
    /// Times that all was held back since lines were given up last.
    rounds: u32,
    /// The service's words about the last of them.
    words: String,
    /// What is to be told before anything else is sent.
    told: Option<SinkError>,
    is_empty: bool,
}

/// The outcome of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Records that the service has now.
    pub(super) stored: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Records that were more than it takes in this time.
    pub(super) throttled: u64,
    /// Nobody knows what became of the call.
    pub(super) is_unknown: bool,
    /// The service takes the call not as it is.
    pub(super) is_refused: bool,
    /// Why some have to be sent again.
    pub(super) error: Option<SinkError>,
}

impl Calls {
    pub(super) fn new(batch: Batch) -> Self {
        let Batch {
            cut,
            records,
            covers,
            is_broken,
        } = batch;
        let told = is_broken.then(|| SinkError::Refused {
            items: numbers_of(&records),
            cause: "records of a batch that was under way rotted in the journal: it cannot be made again as it \
                    was, and may be there in part"
                .to_owned(),
        });
        Self {
            is_empty: records.is_empty(),
            pending: if is_broken { Vec::new() } else { records },
            cut,
            covers,
            sent: Vec::new(),
            most: None,
            again: 0,
            suspects: Vec::new(),
            rounds: 0,
            words: String::new(),
            told,
        }
    }

    pub(super) const fn cut(&self) -> &Cut {
        &self.cut
    }

    /// Whether the batch has no record: nothing is sent for it.
    pub(super) const fn is_empty(&self) -> bool {
        self.is_empty
    }

    pub(super) fn pending(&self) -> u64 {
        (self.pending.len() + self.suspects.len()) as u64
    }

    /// How many records of the call that [`Calls::next`] gave last were sent before.
    pub(super) const fn again(&self) -> u64 {
        self.again
    }

    /// What is to be told before the next call: what was refused for good, or that all is.
    ///
    /// - `is_proven`: the service stored a record since the start. One that never did may be another than it
    ///   should be, and what it refuses is no fault of the lines.
    pub(super) fn told(&mut self, is_proven: bool) -> Option<SinkError> {
        if let Some(told) = self.told.take() {
            return Some(told);
        }
        let is_last = self.pending.is_empty() && !self.suspects.is_empty();
        let is_held = !is_proven && (is_last || self.suspects.len() >= MOST_SUSPECTS);
        if (is_last && is_proven) || (is_held && self.rounds >= MOST_ROUNDS) {
            self.rounds = 0;
            return Some(SinkError::Refused {
                items: numbers_of(&std::mem::take(&mut self.suspects)),
                cause: self.words.clone(),
            });
        }
        if is_held {
            self.rounds += 1;
            self.behind_the_others();
            return Some(SinkError::Broken {
                cause: format!("it refuses all that it is sent: {}", self.words),
            });
        }
        None
    }

    /// Puts what the service refused, and all that is of its keys, behind the others: one that is taken proves the
    /// service, and none overtakes an older one of its key.
    fn behind_the_others(&mut self) {
        let suspects = std::mem::take(&mut self.suspects);
        let keys: BTreeSet<_> = suspects
            .iter()
            .map(|it| Arc::clone(&it.record.key))
            .collect();
        let is_held = |it: &Pending| !it.record.key.is_empty() && keys.contains(&it.record.key);
        let pending = std::mem::take(&mut self.pending);
        let (held, others): (Vec<_>, Vec<_>) = pending.into_iter().partition(is_held);
        self.pending = others.into_iter().chain(suspects).chain(held).collect();
    }

    /// The records of the next call: of each key the oldest alone, so that none overtakes one that fails.
    pub(super) fn next(&mut self, window: usize, limits: CallLimits) -> Vec<Record> {
        let most = window
            .min(limits.records)
            .min(self.most.unwrap_or(usize::MAX));
        let (mut keys, mut bytes) = (BTreeSet::new(), 0);
        let mut records = Vec::new();
        self.sent.clear();
        self.again = 0;
        for (at, pending) in self.pending.iter_mut().enumerate() {
            let record = &pending.record;
            let is_alone = record.key.is_empty() || sabotage::is(Bug::KeyOvertaken);
            if !is_alone && !keys.insert(Arc::clone(&record.key)) {
                continue;
            }
            let size = record.bytes.len() + record.key.len();
            if records.len() >= most || (bytes + size > limits.bytes && !records.is_empty()) {
                break;
            }
            bytes += size;
            records.push(record.clone());
            self.again += u64::from(pending.was_sent);
            pending.was_sent = true;
            self.sent.push(at);
        }
        records
    }

    /// Takes the answer to the last call.
    pub(super) fn answered(&mut self, answer: Answer) -> Heard {
        let count = self.sent.len();
        match answer {
            Answer::Each(results) if results.len() == count => self.each(results),
            Answer::Each(results) => busy(format!("{} answers for {count} records", results.len())),
            Answer::Failed(failure) => Heard {
                throttled: if failure.is_throttled {
                    count as u64
                } else {
                    0
                },
                ..busy(failure.cause)
            },
            Answer::Unknown { cause } => Heard {
                is_unknown: true,
                ..busy(cause)
            },
            Answer::Refused { cause } => {
                self.halve(cause);
                Heard {
                    is_refused: true,
                    ..Heard::default()
                }
            }
            Answer::Denied { cause, remedy } => Heard {
                error: Some(SinkError::Denied { cause, remedy }),
                ..Heard::default()
            },
        }
    }

    fn each(&mut self, results: Vec<Result<(), Failure>>) -> Heard {
        let mut heard = Heard::default();
        let mut first = None;
        let mut stored = BTreeSet::new();
        for (at, result) in self.sent.iter().zip(results) {
            let result = if sabotage::is(Bug::SuccessUnread) {
                Ok(())
            } else {
                result
            };
            match result {
                Ok(()) => {
                    stored.insert(*at);
                    heard.stored += 1;
                    heard.bytes += self.pending[*at].record.bytes.len() as u64;
                }
                Err(failure) => {
                    heard.throttled += u64::from(failure.is_throttled);
                    let _ = first.get_or_insert(failure);
                }
            }
        }
        if first.is_some() && sabotage::is(Bug::BatchResentWhole) {
            stored.clear();
        }
        let mut at = 0;
        self.pending.retain(|_| {
            at += 1;
            !stored.contains(&(at - 1))
        });
        if first.is_none() {
            self.most = self.most.map(|most| most.saturating_mul(2));
        }
        heard.error = first.and_then(|failure| busy(failure.cause).error);
        heard
    }

    /// The service refuses the last call as it is: half of it is tried, and of one record half of its lines.
    fn halve(&mut self, cause: String) {
        if self.sent.len() > 1 {
            self.most = Some(self.sent.len() / 2);
            return;
        }
        let Some(at) = self.sent.first().copied() else {
            return;
        };
        let poison = self.pending.remove(at);
        match split(&poison) {
            Some((first, second)) => {
                self.pending.insert(at, second);
                self.pending.insert(at, first);
            }
            None => {
                self.words = cause;
                self.suspects.push(poison);
            }
        }
    }

    /// The batch is with the service.
    pub(super) fn finish(&mut self) -> Delivered {
        Delivered {
            through: self.cut.end,
            streams: self.covers.take(),
        }
    }
}

fn busy(cause: String) -> Heard {
    Heard {
        error: Some(SinkError::Busy {
            retry_after: None,
            cause,
        }),
        ..Heard::default()
    }
}

/// A record as two, each with half of its lines; `None` if it has one line.
fn split(pending: &Pending) -> Option<(Pending, Pending)> {
    let mut lines = Vec::new();
    let mut gzip = MultiGzDecoder::new(&*pending.record.bytes);
    gzip.read_to_end(&mut lines).ok()?;
    let ends: Vec<usize> = lines
        .iter()
        .enumerate()
        .filter_map(|(at, byte)| (*byte == b'\n').then_some(at + 1))
        .collect();
    let middle = (ends.len() > 1).then(|| ends[ends.len() / 2 - 1])?;
    let half = |lines: &[u8], parts| Pending {
        record: Record {
            key: Arc::clone(&pending.record.key),
            bytes: compress(lines),
        },
        parts,
        was_sent: false,
    };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut begin = 0;
    for part in &pending.parts {
        // One that has lines in both halves counts for both.
        if begin < middle {
            first.push(part.until(part.end.min(middle)));
        }
        if part.end > middle {
            second.push(part.until(part.end - middle));
        }
        begin = part.end;
    }
    Some((
        half(&lines[..middle], first),
        half(&lines[middle..], second),
    ))
}
