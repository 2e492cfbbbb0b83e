//! Core: what a flush will publish, decided and recorded before it is published.
//!
//! A plan is a record of the journal. Once it is durable, a crash at any later point is mended by
//! carrying the same plan out again: the staged bytes, their names and their hashes are fixed.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version of the plan, 3 |
//! | rest | [`Plan`], as postcard |

use headwater_proto::ids::JournalId;
use serde::{Deserialize, Serialize};

use crate::schema::{Encoding, Table};

/// Version of the plan's bytes.
pub const PLAN_VERSION: u8 = 3;

/// Version of the writer: it changes when the same rows would give other bytes.
pub const WRITER_VERSION: u32 = 3;

/// SHA-256 of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Sha256 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(());
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            let digits = text.get(2 * at..2 * at + 2).ok_or(())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ())?;
        }
        Ok(Self(hash))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// One file of a flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFile {
    /// The table it belongs to.
    pub table: Table,
    /// Its partition, days since 1970-01-01.
    pub day: i64,
    /// Its size.
    pub bytes: u64,
    /// Its content.
    pub sha256: Sha256,
    /// Its rows.
    pub rows: u64,
    /// Smallest and greatest value of the table's time column.
    pub times_us: (i64, i64),
    /// Smallest and greatest value of the first sort column: the device, or the metric.
    pub keys: (String, String),
}

/// A flush: the records `first_pos..=last_pos` of a journal and the files that hold their rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The journal.
    pub journal: JournalId,
    /// Term of the lake's owner under which the files were staged.
    pub term: u64,
    /// First record of the flush.
    pub first_pos: u64,
    /// Last record of the flush, inclusive: the lake's cursor once it is committed.
    pub last_pos: u64,
    /// The lake's cursor when the files were staged; `None` if it had nothing of the journal. A lake that
    /// has less is an older one.
    pub after: Option<u64>,
    /// When the flush was cut; the modification time in the log.
    pub at_us: i64,
    /// How the files are laid out.
    pub encoding: Encoding,
    /// What wrote them.
    pub writer: u32,
    /// How far the other sinks of the journal were: each name with the first position that the sink
    /// had not finished. The lake keeps them for the day when the journal is lost. Under
    /// `<journal>/<sink>` up to where a sink of an earlier journal is settled.
    pub sinks: Vec<(String, u64)>,
    /// The files, in commit order.
    pub files: Vec<PlanFile>,
}

/// Why bytes are no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nothing at all.
    #[error("a plan is not empty")]
    Empty,
    /// Written by a later version.
    #[error("plan version {0} is not known, only {PLAN_VERSION}")]
    Version(u8),
    /// Damaged.
    #[error("the plan cannot be read: {0}")]
    Damaged(postcard::Error),
    /// More than a plan.
    #[error("{0} bytes follow the plan")]
    Trailing(usize),
}

impl Plan {
    /// Its bytes for the journal.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![PLAN_VERSION])
            .expect("a plan holds no map and no unsized sequence, and a vector grows")
    }

    /// The plan of `bytes`. Reserves no more memory than the bytes could fill.
    ///
    /// # Errors
    /// [`PlanError`] if they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, PlanError> {
        let (version, body) = bytes.split_first().ok_or(PlanError::Empty)?;
        if *version != PLAN_VERSION {
            return Err(PlanError::Version(*version));
        }
        let (plan, rest) = postcard::take_from_bytes(body).map_err(PlanError::Damaged)?;
        if rest.is_empty() {
            Ok(plan)
        } else {
            Err(PlanError::Trailing(rest.len()))
        }
    }

    /// Rows of a table.
    #[must_use]
    pub fn rows(&self, table: Table) -> u64 {
        self.files
            .iter()
            .filter(|file| file.table == table)
            .map(|file| file.rows)
            .sum()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan() -> Plan {
        let file = PlanFile {
            table: Table::Gaps,
            day: 20_779,
            bytes: 300,
            sha256: Sha256([7; 32]),
            rows: 2,
            times_us: (1, 2),
            keys: ("a".into(), "b".into()),
        };
        Plan {
            journal: JournalId(0x0123_4567_89ab_cdef),
            term: 4,
            first_pos: 10,
            last_pos: 19,
            after: Some(8),
            at_us: 3,
            encoding: Encoding::Compact,
            writer: 1,
            sinks: vec![("s".into(), 8)],
            files: vec![file],
        }
    }

    #[test]
    fn the_bytes_of_version_3_never_change() {
        let mut golden = vec![3, 0xef, 0x9b, 0xaf, 0xcd, 0xf8, 0xac, 0xd1, 0x91, 0x01];
        golden.extend([4, 10, 19, 1, 8, 6, 0, 1, 1, 1, b's', 8]);
        golden.extend([1, 3, 0xd6, 0xc4, 0x02, 0xac, 0x02]);
        golden.extend([7; 32]);
        golden.extend([2, 2, 4, 1, b'a', 1, b'b']);
        assert_eq!(plan().encode(), golden);
        assert_eq!(Plan::decode(&golden).unwrap(), plan());
    }

    #[test]
    fn what_is_no_plan_is_told_apart() {
        assert!(matches!(Plan::decode(&[]), Err(PlanError::Empty)));
        assert!(matches!(Plan::decode(&[2, 0]), Err(PlanError::Version(2))));
        let mut bytes = plan().encode();
        bytes.push(0);
        assert!(matches!(Plan::decode(&bytes), Err(PlanError::Trailing(1))));
        for cut in 1..bytes.len() - 1 {
            assert!(
                matches!(Plan::decode(&bytes[..cut]), Err(PlanError::Damaged(_))),
                "{cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Plan::decode(&bytes);
        }
    }
}
