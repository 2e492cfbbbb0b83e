//! Keyed state on sled: an index over the journal, never the authority for anything.
//!
//! sled 0.34 promises less than it seems: `flush` does not reach the drive, its configuration file
//! and large values are never synced, and on a full disk its calls hang. This wrapper adds what
//! is missing and is the only place that names sled:
//!
//! - after creation every file and folder is synced once;
//! - [`State::sync`] follows each flush with an fdatasync of sled's file through a handle of ours;
//! - values above [`MAX_VALUE_BYTES`] are refused, so that none becomes an unsynced blob file;
//! - a database that is damaged is moved aside and started anew: its readers fill it again from
//!   journal and lake. One that somebody has open, or that the system does not let us read, is an
//!   error and stays where it is;
//! - a ballast file lies beside it: removed before opening on a full disk, so that opening does
//!   not hang, and writes stop at a quota long before that.
//!
//! One instance per folder, which a lock beside the database ensures; all writes of one come from one
//! thread.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Largest value: far below a quarter of a segment, above which sled writes blob files unsynced.
pub const MAX_VALUE_BYTES: usize = 3584;
/// Space that a full disk can give back before sled is opened.
const BALLAST_BYTES: u64 = 4 << 20;
/// The database's folder, the ballast and the lock within the state folder.
const DB: &str = "sled";
const BALLAST: &str = "ballast";
const LOCK: &str = "lock";

/// What can go wrong with keyed state. None of it concerns data in custody.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder cannot be used.
    #[error("cannot {action} {}", path.display())]
    Disk {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another sink or another process has the folder open.
    #[error(
        "the state folder {} is in use by another sink or another process: give each a folder of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// sled refused.
    #[error("the state database failed")]
    Database(#[source] sled::Error),
    /// sled panicked while it opened its files.
    #[error("the state database cannot read its files")]
    Unreadable,
    /// A value above [`MAX_VALUE_BYTES`].
    #[error("a value of {0} bytes is more than the {MAX_VALUE_BYTES} that can be stored safely")]
    TooLarge(usize),
    /// The database has reached its quota.
    #[error("the state database uses {used} bytes of its quota of {quota}")]
    Full {
        /// Bytes on disk.
        used: u64,
        /// Bytes allowed.
        quota: u64,
    },
}

/// How [`State::open`] found its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// As it was left.
    Kept,
    /// Empty: its readers must fill it.
    New,
    /// Unreadable, and moved aside: its readers must fill it.
    Replaced {
        /// Where the old files are.
        moved_to: PathBuf,
    },
}

/// The open database.
#[derive(Debug)]
pub struct State {
    db: sled::Db,
    /// sled's own file, opened once more, to sync it.
    file: File,
    folder: PathBuf,
    quota_bytes: u64,
    /// Held until the database is closed; sled's own lock is told apart from damage by nothing but text.
    _lock: File,
}

/// A named map of byte strings, sorted by key.
#[derive(Debug, Clone)]
pub struct Map(sled::Tree);

impl State {
    /// Opens the database in `folder`, with about `cache_bytes` of cache.
    ///
    /// # Errors
    /// When the folder cannot be read and written or is in use, or a fresh database cannot be made in it.
    pub fn open(
        folder: &Path,
        cache_bytes: u64,
        quota_bytes: u64,
    ) -> Result<(Self, Found), StateError> {
        fs::create_dir_all(folder).map_err(disk("create", folder))?;
        let lock = hold(folder)?;
        let path = folder.join(DB);
        let fresh = !path.exists();
        let ballast = folder.join(BALLAST);
        // On a full disk an open would hang; what the ballast frees is enough for it.
        if ballast.exists() && !lay_ballast(&ballast) {
            fs::remove_file(&ballast).map_err(disk("remove", &ballast))?;
        }
        let (db, found) = match open_sled(&path, cache_bytes) {
            Ok(db) => (db, if fresh { Found::New } else { Found::Kept }),
            Err(error) if !is_damage(&error) => return Err(error),
            Err(_) => {
                let moved_to = free_name(folder);
                fs::rename(&path, &moved_to).map_err(disk("move aside", &path))?;
                (open_sled(&path, cache_bytes)?, Found::Replaced { moved_to })
            }
        };
        sync_all_files(&path)?;
        sync(folder)?;
        lay_ballast(&ballast);
        let file = path.join("db");
        let file = File::open(&file).map_err(disk("open", &file))?;
        Ok((
            Self {
                db,
                file,
                folder: path,
                quota_bytes,
                _lock: lock,
            },
            found,
        ))
    }

