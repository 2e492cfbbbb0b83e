//! Rows of a CSV file with a time, at a chosen speed. The cursor is the number of the line of a row,
//! counted without the header's, with a hash of the file up to there: another file under the same name is
//! read from its start, and `major` rises by one for it.
//!
//! The header is that of [`headwater_payload::csv`]: `ts:ms,host:tag,temp:f64` has types, and
//! `time,temp` leaves them open. A cell or row that is refused costs no other.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_payload::Format;
use headwater_payload::csv::{HeaderError, Table};
use headwater_proto::time::UnixMicros;
use serde::Deserialize;

use super::file::print;
use super::kind::{Declared, Kind, Start, normal};
use super::lines::TooLong;
use super::records::{self, Record, Take};
use super::refusals::Refusals;
use super::rows::{MAX_COLUMNS, RULES, Read, RowReader};
use super::supervisor::{SourceError, on_thread};
use super::{CHUNK_BYTES, Feed, MAX_LINE_BYTES, Port, RefusedPart, Stop, Stopped};
use crate::check::{self, required_path};
use crate::clock::Clock;
use crate::pipeline::record::{Cursor, Stray};
use headwater_program::findings::{Findings, readable_file};

/// A typed CSV file.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplaySource {
    /// The file.
    pub path: PathBuf,
    /// Seconds of the file per second; 0 is as fast as can be.
    pub speed: f64,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReplay {
    name: String,
    #[serde(default = "normal")]
    lane: String,
    path: String,
    #[serde(default)]
    speed: f64,
}

impl Kind for ReplaySource {
    type Raw = RawReplay;
    const RESUMES: bool = true;

    fn check(raw: RawReplay, problems: &mut Vec<String>) -> Declared<Self> {
        let RawReplay {
            name,
            lane,
            path,
            speed,
        } = raw;
        let settings = Self {
            path: required_path(&format!("replay.{name}.path"), path, problems),
            speed: check::speed(&format!("replay.{name}.speed"), speed, problems),
        };
        Declared {
            name,
            lane,
            settings,
        }
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        if let Err(error) = readable_file(&self.path)
            && !self.path.as_os_str().is_empty()
        {
            let key = format!("replay.{name}.path");
            found.fault(&key, self.path.display(), &error);
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        let (name, clock) = (start.name, Clock::start());
        let Start {
            port,
            stop,
            refusals,
            ..
        } = start;
        let run = move || {
            let resume = port.resume_or_adopt(&stop, |strays| find(&self.path, strays))?;
            Ok(run(&self, resume, &port, &stop, clock, &refusals)?)
        };
        on_thread(&name, run).await
    }
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The disk's error.
        #[source]
        source: std::io::Error,
    },
    /// The header makes no sense.
    #[error("{path}: {cause}")]
    Header {
        /// The file.
        path: String,
        /// Which column, and why.
        cause: HeaderError,
    },
    /// No column is the time.
    #[error("{path}: no column of the header is a time, as \"ts:ms\" or \"time\" would be")]
    NoTime {
        /// The file.
        path: String,
    },
    /// Its rows are several readings each, behind which there is no cursor.
    #[error(
        "{path}: the header has {columns} columns, and a file of more than {MAX_COLUMNS} cannot be resumed; split it"
    )]
    Wide {
        /// The file.
        path: String,
        /// How many there are.
        columns: usize,
    },
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl From<ReplayError> for SourceError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Stopped(stopped) => stopped.into(),
            failed @ (ReplayError::Read { .. }
            | ReplayError::Header { .. }
            | ReplayError::NoTime { .. }
            | ReplayError::Wide { .. }) => Self::of(&failed),
        }
    }
}

/// What came of reading the file once.
#[derive(Debug, PartialEq, Eq)]
enum Pass {
    /// It was read to its end, or the agent stops.
    Ended,
    /// What stands before the cursor is not what was read there.
    OtherFile,
}

