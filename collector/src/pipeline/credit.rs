//! Core: how many bytes each connection may have in flight.
//!
//! Credit is what carries backpressure to the fleet: as the journal nears its quota it falls to
//! zero, the senders stop, and their readings wait on their own flash.

/// Bounds of the credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreditLimits {
    /// Most for one connection.
    pub per_connection_bytes: u64,
    /// Most for all connections together.
    pub total_bytes: u64,
}

impl Default for CreditLimits {
    fn default() -> Self {
        Self {
            per_connection_bytes: 1 << 20,
            total_bytes: 64 << 20,
        }
    }
}

/// How full the journal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLevel {
    /// Bytes its segments take.
    pub used_bytes: u64,
    /// Bytes they may take.
    pub quota_bytes: u64,
    /// Bytes of one segment: the last three are kept for marks and gaps, plans, and a cursor.
    pub segment_bytes: u64,
}

/// Less than one usual batch is no use to a sender, so a share below it is rounded up; the bound of
/// all connections together is then passed by at most this much for each.
const MIN_USEFUL_BYTES: u64 = 32 << 10;

/// The credit of each of `connections` connections; 0 stops them.
#[must_use]
pub fn credit(limits: CreditLimits, connections: usize, level: JournalLevel) -> u64 {
    let kept = level.segment_bytes.saturating_mul(3);
    let free = level
        .quota_bytes
        .saturating_sub(level.used_bytes)
        .saturating_sub(kept);
    if free < MIN_USEFUL_BYTES {
        return 0;
    }
    let connections = u64::try_from(connections).unwrap_or(u64::MAX).max(1);
    let share = limits.total_bytes.min(free / 2) / connections;
    share.max(MIN_USEFUL_BYTES).min(limits.per_connection_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn level(used_bytes: u64) -> JournalLevel {
        JournalLevel {
            used_bytes,
            quota_bytes: 4096 * MIB,
            segment_bytes: 64 * MIB,
        }
    }

    #[test]
    fn an_idle_collector_gives_each_sender_its_most() {
        assert_eq!(credit(CreditLimits::default(), 10, level(0)), MIB);
    }

    #[test]
    fn many_senders_share_the_bound_of_all() {
        assert_eq!(credit(CreditLimits::default(), 640, level(0)), MIB / 10);
    }

    #[test]
    fn a_journal_near_its_quota_stops_every_sender() {
        assert_eq!(
            credit(CreditLimits::default(), 10, level(4096 * MIB - 192 * MIB)),
            0
        );
        assert_eq!(credit(CreditLimits::default(), 10, level(u64::MAX)), 0);
    }
}
