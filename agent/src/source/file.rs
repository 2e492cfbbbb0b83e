//! Log lines of a file that grows, is rotated or truncated.
//!
//! The cursor is (rotations seen, bytes read, inode). After a start the file is found again by its
//! inode: if another stands in its place, what was left of the old one is gone with its name, and
//! reading begins at the new one's start. A truncated file begins anew. The last line counts only
//! with its newline.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater_proto::refused::MAX_BYTES;
use serde::Deserialize;

use super::kind::{Declared, Kind, Start};
use super::lines::TooLong;
use super::refusals::Refusals;
use super::supervisor::{SourceError, on_thread};
use super::{CHUNK_BYTES, Feed, MAX_LINE_BYTES, Port, RefusedPart, Stop, Stopped};
use crate::check::required_path;
use crate::clock::wall;
use crate::pipeline::record::Cursor;
use headwater_program::findings::{Findings, readable_file};

/// How often to look for more.
const POLL: Duration = Duration::from_millis(250);

/// A growing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
    /// Begin at its start when it is first seen, not at its end.
    pub from_start: bool,
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

impl Kind for FileSource {
    type Raw = RawFile;
    const RESUMES: bool = true;

    fn check(raw: RawFile, problems: &mut Vec<String>) -> Declared<Self> {
        let RawFile {
            name,
            lane,
            path,
            from,
        } = raw;
        let settings = Self {
            path: required_path(&format!("file.{name}.path"), path, problems),
            from_start: matches!(from, From::Start),
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
        let (name, resume) = (start.name, start.port.resume());
        let Start {
            port,
            stop,
            refusals,
            ..
        } = start;
        let run = move || Ok(run(&self, resume, &port, &stop, &refusals)?);
        on_thread(&name, run).await
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
) -> Result<(), Stopped> {
    let mut tail = Tail::new(&config.path, resume, config.from_start);
    while !stop.is_stopped() {
        let mut found = Vec::new();
        // A file that is missing or unreadable may come back: it is looked for again.
        let more = match tail.read(&mut found) {
            Ok(more) => {
                port.up();
                more
            }
            Err(error) => {
                port.failing(&format!("cannot read {}: {error}", config.path.display()));
                false
            }
        };
        for (found, cursor) in found {
            let feed = match found {
                Found::Line(line) => Feed::Line(wall(), line, Some(cursor)),
                Found::TooLong(bytes) => {
                    let place = format!("line that ends at byte {}", cursor.minor);
                    let cause = TooLong(MAX_LINE_BYTES);
                    refusals.note(&place, &cause, &bytes);
                    Feed::Refused(RefusedPart::new(&place, &cause, &bytes), Some(cursor))
                }
            };
            port.give_blocking(feed)?;
        }
        if !more && !stop.wait(POLL) {
            return Ok(());
        }
    }
    Ok(())
}

/// What stood between two newlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A line.
    Line(Vec<u8>),
    /// The beginning of one that is longer than [`MAX_LINE_BYTES`].
    TooLong(Vec<u8>),
}

/// A place in a file that may change under it.
#[derive(Debug)]
pub struct Tail<'a> {
    path: &'a Path,
    open: Option<File>,
    rotations: u64,
    offset: u64,
    inode: u64,
    /// Bytes after the last newline.
    rest: Vec<u8>,
    /// The beginning of a line that is too long and is passed over up to its end.
    skipped: Option<Vec<u8>>,
    known: bool,
    from_start: bool,
}

impl<'a> Tail<'a> {
    /// At the place of `resume`, or at the file's start or end.
    #[must_use]
    pub fn new(path: &'a Path, resume: Option<Cursor>, from_start: bool) -> Self {
        let Cursor { major, minor, tag } = resume.unwrap_or_default();
        Self {
            path,
            open: None,
            rotations: major,
            offset: minor,
            inode: tag,
            rest: Vec::new(),
            skipped: None,
            known: resume.is_some(),
            from_start,
        }
    }

    /// Reads what has come, as lines with the cursor after each. Says whether there may be more.
    ///
    /// # Errors
    /// The disk's; the place is kept.
    pub fn read(&mut self, found: &mut Vec<(Found, Cursor)>) -> io::Result<bool> {
        if self.open.is_none() {
            self.enter()?;
        }
        let Some(mut file) = self.open.as_ref() else {
            return Ok(false);
        };
        let mut chunk = [0; CHUNK_BYTES];
        let truncated = file.metadata()?.len() < self.offset + self.rest.len() as u64;
        if truncated {
            // What is there now was written anew.
            file.seek(SeekFrom::Start(0))?;
        }
        let len = file.read(&mut chunk)?;
        if truncated {
            self.begin_anew();
        }
        if len == 0 {
            return self.follow_rotation();
        }
        self.take(&chunk[..len], found);
        Ok(true)
    }

