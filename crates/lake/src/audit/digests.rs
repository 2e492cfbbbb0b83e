//! Core: the digests of a stream's batches against what its rows add up to.
//!
//! Table `digests` is read before the tables whose rows it tells of. What it says of a batch is added
//! and what a row gives is taken away, so that all is 0 in the end if the rows are those that the
//! collector read. A batch may differ in number alone where a file has a fault: the fault is named then.
//!
//! | a batch | is |
//! |---|---|
//! | with a row of `digests` and other rows | a fault |
//! | with a row of `digests` and without its rows | a fault, unless a gap says that it was pruned |
//! | without a row of `digests`, of a flush that committed some | a fault, with the same exception |
//! | without a row of `digests`, of any other flush | undigested |
//!
//! A flush without digests is one of a version before them, or was cut off, or goes on.

use std::collections::BTreeMap;

use headwater_proto::ids::SeqRange;

use crate::ranges::Ranges;
use crate::row_hash::{LINE_COLUMNS, REFUSED_COLUMNS, SAMPLE_COLUMNS};
use crate::schema::Table;

/// Memory of one batch in [`Digests::told`].
pub(super) const DIGEST_BYTES: u64 = 96;

/// How the rows of a file count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Digesting {
    /// Nobody asks for digests.
    #[default]
    Off,
    /// Not at all: the file is of a replay that is not in all tables.
    Left,
    /// They are added up.
    On {
        /// The flush has committed digests.
        is_due: bool,
    },
}

impl Digesting {
    pub(super) const fn is_on(self) -> bool {
        matches!(self, Self::On { .. })
    }
}

/// What a batch's rows of `digests` say, less what its rows give.
#[derive(Debug, Default)]
struct Sums {
    rows: i64,
    stored: u64,
    quarantined: u64,
    /// A flush told it, not a replay alone.
    has_base: bool,
}

/// The digests of a stream.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    told: BTreeMap<u64, Sums>,
    /// Batches whose flush has committed digests, and none for them.
    lacking: Ranges,
    /// Batches of other flushes, without a digest.
    without: Ranges,
}

/// What a row adds to its batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    /// Readings or lines.
    pub(super) rows: i64,
    pub(super) stored: u64,
    pub(super) quarantined: u64,
}

impl Digests {
    /// Takes a row of `digests`.
    pub(super) fn tell(&mut self, seq: u64, told: Share, is_base: bool) {
        let sums = self.told.entry(seq).or_default();
        sums.rows = sums.rows.wrapping_add(told.rows);
        sums.stored = sums.stored.wrapping_add(told.stored);
        sums.quarantined = sums.quarantined.wrapping_add(told.quarantined);
        sums.has_base |= is_base;
    }

    /// Takes rows of a batch.
    pub(super) fn find(&mut self, how: Digesting, seq: u64, found: Share) {
        let Digesting::On { is_due } = how else {
            return;
        };
        let known = self.told.get_mut(&seq).filter(|sums| sums.has_base);
        let Some(sums) = known else {
            let lists = if is_due {
                &mut self.lacking
            } else {
                &mut self.without
            };
            lists.insert(SeqRange::new(seq, seq + 1));
            return;
        };
        sums.rows = sums.rows.wrapping_sub(found.rows);
        sums.stored = sums.stored.wrapping_sub(found.stored);
        sums.quarantined = sums.quarantined.wrapping_sub(found.quarantined);
    }

    /// Batches that have none, as it may be.
    pub(super) fn undigested(&self) -> u64 {
        self.without.len()
    }

    /// Tells the batches whose rows are not those of their digest, each with what is wrong.
    ///
    /// - `pruned`: numbers of which a part may be gone.
    /// - `is_whole`: every table and file could be read.
    pub(super) fn judge(
        &self,
        pruned: &Ranges,
        is_whole: bool,
        mut fault: impl FnMut(u64, String),
    ) {
        for (seq, sums) in &self.told {
            if !sums.has_base || pruned.contains(*seq) {
                continue;
            }
            if sums.rows != 0 {
                if is_whole {
                    fault(*seq, format!("has {} rows too few", sums.rows));
                }
                continue;
            }
            let what = if sums.stored != 0 {
                "has other rows in samples or logs than were taken in"
            } else if sums.quarantined != 0 {
                "has other rows in quarantine than were taken in"
            } else {
                continue;
            };
            fault(*seq, what.to_owned());
        }
        if !is_whole {
            return;
        }
        for range in self.lacking.minus(pruned).iter() {
            for seq in range.first..range.next {
                fault(
                    seq,
                    "has no digest, though its flush has digests".to_owned(),
                );
            }
        }
    }
}

/// Columns of a table that are hashed.
pub(super) const fn hashed_columns(table: Table) -> &'static [&'static str] {
    match table {
        Table::Samples => &SAMPLE_COLUMNS,
        Table::Logs => &LINE_COLUMNS,
        Table::Quarantine => &REFUSED_COLUMNS,
        Table::Gaps | Table::Epochs | Table::Devices | Table::Metrics | Table::Digests => &[],
    }
}
