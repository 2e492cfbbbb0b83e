//! Sessions that outlive a connection. A QoS 1 receiver keeps only one thing: that the session
//! exists. Answered with session present after a restart, a conforming client sends again what was
//! not acknowledged; answered without, some clients silently drop it.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::session::Admission;

/// Whether a session was kept, once the change is durable.
pub type Opening = Pin<Box<dyn Future<Output = Result<bool, StoreError>> + Send>>;

/// The session could not be opened; the connection is refused and the client tries again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot keep the session: {cause}")]
pub struct StoreError {
    /// What failed.
    pub cause: String,
}

/// Keeps the names of sessions; the owner backs it with its journal.
pub trait SessionStore: Send + Sync + 'static {
    /// Opens a session: `clean_start` forgets an earlier one; `expiry_s` above 0 keeps this one.
    /// Resolves to "an earlier one was kept" once what changed is durable, at once if nothing did.
    fn open(&self, admission: &Admission) -> Opening;

    /// The connection is over; the session lives on for `expiry_s` seconds. Must not block.
    fn ended(&self, client: &str, expiry_s: u32);
}

/// Sessions in memory, without expiry: for tests, and for a gate whose devices may lose theirs.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    kept: Arc<Mutex<HashSet<String>>>,
}

impl SessionStore for MemoryStore {
    fn open(&self, admission: &Admission) -> Opening {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let client = &*admission.client;
        if admission.clean_start {
            kept.remove(client);
        }
        let had = kept.contains(client);
        if admission.expiry_s > 0 {
            kept.insert(client.to_owned());
        }
        Box::pin(std::future::ready(Ok(had)))
    }

    fn ended(&self, client: &str, expiry_s: u32) {
        if expiry_s == 0 {
            self.kept
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(client);
        }
    }
}
