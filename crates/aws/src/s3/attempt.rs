//! What an error of S3 means for a request, and whether the next attempt may fare better.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use headwater_lake::StoreError;
use headwater_program::clock::Clock;
use headwater_program::entropy::random;

use crate::remedy::credentials_remedy;
use crate::trouble::Trouble;

/// Attempts at one request.
const ATTEMPTS: u32 = 4;

/// Time after which no attempt is made any more: a service that hangs holds up a stop for one time-out, which is 10 s
/// and what the bytes take on the slowest link.
const REPEAT_WITHIN: Duration = Duration::from_secs(5);

/// Longest pause before the second attempt; it doubles with each.
const PAUSE_MS: u64 = 200;

/// A kind of request: S3 has a price for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Put,
    List,
    Delete,
}

/// Requests since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    gets: AtomicU64,
    puts: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    pub(super) fn count(&self, kind: Kind) {
        let counter = match kind {
            Kind::Get => &self.gets,
            Kind::Put => &self.puts,
            Kind::List => &self.lists,
            Kind::Delete => &self.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, failed: &Failed) {
        let is_answer = matches!(
            failed,
            Failed::Missing { .. } | Failed::Changed { .. } | Failed::NoRange { .. }
        );
        self.failed
            .fetch_add(u64::from(!is_answer), Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> Vec<(&'static str, u64)> {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("lake_s3_gets_total", of(&self.gets)),
            ("lake_s3_puts_total", of(&self.puts)),
            ("lake_s3_lists_total", of(&self.lists)),
            ("lake_s3_deletes_total", of(&self.deletes)),
            ("lake_s3_failures_total", of(&self.failed)),
        ]
    }
}

/// Milliseconds before the attempt that follows so many failures: any up to a bound that doubles.
const fn pause_ms(failures: u32, random: u64) -> u64 {
    random % (PAUSE_MS << failures.saturating_sub(1))
}

/// Attempts at one thing.
pub(super) struct Attempts {
    failures: u32,
    clock: Clock,
}

impl Attempts {
    pub(super) fn begin() -> Self {
        Self {
            failures: 0,
            clock: Clock::start(),
        }
    }

    /// Whether one has failed.
    pub(super) const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// Waits for the next one; false if there is none.
    pub(super) fn wait(&mut self, failed: &Failed) -> bool {
        self.failures += 1;
        let is_late = self.clock.elapsed() > REPEAT_WITHIN;
        if !failed.may_help_to_repeat() || self.failures == ATTEMPTS || is_late {
            return false;
        }
        sleep(Duration::from_millis(pause_ms(self.failures, random())));
        true
    }
}

/// Why a request did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// No object bears the name.
    Missing { path: String },
    /// The object is not as the condition wants it.
    Changed { path: String },
    /// The object has none of these bytes.
    NoRange { path: String },
    /// An operator has to act.
    Denied {
        action: &'static str,
        path: String,
        cause: String,
        remedy: String,
    },
    /// More is asked than the service takes in this time. It was not done.
    Slow {
        action: &'static str,
        path: String,
        cause: String,
    },
    /// It failed on the way, or met another request: it may have been done, and may be tried again.
    Again {
        action: &'static str,
        path: String,
        cause: String,
    },
}

impl Failed {
    pub(super) fn of(trouble: Trouble, action: &'static str, path: &str) -> Self {
        let path = path.to_owned();
        let cause = trouble.cause();
        let (code, status, region) = match trouble {
            Trouble::Unknown { .. } => {
                return Self::Again {
                    action,
                    path,
                    cause,
                };
            }
            Trouble::Unfit { remedy, .. } => {
                return Self::Denied {
                    action,
                    path,
                    cause,
                    remedy,
                };
            }
            Trouble::Answered {
                code,
                status,
                region,
                ..
            } => (code, status, region),
        };
        match (code.as_str(), status) {
            ("NoSuchKey" | "NotFound", 404) => return Self::Missing { path },
            ("PreconditionFailed", _) | (_, 412) => return Self::Changed { path },
            ("InvalidRange", _) | (_, 416) => return Self::NoRange { path },
            _ => {}
        }
        if let Some(remedy) = remedy(&code, status, region.as_deref()) {
            return Self::Denied {
                action,
                path,
                cause,
                remedy,
            };
        }
        let is_slow = matches!(
            code.as_str(),
            "SlowDown" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests"
        );
        if is_slow || matches!(status, 429 | 503) {
            return Self::Slow {
                action,
                path,
                cause,
            };
        }
        // Also a conflict with a request that is under way: it says nothing of what is there.
        Self::Again {
            action,
            path,
            cause,
        }
    }

    /// Whether an operator has to act.
    pub(super) const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Whether the next attempt, made soon, may fare better.
    const fn may_help_to_repeat(&self) -> bool {
        matches!(self, Self::Again { .. })
    }
}

