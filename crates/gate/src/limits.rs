//! Core: every bound of the gate, with its unit and its reason.

/// Bounds of one gate. The defaults are what the programs use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in all. A connection costs about 10 KB idle and, at worst, its caps below.
    pub connections: usize,
    /// Open connections from one address: a gateway's NAT needs many, one broken host must not
    /// take them all.
    pub connections_per_ip: usize,
    /// Time from accept to a complete CONNECT: slow radio links need seconds, nobody needs more.
    pub connect_timeout_ms: u64,
    /// Largest packet from a client, header and topic included: a bundle of 256 KiB plus 16 KiB.
    pub packet_bytes: usize,
    /// Largest CONNECT: id, user, token, a will. Anyone may send one, so it is small.
    pub connect_bytes: usize,
    /// Longest client id in bytes.
    pub client_id_bytes: usize,
    /// Publishes without PUBACK per connection; announced as Receive Maximum in MQTT 5. Stock
    /// clients keep 10 to 100 in flight; it also bounds the session's memory.
    pub unacked_count: u16,
    /// Payload bytes without PUBACK per connection of a plain device.
    pub unacked_plain_bytes: usize,
    /// The same for a sender of headwater's own wire: its credit of 1 MiB, one bundle past it,
    /// and Hello pages.
    pub unacked_agent_bytes: usize,
    /// How long a connection may stay at its unacked cap, or wait for the owner, unread: below the
    /// 5 s after which stock clients give up on a write.
    pub unacked_grace_ms: u64,
    /// Silence allowed with keep-alive 0: a device may report once a day.
    pub idle_ms: u64,
    /// Bytes that the owner may leave waiting for one client, and again as many that its task
    /// holds: a few messages down.
    pub outgoing_bytes: usize,
    /// How long a client may take nothing while bytes wait for it.
    pub write_stall_ms: u64,
    /// Silence after a PUBACK after which the next sign of life proves that the client has it.
    pub settle_ms: u64,
    /// How long the end of a connection waits for the peer to take the last bytes and to close.
    pub closing_ms: u64,
    /// How long a stop waits for connections to write what is released.
    pub stop_grace_ms: u64,
    /// How long a new connection waits for the older one with its id to leave.
    pub takeover_grace_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_ip: 2_000,
            connect_timeout_ms: 10_000,
            packet_bytes: (256 + 16) * 1024,
            connect_bytes: 8 * 1024,
            client_id_bytes: 128,
            unacked_count: 1_024,
            unacked_plain_bytes: 256 * 1024,
            unacked_agent_bytes: 2 * 1024 * 1024,
            unacked_grace_ms: 4_000,
            idle_ms: 26 * 3_600_000,
            outgoing_bytes: 512 * 1024,
            write_stall_ms: 10_000,
            settle_ms: 30_000,
            closing_ms: 500,
            stop_grace_ms: 2_000,
            takeover_grace_ms: 1_000,
        }
    }
}
