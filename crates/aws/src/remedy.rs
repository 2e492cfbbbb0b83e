//! Core: what an operator has to do.

/// The operator's part where a signature was not taken, of every service.
#[must_use]
pub fn credentials_remedy(code: &str) -> Option<&'static str> {
    let remedy = match code {
        "ExpiredTokenException" | "ExpiredToken" => {
            "renew the session's credentials; those of a role renew themselves"
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "InvalidToken"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "RequestTimeTooSkewed"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => {
            "see to the credentials, and to this machine's clock: a signature holds for five minutes"
        }
        "OptInRequired" | "SubscriptionRequiredException" | "NotSignedUp" => {
            "the account has no access to this service"
        }
        _ => return None,
    };
    Some(remedy)
}
