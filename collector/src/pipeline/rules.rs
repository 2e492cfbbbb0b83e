//! Core: the rule set that a record names: what its meaning depends on beside its own bytes.
//!
//! A change of the configuration must not change what is in the journal already. So the rules that
//! were in force when a record arrived stand in the journal too, and the record names them. The bytes
//! of a rule set, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | n | [`RuleSet`], postcard |
//!
//! Its name is the first 8 bytes of their SHA-256: a collector sees a handful in its life.

use std::fmt;

use headwater_payload::{Format, Rules, TimeFormat, TimeRule, Unit, Zone};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The version of the rule sets that this build writes and reads.
const VERSION: u8 = 1;

/// Version of the decoders themselves: raised when one of them reads the same bytes in another way.
/// The old way stays until no segment names it.
pub const DECODERS: u16 = 1;

/// Most bytes of a rule set: it stands in each segment and in each snapshot of a journal. A rule takes
/// some 10 bytes beside the names in it, and there are at most
/// [`MAX_PATTERNS`](super::pattern::MAX_PATTERNS).
pub const MAX_RULES_BYTES: usize = 64 << 10;

/// Name of a rule set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RulesId([u8; 8]);

impl RulesId {
    /// The name of the rule set with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let mut id = [0; 8];
        id.copy_from_slice(&digest[..8]);
        Self(id)
    }
}

impl fmt::Display for RulesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for RulesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Which times are believed, against the time of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeWindow {
    /// Oldest age in microseconds; `None` takes any.
    pub max_late_us: Option<i64>,
    /// Furthest ahead in microseconds.
    pub max_ahead_us: i64,
}

impl TimeWindow {
    /// The same by times of receipt that may be off.
    #[must_use]
    pub fn widened(&self, error_ms: u32) -> Self {
        let error_us = i64::from(error_ms).saturating_mul(1_000);
        Self {
            max_late_us: self.max_late_us.map(|us| us.saturating_add(error_us)),
            max_ahead_us: self.max_ahead_us.saturating_add(error_us),
        }
    }
}

impl Default for TimeWindow {
    fn default() -> Self {
        const HOUR_US: i64 = 3_600 * 1_000_000;
        Self {
            max_late_us: None,
            max_ahead_us: HOUR_US,
        }
    }
}

/// How the payload of a plain publish becomes samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Decoder {
    /// JSON objects; their numbers, booleans and texts are metrics by name.
    Json,
    /// One number, boolean or text.
    Number,
    /// InfluxDB line protocol.
    Line,
    /// Comma-separated values with a header.
    Csv,
    /// JSON if it looks like it, otherwise one value.
    Detect,
}

/// Where the time of a JSON message or a CSV row stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainTime {
    /// Under a name that is usual for it, if it reads as one.
    Auto,
    /// Nowhere: the time of receipt holds.
    Ignore,
    /// Under a name.
    Key {
        /// The name.
        name: String,
        /// How it is written.
        format: PlainTimeFormat,
        /// Offset of times without one, as `+01:00`.
        zone: Option<String>,
    },
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainTimeFormat {
    /// RFC 3339, or a Unix time whose magnitude tells its unit.
    Auto,
    /// RFC 3339.
    Rfc3339,
    /// A Unix time.
    Unix(PlainUnit),
}

/// Unit of a Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl PlainUnit {
    /// The unit of `s`, `ms`, `us` or `ns`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match Unit::from_name(name)? {
            Unit::Seconds => Self::Seconds,
            Unit::Millis => Self::Millis,
            Unit::Micros => Self::Micros,
            Unit::Nanos => Self::Nanos,
        })
    }

    const fn unit(self) -> Unit {
        match self {
            Self::Seconds => Unit::Seconds,
            Self::Millis => Unit::Millis,
            Self::Micros => Unit::Micros,
            Self::Nanos => Unit::Nanos,
        }
    }
}

/// How the publishes of one pattern are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlainRule {
    /// The format.
    pub decoder: Decoder,
    /// Where the time stands.
    pub time: PlainTime,
    /// Unit of the times in line protocol; `None` tells it by magnitude.
    pub precision: Option<PlainUnit>,
    /// Keeps `values.` in names.
    pub keep_values: bool,
    /// The JSON member whose members are tags.
    pub tags: Option<String>,
    /// Separates the cells of CSV.
    pub delimiter: u8,
    /// The header of CSV that has none of its own.
    pub header: Option<String>,
}

impl PlainRule {
    /// The rule of a format without any configuration.
    #[must_use]
    pub const fn new(decoder: Decoder) -> Self {
        Self {
            decoder,
            time: PlainTime::Auto,
            precision: None,
            keep_values: false,
            tags: None,
            delimiter: Rules::DEFAULT.delimiter,
            header: None,
        }
    }

