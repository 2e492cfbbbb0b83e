//! Rows of a CSV file with a time, at a chosen speed. The cursor is the number of the line of a row,
//! counted without the header's.
//!
//! The header is that of [`headwater_payload::csv`]: `ts:ms,host:tag,temp:f64` has types, and
//! `time,temp` leaves them open. A cell or row that is refused costs no other.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_payload::Format;
use headwater_payload::csv::{HeaderError, Table};
use headwater_proto::time::UnixMicros;
use serde::Deserialize;

use super::kind::{Declared, Kind, Start, normal};
use super::lines::TooLong;
use super::records::{Record, Records};
use super::refusals::Refusals;
use super::rows::{RULES, Read, RowReader};
use super::supervisor::{SourceError, on_thread};
use super::{CHUNK_BYTES, Feed, MAX_LINE_BYTES, Port, RefusedPart, Stop, Stopped};
use crate::check::{self, required_path};
use crate::clock::Clock;
use crate::pipeline::record::Cursor;
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
        if let Err(error) = readable_file(&self.path) {
            let key = format!("replay.{name}.path");
            found.fault(&key, self.path.display(), &error);
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        let (name, resume, clock) = (start.name, start.port.resume(), Clock::start());
        let Start {
            port,
            stop,
            refusals,
            ..
        } = start;
        let run = move || Ok(run(&self, resume, &port, &stop, clock, &refusals)?);
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
            | ReplayError::NoTime { .. }) => Self::of(&failed),
        }
    }
}

