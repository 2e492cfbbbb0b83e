//! Rows of a typed CSV file, at a chosen speed. The cursor is the number of rows given.
//!
//! The header names each column as `name:type`: `ts:ms` or `ts:us` first, then `f32`, `f64`, `i64`,
//! `bool` (0 or 1), `str`, or `tag` for a label. An empty cell is a missing value.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::ColumnKind;
use headwater_proto::time::UnixMicros;

use super::{ColumnDef, Feed, Outlet, Reading, Stop, Stopped};
use crate::clock::Clock;
use crate::config::ReplaySource;
use crate::pipeline::record::Cursor;

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
    /// The header is not a typed one.
    #[error("{path}: column {column} of the header: {what}")]
    Header {
        /// The file.
        path: String,
        /// Which column, from 1.
        column: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A cell does not fit its type.
    #[error("{path} line {line}: column {column:?} is not a {kind}")]
    Cell {
        /// The file.
        path: String,
        /// Which line, from 1.
        line: u64,
        /// The column.
        column: String,
        /// Its type.
        kind: &'static str,
    },
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    micros_per_tick: i64,
    cells: Vec<Cell>,
    /// The metrics, in order.
    pub columns: Arc<[ColumnDef]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Cell {
    Label(String),
    Value(usize),
}

/// Reads a header; the error is the column, from 1, and what is wrong with it.
///
/// # Errors
/// As said.
pub fn parse_header(line: &str) -> Result<Header, (usize, &'static str)> {
    let mut names = line.trim_end().split(',');
    let micros_per_tick = match names.next() {
        Some("ts:us") => 1,
        Some("ts:ms") => 1000,
        _ => return Err((1, "must be ts:ms or ts:us")),
    };
    let mut cells = Vec::new();
    let mut columns = Vec::new();
    for (at, typed) in names.enumerate() {
        let (name, kind) = typed
            .rsplit_once(':')
            .ok_or((at + 2, "must be name:type"))?;
        let kind = match kind {
            "tag" => {
                cells.push(Cell::Label(name.to_owned()));
                continue;
            }
            "bool" => ColumnKind::Bool,
            "i64" => ColumnKind::I64,
            "f32" => ColumnKind::F32,
            "f64" => ColumnKind::F64,
            "str" => ColumnKind::Str,
            _ => return Err((at + 2, "has an unknown type")),
        };
        cells.push(Cell::Value(columns.len()));
        columns.push(ColumnDef {
            name: name.to_owned(),
            unit: String::new(),
            kind,
        });
    }
    Ok(Header {
        micros_per_tick,
        cells,
        columns: Arc::from(columns),
    })
}

impl Header {
    /// Reads a row; `None` if it has no value. The error is the place of the cell and its type.
    ///
    /// # Errors
    /// As said; place 0 is the time.
    pub fn parse_row(&self, line: &str) -> Result<Option<Reading>, (usize, &'static str)> {
        let mut cells = line.trim_end_matches(['\r', '\n']).split(',');
        let ticks: i64 = cells
            .next()
            .and_then(|c| c.parse().ok())
            .ok_or((0, "whole time"))?;
        let time = ticks
            .checked_mul(self.micros_per_tick)
            .ok_or((0, "time within range"))?;
        let mut labels = Vec::new();
        let mut values = vec![None; self.columns.len()];
        for (at, cell) in self.cells.iter().enumerate() {
            let text = cells.next().ok_or((at + 1, "cell: the row is short"))?;
            match cell {
                Cell::Label(name) => labels.push((name.clone(), text.to_owned())),
                Cell::Value(_) if text.is_empty() => {}
                Cell::Value(column) => {
                    values[*column] =
                        Some(value(text, self.columns[*column].kind).map_err(|k| (at + 1, k))?);
                }
            }
        }
        if values.iter().all(Option::is_none) {
            return Ok(None);
        }
        Ok(Some(Reading {
            time: UnixMicros(time),
            labels: Arc::from(labels),
            columns: Arc::clone(&self.columns),
            values,
        }))
    }

    fn name_of(&self, place: usize) -> String {
        match place.checked_sub(1).and_then(|at| self.cells.get(at)) {
            None => "ts".to_owned(),
            Some(Cell::Label(name)) => name.clone(),
            Some(Cell::Value(column)) => self.columns[*column].name.clone(),
        }
    }
}

fn value(text: &str, kind: ColumnKind) -> Result<OwnedValue, &'static str> {
    match kind {
        ColumnKind::Bool => match text {
            "0" => Ok(OwnedValue::Bool(false)),
            "1" => Ok(OwnedValue::Bool(true)),
            _ => Err("bool"),
        },
        ColumnKind::I64 => text.parse().map(OwnedValue::I64).map_err(|_| "i64"),
        ColumnKind::F32 => text.parse().map(OwnedValue::F32).map_err(|_| "f32"),
        ColumnKind::F64 => text.parse().map(OwnedValue::F64).map_err(|_| "f64"),
        ColumnKind::Str => Ok(OwnedValue::Str(text.to_owned())),
    }
}

