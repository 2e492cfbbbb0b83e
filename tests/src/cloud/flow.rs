//! Core: how much passes in a time: token buckets of shards and streams, and a slow link.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a shard or a stream takes; a second's worth may come at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Bytes a second, keys included.
    pub bytes_per_s: f64,
    /// Records a second.
    pub records_per_s: f64,
}

impl Rates {
    /// A shard of Kinesis: 1 MiB and 1,000 records a second.
    pub const SHARD: Self = Self {
        bytes_per_s: 1_048_576.0,
        records_per_s: 1_000.0,
    };
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: f64,
    records: f64,
    filled_at: Duration,
}

/// One bucket a shard, full at first. A record that is larger than a second's bytes never fits.
#[derive(Debug, Clone, Default)]
pub struct Buckets(BTreeMap<(String, u64), Bucket>);

impl Buckets {
    /// Whether a record fits into the bucket of a shard of a stream now; then it is taken off.
    pub fn take(
        &mut self,
        stream: &str,
        shard: u64,
        bytes: usize,
        rates: Rates,
        now: Duration,
    ) -> bool {
        let Rates {
            bytes_per_s,
            records_per_s,
        } = rates;
        let full = Bucket {
            bytes: bytes_per_s,
            records: records_per_s,
            filled_at: now,
        };
        let bucket = self.0.entry((stream.to_owned(), shard)).or_insert(full);
        let passed_s = now.saturating_sub(bucket.filled_at).as_secs_f64();
        bucket.bytes = passed_s.mul_add(bytes_per_s, bucket.bytes).min(bytes_per_s);
        bucket.records = passed_s
            .mul_add(records_per_s, bucket.records)
            .min(records_per_s);
        bucket.filled_at = now;
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        let fits = bytes <= bucket.bytes && bucket.records >= 1.0;
        if fits {
            bucket.bytes -= bytes;
            bucket.records -= 1.0;
        }
        fits
    }
}

/// One direction of a link, which carries one byte after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    free_at: Duration,
}

impl Link {
    /// Puts bytes on the link behind those that are there; returns when the last has passed.
    pub fn carry(&mut self, bytes: usize, bytes_per_s: u64, now: Duration) -> Duration {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let takes_us = bytes.saturating_mul(1_000_000) / bytes_per_s.max(1);
        self.free_at = self.free_at.max(now) + Duration::from_micros(takes_us);
        self.free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        bytes_per_s: 100.0,
        records_per_s: 4.0,
    };

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_bucket_gives_a_seconds_worth_and_fills_again_with_time() {
        let mut buckets = Buckets::default();
        let mut take = |bytes, at| buckets.take("s", 0, bytes, RATES, seconds(at));
        assert!(take(60, 0.0));
        assert!(!take(60, 0.0));
        assert!(take(40, 0.0));
        assert!(!take(1, 0.0));
        assert!(take(50, 0.5));
        // A pause of any length gives no more than a second's worth.
        assert!(!take(101, 1_000.0));
        assert!(take(100, 1_000.0));
    }

    #[test]
    fn records_are_counted_beside_bytes_and_each_shard_has_its_own() {
        let mut buckets = Buckets::default();
        let mut take = |stream: &str, shard| buckets.take(stream, shard, 1, RATES, seconds(0.0));
        assert_eq!(
            [0; 5].map(|_| take("s", 0)),
            [true, true, true, true, false]
        );
        assert!(take("s", 1));
        assert!(take("t", 0));
    }

    #[test]
    fn a_link_is_shared_by_all_that_is_on_it_and_rests_for_nobody() {
        let mut link = Link::default();
        assert_eq!(link.carry(50, 100, seconds(1.0)), seconds(1.5));
        assert_eq!(link.carry(50, 100, seconds(1.0)), seconds(2.0));
        assert_eq!(link.carry(10, 100, seconds(9.0)), seconds(9.1));
    }
}
