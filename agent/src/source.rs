//! Sources: where readings come from. Each has a bounded queue of its own to the engine, so that
//! one that must wait holds up no other. `kind` says what a kind of source is, `registry` lists them.
//!
//! A source that resumes gives a cursor with every reading, and begins again from the one it was
//! started with. A source that cannot wait hands over what finds room and lets the engine name the
//! rest.

use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use headwater_proto::refused::Part;
use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::ColumnKind;
use headwater_proto::time::UnixMicros;
use tokio::sync::Notify;

use crate::pipeline::admit::{Field, Sample};
use crate::pipeline::engine::Lost;
use crate::pipeline::record::Cursor;

pub(crate) mod accept;
pub mod begun;
pub mod exec;
pub mod file;
pub mod generator;
pub mod health;
pub mod held;
pub mod host;
pub mod kind;
pub mod lines;
pub mod nodes;
pub mod port;
pub mod records;
pub mod refusals;
pub mod registry;
pub mod replay;
pub mod rows;
pub mod supervisor;

pub use port::{Port, PortEnd, WeakPort};

/// Readings between a source and the engine.
pub const QUEUE_READINGS: usize = 128;
/// Longest line or record that a source reads; a longer one is counted and passed over.
pub const MAX_LINE_BYTES: usize = 16 * 1024;
/// Longest document that a command may write. Those of `sensors -j` and `smartctl -j` have up to 100 KiB.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;
/// Bytes that a source reads at once.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// One column of a source's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDef {
    /// The metric's name.
    pub name: String,
    /// Its unit, or nothing.
    pub unit: String,
    /// The type of its values.
    pub kind: ColumnKind,
}

/// A reading that owns what it says; columns and labels are shared between rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When.
    pub time: UnixMicros,
    /// The labels of its series.
    pub labels: Arc<[(String, String)]>,
    /// Its columns.
    pub columns: Arc<[ColumnDef]>,
    /// A value for each column.
    pub values: Vec<Option<OwnedValue>>,
}

impl Reading {
    /// What is lost when it is dropped.
    #[must_use]
    pub fn as_lost(&self) -> Lost {
        let samples = self.values.iter().flatten().count();
        Lost::one(samples as u64, self.time)
    }

    /// The names of its columns, to tell by which it was.
    #[must_use]
    pub fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| &*column.name).collect();
        names.join(",")
    }

    /// Hands the reading to `take`, borrowed.
    pub fn with_sample<T>(&self, take: impl FnOnce(&Sample<'_>) -> T) -> T {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let fields: Vec<_> = self
            .columns
            .iter()
            .zip(&self.values)
            .map(|(column, value)| Field {
                name: &column.name,
                unit: &column.unit,
                kind: column.kind,
                value: value.as_ref().map(OwnedValue::borrowed),
            })
            .collect();
        take(&Sample {
            time: self.time,
            labels: &labels,
            fields: &fields,
        })
    }
}

/// A part of an input that could not be read, cut to what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPart {
    place: String,
    cause: String,
    bytes: Vec<u8>,
}

impl RefusedPart {
    /// - `place`: where it stood, in words.
    /// - `cause`: why it is refused.
    /// - `bytes`: the part as it came, or names that tell which it was.
    #[must_use]
    pub fn new(place: &dyn Display, cause: &dyn Display, bytes: &[u8]) -> Self {
        let (place, cause) = (place.to_string(), cause.to_string());
        let part = Part {
            at_us: 0,
            place: &place,
            cause: &cause,
            bytes,
        }
        .cut();
        Self {
            place: part.place.to_owned(),
            cause: part.cause.to_owned(),
            bytes: part.bytes.to_vec(),
        }
    }

    /// As the engine takes it; its time is that of the engine.
    #[must_use]
    pub fn borrowed(&self) -> Part<'_> {
        Part {
            at_us: 0,
            place: &self.place,
            cause: &self.cause,
            bytes: &self.bytes,
        }
    }
}

/// What a source hands over.
#[derive(Debug)]
pub enum Feed {
    /// A reading, and where the source resumes after it.
    Reading(Reading, Option<Cursor>),
    /// A log line.
    Line(UnixMicros, Vec<u8>, Option<Cursor>),
    /// A part of the input that could not be read, and where the source resumes after it: `None` if a
    /// row comes of the same place, since that cursor would cover it.
    Refused(RefusedPart, Option<Cursor>),
    /// Readings that the source had to drop, since its queue was full, and where it resumes after them.
    Lost(Lost, Option<Cursor>),
    /// The source goes on there, and not where its own records end.
    Adopted(Cursor),
    /// A packet of a node: its records keep the node's own numbers.
    Packet(nodes::Packet),
    /// A way to nodes came or went.
    Way(nodes::WayChange),
}

impl Feed {
    /// Where the source resumes after it.
    #[must_use]
    pub const fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::Reading(_, cursor)
            | Self::Line(_, _, cursor)
            | Self::Refused(_, cursor)
            | Self::Lost(_, cursor) => *cursor,
            Self::Adopted(cursor) => Some(*cursor),
            // What a node resumes from, its own marks say.
            Self::Packet(_) | Self::Way(_) => None,
        }
    }
}

/// The agent stops, or the engine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent stops")]
pub struct Stopped;

/// Tells threads to stop, and wakes them for it.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    state: Arc<(Mutex<bool>, Condvar)>,
    tasks: Arc<Notify>,
}

impl Stop {
    /// Stops.
    pub fn stop(&self) {
        let (stopped, changed) = &*self.state;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
        self.tasks.notify_waiters();
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long, or until told to stop; says whether to go on.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let (stopped, changed) = &*self.state;
        let guard = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(guard, time, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until told to stop.
    pub async fn stopped(&self) {
        loop {
            let told = self.tasks.notified();
            if self.is_stopped() {
                return;
            }
            told.await;
        }
    }
}