/// Gives the rows of the file from the cursor on.
///
/// # Errors
/// [`ReplayError`].
pub fn run(
    config: &ReplaySource,
    resume: Option<Cursor>,
    outlet: &Outlet,
    stop: &Stop,
    clock: Clock,
) -> Result<(), ReplayError> {
    let path = config.path.display().to_string();
    let failed = |source| ReplayError::Read {
        path: path.clone(),
        source,
    };
    let mut lines = open(&config.path).map_err(failed)?.lines();
    let header = lines
        .next()
        .transpose()
        .map_err(failed)?
        .unwrap_or_default();
    let header = parse_header(&header).map_err(|(column, what)| ReplayError::Header {
        path: path.clone(),
        column,
        what,
    })?;
    let skip = resume.map_or(0, |cursor| cursor.minor);
    let mut began = None;
    for (row, line) in (0u64..).zip(lines) {
        let line = line.map_err(failed)?;
        if row < skip || line.is_empty() {
            continue;
        }
        let reading = header
            .parse_row(&line)
            .map_err(|(place, kind)| ReplayError::Cell {
                path: path.clone(),
                line: row + 2,
                column: header.name_of(place),
                kind,
            })?;
        let Some(reading) = reading else { continue };
        if config.speed > 0.0 {
            let (first, started) = *began.get_or_insert((reading.time, clock.now().mono));
            let due_ms = reading.time.0.saturating_sub(first.0) as f64 / 1000.0 / config.speed;
            let left = due_ms - clock.now().mono.since(started) as f64;
            if left > 0.0 && !stop.wait(Duration::from_secs_f64((left / 1000.0).min(1e6))) {
                return Ok(());
            }
        }
        if stop.is_stopped() {
            return Ok(());
        }
        let cursor = Cursor {
            major: 0,
            minor: row + 1,
            tag: 0,
        };
        outlet.give_blocking(Feed::Reading(reading, Some(cursor)))?;
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<std::io::BufReader<std::fs::File>> {
    std::fs::File::open(path).map(std::io::BufReader::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_its_header() {
        let header = parse_header("ts:ms,origin:tag,temp:f64,n:i64,on:bool,gust:f32\n").unwrap();
        let reading = header.parse_row("5,EWR,39.02,,1,1.5\n").unwrap().unwrap();
        assert_eq!(reading.time, UnixMicros(5000));
        assert_eq!(*reading.labels, [("origin".to_owned(), "EWR".to_owned())]);
        assert_eq!(
            reading.values,
            [
                Some(OwnedValue::F64(39.02)),
                None,
                Some(OwnedValue::Bool(true)),
                Some(OwnedValue::F32(1.5))
            ]
        );
        assert_eq!(header.parse_row("5,EWR,,,,").unwrap(), None);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(
            parse_header("time,x:f64"),
            Err((1, "must be ts:ms or ts:us"))
        );
        assert_eq!(parse_header("ts:ms,x"), Err((2, "must be name:type")));
        assert_eq!(parse_header("ts:ms,x:f16"), Err((2, "has an unknown type")));
        let header = parse_header("ts:us,a:i64,b:bool").unwrap();
        assert_eq!(header.parse_row("x,1,1"), Err((0, "whole time")));
        assert_eq!(header.parse_row("1,1.5,1"), Err((1, "i64")));
        assert_eq!(header.parse_row("1,1,2"), Err((2, "bool")));
        assert_eq!(header.parse_row("1,1"), Err((2, "cell: the row is short")));
        assert_eq!(header.name_of(2), "b");
    }

    #[test]
    fn a_replay_goes_on_after_its_cursor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let rows: String = (0..20).map(|i| format!("{i},{i}\n")).collect();
        std::fs::write(&path, format!("ts:ms,v:i64\n{rows}")).unwrap();
        let config = ReplaySource { path, speed: 0.0 };
        let (outlet, mut inlet) = Outlet::new(Arc::default());
        let resume = Some(Cursor {
            major: 0,
            minor: 15,
            tag: 0,
        });
        run(&config, resume, &outlet, &Stop::default(), Clock::start()).unwrap();
        let mut seen = Vec::new();
        while let Ok(Feed::Reading(reading, cursor)) = inlet.try_recv() {
            seen.push((reading.time.0, cursor.unwrap().minor));
        }
        assert_eq!(seen.first(), Some(&(15_000, 16)));
        assert_eq!(seen.last(), Some(&(19_000, 20)));
    }
}
