//! Core: where the objects of a lake are, from its root, and what the name of a file tells.
//!
//! | path | what | how it changes |
//! |---|---|---|
//! | `<table>/_delta_log/<version>.json` | a version of a table's log | created once |
//! | `<table>/_delta_log/<version>.checkpoint.parquet` | the log up to a version | created once |
//! | `<table>/_delta_log/_last_checkpoint` | which one is the newest: a hint | replaced |
//! | `<table>/hot/dt=<date>/<journal>-<first>-<last>-<term>.parquet` | rows | created once |
//! | `_headwater/owner.json` | who writes the lake ([`crate::owner`]) | compare-and-swap |
//! | `_headwater/head.json` | the newest version of each log ([`crate::head`]) | compare-and-swap |
//! | `_headwater/marks` | what the lake holds of each stream ([`crate::marks`]) | compare-and-swap |
//! | `_headwater/marks-sealed/<sha256>` | the same of streams that were over long ago | created once |
//! | `_headwater/schemas/<sha256>` | schemas of the wire, dictionaries of log lines | created once |
//! | `_headwater/orphans/<table>/...` | files that were published and can never be committed | moved there |
//! | `_headwater/stage/<journal>-<term>/` | files that are not published yet; on a local disk | |
//! | `catalog.json` | tables, columns, units, ranges, versions: a summary | replaced |

use headwater_proto::ids::JournalId;

use crate::date::date_text;
use crate::plan::{Plan, PlanFile, Sha256};
use crate::schema::Table;

/// Names the newest version of each log.
pub const HEAD_PATH: &str = "_headwater/head.json";

/// Names who writes the lake.
pub const OWNER_PATH: &str = "_headwater/owner.json";

/// What the lake holds of each stream.
pub const MARKS_PATH: &str = "_headwater/marks";

/// Folder of sealed parts of the marks by their SHA-256.
pub(crate) const MARKS_PARTS_DIR: &str = "_headwater/marks-sealed";

/// Folder of staged files, one folder per journal and term below it.
pub(crate) const STAGE_DIR: &str = "_headwater/stage";

/// Folder of a table's files as they were flushed.
pub(crate) const HOT_DIR: &str = "hot";

/// Folder of files that were published and can never be committed.
const ORPHANS_DIR: &str = "_headwater/orphans";

/// Folder of wire schemas and dictionaries by their SHA-256.
pub(crate) const SCHEMAS_DIR: &str = "_headwater/schemas";

/// `<writer>-<first position>-<last position>`: the stem of a file's name.
pub(crate) fn stem(writer: &str, first_pos: u64, last_pos: u64) -> String {
    format!("{writer}-{first_pos:020}-{last_pos:020}")
}

/// What a file's name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileName<'a> {
    pub(crate) writer: &'a str,
    pub(crate) first_pos: u64,
    pub(crate) last_pos: u64,
    /// Term of the owner who published it; 0 if there were no owners.
    pub(crate) term: u64,
}