/// Gives the rows of the file from the cursor on.
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
    let path = config.path.display().to_string();
    let failed = |source| ReplayError::Read {
        path: path.clone(),
        source,
    };
    let mut file = open(&config.path).map_err(failed)?;
    let mut replay = Replay {
        skip: resume.map_or(0, |cursor| cursor.minor),
        rows: None,
        header: None,
        found: Vec::new(),
        refusals,
    };
    let splitter = headwater_payload::Splitter::new(Format::Csv, &RULES);
    let mut records = Records::new(Format::Csv, splitter, MAX_LINE_BYTES);
    let mut pace = Pace {
        speed: config.speed,
        began: None,
        clock,
    };
    loop {
        let bytes = file.fill_buf().map_err(failed)?;
        let (len, ended) = (bytes.len(), bytes.is_empty());
        let mut take = |line, record: Record<'_>| replay.take(line, record);
        if ended {
            records.end(&mut take);
        } else {
            records.push(bytes, &mut take);
        }
        file.consume(len);
        replay.check_header(&path, ended)?;
        if replay.rows.is_some() {
            port.up();
        }
        for feed in replay.found.drain(..) {
            if let Feed::Reading(reading, _) = &feed
                && !pace.wait(reading.time, stop)
            {
                return Ok(());
            }
            if stop.is_stopped() {
                return Ok(());
            }
            port.give_blocking(feed)?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// A file as far as it was read.
struct Replay<'r> {
    /// Lines behind the header whose rows were given in an earlier life.
    skip: u64,
    /// Known once the header was read.
    rows: Option<RowReader>,
    header: Option<Result<(), HeaderError>>,
    /// Rows that wait for their moment, each with the cursor behind it, and parts that were refused.
    found: Vec<Feed>,
    refusals: &'r Refusals,
}

impl Replay<'_> {
    /// Takes the header, and then rows. Their lines are counted from 1, with the header.
    fn take(&mut self, line: u64, record: Record<'_>) {
        let bytes = match record {
            Record::Whole(bytes) => bytes,
            Record::TooLong(bytes) => {
                if self.rows.is_none() {
                    self.header.get_or_insert(Ok(()));
                }
                let (place, cause) = (format!("line {line}"), TooLong(MAX_LINE_BYTES));
                if line > self.skip + 1 {
                    self.refusals.note(&place, &cause, bytes);
                    let part = RefusedPart::new(&place, &cause, bytes);
                    self.found.push(Feed::Refused(part, Some(after(line))));
                }
                return;
            }
        };
        let Some(rows) = &mut self.rows else {
            if self.header.is_none() {
                self.header = Some(Table::parse(bytes, &RULES).map(|table| {
                    if table.has_time() {
                        self.rows = Some(RowReader::of_table(table));
                    }
                }));
            }
            return;
        };
        // Number of the last line that was given in an earlier life.
        let given = self.skip + 1;
        let feeds = bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        let last = line + feeds - u64::from(bytes.ends_with(b"\n"));
        if last <= given {
            return;
        }
        let (before, mut is_row) = (self.found.len(), false);
        rows.read(line, bytes, UnixMicros(0), &mut |part| match part {
            Read::Row(line, reading) if line > given => {
                is_row = true;
                self.found.push(Feed::Reading(reading, Some(after(line))));
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
            *cursor = Some(after(line));
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
            Some(Ok(())) if self.rows.is_none() => Err(ReplayError::NoTime { path: path() }),
            Some(Ok(())) => Ok(()),
            None if ended && self.rows.is_none() => Err(ReplayError::NoTime { path: path() }),
            None => Ok(()),
        }
    }
}

/// The cursor after a row that begins on a line, counted from 1 with the header.
const fn after(line: u64) -> Cursor {
    Cursor {
        major: 0,
        minor: line - 1,
        tag: 0,
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

fn open(path: &Path) -> std::io::Result<std::io::BufReader<std::fs::File>> {
    let file = std::fs::File::open(path)?;
    Ok(std::io::BufReader::with_capacity(CHUNK_BYTES, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Reading;
    use headwater_proto::sample::OwnedValue;
    use std::sync::Arc;

    /// Readings, each with its cursor.
    type Seen = Vec<(Reading, u64)>;

    fn replay(text: &str, resume: Option<u64>) -> (Seen, (u64, Option<String>)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, text).unwrap();
        let config = ReplaySource { path, speed: 0.0 };
        let (port, mut inlet) = Port::new("x", Arc::default());
        let resume = resume.map(|minor| Cursor {
            major: 0,
            minor,
            tag: 0,
        });
        let clock = Clock::start();
        let refusals = Refusals::new("x", clock);
        run(&config, resume, &port, &Stop::default(), clock, &refusals).unwrap();
        let mut seen = Vec::new();
        while let Ok(feed) = inlet.queue.try_recv() {
            if let Feed::Reading(reading, cursor) = feed {
                seen.push((reading, cursor.unwrap().minor));
            }
        }
        (seen, refusals.count())
    }

    fn times(seen: &[(Reading, u64)]) -> Vec<(i64, u64)> {
        seen.iter()
            .map(|(reading, cursor)| (reading.time.0, *cursor))
            .collect()
    }

    #[test]
    fn a_replay_goes_on_after_its_cursor() {
        let rows: String = (0..20).map(|i| format!("{i},{i}\n")).collect();
        let (seen, _) = replay(&format!("ts:ms,v:i64\n{rows}"), Some(15));
        let expected: Vec<_> = (15..20).map(|i| (i * 1000, i as u64 + 1)).collect();
        assert_eq!(times(&seen), expected);
    }

    #[test]
    fn the_cursor_counts_lines_so_that_rows_over_several_keep_their_place() {
        let text = "ts:ms,s:str\n1,\"a\nb\"\n\n2,c\n3,\"d\ne\"\n4,f";
        let all = [(1000, 1), (2000, 4), (3000, 5), (4000, 7)];
        assert_eq!(times(&replay(text, None).0), all);
        for (at, (_, cursor)) in all.into_iter().enumerate() {
            assert_eq!(
                times(&replay(text, Some(cursor)).0),
                all[at + 1..],
                "after {cursor}"
            );
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
        for (text, fault) in [
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