    /// The map called `name`; made if it is new.
    ///
    /// # Errors
    /// When sled refuses.
    pub fn map(&self, name: &str) -> Result<Map, StateError> {
        self.db
            .open_tree(name)
            .map(Map)
            .map_err(StateError::Database)
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When sled or the drive refuses.
    pub fn sync(&self) -> Result<(), StateError> {
        self.db.flush().map_err(StateError::Database)?;
        self.file.sync_data().map_err(disk("sync", &self.folder))
    }

    /// Whether there is room to write.
    ///
    /// # Errors
    /// [`StateError::Full`] from the quota on; removing still works then.
    pub fn room(&self) -> Result<(), StateError> {
        let used = self.used_bytes()?;
        if used >= self.quota_bytes {
            return Err(StateError::Full {
                used,
                quota: self.quota_bytes,
            });
        }
        Ok(())
    }

    /// Whether the file system has room for sled to go on: on a full one its calls hang.
    #[must_use]
    pub fn has_space(&self) -> bool {
        free_bytes(&self.folder) >= 4 * BALLAST_BYTES
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// When sled refuses.
    pub fn used_bytes(&self) -> Result<u64, StateError> {
        self.db.size_on_disk().map_err(StateError::Database)
    }

    /// Whether sled has written blob files after all: they are never synced.
    #[must_use]
    pub fn has_blobs(&self) -> bool {
        fs::read_dir(self.folder.join("blobs")).is_ok_and(|mut files| files.next().is_some())
    }
}

impl Map {
    /// Sets `key` to `value`; says whether it had one.
    ///
    /// # Errors
    /// [`StateError::TooLarge`], or when sled refuses.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, StateError> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(StateError::TooLarge(value.len()));
        }
        self.0
            .insert(key, value)
            .map(|old| old.is_some())
            .map_err(StateError::Database)
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// When sled refuses.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self
            .0
            .get(key)
            .map_err(StateError::Database)?
            .map(|value| value.to_vec()))
    }

    /// Forgets `key`.
    ///
    /// # Errors
    /// When sled refuses.
    pub fn remove(&self, key: &[u8]) -> Result<(), StateError> {
        self.0.remove(key).map(drop).map_err(StateError::Database)
    }

    /// Forgets every key.
    ///
    /// # Errors
    /// When sled refuses.
    pub fn clear(&self) -> Result<(), StateError> {
        self.0.clear().map_err(StateError::Database)
    }

    /// Pairs whose key lies in `from..to`, in order.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StateError>> + use<> {
        self.0.range(from.to_vec()..to.to_vec()).map(|pair| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .map_err(StateError::Database)
        })
    }

    /// Pairs whose key begins with `prefix`, in order.
    pub fn prefix(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), StateError>> + use<> {
        self.0.scan_prefix(prefix).map(|pair| {
            pair.map(|(key, value)| (key.to_vec(), value.to_vec()))
                .map_err(StateError::Database)
        })
    }

    /// How many pairs there are; walks all of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// sled may panic on damaged files instead of saying so.
fn open_sled(path: &Path, cache_bytes: u64) -> Result<sled::Db, StateError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(cache_bytes)
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None)
        .use_compression(false);
    catch_unwind(AssertUnwindSafe(|| config.open()))
        .map_err(|_| StateError::Unreadable)?
        .map_err(StateError::Database)
}

/// The lock of a state folder, held until the file is closed.
fn hold(folder: &Path) -> Result<File, StateError> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(disk("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StateError::InUse(folder.to_path_buf())),
        Err(error) => Err(disk("lock", &path)(error.into())),
    }
}

