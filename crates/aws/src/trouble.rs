//! Core: what the SDK tells of a call that failed.

/// What the SDK tells of a call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The service's own answer.
    Answered {
        /// Its code, empty if the answer has none.
        code: String,
        /// Its words.
        message: String,
        /// HTTP status.
        status: u16,
        /// The region where the bucket lies, if it lies elsewhere.
        region: Option<String>,
    },
    /// The call cannot be made like this: an operator has to act.
    Unfit {
        /// The SDK's words.
        cause: String,
        /// What the operator can do.
        remedy: String,
    },
    /// It may have been carried out before the connection broke.
    Unknown {
        /// Why.
        cause: String,
    },
}
