//! Core: a streaming service as a sink: lines of JSON in gzip members, in the order of each key.
//!
//! ```text
//! take ──► draft: lines by key ── full, or old enough ──► cut: plan in the journal ──► calls, until each record
//!                                                                                      is answered ──► delivered
//! ```
//! A batch is cut once. Before its first call a plan in the journal names its bounds and how it is encoded; after a
//! crash it is made again from that, so what comes twice is the same. Of the records that a call failed for, these
//! alone are sent again, and no later record of their key before them. A call that the service refuses as it is
//! is halved until the record is found that it refuses; that one is halved by lines; what is left goes to the dead
//! letters.
//!
//! | module | what |
//! |---|---|
//! | `lines` | what a record says, as lines |
//! | `draft` | lines of a batch, and the records that they become |
//! | `cut` | what is durable of a batch before its first call |
//! | `calls` | which records go into the next call, and what an answer makes of them |
//! | `window` | how many records at once |
//! | [`service`] | the seam to the service |

mod calls;
mod cut;
mod draft;
pub mod lines;
pub mod service;
mod window;

use std::future::Future;

use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;

pub use cut::{Encoding, Key};

use self::calls::{Calls, Heard};
use self::cut::Cut;
use self::draft::Draft;
use self::service::Service;
use self::window::Window;
use super::{Delivered, Due, Plan, Sink, SinkError};
use crate::interpret::Interpreted;
use crate::pipeline::custody::Custody;

/// Bytes of lines in a record at most: 1,000,000 bytes of gzip are a record of Kinesis and of Firehose, and lines
/// that cannot be compressed grow by less than a thousandth.
pub const RECORD_BYTES: u32 = 990_000;

/// How a stream is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// How batches are encoded from now on; one that was cut before keeps its own.
    pub encoding: Encoding,
    /// Milliseconds after which a record is sent, full batch or not.
    pub flush_ms: u64,
}

/// A streaming service as a sink.
#[derive(Debug)]
pub struct StreamSink<S> {
    service: S,
    settings: StreamSettings,
    draft: Draft,
    /// When the first record of the draft was taken.
    since: Option<Millis>,
    /// The first position not taken, and not delivered.
    position: u64,
    cursor: u64,
    calls: Option<Calls>,
    window: Window,
    /// Records were stored since the worker last asked.
    is_ahead: bool,
    counts: Counts,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    calls: u64,
    failed_calls: u64,
    records: u64,
    bytes: u64,
    again: u64,
    throttled: u64,
    remade: u64,
    broken: u64,
    /// Times that lines were refused for good, and those of which no number tells.
    refused: u64,
    unnumbered: u64,
}

/// Starts the sink `name` of a journal: from the batch that the journal has a plan of, or from its cursor.
///
/// # Errors
/// What keeps it from starting: the journal cannot be read, or another build cut the batch that is under way.
pub fn open<S: Service, D: Disk>(
    custody: &mut Custody<D>,
    name: &str,
    service: S,
    settings: StreamSettings,
) -> anyhow::Result<(u64, StreamSink<S>)> {
    let cursor = custody.cursor(name).unwrap_or_default();
    let plan = custody.plan(name).map(|plan| plan.bytes.clone());
    let mut cut = None;
    if let Some(bytes) = plan.filter(|bytes| !bytes.is_empty()) {
        let is_open = Cut::end_of(&bytes).is_none_or(|end| end > cursor);
        cut = Cut::decode(&bytes).filter(|_| is_open);
        anyhow::ensure!(
            cut.is_some() || !is_open,
            "another build of this collector cut the batch that is under way: start that one, and let it send \
             that, before this one"
        );
    }
    if let Some(cut) = cut {
        // All before it was answered when it was planned.
        custody.resume(name, cut.begin)?;
    }
    let from = cut.map_or(cursor, |cut| cut.begin);
    Ok((from, StreamSink::new(service, settings, from, cut)))
}

impl<S: Service> StreamSink<S> {
    /// Apart from any journal: what it is given has positions of its own.
    #[must_use]
    pub fn apart(service: S, settings: StreamSettings) -> Self {
        Self::new(service, settings, 0, None)
    }

    fn new(service: S, settings: StreamSettings, from: u64, again: Option<Cut>) -> Self {
        let window = Window::new(service.limits().records);
        Self {
            service,
            settings,
            draft: again
                .filter(|_| !sabotage::is(Bug::BatchCutByReadTime))
                .map_or_else(|| Draft::new(from, settings.encoding), Draft::again),
            since: None,
            position: from,
            cursor: from,
            calls: None,
            window,
            is_ahead: false,
            counts: Counts::default(),
        }
    }

