//! Core: the faults, and the calls that they can be for.

use std::time::Duration;

use super::call::{Call, Condition, Operation, Service};
use super::flow::Rates;
use super::items::Failure;

/// What happens to a call. Faults of several rules add up; of two of one row of this table the
/// earlier rule's counts.
///
/// | row | faults |
/// |---|---|
/// | the connection | `DropBefore`, `DropAfter`, `Late`, `Hang`, `HalfAnswer` |
/// | the call | `Status` |
/// | each item | `SomeFail`, `AllFail`, `Throttle` |
/// | shape of the answer | `WrongLength`; `SkewedDate`; `Delay`; `Bandwidth` |
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Closes without forwarding.
    DropBefore,
    /// Forwards, and closes without answering: the maker of duplicates.
    DropAfter,
    /// Closes at once and forwards after this time, when the client may have tried again.
    Late(Duration),
    /// Does not forward, and closes without an answer after this time. For a call that is carried out
    /// and hangs: `Delay` and `DropAfter`.
    Hang(Duration),
    /// Forwards, and closes after half of the answer's bytes.
    HalfAnswer,
    /// Forwards, and holds the answer back for this time.
    Delay(Duration),
    /// Answers with an error without forwarding; see [`Fault::status`].
    Status {
        /// HTTP status. 200 is one as well: S3 may report an error so after a long operation.
        status: u16,
        /// For example `SlowDown`.
        failure: Failure,
    },
    /// The answer's `Date` is off by this many seconds.
    SkewedDate(i64),
    /// Some items fail, each with this probability (0 to 1); the others go on.
    SomeFail {
        /// Of each item.
        probability: f64,
        /// For example `InternalFailure`.
        code: String,
    },
    /// All items fail, and the call does not.
    AllFail {
        /// For example `ServiceUnavailableException`.
        code: String,
    },
    /// The answer has one entry too few.
    WrongLength,
    /// Items beyond these rates fail as the service has it.
    Throttle {
        /// Shards of each stream, by hash of the partition key; 1: the stream as a whole.
        shards: u64,
        /// Of each shard.
        rates: Rates,
    },
    /// Bodies of requests and answers pass at this many bytes a second, each way, on one link for all
    /// calls. Rules for it see no stream and no table: these stand in the body.
    Bandwidth(u64),
}

impl Fault {
    /// An error of the service, with a message that says that it is not real.
    #[must_use]
    pub fn status(status: u16, code: &str) -> Self {
        Self::Status {
            status,
            failure: Failure::new(code, "injected by a test"),
        }
    }

    /// By which the ledger counts it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::Late(_) => "late",
            Self::Hang(_) => "hang",
            Self::HalfAnswer => "half_answer",
            Self::Delay(_) => "delay",
            Self::Status { .. } => "status",
            Self::SkewedDate(_) => "skewed_date",
            Self::SomeFail { .. } => "some_fail",
            Self::AllFail { .. } => "all_fail",
            Self::WrongLength => "wrong_length",
            Self::Throttle { .. } => "throttle",
            Self::Bandwidth(_) => "bandwidth",
        }
    }
}

/// Which of the calls that match meet the fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All.
    Always,
    /// Each with this probability (0 to 1).
    Probability(f64),
    /// The n-th alone; the first is 1.
    Nth(u64),
    /// The first n, counted from when the script was set.
    Next(u64),
}

/// Which calls a rule is for. Each part narrows it down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    service: Option<Service>,
    operation: Option<Operation>,
    condition: Option<Condition>,
    key_prefix: Option<String>,
}

impl Match {
    /// All calls.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Calls of a service.
    #[must_use]
    pub fn service(service: Service) -> Self {
        Self {
            service: Some(service),
            ..Self::default()
        }
    }

    /// Calls of an operation.
    #[must_use]
    pub fn operation(operation: Operation) -> Self {
        Self {
            operation: Some(operation),
            ..Self::default()
        }
    }

    /// Of those, only with this condition.
    #[must_use]
    pub fn under(mut self, condition: Condition) -> Self {
        self.condition = Some(condition);
        self
    }

    /// Of those, only upon keys, streams or tables whose names begin so.
    #[must_use]
    pub fn key(mut self, prefix: &str) -> Self {
        self.key_prefix = Some(prefix.to_owned());
        self
    }

    /// Whether a call is one of them.
    #[must_use]
    pub fn fits(&self, call: &Call) -> bool {
        self.service.is_none_or(|service| service == call.service)
            && self
                .operation
                .is_none_or(|operation| operation == call.operation)
            && self
                .condition
                .is_none_or(|condition| condition == call.condition)
            && self
                .key_prefix
                .as_ref()
                .is_none_or(|prefix| call.key.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: Service, operation: Operation, key: &str) -> Call {
        Call {
            service,
            operation,
            name: format!("{operation:?}"),
            condition: Condition::None,
            bucket: String::new(),
            key: key.to_owned(),
            is_head: false,
        }
    }

    fn put(key: &str) -> Call {
        call(Service::S3, Operation::PutObject, key)
    }

    #[test]
    fn a_rule_meets_only_the_calls_that_it_is_for() {
        let put_below = Match::operation(Operation::PutObject).key("a/");
        let guarded = put_below.clone().under(Condition::IfNoneMatch);
        assert!(put_below.fits(&put("a/1")));
        assert!(!put_below.fits(&put("b/1")));
        assert!(!put_below.fits(&call(Service::S3, Operation::GetObject, "a/1")));
        assert!(!guarded.fits(&put("a/1")));
        assert!(guarded.fits(&Call {
            condition: Condition::IfNoneMatch,
            ..put("a/1")
        }));
        assert!(Match::service(Service::S3).fits(&put("")));
        assert!(!Match::service(Service::Kinesis).fits(&put("")));
        assert!(Match::all().fits(&put("")));
    }
}