/// Gives the rows of the file from the cursor on; of another file than that of the cursor, all.
///
/// # Errors
/// [`ReplayError`].
pub fn run(
    config: &ReplaySource,
    resume: Option<Cursor>,
    port: &Port,
    stop: &Stop,
    clock: Clock,
    refusals: &Refusals,
) -> Result<(), ReplayError> {
    let mut from = resume.unwrap_or_default();
    while pass(config, from, port, stop, clock, refusals)? == Pass::OtherFile {
        let path = config.path.display();
        tracing::warn!(
            source = port.name(),
            "another file stands under {path} than was read to line {}: it is read from its start",
            from.minor + 1
        );
        from = Cursor {
            major: from.major + 1,
            ..Cursor::default()
        };
    }
    Ok(())
}

/// The cursor that is a place in this file, the last if there are several: the file was read under another
/// source's name.
fn find(path: &Path, strays: &[Stray]) -> Result<Option<Stray>, ReplayError> {
    let furthest = strays.iter().map(|stray| stray.cursor.minor).max();
    let mut file = Records::of(path)?;
    let (mut found, mut hash, mut line) = (None, Hash::default(), 0);
    loop {
        let ended = file.next(&mut |first, record| {
            let (Record::Whole(bytes) | Record::TooLong(bytes)) = record;
            hash.extend(bytes);
            line = last_line(first, bytes);
            let lines = first..=line;
            let is_here = |stray: &&Stray| {
                lines.contains(&(stray.cursor.minor + 1)) && hash.is_of(stray.cursor)
            };
            found = strays.iter().find(is_here).or(found.take());
        })?;
        if ended || furthest.is_none_or(|furthest| line > furthest + 1) {
            return Ok(found.cloned());
        }
    }
}

/// Number of the last line of a record that begins on a line.
fn last_line(first: u64, record: &[u8]) -> u64 {
    let feeds = record.iter().filter(|byte| **byte == b'\n').count() as u64;
    first + feeds - u64::from(record.ends_with(b"\n"))
}

/// Of the content of a file up to a record.
#[derive(Debug, Clone, Copy, Default)]
struct Hash {
    with: u64,
    before: u64,
    /// The record ends as a line does; one at the end of the file may not be whole yet.
    is_ended: bool,
}

impl Hash {
    /// Takes in the next record.
    fn extend(&mut self, record: &[u8]) {
        *self = Self {
            with: print::extend(self.with, record),
            before: self.with,
            is_ended: record.ends_with(b"\n"),
        };
    }

    const fn tag(self) -> u64 {
        if self.is_ended {
            self.with
        } else {
            self.before
        }
    }

    /// Whether a cursor behind the record is of this content.
    fn is_of(self, cursor: Cursor) -> bool {
        [self.with, self.before].contains(&cursor.tag)
    }
}

fn pass(
    config: &ReplaySource,
    from: Cursor,
    port: &Port,
    stop: &Stop,
    clock: Clock,
    refusals: &Refusals,
) -> Result<Pass, ReplayError> {
    let mut file = Records::of(&config.path)?;
    let mut replay = Replay {
        from,
        hash: Hash::default(),
        place: if from.minor == 0 {
            Place::Found
        } else {
            Place::Sought
        },
        rows: None,
        header: None,
        found: Vec::new(),
        refusals,
    };
    let mut pace = Pace {
        speed: config.speed,
        began: None,
        clock,
    };
    loop {
        let ended = file.next(&mut |line, record| replay.take(line, record))?;
        if replay.place == Place::Other || (ended && replay.place == Place::Sought) {
            return Ok(Pass::OtherFile);
        }
        replay.check_header(&file.path, ended)?;
        if replay.rows.is_some() {
            port.up();
        }
        for feed in replay.found.drain(..) {
            if let Feed::Reading(reading, _) = &feed
                && !pace.wait(reading.time, stop)
            {
                return Ok(Pass::Ended);
            }
            if stop.is_stopped() {
                return Ok(Pass::Ended);
            }
            port.give_blocking(feed)?;
        }
        if ended {
            return Ok(Pass::Ended);
        }
    }
}

/// A file as far as it was read.
struct Replay<'r> {
    /// What was given in an earlier life: `minor` lines behind the header.
    from: Cursor,
    hash: Hash,
    place: Place,
    /// Known once the header was read.
    rows: Option<RowReader>,
    header: Option<Result<usize, HeaderError>>,
    /// Rows that wait for their moment, each with the cursor behind it, and parts that were refused.
    found: Vec<Feed>,
    refusals: &'r Refusals,
}