/// Whether a failed open says that the files are damaged or of another format. Any other error of the
/// system, such as a missing permission or a lock that is held, says nothing about them.
fn is_damage(error: &StateError) -> bool {
    match error {
        StateError::Unreadable => true,
        // A file that is too short.
        StateError::Database(sled::Error::Io(error)) => {
            error.kind() == io::ErrorKind::UnexpectedEof
        }
        StateError::Database(_) => true,
        StateError::Disk { .. }
        | StateError::InUse(_)
        | StateError::TooLarge(_)
        | StateError::Full { .. } => false,
    }
}

/// Makes the ballast whole; `false` when the disk has no room for it.
fn lay_ballast(path: &Path) -> bool {
    let whole = fs::metadata(path).is_ok_and(|meta| meta.len() == BALLAST_BYTES);
    let free = free_bytes(path.parent().unwrap_or(path));
    if whole {
        return free >= BALLAST_BYTES;
    }
    free >= 4 * BALLAST_BYTES && fs::write(path, vec![0x5a; 4 << 20]).is_ok()
}

/// A file system that does not tell counts as roomy.
fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))
}

/// A name in `folder` that is free: `sled.unreadable-0`, `-1` and so on.
fn free_name(folder: &Path) -> PathBuf {
    (0u32..)
        .map(|n| folder.join(format!("{DB}.unreadable-{n}")))
        .find(|path| !path.exists())
        .expect("a folder has fewer than 2^32 files")
}

fn sync_all_files(folder: &Path) -> Result<(), StateError> {
    for entry in fs::read_dir(folder).map_err(disk("list", folder))? {
        let path = entry.map_err(disk("list", folder))?.path();
        if path.is_dir() {
            sync_all_files(&path)?;
        } else {
            sync(&path)?;
        }
    }
    sync(folder)
}

fn sync(path: &Path) -> Result<(), StateError> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(disk("sync", path))
}

