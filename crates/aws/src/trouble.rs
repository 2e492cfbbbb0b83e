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

impl Trouble {
    /// The service's words, or the SDK's.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Answered {
                code,
                message,
                status,
                ..
            } => match (code.is_empty(), message.is_empty()) {
                (false, false) => format!("{code}: {message}"),
                (false, true) => code.clone(),
                (true, _) => format!("HTTP {status}: {message}"),
            },
            Self::Unfit { cause, .. } | Self::Unknown { cause } => cause.clone(),
        }
    }
}
