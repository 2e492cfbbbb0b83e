//! Core: who a client is. A listener has one way of telling; certificates and tokens will be others.

use std::sync::Arc;

use headwater_proto::mqtt::Reason;

/// What a client says about itself at CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Its client id, already checked for form.
    pub client_id: &'a str,
    /// User name.
    pub user: Option<&'a str>,
    /// Password or token. Never logged.
    pub password: Option<&'a [u8]>,
}

/// Tells who a client is.
pub trait Identify: Send + Sync + 'static {
    /// The name under which the client's topics and sessions are judged. Must not block.
    ///
    /// # Errors
    /// The reason code for CONNACK.
    fn identify(&self, claim: &Claim<'_>) -> Result<Arc<str>, Reason>;
}

/// On loopback a client is who it says it is: whoever can connect is on this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Loopback;

impl Identify for Loopback {
    fn identify(&self, claim: &Claim<'_>) -> Result<Arc<str>, Reason> {
        Ok(Arc::from(claim.client_id))
    }
}
