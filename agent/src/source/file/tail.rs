//! Reads a log through its files: the one that has its name, and earlier ones where reading fell behind or
//! the agent was not there. What is found is given with the cursor after it; what can no longer be read is
//! named.

use std::fmt::{self, Display};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use headwater_proto::time::Millis;

use super::cut::{self, ENOUGH_BYTES, is_within_line};
use super::folder::{self, Listing, changed_us, id_of};
use super::print::{Prints, WINDOW_BYTES, print, window_before};
use super::rotation::{self, Entry, Id, Quiet, Unread, cursor, is_of, print_of};
use crate::pipeline::record::Cursor;

/// A piece of a file, with the bytes before it that its print covers.
const BUFFER_BYTES: usize = WINDOW_BYTES + ENOUGH_BYTES;

/// Between two looks so close to each other no log is rotated twice, and the first of its files removed.
const CLOSE_MS: u64 = 10_000;

/// While a log is absent, how often its folder is listed for the file of the place, milliseconds.
const LIST_MS: u64 = 5_000;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A line, or a part of one. Without a cursor, for a line that came late: the place that reading goes on
    /// from is in another file by then.
    Line(Vec<u8>, Option<Cursor>),
    /// Bytes that can no longer be read.
    Gone(Gone, Cursor),
}

/// Bytes of a file that can no longer be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone {
    /// The file, by the name that it has, or had.
    pub file: PathBuf,
    /// The first of them; of what came late, zero.
    pub from: u64,
    /// The first behind them. Without, nobody knows how many there were; and more may have come
    /// after the last look.
    pub to: Option<u64>,
    /// Why.
    pub why: Why,
}

/// Why bytes can no longer be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// They are nowhere.
    #[error("the file was removed, cut or written anew, and no earlier file beside it holds them")]
    Nowhere,
    /// The file was removed; others may have come and gone between it and the next.
    #[error(
        "the file was removed, and others may have come and gone before the next was looked for"
    )]
    Between,
    /// They are, or may be, in a compressed file.
    #[error("the file is compressed")]
    Compressed,
    /// The agent may not open their file.
    #[error("the agent may not open the file")]
    Denied,
    /// They are nowhere, and a file that may be a copy from before they came is read from its start.
    #[error(
        "the file was cut, and an earlier one is shorter than what was read of it: if that is its copy, its lines \
         come twice"
    )]
    Again,
    /// Nobody knows whether they came, and whether they were read.
    #[error("the file was written to after the next one was begun")]
    Late,
}

impl Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The file comes last: where there is no room for all of it, the bytes are still told.
        let (file, from) = (self.file.display(), self.from);
        match self.to {
            None if self.why == Why::Late => {
                write!(f, "what may have come late to {file}")
            }
            Some(to) => write!(f, "bytes {from} to {to} and what came after them of {file}"),
            None => write!(f, "from byte {from} on of {file}"),
        }
    }
}

/// How a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct How {
    /// Begin at the start of a file that is there when it is looked for first, not at its end.
    pub from_start: bool,
    /// How long a file that was renamed must not grow before the next one is begun, milliseconds.
    pub rotate_wait_ms: u64,
}

/// A place in a log.
#[derive(Debug)]
pub struct Tail<'a> {
    path: &'a Path,
    how: How,
    /// The place, once there is one.
    place: Option<Cursor>,
    open: Option<Open>,
    /// The place is still that of the start.
    is_start: bool,
    /// The file that was left last: its writer may not know yet that it was renamed.
    left: Option<Left>,
    /// The file of the place, by the name it had when it was opened.
    file: PathBuf,
    /// Its first bytes, up to as many as a print covers. Empty until they were read since the start.
    head: Vec<u8>,
    /// End of what was seen of that file. Behind the place lies a line that has no end yet.
    seen: u64,
    /// That file was cut, or written anew.
    replaced: Option<Id>,
    /// Since when it has not grown without the log's name.
    quiet: Quiet,
    /// When it was last seen to have that name, or waited for one that has content.
    named_at: Option<Millis>,
    /// When the folder was last listed without finding it, while the log was absent.
    absent_at: Option<Millis>,
    /// When it was first seen to have another.
    renamed_at: Option<Millis>,
    /// The empty file that has the log's name since: the renamed one is left once there is content.
    waits_for: Option<Id>,
    buffer: Vec<u8>,
    /// Where it began, without a place to resume from.
    began: Option<Cursor>,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: Id,
    /// It had the log's name when it was opened, to be read from its start.
    is_new_log: bool,
}