impl<'a> FileName<'a> {
    pub(crate) fn parse(path: &'a str) -> Option<Self> {
        let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
        let mut parts = name.split('-');
        let (writer, first, last) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            writer,
            first_pos: first.parse().ok()?,
            last_pos: last.parse().ok()?,
            term: parts.next()?.parse().ok()?,
        })
    }

    /// Whether a journal published it, did not commit it and never can.
    ///
    /// - `mark`: the last position of the writer that the table has.
    /// - `term`: that of the table: every commit to come bears it or a later one.
    pub(crate) fn is_orphan(&self, mark: Option<u64>, term: u64) -> bool {
        mark < Some(self.last_pos) && self.term < term && self.is_of_a_journal()
    }

    /// A command commits under no term of its own.
    pub(crate) fn is_of_a_journal(&self) -> bool {
        self.writer.len() == 16 && self.writer.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// Path of a file within its table's folder, as the owner of `term` publishes it.
pub(crate) fn path_in_table(plan: &Plan, file: &PlanFile, term: u64) -> String {
    let stem = stem(&plan.journal.to_string(), plan.first_pos, plan.last_pos);
    format!("{HOT_DIR}/dt={}/{stem}-{term}.parquet", date_text(file.day))
}

/// The same from the root of the lake.
pub(crate) fn table_path(plan: &Plan, file: &PlanFile, term: u64) -> String {
    format!("{}/{}", file.table.name(), path_in_table(plan, file, term))
}

/// Where a file of a plan is staged.
pub(crate) fn stage_path(plan: &Plan, file: &PlanFile) -> String {
    let stem = stem(&plan.journal.to_string(), plan.first_pos, plan.last_pos);
    let (table, date) = (file.table.name(), date_text(file.day));
    let folder = format!("{}-{}", plan.journal, plan.term);
    format!("{STAGE_DIR}/{folder}/{stem}-{table}-{date}.parquet")
}

/// What the path of a staged file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) journal: JournalId,
    pub(crate) term: u64,
    pub(crate) table: Table,
    pub(crate) last_pos: u64,
}

impl Staged {
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let (folder, name) = path
            .strip_prefix(STAGE_DIR)?
            .strip_prefix('/')?
            .split_once('/')?;
        let (journal, term) = folder.split_once('-')?;
        let mut parts = name.split('-').skip(2);
        Some(Self {
            journal: JournalId(u64::from_str_radix(journal, 16).ok()?),
            term: term.parse().ok()?,
            last_pos: parts.next()?.parse().ok()?,
            table: Table::from_name(parts.next()?)?,
        })
    }
}

/// Where an orphan of a table is set aside: out of the way of readers who list folders.
pub(crate) fn orphan_path(table: Table, path: &str) -> String {
    let prefix = format!("{}/{HOT_DIR}/", table.name());
    let rest = path.strip_prefix(&prefix).unwrap_or(path);
    format!("{ORPHANS_DIR}/{}/{rest}", table.name())
}

pub(crate) fn marks_part_path(hash: Sha256) -> String {
    format!("{MARKS_PARTS_DIR}/{hash}")
}

pub(crate) fn schema_path(hash: Sha256) -> String {
    format!("{SCHEMAS_DIR}/{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_writer_position_and_term() {
        let parse = FileName::parse;
        let name = parse("samples/hot/dt=2026-11-22/0000000000000abc-5-00019-3.parquet").unwrap();
        assert_eq!(
            (name.writer, name.last_pos, name.term),
            ("0000000000000abc", 19, 3)
        );
        assert!(name.is_orphan(None, 4) && name.is_orphan(Some(18), 4));
        assert!(!name.is_orphan(Some(19), 4) && !name.is_orphan(None, 3));
        assert!(!parse("prune-1-1-0.parquet").unwrap().is_orphan(None, 3));
        for wrong in [
            "x.parquet",
            "a-b-c-d.parquet",
            "a-1-2.parquet",
            "a-1-2-3.json",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_staged_file_tells_whose_it_is() {
        let name = "0000000000000abc-00001-00019-gaps-2026-11-22.parquet";
        let staged = Staged {
            journal: JournalId(0xabc),
            term: 7,
            table: Table::Gaps,
            last_pos: 19,
        };
        let parse = |folder: &str| Staged::parse(&format!("{folder}/{name}"));
        assert_eq!(
            parse(&format!("{STAGE_DIR}/0000000000000abc-7")),
            Some(staged)
        );
        assert_eq!(parse("_headwater/stage/abc"), None);
        assert_eq!(parse("elsewhere/abc-7"), None);
    }

    #[test]
    fn an_orphan_keeps_its_date() {
        let path = "gaps/hot/dt=2026-11-22/a-1-2-3.parquet";
        let aside = "_headwater/orphans/gaps/dt=2026-11-22/a-1-2-3.parquet";
        assert_eq!(orphan_path(Table::Gaps, path), aside);
    }
}
