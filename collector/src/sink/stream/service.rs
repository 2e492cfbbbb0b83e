//! The seam to a streaming service: records in calls, and what came of each.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

/// Bounds of one call of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Records.
    pub records: usize,
    /// Bytes of all records with their keys.
    pub bytes: usize,
}

/// A streaming service.
pub trait Service: Send + 'static {
    /// Sends records in one call. The future may be dropped; what it sent may have arrived.
    fn put(&mut self, records: Vec<Record>) -> impl Future<Output = Answer> + Send;

    /// Bounds of one call.
    fn limits(&self) -> CallLimits;
}

/// A record as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Records of one key keep their order; empty for a service without keys.
    pub key: Arc<str>,
    /// A gzip member.
    pub bytes: Bytes,
}

/// The outcome of a call, as the service tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of each record, in their order. The call as such succeeded, which says nothing of them.
    Each(Vec<Result<(), Failure>>),
    /// It failed as a whole, and nothing was stored.
    Failed(Failure),
    /// Nobody knows: no answer came, or one that cannot be read.
    Unknown {
        /// Why.
        cause: String,
    },
    /// The service will never take this call as it is.
    Refused {
        /// The service's own words.
        cause: String,
    },
    /// It may not be called like this: an operator has to let it.
    Denied {
        /// The service's own words.
        cause: String,
        /// What the operator has to do.
        remedy: String,
    },
}

/// Why a record or a call was not taken now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The service's code and words.
    pub cause: String,
    /// More was sent than it takes in this time.
    pub is_throttled: bool,
}