#[derive(Debug)]
struct Left {
    file: File,
    id: Id,
    offset: u64,
    within_line: bool,
}

impl<'a> Tail<'a> {
    /// At the place of `resume`, or where `how` says.
    #[must_use]
    pub fn new(path: &'a Path, resume: Option<Cursor>, how: How) -> Self {
        Self {
            path,
            how,
            place: resume,
            open: None,
            is_start: resume.is_some(),
            left: None,
            file: path.to_owned(),
            head: Vec::new(),
            seen: 0,
            replaced: None,
            quiet: Quiet::default(),
            named_at: None,
            absent_at: None,
            renamed_at: None,
            waits_for: None,
            buffer: vec![0; BUFFER_BYTES],
            began: None,
        }
    }

    /// Where it began, once it did, without a place to resume from: another life that begins there misses nothing
    /// that came since.
    #[must_use]
    pub const fn began(&self) -> Option<Cursor> {
        self.began
    }

    /// Reads what has come. Says whether there may be more at once.
    ///
    /// # Errors
    /// The disk's; [`ErrorKind::Interrupted`] while files are being renamed. The place is kept.
    pub fn read(&mut self, now: Millis, found: &mut Vec<Found>) -> io::Result<bool> {
        let more = self.read_left(found)?;
        if self.open.is_none() && !self.enter(now, found)? {
            return Ok(more);
        }
        let (Some(open), Some(place)) = (&self.open, self.place) else {
            return Ok(more);
        };
        let (id, before) = (open.id, window_before(place.minor));
        let begin = place.minor - before as u64;
        // Its print is looked at after this, and tells that the head is that of the same content.
        let far_head = if begin > 0 && self.head.is_empty() {
            folder::head(&open.file, WINDOW_BYTES)?
        } else {
            Vec::new()
        };
        let len = folder::read_at(&open.file, &mut self.buffer, begin)?;
        let (end, is_full) = (begin + len as u64, len == self.buffer.len());
        let is_cut = len < before || (end < self.seen && !is_full);
        if is_cut || print(&self.buffer[..before]) != print_of(place) {
            // What is there now was written anew. What was there may be in a copy.
            self.replaced = Some(id);
            self.open = None;
            return Ok(true);
        }
        if begin == 0 && self.head.len() < WINDOW_BYTES {
            self.head.clear();
            self.head.extend(&self.buffer[..len.min(WINDOW_BYTES)]);
        } else if self.head.is_empty() {
            self.head = far_head;
        }
        if len > 0 && self.is_behind_others()? {
            self.open = None;
            return Ok(true);
        }
        if end > self.seen {
            self.seen = end;
            self.quiet.end();
        }
        if self.take(before, len, false, found) || is_full {
            return Ok(true);
        }
        Ok(self.follow(now, found)? || more)
    }

    /// Whether files that are earlier than the open one came after those that were read. Nothing else tells that
    /// a log which was empty when it was opened grew since, and was copied away and cut to nothing.
    fn is_behind_others(&self) -> io::Result<bool> {
        let (Some(open), Some(place)) = (&self.open, self.place) else {
            return Ok(false);
        };
        if !open.is_new_log || self.seen > 0 {
            return Ok(false);
        }
        let earlier = folder::list(self.path)?.earlier;
        let before = earlier.iter().position(|entry| entry.id == open.id);
        let before = &earlier[..before.unwrap_or(earlier.len())];
        Ok(!self.unread(before, place).files.is_empty())
    }

