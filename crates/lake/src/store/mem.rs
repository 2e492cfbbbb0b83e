//! A lake in memory that crashes where a test wants it to.
//!
//! The handle is cheap to clone and shares its state, so that a test keeps one while the lake
//! under test owns another. Operations are counted; [`MemStore::crash_after`] makes all from the
//! n-th on fail, and [`MemStore::power_cut`] gives what a disk would hold afterwards.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Entry, Put, ReadAt, Store, StoreError, check};

/// Objects in memory, shared by all clones of the handle.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    operations: u64,
    crash: Option<Crash>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    durable: bool,
}

#[derive(Debug, Clone, Copy)]
struct Crash {
    /// Operations that still succeed.
    after: u64,
    /// Whether the operation that fails first takes effect all the same.
    lands: bool,
}

impl MemStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations since the store was made, failed ones included.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets `n` more operations succeed; all later ones fail, without effect.
    pub fn crash_after(&self, n: u64) {
        self.set_crash(n, false);
    }

    /// As [`Self::crash_after`], but the first operation to fail takes effect: its answer is lost.
    pub fn crash_after_landing(&self, n: u64) {
        self.set_crash(n, true);
    }

    fn set_crash(&self, n: u64, lands: bool) {
        let mut state = self.lock();
        let after = state.operations + n;
        state.crash = Some(Crash { after, lands });
    }

    /// The machine is back: staged files that were not synced are gone, operations succeed again.
    pub fn power_cut(&self) {
        let mut state = self.lock();
        state.objects.retain(|_, object| object.durable);
        state.crash = None;
    }

    /// The process is back, the machine never went: nothing is lost, operations succeed again.
    pub fn restart(&self) {
        self.lock().crash = None;
    }

    /// Whether an operation has failed since the last restart.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        let state = self.lock();
        state
            .crash
            .is_some_and(|crash| state.operations > crash.after)
    }

    /// An independent copy of what the store holds now.
    #[must_use]
    pub fn fork(&self) -> Self {
        let objects = self.lock().objects.clone();
        let state = State {
            objects,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another test thread leaves the map whole: each change is one statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one counted operation, or fails it.
    fn operate<T>(
        &self,
        action: &'static str,
        path: &str,
        run: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut state = self.lock();
        let number = state.operations;
        state.operations += 1;
        match state.crash {
            Some(crash) if number >= crash.after => {
                if crash.lands && number == crash.after {
                    let _ = run(&mut state);
                }
                let source = io::Error::other("the store has crashed");
                Err(StoreError::Io {
                    action,
                    path: path.to_owned(),
                    source,
                })
            }
            _ => run(&mut state),
        }
    }
}

impl State {
    fn find(&self, path: &str) -> Result<&Object, StoreError> {
        self.objects.get(path).ok_or_else(|| StoreError::Missing {
            path: path.to_owned(),
        })
    }

    fn create(&mut self, path: &str, bytes: Bytes) -> Put {
        if self.objects.contains_key(path) {
            return Put::Exists;
        }
        self.objects.insert(
            path.to_owned(),
            Object {
                bytes,
                durable: true,
            },
        );
        Put::Created
    }
}

impl Store for MemStore {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        check(path)?;
        self.operate("create", path, |s| {
            Ok(s.create(path, Bytes::copy_from_slice(bytes)))
        })
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check(path)?;
        self.operate("replace", path, |s| {
            let bytes = Bytes::copy_from_slice(bytes);
            s.objects.insert(
                path.to_owned(),
                Object {
                    bytes,
                    durable: true,
                },
            );
            Ok(())
        })
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.operate("read", path, |s| s.find(path).map(|o| o.bytes.clone()))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        let bytes = self.operate("open", path, |s| s.find(path).map(|o| o.bytes.clone()))?;
        Ok(Arc::new(bytes))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        self.operate("look at", path, |s| {
            Ok(s.objects.get(path).map(|o| o.bytes.len() as u64))
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.operate("list", prefix, |s| {
            let folder = if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            };
            let below = s.objects.range(folder.clone()..);
            Ok(below
                .take_while(|(path, _)| path.starts_with(&folder))
                .map(|(path, o)| Entry {
                    path: path.clone(),
                    bytes: o.bytes.len() as u64,
                })
                .collect())
        })
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.operate("delete", path, |s| {
            s.objects.remove(path);
            Ok(())
        })
    }

    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check(path)?;
        self.operate("stage", path, |s| {
            let bytes = Bytes::copy_from_slice(bytes);
            s.objects.insert(
                path.to_owned(),
                Object {
                    bytes,
                    durable: false,
                },
            );
            Ok(())
        })
    }

    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        self.operate("sync", paths.first().copied().unwrap_or_default(), |s| {
            for path in paths {
                s.find(path)?;
                s.objects
                    .entry((*path).to_owned())
                    .and_modify(|o| o.durable = true);
            }
            Ok(())
        })
    }

    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        check(to)?;
        self.operate("publish", to, |s| {
            let bytes = s.find(from)?.bytes.clone();
            Ok(s.create(to, bytes))
        })
    }
}

impl ReadAt for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| end())?;
        let stop = start
            .checked_add(len)
            .filter(|stop| *stop <= self.len())
            .ok_or_else(end)?;
        Ok(self.slice(start..stop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_takes_what_was_staged_and_not_synced() {
        let store = MemStore::new();
        store.stage("s/a", b"a").unwrap();
        store.stage("s/b", b"b").unwrap();
        store.sync_stage(&["s/a"]).unwrap();
        store.put_if_absent("c", b"c").unwrap();
        store.crash_after(0);
        assert!(store.get("c").is_err());
        store.power_cut();
        let left: Vec<_> = store
            .list("")
            .unwrap()
            .into_iter()
            .map(|e| e.path)
            .collect();
        assert_eq!(left, ["c", "s/a"]);
    }

    #[test]
    fn a_landing_crash_loses_the_answer_and_not_the_object() {
        let store = MemStore::new();
        store.crash_after_landing(1);
        assert_eq!(store.put_if_absent("a", b"1").unwrap(), Put::Created);
        assert!(store.put_if_absent("b", b"2").is_err());
        assert!(store.put_if_absent("c", b"3").is_err());
        assert!(store.has_crashed());
        store.restart();
        assert_eq!(store.list("").unwrap().len(), 2);
    }
}
