//! The folder of a log file: what lies in it now, and what its files hold.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::print::{print, window_before};
use super::rotation::{self, Entry, Id, MAX_EARLIER, Rank};
use crate::pipeline::record::Cursor;

/// Looks at a folder that keeps changing; then later again.
const LOOKS: usize = 4;

/// A log file and its earlier ones, as they lay at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct Listing {
    /// The one that has the log's name, if there is one now.
    pub live: Option<Entry>,
    /// The earlier ones in their order.
    pub earlier: Vec<Entry>,
}

/// Lists a log.
///
/// # Errors
/// The disk's; [`ErrorKind::Interrupted`] while files are being renamed.
pub fn list(path: &Path) -> io::Result<Listing> {
    // A folder is read entry by entry, and a file that is renamed meanwhile may be missed: what two looks in
    // turn agree on was there.
    let mut before = look(path)?;
    for _ in 1..LOOKS {
        let now = look(path)?;
        let is_same = names(&now) == names(&before);
        before = now;
        if is_same {
            return Ok(before);
        }
    }
    Err(ErrorKind::Interrupted.into())
}

fn names(listing: &Listing) -> Vec<(&Path, Id)> {
    let mut all: Vec<_> = listing
        .live
        .iter()
        .chain(&listing.earlier)
        .map(|entry| (&*entry.path, entry.id))
        .collect();
    all.sort_unstable();
    all
}

fn look(path: &Path) -> io::Result<Listing> {
    // Behind a link, as those of container logs, the earlier files lie beside its target.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let live = entry(path.to_owned(), None)?;
    let mut earlier = Vec::new();
    let folder = match target.parent() {
        Some(folder) if folder != Path::new("") => folder,
        Some(_) | None => Path::new("."),
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        // Its files may be opened by name alone.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied
            ) =>
        {
            None
        }
        Err(error) => return Err(error),
    };
    let log = target.file_name().and_then(|name| name.to_str());
    for found in entries.into_iter().flatten() {
        let name = found?.file_name();
        let known = log.zip(name.to_str());
        let Some(rank) = known.and_then(|(log, name)| rotation::earlier(log, name)) else {
            continue;
        };
        let found = entry(folder.join(&name), Some(rank))?;
        let is_live = |found: &Entry| live.as_ref().is_some_and(|live| live.id == found.id);
        earlier.extend(found.filter(|found| !is_live(found)));
        if earlier.len() >= 2 * MAX_EARLIER {
            keep_latest(&mut earlier);
        }
    }
    keep_latest(&mut earlier);
    rotation::sort(&mut earlier);
    Ok(Listing { live, earlier })
}

fn keep_latest(earlier: &mut Vec<Entry>) {
    earlier.sort_by_key(|entry| std::cmp::Reverse(entry.changed_us));
    earlier.truncate(MAX_EARLIER);
}

/// The file of that name, if there is one; folders and devices are none.
fn entry(path: PathBuf, rank: Option<(Rank, bool)>) -> io::Result<Option<Entry>> {
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (rank, compressed) =
        rank.map_or((None, false), |(rank, compressed)| (Some(rank), compressed));
    let is_file = rank.is_none() || metadata.is_file();
    Ok(is_file.then(|| Entry {
        path,
        id: id_of(&metadata),
        changed_us: changed_us(&metadata),
        len: metadata.len(),
        rank,
        compressed,
    }))
}

/// Which file that is.
#[must_use]
pub fn id_of(metadata: &Metadata) -> Id {
    Id {
        device: metadata.dev(),
        inode: metadata.ino(),
    }
}

/// When it was last written to, microseconds since the Unix epoch.
#[must_use]
pub fn changed_us(metadata: &Metadata) -> u64 {
    let seconds = metadata.mtime().saturating_mul(1_000_000);
    let us = seconds.saturating_add(metadata.mtime_nsec() / 1_000);
    u64::try_from(us).unwrap_or(0)
}

/// Opens the file that was listed.
///
/// # Errors
/// The disk's; [`ErrorKind::Interrupted`] if its name was given to another since, or to none.
pub fn open(entry: &Entry) -> io::Result<File> {
    let file = match File::open(&entry.path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ErrorKind::Interrupted.into());
        }
        other => other?,
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if id_of(&metadata) == entry.id {
        Ok(file)
    } else {
        Err(ErrorKind::Interrupted.into())
    }
}

/// Whether the bytes before a place are those that stood there when it was read.
///
/// # Errors
/// The disk's.
pub fn holds(file: &File, place: Cursor) -> io::Result<bool> {
    let print = print_before(file, place.minor)?;
    Ok(print == Some(rotation::print_of(place)))
}

/// The print of a place, if the file is so long.
///
/// # Errors
/// The disk's.
pub fn print_before(file: &File, offset: u64) -> io::Result<Option<u32>> {
    let before = window_before(offset);
    let mut window = vec![0; before];
    let len = read_at(file, &mut window, offset - before as u64)?;
    Ok((len == before).then(|| print(&window)))
}

/// The first bytes of a file, up to so many.
///
/// # Errors
/// The disk's.
pub fn head(file: &File, len: usize) -> io::Result<Vec<u8>> {
    let mut head = vec![0; len];
    let len = read_at(file, &mut head, 0)?;
    head.truncate(len);
    Ok(head)
}

/// Reads until the buffer is full or the file ends; returns the bytes read.
///
/// # Errors
/// The disk's.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], offset + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_latest_earlier_files_are_listed_up_to_their_bound() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let most = 3 * MAX_EARLIER as u64;
        for age in 0..most {
            let file = File::create(folder.path().join(format!("log.{age}"))).unwrap();
            let changed = UNIX_EPOCH + Duration::from_secs(most - age);
            file.set_modified(changed).unwrap();
        }
        fs::create_dir(folder.path().join("log.old")).unwrap();
        let listing = list(&log).unwrap();
        assert_eq!(listing.live, None);
        let ages: Vec<_> = listing
            .earlier
            .iter()
            .map(|entry| entry.rank.clone())
            .collect();
        let latest = (0..MAX_EARLIER as u64).rev();
        assert_eq!(
            ages,
            latest.map(|age| Some(Rank::Age(age))).collect::<Vec<_>>()
        );
        assert_eq!(listing.earlier[0].changed_us, (most - 255) * 1_000_000);
    }

    #[test]
    fn a_file_whose_name_was_given_away_since_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "one\n").unwrap();
        let live = list(&log).unwrap().live.unwrap();
        assert!(open(&live).is_ok());
        fs::rename(&log, folder.path().join("log.1")).unwrap();
        let kind = |live| open(live).unwrap_err().kind();
        assert_eq!(kind(&live), ErrorKind::Interrupted);
        fs::write(&log, "two\n").unwrap();
        assert_eq!(kind(&live), ErrorKind::Interrupted);
    }
}