    pub(crate) const fn format(&self) -> Format {
        match self.decoder {
            Decoder::Json => Format::Json,
            Decoder::Number => Format::Number,
            Decoder::Line => Format::Line,
            Decoder::Csv => Format::Csv,
            Decoder::Detect => Format::Detect,
        }
    }

    /// The rules of one publish.
    ///
    /// - `metric`: what its topic names, or empty.
    pub(crate) fn rules<'a>(&'a self, metric: &'a str) -> Rules<'a> {
        let time = match &self.time {
            PlainTime::Auto => TimeRule::Auto,
            PlainTime::Ignore => TimeRule::Ignore,
            PlainTime::Key { name, format, zone } => TimeRule::Key {
                name,
                format: match format {
                    PlainTimeFormat::Auto => TimeFormat::Auto,
                    PlainTimeFormat::Rfc3339 => TimeFormat::Rfc3339,
                    PlainTimeFormat::Unix(unit) => TimeFormat::Unix(unit.unit()),
                },
                zone: zone.as_deref().and_then(Zone::parse),
            },
        };
        Rules {
            metric,
            prefix: metric,
            keep_values: self.keep_values,
            time,
            precision: self.precision.map(PlainUnit::unit),
            tags: self.tags.as_deref(),
            delimiter: self.delimiter,
            header: self.header.as_deref(),
            ..Rules::DEFAULT
        }
    }
}

/// All that the meaning of a record depends on beside its own bytes and its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// [`DECODERS`] of the program that wrote it.
    pub decoders: u16,
    /// Which times are believed.
    pub window: TimeWindow,
    /// By pattern, in the order of the configuration.
    pub plain: Vec<PlainRule>,
}

/// Why bytes are no rule set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Of a newer version of this program.
    #[error("rule sets of version {0} are unknown here")]
    Newer(u16),
    /// Not of any version.
    #[error("a rule set does not decode")]
    Damaged,
}

impl RuleSet {
    /// The rules of patterns, in their order, and `window`.
    #[must_use]
    pub const fn new(plain: Vec<PlainRule>, window: TimeWindow) -> Self {
        Self {
            decoders: DECODERS,
            window,
            plain,
        }
    }

    /// Its bytes, at most [`MAX_RULES_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("plain values serialise into a vector")
    }

    /// Reads a rule set.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, RulesError> {
        let (&version, rest) = bytes.split_first().ok_or(RulesError::Damaged)?;
        if version > VERSION {
            return Err(RulesError::Newer(version.into()));
        }
        if version != VERSION || bytes.len() > MAX_RULES_BYTES {
            return Err(RulesError::Damaged);
        }
        let set: Self = postcard::from_bytes(rest).map_err(|_| RulesError::Damaged)?;
        if set.decoders > DECODERS {
            return Err(RulesError::Newer(set.decoders));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::pattern::MAX_PATTERNS;

    fn set(count: usize) -> RuleSet {
        let rules = vec![PlainRule::new(Decoder::Json); count];
        RuleSet::new(rules, TimeWindow::default())
    }

    #[test]
    fn a_rule_set_comes_back_from_its_bytes_and_has_the_name_of_its_content() {
        let (small, large) = (set(1), set(MAX_PATTERNS));
        for set in [&small, &large] {
            assert_eq!(RuleSet::decode(&set.encode()).as_ref(), Ok(set));
            assert!(set.encode().len() <= MAX_RULES_BYTES);
        }
        assert_eq!(
            RulesId::of(&small.encode()),
            RulesId::of(&set(1).encode()),
            "equal rules have one name"
        );
        assert_ne!(RulesId::of(&small.encode()), RulesId::of(&large.encode()));
    }

    #[test]
    fn a_newer_rule_set_is_told_from_a_damaged_one() {
        let mut bytes = set(1).encode();
        bytes[0] = VERSION + 1;
        assert_eq!(
            RuleSet::decode(&bytes),
            Err(RulesError::Newer(u16::from(VERSION) + 1))
        );
        let newer = RuleSet {
            decoders: DECODERS + 1,
            ..set(1)
        };
        let found = RuleSet::decode(&newer.encode());
        assert_eq!(found, Err(RulesError::Newer(DECODERS + 1)));
        assert_eq!(RuleSet::decode(&[]), Err(RulesError::Damaged));
        assert_eq!(RuleSet::decode(&[VERSION, 1]), Err(RulesError::Damaged));
    }

    #[test]
    fn bytes_beyond_the_bound_are_no_rule_set() {
        let mut bytes = set(1).encode();
        bytes.resize(MAX_RULES_BYTES + 1, 0);
        assert_eq!(RuleSet::decode(&bytes), Err(RulesError::Damaged));
    }
}