/// The place of the cursor in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It is further on.
    Sought,
    /// What stands before it is what was read.
    Found,
    /// Something else stands before it, or the place is in no row's end.
    Other,
}

impl Replay<'_> {
    /// Looks whether the place of the cursor is behind the record that has these lines, and is the same place.
    fn seek(&mut self, first: u64, last: u64) {
        let given = self.from.minor + 1;
        if self.place == Place::Sought && last >= given {
            let is_there = first <= given && self.hash.is_of(self.from);
            self.place = if is_there { Place::Found } else { Place::Other };
        }
    }

    /// The cursor after a row that begins on a line, counted from 1 with the header, of the present record.
    const fn after(&self, line: u64) -> Cursor {
        Cursor {
            major: self.from.major,
            minor: line - 1,
            tag: self.hash.tag(),
        }
    }

    /// Takes the header, and then rows. Their lines are counted from 1, with the header.
    fn take(&mut self, line: u64, record: Record<'_>) {
        let (Record::Whole(bytes) | Record::TooLong(bytes)) = record;
        self.hash.extend(bytes);
        if let Record::TooLong(_) = record {
            if self.rows.is_none() {
                self.header.get_or_insert(Ok(0));
            }
            let (place, cause) = (format!("line {line}"), TooLong(MAX_LINE_BYTES));
            self.seek(line, line);
            if line > self.from.minor + 1 && self.place == Place::Found {
                self.refusals.note(&place, &cause, bytes);
                let part = RefusedPart::new(&place, &cause, bytes);
                self.found.push(Feed::Refused(part, Some(self.after(line))));
            }
            return;
        }
        if self.rows.is_none() {
            if self.header.is_none() {
                self.header = Some(Table::parse(bytes, &RULES).map(|table| {
                    let columns = table.columns().len();
                    if table.has_time() {
                        self.rows = Some(RowReader::of_table(table));
                    }
                    columns
                }));
            }
            return;
        }
        // Number of the last line that was given in an earlier life.
        let given = self.from.minor + 1;
        let last = last_line(line, bytes);
        self.seek(line, last);
        if last <= given || self.place != Place::Found {
            return;
        }
        let cursor_behind = self.after(line);
        let behind = |line: u64| Cursor {
            minor: line - 1,
            ..cursor_behind
        };
        let (before, mut is_row) = (self.found.len(), false);
        let Some(rows) = &mut self.rows else { return };
        rows.read(line, bytes, UnixMicros(0), &mut |part| match part {
            Read::Row(line, reading) if line > given => {
                is_row = true;
                self.found.push(Feed::Reading(reading, Some(behind(line))));
            }
            Read::Row(..) => {}
            Read::Refused(place, cause, bytes) => {
                self.refusals.note(place, cause, bytes);
                let part = RefusedPart::new(place, cause, bytes);
                self.found.push(Feed::Refused(part, None));
            }
        });
        // A row would be taken for known if a part of its own line had that cursor already.
        if !is_row && let Some(Feed::Refused(_, cursor)) = self.found[before..].last_mut() {
            *cursor = Some(behind(line));
        }
    }

    /// Whether the header, if it was read, describes a table with times.
    fn check_header(&mut self, path: &str, ended: bool) -> Result<(), ReplayError> {
        let path = || path.to_owned();
        match self.header.take() {
            Some(Err(cause)) => Err(ReplayError::Header {
                path: path(),
                cause,
            }),
            Some(Ok(_)) if self.rows.is_none() => Err(ReplayError::NoTime { path: path() }),
            Some(Ok(columns)) if columns > MAX_COLUMNS => Err(ReplayError::Wide {
                path: path(),
                columns,
            }),
            Some(Ok(_)) => Ok(()),
            None if ended && self.rows.is_none() => Err(ReplayError::NoTime { path: path() }),
            None => Ok(()),
        }
    }
}

/// The moments of rows.
struct Pace {
    speed: f64,
    /// The time of the first row, and when it was given.
    began: Option<(UnixMicros, headwater_proto::time::Millis)>,
    clock: Clock,
}

