//! Core: where records come to rest. Each sink reads the journal at its own pace, with its own cursor.
//!
//! ```text
//! journal ──interpret──► take … take ──due──► plan ──► journal, synced ──► deliver ──► commit
//! ```
//! A [`Sink`] knows its destination and nothing else. Reading, waiting after a failure, lag, metrics and
//! custody are the [`worker`]'s, the same for every sink.

pub mod aws;
mod back_off;
mod covers;
pub(crate) mod crew;
pub mod hot;
pub(crate) mod kind;
pub mod lake;
pub mod letters;
#[cfg(test)]
mod publishes;
pub mod registry;
pub mod rows;
pub mod stream;
pub mod worker;

use std::future::Future;
use std::time::Duration;

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::{Millis, Now};

pub use covers::Covers;

use crate::interpret::Interpreted;
use crate::metrics::SinkState;

/// A destination of the journal's records, driven by one [`worker::Worker`].
///
/// Whatever fails is tried again, for as long as it takes. So every method may be called again after an
/// error, and the future of [`Sink::deliver`] may be dropped at any await: what it sent may have arrived.
pub trait Sink: Send + 'static {
    /// Takes in one record; memory only. Records come in the order of their positions, from the sink's
    /// cursor on. It is called until [`Sink::due`] says [`Due::Full`], also while a delivery is under
    /// way or waits to be repeated.
    ///
    /// # Errors
    /// [`SinkError::Refused`] if the record will never be taken: it is passed over. After any other
    /// error the same record comes again.
    fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), SinkError>;

    /// Every position below `next` was handed out, or holds nothing that can be read.
    fn passed(&mut self, next: u64, now: Now);

    /// When what was taken is to be delivered.
    fn due(&self, now: Millis) -> Due;

    /// Cuts the next delivery and returns a plan of it, if the destination needs one to be durable
    /// before anything is sent. Called again after a failure, it gives the same plan.
    ///
    /// # Errors
    /// [`SinkError`]; nothing was sent then.
    fn plan(&mut self, now: Now) -> Result<Option<Plan>, SinkError> {
        let _ = now;
        Ok(None)
    }

    /// Sends what was cut. With a plan it is called only once that is durable.
    ///
    /// # Errors
    /// [`SinkError::Refused`] if the destination refuses a part for good: the sink has left that part
    /// out, and delivers the rest when it is called again.
    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send;

    /// Whether deliveries brought a part to rest since this was last asked, though they failed as a whole: the
    /// wait for the next one does not grow then.
    fn is_ahead(&mut self) -> bool {
        false
    }

    /// Looks after the destination; called about once a second, whether or not anything is due.
    ///
    /// # Errors
    /// [`SinkError`]; deliveries go on.
    fn keep(&mut self, now: Now) -> Result<(), SinkError> {
        let _ = now;
        Ok(())
    }

    /// An orderly end: nothing is called after this.
    fn close(&mut self, now: Now) {
        let _ = now;
    }

    /// Its own counters and gauges, for the metrics page; a counter's name ends in `_total`.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// When a sink has something to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Now, and no more can be taken before.
    Full,
    /// From this time on.
    At(Millis),
    /// Not at all: nothing was taken since the last delivery.
    Never,
}

/// What a sink is about to send, in its own bytes; kept in the journal until it has been delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(pub Vec<u8>);

/// What a delivery brought to rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delivered {
    /// The first position that the sink does not have.
    pub through: u64,
    /// Numbers of each stream that it has by that: those that the records covered ([`Covers`] gathers
    /// them). What a required sink does not tell here is never committed.
    pub streams: Vec<(Stream, Vec<SeqRange>)>,
}

/// Why a sink could not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// It cannot now.
    #[error("{cause}")]
    Busy {
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
        /// Why.
        cause: String,
    },
    /// It will never take these.
    #[error("refused for good: {cause}")]
    Refused {
        /// Their numbers; from [`Sink::take`] those of the record are meant, whatever is named here.
        items: Vec<(Stream, SeqRange)>,
        /// Why.
        cause: String,
    },
    /// It may not: an operator has to let it.
    #[error("{cause}; {remedy}")]
    Denied {
        /// Why.
        cause: String,
        /// What the operator has to do.
        remedy: String,
    },
    /// It is not in order: an operator has to look.
    #[error("{cause}")]
    Broken {
        /// Why.
        cause: String,
    },
    /// This process can do nothing more for it, however often it tries: another collector owns the
    /// destination now, or what waits has to be made anew from the journal. To go on taking data
    /// would promise what nobody delivers, so the collector ends; its next start looks anew.
    #[error("{cause}")]
    Fatal {
        /// Why.
        cause: String,
    },
}

impl SinkError {
    /// What it makes of the sink.
    #[must_use]
    pub const fn state(&self) -> SinkState {
        match self {
            Self::Busy { .. } | Self::Refused { .. } => SinkState::Busy,
            Self::Denied { .. } => SinkState::Denied,
            Self::Broken { .. } | Self::Fatal { .. } => SinkState::Broken,
        }
    }

    /// Its name in metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy { .. } => "busy",
            Self::Refused { .. } => "refused",
            Self::Denied { .. } => "denied",
            Self::Broken { .. } => "broken",
            Self::Fatal { .. } => "fatal",
        }
    }
}
