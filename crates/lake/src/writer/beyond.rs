//! Core: what the lake has of earlier journals beyond the places of their other sinks.
//!
//! A flush says how far each other sink of its journal was ([`Flush::sinks`](super::Flush)). When the
//! journal is lost, nobody can hand that sink the rows that came after: they are in the files of that
//! journal whose last position is not below the sink's place. A file is the finest that can be told, so
//! some of its rows the sink may have all the same.
//!
//! ```text
//! positions of the journal   0 ────────────── place of the sink ───────── mark of the journal
//! files of its flushes       [     ][      ][        |      ][         ][      ]
//! possibly lacking                          └──────────── these ─────────────┘
//! ```
//! A place stands in the last table of a flush, and so after the gaps that name what the sink lacks below
//! it; a flush of which the commit was cut off moves no place.

use std::collections::BTreeMap;

use headwater_proto::ids::JournalId;

use super::Lake;
use crate::audit::{Holdings, StreamMark};
use crate::delta::Log;
use crate::error::LakeError;
use crate::numbers::{NUMBERED, merge, numbers_in};
use crate::paths::FileName;
use crate::plan::Plan;
use crate::schema::Table;
use crate::store::Store;

/// What a sink of an earlier journal may lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// The journal.
    pub journal: JournalId,
    /// The sink.
    pub sink: String,
    /// The position after the last one of the journal that the lake has: once the numbers are named, the
    /// sink's place goes there.
    pub through: u64,
    /// Numbers of each stream that stand in those files, whole or in part, in [`StreamMark::held`].
    pub streams: Vec<StreamMark>,
}

impl<S: Store> Lake<S> {
    /// What the lake has of other journals than its owner's, beyond the places of their other sinks. Reads
    /// the files that hold it, and nothing if there is none.
    ///
    /// # Errors
    /// [`LakeError`] if a file cannot be read.
    pub fn beyond(&self) -> Result<Vec<Beyond>, LakeError> {
        let owner = self.owner().journal.to_string();
        let mut marks = BTreeMap::<&str, u64>::new();
        for (app, mark) in self.logs.iter().flat_map(Log::marks) {
            let known = marks.entry(app).or_default();
            *known = mark.max(*known);
        }
        marks.remove(owner.as_str());
        let mut all = Vec::new();
        for (app, mark) in marks {
            let Ok(journal) = u64::from_str_radix(app, 16).map(JournalId) else {
                continue;
            };
            let behind = self.sinks(journal).into_iter();
            let behind: Vec<(String, u64)> = behind.filter(|(_, at)| *at <= mark).collect();
            if behind.is_empty() {
                continue;
            }
            for (sink, held) in self.held_beyond(app, behind)? {
                all.push(Beyond {
                    journal,
                    sink,
                    through: mark + 1,
                    streams: held.iter().map(|(key, held)| held.mark(key)).collect(),
                });
            }
        }
        Ok(all)
    }

    /// What the files of a journal hold from the place of each sink on.
    fn held_beyond(
        &self,
        app: &str,
        behind: Vec<(String, u64)>,
    ) -> Result<Vec<(String, Holdings)>, LakeError> {
        let least = behind.iter().map(|(_, at)| *at).min().unwrap_or(0);
        let mut all: Vec<(String, u64, Holdings)> = behind
            .into_iter()
            .map(|(sink, at)| (sink, at, Holdings::new()))
            .collect();
        for log in self
            .logs
            .iter()
            .filter(|log| NUMBERED.contains(&log.table()))
        {
            let table = log.table();
            log.files::<LakeError>(&self.store, |add| {
                let name = FileName::parse(&add.path).filter(|name| name.writer == app);
                let Some(last) = name.map(|name| name.last_pos).filter(|last| *last >= least)
                else {
                    return Ok(());
                };
                let held = numbers_in(&self.store, table, &add.path)?;
                for (_, at, sum) in &mut all {
                    if *at <= last {
                        merge(sum, &held);
                    }
                }
                Ok(())
            })?;
        }
        Ok(all
            .into_iter()
            .map(|(sink, _, held)| (sink, held))
            .collect())
    }
}

/// What a commit to a table says of the places of sinks.
///
/// - `last`: the last table that the plan has files of. In those before it places stay where they were,
///   and one that is new is at 0: what is named below the new place is not committed yet.
pub(super) fn places(plan: &Plan, log: &Log, last: Option<Table>) -> Vec<(String, u64)> {
    let is_last = Some(log.table()) == last;
    let sinks = plan.sinks.iter();
    let places = sinks.map(|(sink, at)| {
        let app = if sink.contains('/') {
            sink.clone()
        } else {
            format!("{}/{sink}", plan.journal)
        };
        (app, if is_last { *at } else { 0 })
    });
    places.collect()
}