impl Pace {
    /// Waits for the moment of a row; says whether to go on.
    fn wait(&mut self, time: UnixMicros, stop: &Stop) -> bool {
        if self.speed <= 0.0 {
            return true;
        }
        let now = self.clock.now().mono;
        let (first, started) = *self.began.get_or_insert((time, now));
        let due_ms = time.0.saturating_sub(first.0) as f64 / 1000.0 / self.speed;
        let left = due_ms - now.since(started) as f64;
        left <= 0.0 || stop.wait(Duration::from_secs_f64((left / 1000.0).min(1e6)))
    }
}

/// The records of a file, a chunk at a time.
struct Records {
    path: String,
    file: BufReader<File>,
    cutter: records::Records,
}

impl Records {
    fn of(path: &Path) -> Result<Self, ReplayError> {
        let splitter = headwater_payload::Splitter::new(Format::Csv, &RULES);
        let shown = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self {
                path: shown,
                file: BufReader::with_capacity(CHUNK_BYTES, file),
                cutter: records::Records::new(Format::Csv, splitter, MAX_LINE_BYTES),
            }),
            Err(source) => Err(ReplayError::Read {
                path: shown,
                source,
            }),
        }
    }

    /// Hands over the records of the next chunk; says whether the file has ended.
    fn next(&mut self, take: &mut Take<'_>) -> Result<bool, ReplayError> {
        let bytes = self.file.fill_buf().map_err(|source| ReplayError::Read {
            path: self.path.clone(),
            source,
        })?;
        let len = bytes.len();
        if len == 0 {
            self.cutter.end(take);
        } else {
            self.cutter.push(bytes, take);
        }
        self.file.consume(len);
        Ok(len == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::record::SaidBy;
    use crate::source::Reading;
    use headwater_proto::sample::OwnedValue;
    use std::sync::Arc;

    /// Readings, each with its cursor.
    type Seen = Vec<(Reading, Cursor)>;

    fn replay(text: &str, resume: Option<Cursor>) -> (Seen, (u64, Option<String>)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let config = ReplaySource { path, speed: 0.0 };
        let (port, mut inlet) = Port::new("x", Arc::default());
        let clock = Clock::start();
        let refusals = Refusals::new("x", clock);
        run(&config, resume, &port, &Stop::default(), clock, &refusals).unwrap();
        let mut seen = Vec::new();
        while let Ok(feed) = inlet.queue.try_recv() {
            if let Feed::Reading(reading, cursor) = feed {
                seen.push((reading, cursor.unwrap()));
            }
        }
        (seen, refusals.count())
    }

    fn times(seen: &[(Reading, Cursor)]) -> Vec<(i64, u64)> {
        seen.iter()
            .map(|(reading, cursor)| (reading.time.0, cursor.minor))
            .collect()
    }

    #[test]
    fn a_replay_goes_on_after_its_cursor() {
        let text = rows(0..20);
        let cursor = replay(&text, None).0[14].1;
        let (seen, _) = replay(&text, Some(cursor));
        let expected: Vec<_> = (15..20).map(|i| (i * 1000, i as u64 + 1)).collect();
        assert_eq!(times(&seen), expected);
    }

    /// A row for each number, which is its time in milliseconds.
    fn rows(numbers: std::ops::Range<i64>) -> String {
        let rows: String = numbers.map(|i| format!("{i},{i}\n")).collect();
        format!("ts:ms,v:i64\n{rows}")
    }

    #[test]
    fn another_file_under_the_same_name_is_read_from_its_start_and_a_third_one_too() {
        let all = replay(&rows(0..20), None).0;
        let cursor = all[14].1;
        for other in [
            rows(1..21),
            rows(100..101),
            rows(0..20).replace("3,3\n", "3,4\n"),
        ] {
            let seen = replay(&other, Some(cursor)).0;
            assert_eq!(times(&seen), times(&replay(&other, None).0));
            assert!(seen.iter().all(|(_, again)| !cursor.covers(*again)));
            let last = seen.last().unwrap().1;
            assert_eq!(replay(&other, Some(last)).0, []);
            let back = replay(&rows(0..20), Some(last)).0;
            assert_eq!(times(&back), times(&all));
            assert_eq!(back[0].1.major, 2);
        }
        // One that ends before the cursor is another one too.
        assert_eq!(replay(&rows(0..14), Some(cursor)).0.len(), 14);
    }

    #[test]
    fn a_file_that_was_read_under_another_name_of_its_source_is_found_among_the_strays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, rows(0..20)).unwrap();
        let stray = |name: &str, cursor| Stray {
            said_by: SaidBy::Spool,
            name: name.to_owned(),
            cursor,
        };
        let of_this = replay(&rows(0..20), None).0;
        let of_other = replay(&rows(5..30), None).0;
        let strays = [
            stray("other", of_other[7].1),
            stray("early", of_this[3].1),
            stray("late", of_this[14].1),
            stray("further", of_other[24].1),
        ];
        assert_eq!(find(&path, &strays).unwrap().as_ref(), Some(&strays[2]));
        assert_eq!(find(&path, &strays[..1]).unwrap(), None);
        assert_eq!(find(&path, &strays[3..]).unwrap(), None);
        assert_eq!(find(&path, &[]).unwrap(), None);
    }

    #[test]
    fn a_file_that_grows_is_the_same_file_even_where_its_last_line_was_not_whole() {
        let whole = rows(0..20);
        for cut in whole.len() - 12..whole.len() {
            let seen = replay(&whole[..cut], None).0;
            let rest = replay(&whole, Some(seen.last().unwrap().1)).0;
            assert_eq!(seen.len() + rest.len(), 20, "{cut}");
        }
    }

    #[test]
    fn the_cursor_counts_lines_so_that_rows_over_several_keep_their_place() {
        let text = "ts:ms,s:str\n1,\"a\nb\"\n\n2,c\n3,\"d\ne\"\n4,f";
        let all = [(1000, 1), (2000, 4), (3000, 5), (4000, 7)];
        assert_eq!(times(&replay(text, None).0), all);
        for (at, (_, cursor)) in replay(text, None).0.into_iter().enumerate() {
            let rest = replay(text, Some(cursor)).0;
            assert_eq!(times(&rest), all[at + 1..], "after {cursor:?}");
        }
    }

    #[test]
    fn a_bad_cell_or_row_costs_no_other() {
        let text = "ts:ms,t:f64,s:str\n1,21.5,\"Hall, north\"\n2,n/a,x\n3\n4,23,\"open\n5,24,\n";
        let (seen, (refused, last)) = replay(text, None);
        assert_eq!(times(&seen), [(1000, 1), (2000, 2), (5000, 5)]);
        let hall = OwnedValue::Str("Hall, north".into());
        assert_eq!(seen[0].0.values, [Some(OwnedValue::F64(21.5)), Some(hall)]);
        assert_eq!(seen[1].0.values, [None, Some(OwnedValue::Str("x".into()))]);
        assert_eq!(refused, 3);
        let expected = "line 5, column 6: the closing quote is missing: \"4,23,\\\"open\"";
        assert_eq!(last.as_deref(), Some(expected));
    }

    #[test]
    fn a_row_beyond_its_bound_is_refused_and_the_next_is_read() {
        let long = "x".repeat(MAX_LINE_BYTES);
        let (seen, (refused, last)) = replay(&format!("ts:ms,s:str\n1,{long}\n2,y\n"), None);
        assert_eq!((times(&seen), refused), (vec![(2000, 2)], 1));
        assert!(
            last.unwrap()
                .starts_with("line 2: the record is longer than 16384 bytes: \"1,xxx")
        );
    }

    #[test]
    fn a_file_without_a_sensible_header_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let clock = Clock::start();
        let refusals = Refusals::new("x", clock);
        let wide: Vec<String> = (0..MAX_COLUMNS).map(|k| format!("c{k}:i64")).collect();
        let wide = format!("ts:ms,{}\n1\n", wide.join(","));
        for (text, fault) in [
            (wide.as_str(), "the header has 1025 columns"),
            ("", "no column of the header is a time"),
            ("t:f64,x\n1,2\n", "no column of the header is a time"),
            (
                "ts:ms,x:f16\n1,2\n",
                "column 2 of the header: the header's column has an unknown type",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            let config = ReplaySource {
                path: path.clone(),
                speed: 0.0,
            };
            let (port, _inlet) = Port::new("x", Arc::default());
            let error = run(&config, None, &port, &Stop::default(), clock, &refusals);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("a.csv") && error.contains(fault), "{error}");
        }
    }
}