    /// The earlier files that came after that of the place, if that is none of them.
    fn unread<'e>(&self, earlier: &'e [Entry], place: Cursor) -> Unread<'e> {
        let left = self.left.as_ref().map(|left| left.id);
        rotation::after(earlier, None, left, place.major)
    }

    /// Gives the lines between two places of the buffer; says whether there was one. The place is at `from`.
    fn take(&mut self, from: usize, to: usize, is_last: bool, found: &mut Vec<Found>) -> bool {
        let (Some(open), Some(mut place)) = (&self.open, self.place) else {
            return false;
        };
        let bytes = &self.buffer[..to];
        let mut prints = Prints::new(bytes, from);
        let mut at = from;
        loop {
            let before = at.checked_sub(1).map(|before| bytes[before]);
            let piece = cut::first(&bytes[at..], is_within_line(before), is_last);
            let Some(piece) = piece else { break };
            at += piece.len;
            let offset = place.minor + piece.len as u64;
            place = cursor(place.major, offset, prints.at(at), open.id);
            if !piece.line.is_empty() {
                found.push(Found::Line(piece.line, Some(place)));
            }
        }
        self.place = Some(place);
        at > from
    }

    /// Finds the place again; says whether a file is open.
    fn enter(&mut self, now: Millis, found: &mut Vec<Found>) -> io::Result<bool> {
        if !self.is_to_be_listed(now) {
            return Ok(false);
        }
        let listing = folder::list(self.path)?;
        let Some(place) = self.place else {
            return self.begin(&listing);
        };
        let Listing { live, earlier } = &listing;
        let mut denied = Vec::new();
        if place.minor > 0 {
            for entry in rotation::homes(live.as_ref(), earlier, place, self.replaced) {
                let file = match folder::open(entry) {
                    Err(error) if is_denied(entry, &error) => {
                        denied.push(entry.id);
                        continue;
                    }
                    other => other?,
                };
                if folder::holds(&file, place)? {
                    let place = self.after_late(entry, &file, earlier.last(), place, found)?;
                    self.go_to(entry, file, place);
                    return Ok(true);
                }
            }
        }
        let Some(live) = live else {
            // Its disk may not be there yet.
            return Ok(false);
        };
        let mut unread = self.unread(earlier, place);
        let mut gone = Vec::new();
        // Of a file of which nothing was read yet, nothing is missing that is not among the unread ones.
        if place.minor > 0 {
            gone.extend(self.missing(place, live, &denied, &mut unread)?);
        }
        self.go_on(&unread, live, gone, found)?;
        Ok(true)
    }

    /// Whether to list the folder: if the log is there, and now and then if it is not but was.
    fn is_to_be_listed(&mut self, now: Millis) -> bool {
        let is_absent =
            fs::metadata(self.path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
        if !is_absent {
            self.absent_at = None;
            return true;
        }
        if self.place.is_none() {
            // All of it is new when it comes.
            self.how.from_start = true;
            return self.began.is_none();
        }
        let is_due = self
            .absent_at
            .is_none_or(|listed_at| now.since(listed_at) >= LIST_MS);
        if is_due {
            self.absent_at = Some(now);
        }
        is_due
    }

    /// After a start at a place in the log itself: names what may have come to the newest of the earlier files after
    /// it was left. Returns the place behind that.
    fn after_late(
        &self,
        home: &Entry,
        file: &File,
        newest: Option<&Entry>,
        place: Cursor,
        found: &mut Vec<Found>,
    ) -> io::Result<Cursor> {
        let is_later = |newest: &&Entry| newest.len > 0 && newest.changed_us > place.major;
        // Who compresses one writes to it for a while.
        let newest = newest.filter(|newest| !newest.compressed).filter(is_later);
        let Some(newest) = newest.filter(|_| self.is_start && home.rank.is_none()) else {
            return Ok(place);
        };
        let head = match folder::open(newest) {
            Ok(newest) => folder::head(&newest, WINDOW_BYTES)?,
            // Nobody can tell whether that is a copy.
            Err(error) if is_denied(newest, &error) => return Ok(place),
            Err(error) => return Err(error),
        };
        if folder::head(file, head.len())? == head {
            // The log is being copied, to be cut then.
            return Ok(place);
        }
        let place = Cursor {
            major: newest.changed_us,
            ..place
        };
        let gone = Gone {
            file: newest.path.clone(),
            from: 0,
            to: None,
            why: Why::Late,
        };
        found.push(Found::Gone(gone, place));
        Ok(place)
    }

    /// What can no longer be read of the file of the place, which is nowhere as it was. If the first of the unread
    /// ones is that file, it is none of them any more.
    fn missing(
        &self,
        place: Cursor,
        live: &Entry,
        denied: &[Id],
        unread: &mut Unread<'_>,
    ) -> io::Result<Option<Gone>> {
        let gone = |file: &Path, why| Gone {
            file: file.to_owned(),
            from: place.minor,
            to: Some(self.seen).filter(|seen| why == Why::Nowhere && *seen > place.minor),
            why,
        };
        // The oldest that came after is the file itself, if it cannot be read.
        let Some(first) = unread.files.first().copied() else {
            return Ok(Some(gone(&self.file, Why::Nowhere)));
        };
        let missing = if first.compressed {
            Some(gone(&first.path, Why::Compressed))
        } else if denied.contains(&first.id) {
            Some(gone(&first.path, Why::Denied))
        } else if self.is_copy(first, place)? {
            // All of it was read, and only the beginning of a line may be missing.
            Some(gone(&self.file, Why::Nowhere)).filter(|gone| gone.to.is_some())
        } else {
            let is_short = (1..place.minor).contains(&first.len);
            let may_be_copy = self.head.is_empty() && is_short && is_of(place, live.id);
            let why = if may_be_copy {
                Why::Again
            } else {
                Why::Nowhere
            };
            return Ok(Some(gone(&self.file, why)));
        };
        unread.before_us = unread.before_us.max(first.changed_us);
        unread.files.remove(0);
        Ok(missing)
    }

    /// Whether the file is a copy of that of the place, from before its last lines came. Unknown after a restart.
    fn is_copy(&self, entry: &Entry, place: Cursor) -> io::Result<bool> {
        if self.head.is_empty() || !(1..place.minor).contains(&entry.len) {
            return Ok(false);
        }
        let len = usize::try_from(entry.len).unwrap_or(WINDOW_BYTES);
        let head = &self.head[..len.min(self.head.len())];
        Ok(folder::head(&folder::open(entry)?, head.len())? == head)
    }

    /// Begins to read the log.
    fn begin(&mut self, Listing { live, earlier }: &Listing) -> io::Result<bool> {
        let before = earlier.iter().map(|entry| entry.changed_us).max();
        let before = before.unwrap_or(0);
        let Some(live) = live else {
            self.how.from_start = true;
            let nowhere = Id {
                device: 0,
                inode: 0,
            };
            let began = cursor(before, 0, print(&[]), nowhere);
            self.began.get_or_insert(began);
            return Ok(false);
        };
        let file = folder::open(live)?;
        let end = file.metadata()?.len();
        let offset = if self.how.from_start { 0 } else { end };
        let Some(print) = folder::print_before(&file, offset)? else {
            return Err(ErrorKind::Interrupted.into());
        };
        let place = cursor(before, offset, print, live.id);
        self.began.get_or_insert(place);
        self.go_to(live, file, place);
        Ok(true)
    }

    /// Goes on with the first of the unread files that can be read, from its start; the log itself is the last.
    ///
    /// - `gone`: what can no longer be read of those before.
    fn go_on(
        &mut self,
        unread: &Unread<'_>,
        live: &Entry,
        mut gone: Vec<Gone>,
        found: &mut Vec<Found>,
    ) -> io::Result<()> {
        let known = self.place.map_or(0, |place| place.major);
        let mut major = unread.before_us.max(known.saturating_add(1));
        for entry in unread.files.iter().copied().chain([live]) {
            let why = if entry.compressed {
                Why::Compressed
            } else {
                match folder::open(entry) {
                    Ok(file) => {
                        let place = cursor(major, 0, print(&[]), entry.id);
                        found.extend(gone.into_iter().map(|gone| Found::Gone(gone, place)));
                        self.go_to(entry, file, place);
                        return Ok(());
                    }
                    Err(error) if is_denied(entry, &error) => Why::Denied,
                    Err(error) => return Err(error),
                }
            };
            major = major.saturating_add(1).max(entry.changed_us);
            gone.push(Gone {
                file: entry.path.clone(),
                from: 0,
                to: None,
                why,
            });
        }
        Ok(())
    }

    fn go_to(&mut self, entry: &Entry, file: File, place: Cursor) {
        self.file.clone_from(&entry.path);
        self.seen = place.minor;
        (self.is_start, self.absent_at) = (false, None);
        self.head.clear();
        self.replaced = None;
        self.place = Some(place);
        self.quiet = Quiet::default();
        (self.named_at, self.renamed_at, self.waits_for) = (None, None, None);
        self.open = Some(Open {
            file,
            id: entry.id,
            is_new_log: entry.rank.is_none() && place.minor == 0,
        });
    }

    /// At the end of the open file: goes on to the next once it was renamed and has not grown for a while.
    fn follow(&mut self, now: Millis, found: &mut Vec<Found>) -> io::Result<bool> {
        let Some(open) = &self.open else {
            return Ok(false);
        };
        let named = match fs::metadata(self.path) {
            Ok(named) => Some(named),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(named) = named.filter(|named| id_of(named) != open.id) else {
            // Its writer may have it open whatever its name is, as long as there is no other.
            self.quiet.end();
            self.named_at = Some(now);
            return Ok(false);
        };
        let renamed_at = *self.renamed_at.get_or_insert(now);
        if !self.quiet.lasts(self.how.rotate_wait_ms, now) {
            return Ok(self.how.rotate_wait_ms == 0);
        }
        let was_close = |named_at| renamed_at.since(named_at) < CLOSE_MS;
        let is_next = self.named_at.is_some_and(was_close);
        let is_awaited = named.len() == 0 && self.waits_for == Some(id_of(&named));
        if is_awaited && open.file.metadata()?.nlink() > 0 {
            if is_next {
                (self.named_at, self.renamed_at) = (Some(now), None);
            }
            return Ok(false);
        }
        self.leave(is_next, now, found)
    }

    /// Goes on to the file that comes after the open one, which has ended.
    ///
    /// - `is_next`: no other can have come and gone after it.
    fn leave(&mut self, is_next: bool, now: Millis, found: &mut Vec<Found>) -> io::Result<bool> {
        let Listing { live, earlier } = folder::list(self.path)?;
        let (Some(open), Some(place), Some(live)) = (&self.open, self.place, live) else {
            return Ok(false);
        };
        let metadata = open.file.metadata()?;
        if metadata.len() != self.seen {
            return Ok(true);
        }
        let mut unread = rotation::after(&earlier, Some(open.id), None, changed_us(&metadata));
        let is_known = is_next || unread.is_known;
        if open.is_new_log && self.seen == 0 {
            // What it held may have been copied away before it was renamed.
            let all = self.unread(&earlier, place);
            if all.files.first().is_some_and(|first| first.id != open.id) {
                unread = all;
            }
        }
        let mut next = unread.files.iter().copied().chain([&live]);
        if metadata.nlink() > 0 && next.all(|entry| entry.len == 0) {
            // Its writer may have it open still, and what comes in it must have a place.
            self.waits_for = Some(live.id);
            if is_known {
                (self.named_at, self.renamed_at) = (Some(now), None);
            }
            return Ok(false);
        }
        let between = Gone {
            file: self.file.clone(),
            from: self.seen,
            to: None,
            why: Why::Between,
        };
        let gone = (!is_known).then_some(between).into_iter().collect();
        // A line without its newline is one now. It is in the buffer: the last read found nothing behind it.
        let from = window_before(place.minor);
        let rest = usize::try_from(self.seen - place.minor).unwrap_or(usize::MAX);
        let to = from.saturating_add(rest).min(self.buffer.len());
        self.take(from, to, true, found);
        let (offset, last) = (self.seen, to.checked_sub(1).map(|at| self.buffer[at]));
        let left = self.open.take();
        if let Err(error) = self.go_on(&unread, &live, gone, found) {
            self.open = left;
            return Err(error);
        }
        self.end_left(found)?;
        self.left = left.map(|Open { file, id, .. }| Left {
            file,
            id,
            offset,
            within_line: is_within_line(last),
        });
        Ok(true)
    }

    /// Gives what still comes in the file that was left last; says whether there may be more.
    fn read_left(&mut self, found: &mut Vec<Found>) -> io::Result<bool> {
        let Some(left) = &mut self.left else {
            return Ok(false);
        };
        let len = folder::read_at(&left.file, &mut self.buffer, left.offset)?;
        let metadata = left.file.metadata()?;
        if left.take(&self.buffer[..len], false, found) {
            // It is not to be taken for a later file.
            if let Some(place) = &mut self.place {
                place.major = place.major.max(changed_us(&metadata));
            }
            return Ok(true);
        }
        if metadata.nlink() == 0 {
            // To hold it open would keep its disk space.
            self.end_left(found)?;
        }
        Ok(false)
    }

    /// Leaves that file for good, with a last line that has no newline.
    fn end_left(&mut self, found: &mut Vec<Found>) -> io::Result<()> {
        if let Some(mut left) = self.left.take() {
            let len = folder::read_at(&left.file, &mut self.buffer, left.offset)?;
            left.take(&self.buffer[..len], true, found);
        }
        Ok(())
    }
}

impl Left {
    /// Gives the lines of the bytes behind its place; says whether there was one.
    fn take(&mut self, bytes: &[u8], is_last: bool, found: &mut Vec<Found>) -> bool {
        let mut at = 0;
        while let Some(piece) = cut::first(&bytes[at..], self.within_line, is_last) {
            at += piece.len;
            self.within_line = is_within_line(Some(bytes[at - 1]));
            if !piece.line.is_empty() {
                found.push(Found::Line(piece.line, None));
            }
        }
        self.offset += at as u64;
        at > 0
    }
}

/// Whether the file is an earlier one that the agent may not open. The log itself must be readable, sooner
/// or later.
fn is_denied(entry: &Entry, error: &io::Error) -> bool {
    entry.rank.is_some() && error.kind() == ErrorKind::PermissionDenied
}