    fn cut(&mut self) {
        let end = self.draft.end(self.position);
        let next = Draft::new(end, self.settings.encoding);
        let draft = std::mem::replace(&mut self.draft, next);
        self.counts.remade += u64::from(draft.is_again());
        let batch = draft.cut(self.position);
        self.counts.broken += u64::from(batch.is_broken);
        // One that was cut before ends in the midst of what is read at once.
        self.position = self.position.max(end);
        self.since = None;
        self.calls = Some(Calls::new(batch));
    }

    async fn send(&mut self) -> Result<Delivered, SinkError> {
        let limits = self.service.limits();
        loop {
            let Some(calls) = &mut self.calls else {
                return Ok(Delivered {
                    through: self.cursor,
                    streams: Vec::new(),
                });
            };
            if let Some(told) = calls.told(self.counts.records > 0) {
                if let SinkError::Refused { items, .. } = &told {
                    self.counts.refused += 1;
                    self.counts.unnumbered += u64::from(items.is_empty());
                }
                return Err(told);
            }
            let records = calls.next(self.window.records(), limits);
            if records.is_empty() {
                let done = calls.finish();
                self.calls = None;
                self.cursor = done.through;
                return Ok(done);
            }
            let sent = records.len();
            self.counts.calls += 1;
            self.counts.again += calls.again();
            // Dropped here, the call may have arrived: its records are still pending.
            let answer = self.service.put(records).await;
            let Some(calls) = &mut self.calls else {
                continue;
            };
            let heard = calls.answered(answer);
            self.hear(heard, sent)?;
        }
    }

    fn hear(&mut self, heard: Heard, sent: usize) -> Result<(), SinkError> {
        self.counts.records += heard.stored;
        self.counts.bytes += heard.bytes;
        self.counts.throttled += heard.throttled;
        self.is_ahead |= heard.stored > 0;
        let is_failed = heard.error.is_some() || heard.is_refused;
        self.counts.failed_calls += u64::from(is_failed);
        // A call that timed out may have been too large for the link.
        if heard.throttled > 0 || heard.is_unknown {
            self.window.throttled(sent);
        } else if !is_failed {
            self.window.taken(sent);
        }
        heard.error.map_or(Ok(()), Err)
    }
}

impl<S: Service> Sink for StreamSink<S> {
    fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), SinkError> {
        // A batch that was cut before a crash has all that is left of it.
        if self.draft.ends_before(item.position) {
            self.cut();
            let _ = self.since.get_or_insert(now.mono);
        }
        self.draft.add(item).map_err(|error| SinkError::Refused {
            items: item.covers.to_vec(),
            cause: error.to_string(),
        })
    }

    fn passed(&mut self, next: u64, now: Now) {
        if next > self.position {
            self.position = next;
            let _ = self.since.get_or_insert(now.mono);
        }
    }

    fn due(&self, now: Millis) -> Due {
        if self.draft.is_full(self.position) {
            return Due::Full;
        }
        if self.calls.is_some() {
            return Due::At(now);
        }
        match self.since {
            // Its last records are still to be read.
            _ if self.draft.lacks(self.position) => Due::Never,
            Some(since) => Due::At(since.plus(self.settings.flush_ms)),
            None => Due::Never,
        }
    }

    fn plan(&mut self, _now: Now) -> Result<Option<Plan>, SinkError> {
        if self.calls.is_none() {
            self.cut();
        }
        let calls = self.calls.as_ref().filter(|calls| !calls.is_empty());
        Ok(calls.map(|calls| Plan(calls.cut().encode())))
    }

    fn deliver(&mut self, _now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        self.send()
    }

    fn is_ahead(&mut self) -> bool {
        std::mem::take(&mut self.is_ahead)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let Counts {
            calls,
            failed_calls,
            records,
            bytes,
            again,
            throttled,
            remade,
            broken,
            refused,
            unnumbered,
        } = self.counts;
        let pending = self.calls.as_ref().map_or(0, Calls::pending);
        vec![
            ("stream_calls_total", calls),
            ("stream_failed_calls_total", failed_calls),
            ("stream_records_total", records),
            ("stream_bytes_total", bytes),
            ("stream_resent_records_total", again),
            ("stream_throttled_total", throttled),
            ("stream_remade_batches_total", remade),
            ("stream_broken_batches_total", broken),
            ("stream_refusals_total", refused),
            ("stream_unnumbered_refusals_total", unnumbered),
            ("stream_pending_records", pending),
            ("stream_window_records", self.window.records() as u64),
        ]
    }
}

#[cfg(test)]
mod tests;