fn disk(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_path_buf();
    move |source| StateError::Disk {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: u64 = 1 << 20;
    const QUOTA: u64 = 64 << 20;

    #[test]
    fn what_was_synced_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (state, found) = State::open(folder.path(), CACHE, QUOTA).unwrap();
            assert_eq!(found, Found::New);
            state.map("m").unwrap().put(b"key", b"value").unwrap();
            state.sync().unwrap();
        }
        let (state, found) = reopen(folder.path());
        assert_eq!(found, Found::Kept);
        assert_eq!(
            state.map("m").unwrap().get(b"key").unwrap().unwrap(),
            b"value"
        );
    }

    #[test]
    fn a_value_that_could_become_a_blob_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(folder.path(), CACHE, QUOTA).unwrap();
        let map = state.map("m").unwrap();
        map.put(b"k", &[1; MAX_VALUE_BYTES]).unwrap();
        let error = map.put(b"k", &[1; MAX_VALUE_BYTES + 1]).unwrap_err();
        assert!(matches!(error, StateError::TooLarge(_)), "{error}");
        for key in 0..2000u32 {
            map.put(&key.to_be_bytes(), &[7; MAX_VALUE_BYTES]).unwrap();
        }
        state.sync().unwrap();
        assert!(!state.has_blobs());
    }

    #[test]
    fn damaged_files_are_moved_aside_and_a_new_database_begins() {
        let folder = tempfile::tempdir().unwrap();
        {
            let (state, _) = State::open(folder.path(), CACHE, QUOTA).unwrap();
            state.map("m").unwrap().put(b"key", b"value").unwrap();
            state.sync().unwrap();
        }
        fs::write(folder.path().join(DB).join("conf"), b"not a configuration").unwrap();
        let (state, found) = reopen(folder.path());
        let Found::Replaced { moved_to } = found else {
            panic!("{found:?}")
        };
        assert!(moved_to.join("db").exists());
        let map = state.map("m").unwrap();
        assert_eq!(map.get(b"key").unwrap(), None);
        map.put(b"key", b"again").unwrap();
        state.sync().unwrap();
    }

    /// Files that were moved aside.
    fn aside(folder: &Path) -> usize {
        let files = fs::read_dir(folder).unwrap();
        let names = files.map(|file| file.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().contains("unreadable"))
            .count()
    }

    #[test]
    fn a_database_that_is_open_is_an_error_and_stays_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(folder.path(), CACHE, QUOTA).unwrap();
        state.map("m").unwrap().put(b"key", b"value").unwrap();
        state.sync().unwrap();
        // The same folder under another spelling.
        let error = State::open(&folder.path().join("."), CACHE, QUOTA).unwrap_err();
        assert!(matches!(error, StateError::InUse(_)), "{error}");
        // A build that knows no lock of ours has sled's.
        fs::remove_file(folder.path().join(LOCK)).unwrap();
        let error = State::open(folder.path(), CACHE, QUOTA).unwrap_err();
        assert!(matches!(error, StateError::Database(_)), "{error}");
        assert_eq!(aside(folder.path()), 0);
        drop(state);
        let (state, found) = reopen(folder.path());
        assert_eq!(found, Found::Kept);
        assert!(state.map("m").unwrap().get(b"key").unwrap().is_some());
    }

    #[test]
    fn a_file_that_the_system_does_not_open_is_an_error_and_stays_in_place() {
        let folder = tempfile::tempdir().unwrap();
        // For root no permission is missing, but a folder is no file for it either.
        fs::create_dir_all(folder.path().join(DB).join("db")).unwrap();
        let error = State::open(folder.path(), CACHE, QUOTA).unwrap_err();
        assert!(matches!(error, StateError::Database(_)), "{error}");
        assert_eq!(aside(folder.path()), 0);
    }

    #[test]
    fn a_file_that_was_cut_is_damage() {
        let whole = tempfile::tempdir().unwrap();
        {
            let (state, _) = State::open(whole.path(), CACHE, QUOTA).unwrap();
            let map = state.map("m").unwrap();
            for key in 0..500u32 {
                map.put(&key.to_be_bytes(), &[7; MAX_VALUE_BYTES]).unwrap();
            }
            state.sync().unwrap();
        }
        drop(reopen(whole.path()));
        let whole = whole.path().join(DB);
        let bytes = fs::read(whole.join("db")).unwrap();
        let mut replaced = 0;
        for part in 0..16 {
            let folder = tempfile::tempdir().unwrap();
            let cut = folder.path().join(DB);
            fs::create_dir(&cut).unwrap();
            for file in fs::read_dir(&whole).unwrap().map(Result::unwrap) {
                if file.file_type().unwrap().is_file() {
                    fs::copy(file.path(), cut.join(file.file_name())).unwrap();
                }
            }
            fs::write(cut.join("db"), &bytes[..bytes.len() * part / 16 + part]).unwrap();
            let (_, found) = State::open(folder.path(), CACHE, QUOTA).unwrap();
            replaced += u32::from(matches!(found, Found::Replaced { .. }));
        }
        assert!(replaced > 0);
    }

    #[test]
    fn the_quota_stops_writes_and_names_both_sides() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(folder.path(), CACHE, 1).unwrap();
        state.map("m").unwrap().put(b"key", &[1; 1000]).unwrap();
        state.sync().unwrap();
        let text = state.room().unwrap_err().to_string();
        assert!(text.contains("quota of 1"), "{text}");
    }

    #[test]
    fn ranges_and_prefixes_come_in_key_order() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _) = State::open(folder.path(), CACHE, QUOTA).unwrap();
        let map = state.map("m").unwrap();
        for key in [b"b2", b"a1", b"b1", b"c1"] {
            map.put(key, key).unwrap();
        }
        let keys = map.prefix(b"b").map(|pair| pair.unwrap().0);
        assert_eq!(keys.collect::<Vec<_>>(), [b"b1", b"b2"]);
        let keys = map.range(b"a1", b"b2").map(|pair| pair.unwrap().0);
        assert_eq!(keys.collect::<Vec<_>>(), [b"a1", b"b1"]);
    }

    /// sled gives its lock back a little after it was dropped.
    fn reopen(folder: &Path) -> (State, Found) {
        let lock = folder.join(DB).join("db");
        for _ in 0..1000 {
            let file = File::open(&lock).unwrap();
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                break;
            }
            std::thread::yield_now();
        }
        State::open(folder, CACHE, QUOTA).unwrap()
    }
}