    fn enter(&mut self) -> io::Result<()> {
        let mut file = File::open(self.path)?;
        let metadata = file.metadata()?;
        if !self.known {
            self.known = true;
            self.inode = metadata.ino();
            self.offset = if self.from_start { 0 } else { metadata.len() };
        } else if metadata.ino() != self.inode {
            self.begin_anew();
            self.inode = metadata.ino();
        } else if metadata.len() < self.offset {
            self.begin_anew();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.open = Some(file);
        Ok(())
    }

    /// At the end of the open file: goes on with the one that took its name, if there is one.
    fn follow_rotation(&mut self) -> io::Result<bool> {
        let named = match std::fs::metadata(self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if named.ino() == self.inode {
            return Ok(false);
        }
        self.open = None;
        self.begin_anew();
        self.inode = named.ino();
        Ok(true)
    }

    fn begin_anew(&mut self) {
        // A cursor is what the disk gave back.
        self.rotations = self.rotations.saturating_add(1);
        self.offset = 0;
        self.rest.clear();
        self.skipped = None;
    }

    fn take(&mut self, mut chunk: &[u8], found: &mut Vec<(Found, Cursor)>) {
        while let Some(end) = chunk.iter().position(|byte| *byte == b'\n') {
            let (part, after) = (&chunk[..end], &chunk[end + 1..]);
            let whole = self.rest.len() + part.len();
            self.offset += whole as u64 + 1;
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(part);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            let line = match self.skipped.take() {
                Some(beginning) => Found::TooLong(beginning),
                None if whole > MAX_LINE_BYTES => {
                    line.truncate(MAX_BYTES);
                    Found::TooLong(line)
                }
                None => Found::Line(line),
            };
            let cursor = Cursor {
                major: self.rotations,
                minor: self.offset,
                tag: self.inode,
            };
            if line != Found::Line(Vec::new()) {
                found.push((line, cursor));
            }
            chunk = after;
        }
        if self.skipped.is_some() || self.rest.len() + chunk.len() > MAX_LINE_BYTES {
            // The bytes are passed over now: a cursor after them is as good as one before.
            self.offset += (self.rest.len() + chunk.len()) as u64;
            let mut beginning = std::mem::take(&mut self.rest);
            beginning.extend_from_slice(chunk);
            beginning.truncate(MAX_BYTES);
            self.skipped.get_or_insert(beginning);
        } else {
            self.rest.extend_from_slice(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Log {
        folder: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            Self {
                folder: tempfile::tempdir().unwrap(),
            }
        }
        fn path(&self) -> std::path::PathBuf {
            self.folder.path().join("log")
        }
        fn write(&self, text: &str) {
            let mut options = File::options();
            options
                .create(true)
                .append(true)
                .open(self.path())
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        fn rotate(&self) {
            std::fs::rename(self.path(), self.folder.path().join("log.1")).unwrap();
        }
    }

    fn text(found: Found) -> String {
        match found {
            Found::Line(line) => String::from_utf8(line).unwrap(),
            Found::TooLong(line) => format!("{} bytes of a long line", line.len()),
        }
    }

    fn all(tail: &mut Tail<'_>) -> Vec<String> {
        let mut lines = Vec::new();
        while tail.read(&mut lines).unwrap() {}
        lines.into_iter().map(|(line, _)| text(line)).collect()
    }

    #[test]
    fn lines_count_with_their_newline_only() {
        let log = Log::new();
        log.write("one\ntw");
        let path = log.path();
        let mut tail = Tail::new(&path, None, true);
        assert_eq!(all(&mut tail), ["one"]);
        log.write("o\r\n\nthree\n");
        assert_eq!(all(&mut tail), ["two", "three"]);
    }

    #[test]
    fn a_file_first_seen_is_followed_from_its_end_unless_told_otherwise() {
        let log = Log::new();
        log.write("old\n");
        let path = log.path();
        let mut tail = Tail::new(&path, None, false);
        assert!(all(&mut tail).is_empty());
        log.write("new\n");
        assert_eq!(all(&mut tail), ["new"]);
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_before_the_next() {
        let log = Log::new();
        log.write("one\n");
        let path = log.path();
        let mut tail = Tail::new(&path, None, true);
        assert_eq!(all(&mut tail), ["one"]);
        log.write("two\n");
        log.rotate();
        log.write("three\n");
        assert_eq!(all(&mut tail), ["two", "three"]);
    }

    #[test]
    fn a_truncated_file_begins_anew() {
        let log = Log::new();
        log.write("one\ntwo\n");
        let path = log.path();
        let mut tail = Tail::new(&path, None, true);
        assert_eq!(all(&mut tail), ["one", "two"]);
        std::fs::write(&path, "x\n").unwrap();
        assert_eq!(all(&mut tail), ["x"]);
    }

    #[test]
    fn a_cursor_finds_the_place_again_and_orders_across_rotations() {
        let log = Log::new();
        log.write("one\ntwo\nthree\n");
        let path = log.path();
        let mut tail = Tail::new(&path, None, true);
        let mut lines = Vec::new();
        while tail.read(&mut lines).unwrap() {}
        let (_, after_one) = lines[0];
        assert_eq!(
            all(&mut Tail::new(&path, Some(after_one), true)),
            ["two", "three"]
        );
        log.rotate();
        log.write("four\n");
        let mut lines = Vec::new();
        let mut resumed = Tail::new(&path, Some(after_one), true);
        while resumed.read(&mut lines).unwrap() {}
        assert_eq!(lines[0].0, Found::Line(b"four".to_vec()));
        assert!(lines[0].1.covers(after_one) && !after_one.covers(lines[0].1));
    }

    #[test]
    fn a_line_beyond_its_bound_is_passed_over_and_told_with_its_beginning() {
        let long = format!("{MAX_BYTES} bytes of a long line");
        for bytes in [MAX_LINE_BYTES + 1, 3 * MAX_LINE_BYTES] {
            let log = Log::new();
            log.write(&format!("{}\nshort\n", "x".repeat(bytes)));
            let path = log.path();
            let mut tail = Tail::new(&path, None, true);
            assert_eq!(all(&mut tail), [long.as_str(), "short"]);
        }
    }
}