impl From<Failed> for StoreError {
    fn from(failed: Failed) -> Self {
        let io = |action, path, cause: String| Self::Io {
            action,
            path,
            source: io::Error::other(cause),
        };
        match failed {
            Failed::Missing { path } => Self::Missing { path },
            Failed::Changed { path } => io("write", path, "the object changed".to_owned()),
            Failed::NoRange { path } => io("read", path, "the object is shorter".to_owned()),
            Failed::Denied {
                action,
                path,
                cause,
                remedy,
            } => Self::Denied {
                action,
                path,
                cause,
                remedy,
            },
            Failed::Slow {
                action,
                path,
                cause,
            }
            | Failed::Again {
                action,
                path,
                cause,
            } => io(action, path, cause),
        }
    }
}

/// The operator's part, if nothing but that helps.
fn remedy(code: &str, status: u16, region: Option<&str>) -> Option<String> {
    let is_elsewhere = matches!(
        code,
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException"
    );
    if is_elsewhere || status == 301 {
        let region = region.unwrap_or("another region");
        return Some(format!(
            "the bucket lies in {region}: set region for this sink"
        ));
    }
    let remedy = match code {
        "NoSuchBucket" => "make the bucket, or see to its name, region and account",
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
            "let the collector's role do s3:ListBucket on the bucket (without it S3 says of what is not there that \
             it is forbidden), and s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on what \
             is in it"
        }
        "InvalidObjectState" => {
            "restore the object from its archive; no lifecycle rule may archive what the lake's logs name"
        }
        "InvalidStorageClass" => "see to storage_class: this service does not have it",
        "NotImplemented" => "use a service that knows conditional writes, as S3 itself does",
        "InvalidBucketName" | "InvalidArgument" => {
            "see to url, storage_class and kms_key of this sink"
        }
        code if code.starts_with("KMS.") => {
            "see to the KMS key: its policy, and that it is enabled"
        }
        code => return credentials_remedy(code).map(str::to_owned),
    };
    Some(remedy.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: &str, status: u16) -> Failed {
        let trouble = Trouble::Answered {
            code: code.to_owned(),
            message: "words".to_owned(),
            status,
            region: Some("eu-west-1".to_owned()),
        };
        Failed::of(trouble, "create", "a/b")
    }

    #[test]
    fn what_is_there_is_told_from_what_is_not_known() {
        let path = "a/b".to_owned();
        let missing = Failed::Missing { path: path.clone() };
        assert_eq!(failed("NoSuchKey", 404), missing);
        let changed = Failed::Changed { path };
        assert_eq!(failed("PreconditionFailed", 412), changed);
        // Two requests met: nothing landed of this one, and nobody knows of the other.
        for (code, status) in [
            ("ConditionalRequestConflict", 409),
            ("OperationAborted", 409),
            ("InternalError", 500),
            ("RequestTimeout", 400),
            ("NeverHeardOf", 400),
            ("", 404),
            ("", 502),
        ] {
            let failed = failed(code, status);
            assert!(matches!(failed, Failed::Again { .. }), "{failed:?}");
        }
        let unknown = Trouble::Unknown {
            cause: "no answer".to_owned(),
        };
        assert!(Failed::of(unknown, "create", "a").may_help_to_repeat());
    }

    #[test]
    fn a_service_that_is_asked_too_much_is_left_alone() {
        for (code, status) in [("SlowDown", 503), ("", 503), ("TooManyRequests", 429)] {
            let failed = failed(code, status);
            assert!(matches!(failed, Failed::Slow { .. }), "{failed:?}");
            assert!(!failed.may_help_to_repeat());
        }
    }

    #[test]
    fn what_an_operator_has_to_do_is_said() {
        for (code, status, word) in [
            ("AccessDenied", 403, "s3:ListBucket"),
            ("NoSuchBucket", 404, "make the bucket"),
            ("PermanentRedirect", 301, "eu-west-1"),
            ("AuthorizationHeaderMalformed", 400, "eu-west-1"),
            ("ExpiredToken", 400, "renew"),
            ("InvalidAccessKeyId", 403, "credentials"),
            ("SignatureDoesNotMatch", 403, "credentials"),
            ("RequestTimeTooSkewed", 403, "clock"),
            ("KMS.DisabledException", 400, "KMS"),
            ("InvalidObjectState", 403, "archive"),
        ] {
            let error = StoreError::from(failed(code, status));
            assert!(error.is_outage(), "{error}");
            let StoreError::Denied { remedy, .. } = &error else {
                panic!("{code}: {error}");
            };
            assert!(remedy.contains(word), "{code}: {remedy}");
        }
    }

    #[test]
    fn pauses_double_and_are_bounded() {
        for (failures, most) in [(1, 200), (2, 400), (3, 800)] {
            assert_eq!(pause_ms(failures, most - 1), most - 1);
            assert_eq!(pause_ms(failures, most), 0);
        }
    }
}
