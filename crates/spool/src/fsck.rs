//! Looking over a folder of logs without changing it.

use std::collections::BTreeSet;
use std::io;

use serde::Serialize;

use crate::disk::{Disk, DiskFile};
use crate::format::{HeaderError, Name};
use crate::index::{Segment, SegmentInfo};
use crate::reader::read_snapshot;
use crate::segments::{in_blocks, probe};
use crate::walk::{Step, Walk};

/// Most damages named per segment.
const MAX_DAMAGES: usize = 64;

/// What a folder holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its logs, by name.
    pub logs: Vec<LogReport>,
    /// Files that belong to no log.
    pub foreign: Vec<String>,
    /// Whether nothing is damaged. A tail that a crash cut is no damage.
    pub sound: bool,
}

/// What one log holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// Its name.
    pub name: String,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Files kept for their blocks.
    pub spares: usize,
    /// Bytes of segments and spares, in blocks.
    pub bytes: u64,
    /// Good records.
    pub records: u64,
}

/// What one segment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Its file.
    pub file: String,
    /// Its state.
    pub state: State,
    /// Position of its first record.
    pub first: u64,
    /// Position after its last record.
    pub next: u64,
    /// Good records.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes of its snapshot; `None` if it is damaged.
    pub snapshot_bytes: Option<u32>,
    /// Length of the file.
    pub file_bytes: u64,
    /// Damaged positions, `[first, next)` each, at most 64.
    pub damaged: Vec<[u64; 2]>,
    /// What went wrong in reading it.
    pub error: Option<String>,
}

/// How a segment stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its footer says where it ends.
    Sealed,
    /// It has no footer: the tail, in use or left by a crash.
    #[default]
    Open,
    /// It was about to be recycled; the next start removes it.
    Stale,
    /// Written by another version.
    OtherVersion,
    /// Its header is damaged.
    NoHeader,
}

/// Reads every record of every log in the folder.
///
/// # Errors
/// The disk's, if the folder cannot be listed; what fails with one file is in its report.
pub fn check<D: Disk>(disk: &D) -> io::Result<Report> {
    let mut report = Report {
        sound: true,
        ..Report::default()
    };
    let mut files = disk.list()?;
    files.sort_unstable();
    let mut names = BTreeSet::new();
    for file in &files {
        match log_of(file) {
            Some(log) => {
                names.insert(log);
            }
            None => report.foreign.push(file.clone()),
        }
    }
    for name in names {
        let log = check_log(disk, &name, &files);
        let good = |s: &SegmentReport| {
            s.damaged.is_empty()
                && s.error.is_none()
                && matches!(s.state, State::Sealed | State::Open)
                && s.snapshot_bytes.is_some()
        };
        report.sound &= log
            .segments
            .iter()
            .all(|s| good(s) || s.state == State::Stale);
        report.logs.push(log);
    }
    Ok(report)
}

fn log_of(file: &str) -> Option<String> {
    let stem = file
        .strip_suffix(".seg")
        .or_else(|| file.strip_suffix(".spare"))?;
    let (log, _) = stem.rsplit_once('-')?;
    Name::parse(log, file).map(|_| log.to_owned())
}

fn check_log<D: Disk>(disk: &D, log: &str, files: &[String]) -> LogReport {
    let mut report = LogReport {
        name: log.to_owned(),
        ..LogReport::default()
    };
    for file in files {
        match Name::parse(log, file) {
            Some(Name::Segment(id)) => {
                let mut segment = SegmentReport {
                    file: file.clone(),
                    ..SegmentReport::default()
                };
                if let Err(error) = check_segment(disk, log, id, &mut segment) {
                    segment.error = Some(error.to_string());
                }
                report.bytes += in_blocks(segment.file_bytes);
                report.records += segment.records;
                report.segments.push(segment);
            }
            Some(Name::Spare(_)) => {
                report.spares += 1;
                let size = disk.open(file).and_then(|f| f.size());
                report.bytes += size.map_or(0, |size| in_blocks(size.len));
            }
            None => {}
        }
    }
    report
}

fn check_segment<D: Disk>(
    disk: &D,
    log: &str,
    id: u64,
    report: &mut SegmentReport,
) -> io::Result<()> {
    let found = probe(disk, log, id)?;
    report.file_bytes = found.len;
    let header = match found.header {
        Ok(header) if header.id == id => header,
        Ok(_) => {
            report.state = State::Stale;
            return Ok(());
        }
        Err(HeaderError::Version { first, .. }) => {
            (report.state, report.first, report.next) = (State::OtherVersion, first, first);
            return Ok(());
        }
        Err(HeaderError::Damaged) => {
            report.state = State::NoHeader;
            return Ok(());
        }
    };
    let (state, end, limit) = match found.footer {
        Some(footer) => (State::Sealed, footer.end, footer.next),
        None => (State::Open, found.len, u64::MAX),
    };
    (report.state, report.first, report.next) = (state, header.first, header.first);
    let file = disk.open(&Name::Segment(id).file(log))?;
    let info = SegmentInfo {
        id,
        first: header.first,
        next: limit,
        bytes_allocated: 0,
        sealed: true,
        readable: true,
    };
    let segment = Segment {
        info,
        records_at: header.records_at(),
        end,
        snapshot_len: header.snapshot_len,
        snapshot_crc: header.snapshot_crc,
        unsealed_end: None,
    };
    let good = read_snapshot(&file, &segment)?.is_some();
    report.snapshot_bytes = good.then_some(header.snapshot_len);
    let mut walk = Walk::new(file, id, header.records_at(), header.first, end, limit);
    loop {
        // Without a footer nobody knows where the records end: the first bad one is the end.
        let step = if limit == u64::MAX {
            walk.step_strict()
        } else {
            walk.step()
        };
        match step? {
            Step::Record { position, .. } => {
                report.records += 1;
                report.payload_bytes += walk.payload().len() as u64;
                report.next = position + 1;
            }
            Step::Damaged(positions) => {
                report.next = positions.end;
                if report.damaged.len() < MAX_DAMAGES {
                    report.damaged.push([positions.start, positions.end]);
                }
            }
            Step::End => return Ok(()),
        }
    }
}
