//! A lake in a folder.
//!
//! An object is written to a temporary file beside the stage, synced, and given its name by
//! `link(2)`, which refuses to replace; where the file system has no links, by
//! `renameat2(RENAME_NOREPLACE)`. Then the folder is synced. Replacing an object only if it is the
//! expected one is the subject of `swap.rs`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::{Aside, Entry, Put, ReadAt, Store, StoreError, Swap, Tag, Tagged, check, swap, tag_of};

/// Folder of files that have no name in the lake yet. Whoever writes one holds its lock, so that
/// [`Store::tidy`] can tell what a process left that is gone.
const TMP_DIR: &str = "_headwater/tmp";

/// Objects as files below one folder.
#[derive(Debug)]
pub struct LocalStore {
    root: PathBuf,
    /// The folder that was opened.
    opened: Mutex<Opened>,
}

/// What tells the folder that was opened from another one in its place.
#[derive(Debug)]
struct Opened {
    /// Its device and inode.
    id: (u64, u64),
    /// The objects that this store replaced there last.
    swapped: BTreeMap<String, Tag>,
}

/// Number of the next temporary file of this process, whatever store writes it.
static NEXT_TMP: AtomicU64 = AtomicU64::new(0);

impl LocalStore {
    /// A store in `root`, which is created if need be.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be made.
    pub fn new(root: &Path) -> Result<Self, StoreError> {
        let id = make_dirs(root).and_then(|()| id_of(root));
        let opened = Opened {
            id: id.map_err(io_error("create", &root.display().to_string()))?,
            swapped: BTreeMap::new(),
        };
        Ok(Self {
            root: root.to_owned(),
            opened: Mutex::new(opened),
        })
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn full(&self, path: &str) -> Result<PathBuf, StoreError> {
        check(path)?;
        self.still_there()?;
        Ok(self.root.join(path))
    }

    /// Makes sure that the folder is the one that was opened: where a disk was mounted, its mount point is a folder
    /// too, and whatever is written there is in no lake. After a disk is mounted again, which may give it another
    /// number, it is told by what this store wrote there last.
    fn still_there(&self) -> Result<(), StoreError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = |source| StoreError::Io {
            action: "find the lake in",
            path: self.root.display().to_string(),
            source,
        };
        let id = id_of(&self.root).map_err(elsewhere)?;
        if id == opened.id {
            return Ok(());
        }
        let has = |(path, tag): (&String, &Tag)| {
            fs::read(self.root.join(path)).is_ok_and(|bytes| tag_of(&bytes) == *tag)
        };
        if opened.swapped.is_empty() || !opened.swapped.iter().all(has) {
            let why = "another folder is in its place; is its disk mounted?";
            return Err(elsewhere(io::Error::other(why)));
        }
        opened.id = id;
        Ok(())
    }

    /// Writes and syncs a file that bears no name of the lake yet. The file is created new: two
    /// writers on one lake never share one, though they bear one process id in two containers.
    fn write_tmp(&self, bytes: &[u8]) -> io::Result<Tmp> {
        let dir = self.root.join(TMP_DIR);
        make_dirs(&dir)?;
        loop {
            let number = NEXT_TMP.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{}-{number}", std::process::id()));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(mut file) => {
                    // Before it is locked it looks abandoned, and may just have been removed.
                    let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
                    if !locked || file.metadata()?.nlink() == 0 {
                        continue;
                    }
                    file.write_all(bytes)?;
                    file.sync_data()?;
                    return Ok(Tmp { path, _lock: file });
                }
            }
        }
    }
}

/// A finished file under no name of the lake, removed when this goes.
struct Tmp {
    path: PathBuf,
    _lock: File,
}

