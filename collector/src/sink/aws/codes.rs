//! Core: what an error code of AWS means for a call, and what the operator has to do.

use headwater_aws::{Trouble, credentials_remedy};

use crate::sink::stream::service::{Answer, Failure};

/// The outcome of a call that failed. A code that is not known here is tried again: to drop what a new code holds up
/// would be a loss.
pub(super) fn answer_of(trouble: Trouble) -> Answer {
    let cause = trouble.cause();
    let (code, status) = match trouble {
        Trouble::Unknown { .. } => return Answer::Unknown { cause },
        Trouble::Unfit { remedy, .. } => return Answer::Denied { cause, remedy },
        Trouble::Answered { code, status, .. } => (code, status),
    };
    if let Some(remedy) = remedy(&code) {
        let remedy = remedy.to_owned();
        return Answer::Denied { cause, remedy };
    }
    let is_unfit = matches!(
        code.as_str(),
        "ValidationException"
            | "InvalidArgumentException"
            | "SerializationException"
            | "RequestEntityTooLarge"
    );
    if is_unfit || status == 413 {
        return Answer::Refused { cause };
    }
    if status >= 500 && code.is_empty() {
        // A proxy's answer, or half of one: the call may have been carried out.
        return Answer::Unknown { cause };
    }
    Answer::Failed(failure(&code, cause))
}

/// The outcome of one record of a call that succeeded.
pub(super) fn item(code: Option<&str>, message: Option<&str>) -> Result<(), Failure> {
    let Some(code) = code.filter(|code| !code.is_empty()) else {
        return Ok(());
    };
    let cause = format!("{code}: {}", message.unwrap_or_default());
    Err(failure(code, cause))
}

fn failure(code: &str, cause: String) -> Failure {
    Failure {
        cause,
        is_throttled: is_throttle(code),
    }
}

/// More than the service takes in this time.
fn is_throttle(code: &str) -> bool {
    matches!(
        code,
        "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "TooManyRequestsException"
            | "KMSThrottlingException"
            // Of Firehose: the stream takes no more now.
            | "ServiceUnavailableException"
            | "SlowDown"
    )
}

/// The operator's part, if nothing but that helps.
fn remedy(code: &str) -> Option<&'static str> {
    let remedy = match code {
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => {
            "let the collector's role do this (PutRecords for Kinesis, PutRecordBatch for Firehose)"
        }
        "ResourceNotFoundException" => "make the stream, or see to its name, region and account",
        code if code.starts_with("KMS") && code != "KMSThrottlingException" => {
            "see to the KMS key of the stream: its policy, and that it is enabled"
        }
        code => return credentials_remedy(code),
    };
    Some(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: &str, status: u16) -> Answer {
        answer_of(Trouble::Answered {
            code: code.to_owned(),
            message: "words".to_owned(),
            status,
            region: None,
        })
    }

    #[test]
    fn codes_are_told_apart() {
        for code in [
            "ProvisionedThroughputExceededException",
            "ThrottlingException",
            "KMSThrottlingException",
            "LimitExceededException",
        ] {
            let Answer::Failed(failure) = answer(code, 400) else {
                panic!("{code}");
            };
            assert!(failure.is_throttled, "{code}");
            assert_eq!(failure.cause, format!("{code}: words"));
        }
        for (code, status) in [("InternalFailure", 500), ("NeverHeardOf", 400)] {
            let Answer::Failed(failure) = answer(code, status) else {
                panic!("{code}");
            };
            assert!(!failure.is_throttled, "{code}");
        }
        assert!(
            matches!(answer("ServiceUnavailableException", 500), Answer::Failed(f) if f.is_throttled)
        );
        assert!(matches!(
            answer("ValidationException", 400),
            Answer::Refused { .. }
        ));
        assert!(matches!(answer("", 413), Answer::Refused { .. }));
        assert!(matches!(answer("", 502), Answer::Unknown { .. }));
        for code in [
            "AccessDeniedException",
            "ExpiredTokenException",
            "KMSDisabledException",
        ] {
            assert!(matches!(answer(code, 400), Answer::Denied { .. }), "{code}");
        }
    }

    #[test]
    fn a_record_is_stored_only_without_a_code() {
        assert_eq!(item(None, None), Ok(()));
        assert!(item(Some("InternalFailure"), None).is_err());
        let throttled = item(Some("ServiceUnavailableException"), Some("Slow down."));
        assert!(throttled.unwrap_err().is_throttled);
    }
}
