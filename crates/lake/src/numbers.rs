//! Core: the numbers of the records whose rows stand in files of a journal's flushes.

use std::ops::Range;

use headwater_proto::ids::JournalId;

use crate::audit::{Holdings, Scan, StreamMark};
use crate::error::LakeError;
use crate::head::load_logs;
use crate::paths::FileName;
use crate::ranges::Ranges;
use crate::schema::Table;
use crate::store::Store;

/// The tables whose rows came in numbered records.
pub(crate) const NUMBERED: [Table; 5] = [
    Table::Samples,
    Table::Logs,
    Table::Quarantine,
    Table::Gaps,
    Table::Epochs,
];

/// What some flushes of a journal brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Near {
    /// The positions of the flushes, ascending; each once.
    pub flushes: Vec<Range<u64>>,
    /// Numbers of each stream that stand in their files, whole or in part, in [`StreamMark::held`].
    pub streams: Vec<StreamMark>,
}

/// What the lake has of the flushes that hold some positions of a journal: a file is the finest that can be
/// told. Reads the log of each table, and those files. May be called while an owner writes.
///
/// # Errors
/// [`LakeError`] if a log or a file cannot be read.
pub fn near(
    store: &dyn Store,
    journal: JournalId,
    positions: &[Range<u64>],
) -> Result<Near, LakeError> {
    let writer = journal.to_string();
    let mut held = Holdings::new();
    let mut flushes = Vec::new();
    for log in load_logs(store, NUMBERED)? {
        let table = log.table();
        log.files::<LakeError>(store, |add| {
            let name = FileName::parse(&add.path).filter(|name| name.writer == writer);
            let Some(flush) = name.map(|name| name.first_pos..name.last_pos.saturating_add(1))
            else {
                return Ok(());
            };
            let has = |at: &Range<u64>| at.start < flush.end && flush.start < at.end;
            if positions.iter().any(has) {
                merge(&mut held, &numbers_in(store, table, &add.path)?);
                flushes.push((flush.start, flush.end));
            }
            Ok(())
        })?;
    }
    flushes.sort_unstable();
    flushes.dedup();
    Ok(Near {
        flushes: flushes.into_iter().map(|(from, to)| from..to).collect(),
        streams: held.iter().map(|(key, held)| held.mark(key)).collect(),
    })
}

/// The numbers of the records that rows of a file came in. What a gap names is no row.
pub(crate) fn numbers_in(
    store: &dyn Store,
    table: Table,
    path: &str,
) -> Result<Holdings, LakeError> {
    let mut scan = Scan::default();
    scan.file(store, table, &format!("{}/{path}", table.name()), &|_| true)?;
    let mut held = scan.into_holdings();
    for holding in held.values_mut() {
        holding.named = Ranges::default();
        holding.epoch = None;
    }
    held.retain(|_, holding| !holding.there.is_empty() || !holding.partial.is_empty());
    Ok(held)
}

pub(crate) fn merge(sum: &mut Holdings, held: &Holdings) {
    for (key, holding) in held {
        sum.entry(key.clone()).or_default().merge(holding);
    }
}
