//! Log lines of a file that grows and is rotated, truncated or copied away.
//!
//! The cursor says how far the current file was read (`minor`), when the files before it were last
//! written to (`major`), and which file it is: the print of the bytes before the place and a short form of its
//! device and inode (`tag`). By these the place is found again under any name. What can no longer be read is
//! told: as a refused part with file and bytes, and as a loss.
//!
//! `rotation`, `print` and `cut` decide; `folder` and `tail` carry out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_program::faults::within;
use headwater_program::findings::{Findings, readable_file};
use serde::Deserialize;

use super::begun::{Begin, Begun, What};
use super::kind::{Declared, Kind, Start};
use super::refusals::Refusals;
use super::supervisor::{SourceError, on_thread};
use super::{Feed, Port, RefusedPart, Stop, Stopped};
use crate::check::required_path;
use crate::clock::{Clock, wall};
use crate::pipeline::engine::Lost;
use crate::pipeline::record::{Cursor, SaidBy, Stray};

pub mod cut;
pub mod folder;
pub mod print;
pub mod rotation;
pub mod tail;

use tail::{Found, How, Tail};

/// How often to look for more.
const POLL: Duration = Duration::from_millis(250);
/// A minute is longer than any program takes to open its new log.
const WAITS_MS: std::ops::RangeInclusive<u64> = 0..=60_000;

/// A growing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// Begin at its start if it is there when it is looked for first, not at its end.
    pub from_start: bool,
    /// How long a file that was renamed must not grow before the next one is begun, milliseconds.
    pub rotate_wait_ms: u64,
}

/// A source of that kind, as it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    name: String,
    #[serde(default = "bulk")]
    lane: String,
    path: String,
    #[serde(default)]
    from: From,
    #[serde(default = "two_seconds")]
    rotate_wait_ms: u64,
}

/// Where a file is begun that was never read before.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Start,
    #[default]
    End,
}

fn bulk() -> String {
    "bulk".to_owned()
}

const fn two_seconds() -> u64 {
    2000
}

impl Kind for FileSource {
    type Raw = RawFile;
    const RESUMES: bool = true;

    fn check(raw: RawFile, problems: &mut Vec<String>) -> Declared<Self> {
        let RawFile {
            name,
            lane,
            path,
            from,
            rotate_wait_ms,
        } = raw;
        let key = format!("file.{name}.rotate_wait_ms");
        let settings = Self {
            path: required_path(&format!("file.{name}.path"), path, problems),
            from_start: matches!(from, From::Start),
            rotate_wait_ms: within(&key, rotate_wait_ms, WAITS_MS, "milliseconds", problems),
        };
        Declared {
            name,
            lane,
            settings,
        }
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        let (key, path) = (format!("file.{name}.path"), &self.path);
        let shown = path.display();
        if path.as_os_str().is_empty() {
            return;
        }
        match readable_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_pattern = path.to_string_lossy().contains(['*', '?', '[']);
                found.warn(
                    &key,
                    shown,
                    if is_pattern {
                        "no file has this name; patterns are not expanded, so name each file in a \
                         source of its own"
                    } else {
                        "does not exist yet; it is read when it appears"
                    },
                );
            }
            Err(error) => found.fault(&key, shown, &error),
        }
    }

    async fn run(self, start: Start) -> Result<(), SourceError> {
        let name = start.name;
        let Start {
            port,
            stop,
            refusals,
            begun,
            ..
        } = start;
        let of = What {
            source: name.clone(),
            path: self.path.clone(),
            from_start: self.from_start,
        };
        let run = move || {
            let own = port.resume();
            let mut beginning = Beginning::new(begun, of, own.is_some());
            let find =
                |strays: &[Stray]| Ok::<_, Stopped>(find(&self.path, strays, self.from_start));
            let mut resume = port.resume_or_adopt(&stop, find)?;
            match resume {
                Some(cursor) if resume != own => beginning.adopt(cursor),
                Some(_) => {}
                None => resume = beginning.go_on(&port)?,
            }
            Ok(run(&self, resume, &port, &stop, &refusals, &mut beginning)?)
        };
        on_thread(&name, run).await
    }
}