impl Drop for Tmp {
    fn drop(&mut self) {
        // It stays only if nobody can remove it; then it is garbage in the folder of garbage.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store for LocalStore {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        let target = self.full(path)?;
        let tmp = self.write_tmp(bytes).map_err(io_error("write", path))?;
        link_new(&tmp.path, &target).map_err(io_error("create", path))
    }

    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError> {
        let target = self.full(path)?;
        let tmp = self.write_tmp(bytes).map_err(io_error("write", path))?;
        let lock = self.root.join(swap::LOCK);
        let swapped = make_parent(&lock)
            .and_then(|()| make_parent(&target))
            .and_then(|()| swap::replace_if(&lock, &target, expected, &tmp.path))
            .and_then(|done| sync_parent(&target).map(|()| done));
        Ok(if swapped.map_err(io_error("replace", path))? {
            let tag = tag_of(bytes);
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            opened.swapped.insert(path.to_owned(), tag.clone());
            Swap::Done(tag)
        } else {
            Swap::Changed
        })
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.full(path)?;
        let tmp = self.write_tmp(bytes).map_err(io_error("write", path))?;
        let put = make_parent(&target)
            .and_then(|()| fs::rename(&tmp.path, &target))
            .and_then(|()| sync_parent(&target));
        put.map_err(io_error("replace", path))
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        fs::read(self.full(path)?)
            .map(Bytes::from)
            .map_err(io_error("read", path))
    }

    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError> {
        match fs::read(self.full(path)?) {
            Ok(bytes) => Ok(Some(Tagged {
                tag: tag_of(&bytes),
                bytes: bytes.into(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("read", path)(error)),
        }
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        let open = || {
            let file = File::open(self.root.join(path))?;
            let bytes = file.metadata()?.len();
            Ok(OpenFile { file, bytes })
        };
        self.full(path)?;
        open()
            .map(|f| Arc::new(f) as Arc<dyn ReadAt>)
            .map_err(io_error("open", path))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        match fs::metadata(self.full(path)?) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("look at", path)(error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.list_some(prefix, usize::MAX)
    }

    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        let dir = if prefix.is_empty() {
            self.still_there()?;
            self.root.clone()
        } else {
            self.full(prefix)?
        };
        let mut found = Vec::new();
        walk(&dir, prefix, most, &mut found).map_err(io_error("list", prefix))?;
        found.sort_by(|a: &Entry, b| a.path.cmp(&b.path));
        Ok(found)
    }

    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError> {
        let (from, target) = (self.full(path)?, self.full(to)?);
        let linked = link_new(&from, &target).map_err(io_error("set aside", path))?;
        if linked == Put::Exists {
            return Ok(Aside::Taken);
        }
        // Without links it was moved, and is gone here.
        self.delete(path)?;
        sync_parent(&from).map_err(io_error("set aside", path))?;
        Ok(Aside::Moved)
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.full(path)?) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("delete", path)(error)),
        }
    }

    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let target = self.full(path)?;
        make_parent(&target)
            .and_then(|()| fs::write(&target, bytes))
            .map_err(io_error("stage", path))
    }

    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        for path in paths {
            let target = self.full(path)?;
            File::open(&target)
                .and_then(|f| f.sync_data())
                .map_err(io_error("sync", path))?;
        }
        let mut parents: Vec<&str> = paths
            .iter()
            .filter_map(|p| p.rsplit_once('/'))
            .map(|(dir, _)| dir)
            .collect();
        parents.sort_unstable();
        parents.dedup();
        for parent in parents {
            sync_dir(&self.root.join(parent)).map_err(io_error("sync", parent))?;
        }
        Ok(())
    }

    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let found = self.list(prefix)?;
        Ok(found.into_iter().map(|entry| entry.path).collect())
    }

    fn unstage(&self, path: &str) -> Result<(), StoreError> {
        self.delete(path)
    }

    fn tidy(&self) -> Result<(), StoreError> {
        for entry in self.list(TMP_DIR)? {
            let Ok(file) = File::open(self.full(&entry.path)?) else {
                continue;
            };
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.delete(&entry.path)?;
            }
        }
        Ok(())
    }

    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        let (from, target) = (self.full(from)?, self.full(to)?);
        link_new(&from, &target).map_err(io_error("publish", to))
    }
}

struct OpenFile {
    file: File,
    bytes: u64,
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes.into())
    }
}

fn id_of(folder: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(folder)?;
    Ok((found.dev(), found.ino()))
}

fn io_error<'a>(action: &'static str, path: &'a str) -> impl Fn(io::Error) -> StoreError + 'a {
    move |source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            StoreError::Missing { path }
        } else {
            StoreError::Io {
                action,
                path,
                source,
            }
        }
    }
}

/// Names the finished file `from` also `to`, unless that exists.
fn link_new(from: &Path, to: &Path) -> io::Result<Put> {
    make_parent(to)?;
    let linked = match fs::hard_link(from, to) {
        Err(error) if no_links(&error) => {
            // exFAT and some network file systems have no links. The staged name goes away then,
            // which is why publishing is repeated only where `to` is missing.
            renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(io::Error::from)
        }
        result => result,
    };
    match linked {
        Ok(()) => sync_parent(to).map(|()| Put::Created),
        // The winner may not have synced the folder yet; what is reported to exist must last.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            sync_parent(to).map(|()| Put::Exists)
        }
        Err(error) => Err(error),
    }
}

fn no_links(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [
        Errno::PERM,
        Errno::OPNOTSUPP,
        Errno::MLINK,
        Errno::NOSYS,
        Errno::XDEV,
    ]
    .iter()
    .any(|errno| code == Some(errno.raw_os_error()))
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), make_dirs)
}

