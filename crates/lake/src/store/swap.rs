//! Compare-and-swap of a file.
//!
//! Comparing and renaming are two system calls, so a lock stands around them: `flock(2)` on one file
//! for the whole lake, which the kernel gives back when its process ends, however it ends. Within
//! it the file is read, its tag compared, and the new file, synced before, renamed over it. The
//! caller syncs the folder. A reader needs no lock: a rename is seen whole or not at all. A process
//! that is stopped inside the lock keeps all others out until it goes on or ends, so what it
//! compared still holds when it renames.
//!
//! The folder must be on a file system whose `flock` holds between all that write: a local one, or
//! NFS of version 4.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::{Tag, tag_of};

/// The file whose lock stands around each swap.
pub(super) const LOCK: &str = "_headwater/lock";

/// Times that the lock is tried: with [`LOCK_WAIT`] ten seconds, a thousand times what a swap takes.
const LOCK_ATTEMPTS: u32 = 500;

/// Time between two tries.
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// Renames `new` to `target` if `target` is the file of the tag `expected`, `None`: if there is none.
pub(super) fn replace_if(
    lock: &Path,
    target: &Path,
    expected: Option<&Tag>,
    new: &Path,
) -> io::Result<bool> {
    let _held = hold(lock, LOCK_ATTEMPTS)?;
    let present = match fs::read(target) {
        Ok(bytes) => Some(tag_of(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if present.as_ref() != expected {
        return Ok(false);
    }
    fs::rename(new, target)?;
    Ok(true)
}

/// The lock, held until the file is closed.
fn hold(lock: &Path, attempts: u32) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock)?;
    for _ in 0..attempts {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                std::thread::sleep(LOCK_WAIT);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::TimedOut,
        format!(
            "another process has held the lock {} for {} ms; if it hangs, end it",
            lock.display(),
            (LOCK_WAIT * attempts).as_millis()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{LocalStore, Store as _, Swap};
    use super::*;

    #[test]
    fn of_racing_swaps_each_is_made_on_what_the_one_before_left() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let store = LocalStore::new(dir.path()).unwrap();
                scope.spawn(move || {
                    for _ in 0..10 {
                        loop {
                            let found = store.get_tagged("_headwater/n").unwrap();
                            let number: u64 = found.as_ref().map_or(0, |found| {
                                std::str::from_utf8(&found.bytes).unwrap().parse().unwrap()
                            });
                            let next = (number + 1).to_string();
                            let tag = found.map(|found| found.tag);
                            let swapped = store.swap("_headwater/n", tag.as_ref(), next.as_bytes());
                            if matches!(swapped.unwrap(), Swap::Done(_)) {
                                break;
                            }
                        }
                    }
                });
            }
        });
        let store = LocalStore::new(dir.path()).unwrap();
        assert_eq!(&store.get("_headwater/n").unwrap()[..], b"40");
        assert_eq!(store.list("_headwater/tmp").unwrap(), []);
    }

    #[test]
    fn a_lock_that_its_holder_keeps_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        let held = hold(&lock, LOCK_ATTEMPTS).unwrap();
        let error = hold(&lock, 3).unwrap_err();
        assert!(
            error.to_string().contains("for 60 ms; if it hangs, end it"),
            "{error}"
        );
        drop(held);
        hold(&lock, 1).unwrap();
    }
}
