//! What the log asks of a disk, and the real one.
//!
//! A [`Disk`] is one folder. Handles are cheap to clone and may be used from several threads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation};

/// Room on the file system under a folder, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the file system.
    pub total: u64,
    /// What an unprivileged writer may still take.
    pub available: u64,
}

/// What has been asked of a disk since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct DiskStats {
    /// Bytes handed to `write_at`.
    pub bytes_written: u64,
    /// Calls of `write_at`.
    pub writes: u64,
    /// Calls of `sync_data`.
    pub syncs: u64,
    /// Calls of `sync_dir`.
    pub dir_syncs: u64,
}

/// One open file.
pub trait DiskFile: Send + Sync + 'static {
    /// Fills `out` from `offset` on; returns fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// The disk's.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// The disk's; any part may then have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the file at least `len` bytes long, with blocks behind them, so that writes within
    /// need no space. What was there stays; what is new reads as zeros.
    ///
    /// # Errors
    /// No space, or the disk's.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Cuts or extends the file to `len` bytes.
    ///
    /// # Errors
    /// The disk's.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes the file's bytes and length durable.
    ///
    /// # Errors
    /// The disk's: nothing written since the last good sync can be trusted then.
    fn sync_data(&self) -> io::Result<()>;
    /// Length and allocated bytes.
    ///
    /// # Errors
    /// The disk's.
    fn size(&self) -> io::Result<FileSize>;
}

/// How large a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSize {
    /// Its length.
    pub len: u64,
    /// Bytes of the blocks behind it.
    pub allocated: u64,
}

/// One folder on a disk.
pub trait Disk: Clone + Send + Sync + 'static {
    /// Its open files.
    type File: DiskFile;
    /// Names of the files in the folder, in any order.
    ///
    /// # Errors
    /// The disk's.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file for reading and, where allowed, writing.
    ///
    /// # Errors
    /// `NotFound`, or the disk's.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Creates an empty file; an older one of that name is emptied.
    ///
    /// # Errors
    /// The disk's.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Renames a file; one that has the new name is replaced.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all names durable.
    ///
    /// # Errors
    /// The disk's.
    fn sync_dir(&self) -> io::Result<()>;
    /// Room left.
    ///
    /// # Errors
    /// The disk's.
    fn space(&self) -> io::Result<Space>;
}

#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
    dir_syncs: AtomicU64,
}

/// Far longer than a look whether a folder is in use takes.
const LOOK: Duration = Duration::from_millis(50);

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub struct RealDisk {
    inner: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    /// Synced for names, and holds the lock as long as any clone lives.
    dir: File,
    writable: bool,
    counters: Arc<Counters>,
}

impl RealDisk {
    /// Opens the folder for writing and locks it against other processes; creates it, and syncs its
    /// parent, where it is missing. The lock ends with the last clone.
    ///
    /// # Errors
    /// `WouldBlock` if another process holds the lock, or the disk's.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let disk = Self::at(path, true)?;
        let lock = || rustix::fs::flock(&disk.inner.dir, FlockOperation::NonBlockingLockExclusive);
        if lock().is_err() {
            // A look by `is_in_use` holds it for a moment.
            std::thread::sleep(LOOK);
            lock()?;
        }
        Ok(disk)
    }

    /// Whether another handle, of this process or another one, has the folder open for writing.
    ///
    /// # Errors
    /// If there is no such folder, or the disk's.
    pub fn is_in_use(path: &Path) -> io::Result<bool> {
        match rustix::fs::flock(File::open(path)?, FlockOperation::NonBlockingLockShared) {
            // Closing the folder gives the lock back.
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the folder for reading only, without a lock: for a look at a folder in use.
    ///
    /// # Errors
    /// The disk's.
    pub fn peek(path: &Path) -> io::Result<Self> {
        Self::at(path, false)
    }

    fn at(path: &Path, writable: bool) -> io::Result<Self> {
        let dir = File::open(path)?;
        let counters = Arc::new(Counters::default());
        Ok(Self {
            inner: Arc::new(Folder {
                path: path.to_owned(),
                dir,
                writable,
                counters,
            }),
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// What has been written and synced through this handle and its clones.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        let counters = &self.inner.counters;
        DiskStats {
            bytes_written: counters.bytes.load(Ordering::Relaxed),
            writes: counters.writes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            dir_syncs: counters.dir_syncs.load(Ordering::Relaxed),
        }
    }

    fn file(&self, file: File) -> RealFile {
        RealFile {
            file,
            counters: Arc::clone(&self.inner.counters),
        }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.inner.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let path = self.inner.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(self.inner.writable)
            .open(path)?;
        Ok(self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let path = self.inner.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.inner.path.join(from), self.inner.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.inner.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.inner
            .counters
            .dir_syncs
            .fetch_add(1, Ordering::Relaxed);
        self.inner.dir.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.inner.dir)?;
        Ok(Space {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            available: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// A file of the operating system.
#[derive(Debug)]
pub struct RealFile {
    file: File,
    counters: Arc<Counters>,
}

impl DiskFile for RealFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.file.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counters
            .bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            // Some file systems cannot; a plain length then leaves the blocks to the writes, and a
            // full disk to a failed write, which costs its group and nothing else.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                if self.file.metadata()?.len() < len {
                    self.file.set_len(len)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn size(&self) -> io::Result<FileSize> {
        let metadata = self.file.metadata()?;
        Ok(FileSize {
            len: metadata.len(),
            allocated: metadata.blocks().saturating_mul(512),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_its_last_handle_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let disk = RealDisk::open(&path).unwrap();
        let clone = disk.clone();
        drop(disk);
        assert_eq!(
            RealDisk::open(&path).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        RealDisk::peek(&path).unwrap();
        drop(clone);
        RealDisk::open(&path).unwrap();
    }

    #[test]
    fn a_folder_in_use_is_seen_and_a_look_keeps_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        assert_eq!(
            RealDisk::is_in_use(&path).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let disk = RealDisk::open(&path).unwrap();
        assert!(RealDisk::is_in_use(&path).unwrap());
        drop(disk);
        assert!(!RealDisk::is_in_use(&path).unwrap());
        // A look that is under way while a writer opens the folder.
        let look = File::open(&path).unwrap();
        rustix::fs::flock(&look, FlockOperation::NonBlockingLockShared).unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| RealDisk::open(&path).map(|_| ()));
            std::thread::sleep(LOOK / 5);
            drop(look);
            writer.join().unwrap().unwrap();
        });
    }

    #[test]
    fn an_allocated_file_reads_as_zeros_and_keeps_its_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.write_at(b"abc", 0).unwrap();
        file.allocate(10_000).unwrap();
        let mut out = [1u8; 5];
        assert_eq!(file.read_at(&mut out, 0).unwrap(), 5);
        assert_eq!(&out, b"abc\0\0");
        assert_eq!(file.size().unwrap().len, 10_000);
        assert_eq!(file.read_at(&mut out, 9_998).unwrap(), 2);
    }
}