/// Creates a folder and those above it, each synced into the one above.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        make_dirs(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => sync_parent(dir),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
        Some(_) => sync_dir(Path::new(".")),
        None => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn walk(dir: &Path, prefix: &str, most: usize, found: &mut Vec<Entry>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        if found.len() >= most {
            break;
        }
        let entry = entry?;
        // A name that is not UTF-8 is not ours.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let meta = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if meta.is_dir() {
            walk(&entry.path(), &path, most, found)?;
        } else {
            found.push(Entry {
                path,
                bytes: meta.len(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_eight_racing_writers_one_creates_the_object() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        let created = std::thread::scope(|scope| {
            let race = |n: u8| {
                let store = &store;
                scope.spawn(move || store.put_if_absent("a/b/object", &[n; 9]).unwrap())
            };
            let racers: Vec<_> = (0..8).map(race).collect();
            racers
                .into_iter()
                .filter(|_| true)
                .map(|r| r.join().unwrap())
                .collect::<Vec<_>>()
        });
        assert_eq!(
            created.iter().filter(|put| **put == Put::Created).count(),
            1
        );
        let bytes = store.get("a/b/object").unwrap();
        assert!(
            bytes.len() == 9 && bytes.iter().all(|b| *b == bytes[0]),
            "{bytes:?}"
        );
        assert_eq!(store.list(TMP_DIR).unwrap(), [], "temporary files are gone");
    }

    #[test]
    fn publishing_links_the_staged_file_once_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        store.stage("_headwater/stage/x", b"one").unwrap();
        store.sync_stage(&["_headwater/stage/x"]).unwrap();
        assert_eq!(
            store.publish("_headwater/stage/x", "t/x").unwrap(),
            Put::Created
        );
        assert_eq!(
            store.publish("_headwater/stage/x", "t/x").unwrap(),
            Put::Exists
        );
        store.delete("_headwater/stage/x").unwrap();
        assert_eq!(&store.get("t/x").unwrap()[..], b"one");
        assert_eq!(
            &store.open("t/x").unwrap().read_at(1, 2).unwrap()[..],
            b"ne"
        );
    }

    #[test]
    fn tidying_takes_what_a_dead_process_left_and_nothing_that_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        let in_use = store.write_tmp(b"new").unwrap();
        fs::write(dir.path().join(TMP_DIR).join("1-0"), b"left").unwrap();
        store.tidy().unwrap();
        assert_eq!(store.list(TMP_DIR).unwrap().len(), 1);
        assert!(in_use.path.exists());
        drop(in_use);
        assert_eq!(store.list(TMP_DIR).unwrap(), []);
    }

    #[test]
    fn what_is_set_aside_is_out_of_its_folder_and_not_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        store.put_if_absent("t/hot/x", b"one").unwrap();
        let aside = || store.set_aside("t/hot/x", "aside/t/x");
        assert_eq!(aside().unwrap(), Aside::Moved);
        assert!(matches!(aside(), Err(StoreError::Missing { .. })));
        assert_eq!(store.list_some("t", 1).unwrap(), []);
        assert_eq!(&store.get("aside/t/x").unwrap()[..], b"one");
        assert_eq!(store.list_some("aside", 1).unwrap().len(), 1);
        // A second one of that name takes nothing's place.
        store.put_if_absent("t/hot/x", b"two").unwrap();
        assert_eq!(aside().unwrap(), Aside::Taken);
        assert_eq!(&store.get("aside/t/x").unwrap()[..], b"one");
        assert_eq!(&store.get("t/hot/x").unwrap()[..], b"two");
    }

    #[test]
    fn paths_that_leave_the_lake_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        for path in ["", "/etc/passwd", "a/../../b", "a//b", "./a"] {
            let refused = store.put_if_absent(path, b"");
            assert!(matches!(refused, Err(StoreError::Path { .. })), "{path}");
        }
    }

    #[test]
    fn a_missing_object_is_told_apart_from_a_refusing_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = LocalStore::new(dir.path()).unwrap();
        assert!(matches!(
            store.get("nothing"),
            Err(StoreError::Missing { .. })
        ));
        assert_eq!(store.size("nothing").unwrap(), None);
        assert_eq!(store.list("nothing").unwrap(), []);
        store.delete("nothing").unwrap();
    }

    #[test]
    fn a_folder_in_the_place_of_the_one_that_was_opened_is_an_outage_and_gets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (root, away) = (dir.path().join("lake"), dir.path().join("away"));
        let store = LocalStore::new(&root).unwrap();
        let Swap::Done(tag) = store.swap("owner", None, b"1").unwrap() else {
            panic!("it is new");
        };
        fs::rename(&root, &away).unwrap();
        for has_folder in [false, true] {
            if has_folder {
                fs::create_dir(&root).unwrap();
            }
            let outages = [
                store.put_if_absent("a", b"1").map(drop),
                store.swap("owner", Some(&tag), b"2").map(drop),
                store.get_tagged("owner").map(drop),
                store.list("").map(drop),
                store.stage("stage/a", b"1").map(drop),
                store.open("owner").map(drop),
            ];
            for outage in outages {
                assert!(outage.unwrap_err().is_outage());
            }
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        // The disk is back, under another number.
        fs::write(root.join("owner"), b"1").unwrap();
        assert_eq!(store.put_if_absent("a", b"1").unwrap(), Put::Created);
    }
}
