//! Core: what the gate counts. Plain counters; the owner exports them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::close::CloseReason;

/// A number that only grows, unless it is named `_now`.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// One less: for `_now` numbers.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one gate.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Streams accepted by the listener and within its limits.
    pub accepted_total: Counter,
    /// Streams closed at once: too many in all.
    pub refused_full_total: Counter,
    /// Streams closed at once: too many from one address.
    pub refused_per_ip_total: Counter,
    /// Failures of accept itself.
    pub accept_errors_total: Counter,
    /// Open connections, with or without a CONNECT.
    pub connections_now: Counter,
    /// Clients that connected.
    pub connected_total: Counter,
    /// Publishes of agents.
    pub agent_messages_total: Counter,
    /// Publishes of plain devices, QoS 1.
    pub plain_messages_total: Counter,
    /// Publishes with QoS 0: unpromised.
    pub qos0_messages_total: Counter,
    /// QoS 0 publishes dropped because the owner did not keep up.
    pub qos0_dropped_total: Counter,
    /// Payload bytes handed over.
    pub payload_bytes_total: Counter,
    /// PUBACKs sent.
    pub pubacks_total: Counter,
    /// Messages sent to clients.
    pub down_messages_total: Counter,
    /// Messages not sent: the client did not subscribe, or takes only smaller packets.
    pub down_unsent_total: Counter,
    /// Filters refused in a SUBACK.
    pub subscriptions_refused_total: Counter,
    /// Retain flags and wills that nobody behind this gate keeps.
    pub retain_ignored_total: Counter,
    /// Wills announced at CONNECT, which the gate does not publish.
    pub wills_ignored_total: Counter,
    closed: [Counter; CloseReason::ALL.len()],
}

impl Metrics {
    /// How many connections ended for `reason`.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> &Counter {
        &self.closed[reason as usize]
    }
}