/// The cursor that is a place in this log or one of its earlier files, the last if there are several: the log was
/// read under another source's name, or with a spool that is gone. What cannot be read has none.
///
/// What the collector says is a place only in the file itself, since lines that are all alike look the same in
/// another one; and for a source that begins at the end, only where it holds nothing later: behind a hole stands
/// what that source was never to read.
fn find(path: &Path, strays: &[Stray], from_start: bool) -> Option<Stray> {
    let folder::Listing { live, earlier } = folder::list(path).ok()?;
    let is_here = |stray: &&Stray| {
        let is_home = |entry: &&rotation::Entry| match stray.said_by {
            SaidBy::Spool => true,
            SaidBy::Collector { is_last, .. } => {
                (is_last || from_start) && rotation::is_of(stray.cursor, entry.id)
            }
        };
        let homes = rotation::homes(live.as_ref(), &earlier, stray.cursor, None).into_iter();
        let mut files = homes
            .filter(is_home)
            .filter_map(|entry| folder::open(entry).ok());
        stray.cursor.minor > 0
            && files.any(|file| folder::holds(&file, stray.cursor).is_ok_and(|holds| holds))
    };
    let found = strays.iter().filter(is_here);
    let found = found.max_by_key(|stray| (stray.cursor.major, stray.cursor.minor));
    found.cloned()
}

/// The beginning of a source of which nothing is stored yet.
#[derive(Debug)]
pub struct Beginning {
    begun: Begun,
    what: What,
    /// The spool says where to go on, or what was given since.
    is_stored: bool,
    /// It is on disk.
    is_noted: bool,
    /// That it cannot be noted was said.
    is_told: bool,
}

impl Beginning {
    /// - `is_stored`: the source has a place to resume from.
    #[must_use]
    pub const fn new(begun: Begun, what: What, is_stored: bool) -> Self {
        Self {
            begun,
            what,
            is_stored,
            is_noted: false,
            is_told: false,
        }
    }

    /// It goes on where an earlier life began, if one did: nobody has anything of it.
    ///
    /// # Errors
    /// [`Stopped`] if the engine is gone.
    pub fn go_on(&mut self, port: &Port) -> Result<Option<Cursor>, Stopped> {
        let Some(begin) = self.begun.of(&self.what) else {
            return Ok(None);
        };
        self.is_noted = true;
        if begin.is_adopted {
            port.give_blocking(Feed::Adopted(begin.cursor))?;
        } else {
            port.stands_at(begin.cursor);
        }
        Ok(Some(begin.cursor))
    }

    /// It goes on behind what others have.
    pub fn adopt(&mut self, cursor: Cursor) {
        self.is_noted = false;
        self.note(cursor, true);
    }

    /// Notes on disk where it begins, once.
    pub fn note(&mut self, cursor: Cursor, is_adopted: bool) {
        if self.is_stored || self.is_noted {
            return;
        }
        match self.begun.note(&self.what, Begin { cursor, is_adopted }) {
            Ok(()) => self.is_noted = true,
            Err(error) if !self.is_told => {
                self.is_told = true;
                let (source, path) = (&self.what.source, self.what.path.display());
                tracing::warn!(
                    source,
                    "cannot note where it begins in {path}: {error}; if the agent ends before a line is stored, what \
                     comes until its next start may not be read"
                );
            }
            Err(_) => {}
        }
    }
}

/// Follows the file until told to stop.
///
/// # Errors
/// [`Stopped`] if the engine is gone.
pub fn run(
    config: &FileSource,
    resume: Option<Cursor>,
    port: &Port,
    stop: &Stop,
    refusals: &Refusals,
    beginning: &mut Beginning,
) -> Result<(), Stopped> {
    let how = How {
        from_start: config.from_start,
        rotate_wait_ms: config.rotate_wait_ms,
    };
    let clock = Clock::start();
    let mut tail = Tail::new(&config.path, resume, how);
    while !stop.is_stopped() {
        let mut found = Vec::new();
        // A file that is missing or unreadable may come back: it is looked for again.
        let more = match tail.read(clock.mono(), &mut found) {
            Ok(more) => {
                port.up();
                more
            }
            // Files are being renamed.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) => {
                port.failing(&format!("cannot read {}: {error}", config.path.display()));
                false
            }
        };
        if let Some(began) = tail.began() {
            beginning.note(began, false);
        }
        for found in found {
            give(found, port, refusals)?;
        }
        if !more && !stop.wait(POLL) {
            return Ok(());
        }
    }
    Ok(())
}

/// Hands over what was found.
fn give(found: Found, port: &Port, refusals: &Refusals) -> Result<(), Stopped> {
    match found {
        Found::Line(line, cursor) => port.give_blocking(Feed::Line(wall(), line, cursor))?,
        Found::Gone(gone, cursor) => {
            refusals.note(&gone, &gone.why, &[]);
            // The gap tells that lines are missing, and the quarantine which bytes.
            port.give_blocking(Feed::Lost(Lost::unread(wall()), Some(cursor)))?;
            let part = RefusedPart::new(&gone, &gone.why, &[]);
            port.give_blocking(Feed::Refused(part, None))?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests;
