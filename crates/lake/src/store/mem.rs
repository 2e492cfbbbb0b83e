//! A lake in memory that crashes where a test wants it to.
//!
//! The handle is cheap to clone and shares its state, so that a test keeps one while the lake
//! under test owns another. Operations are counted, in all and by kind ([`MemStore::calls`]);
//! [`MemStore::crash_after`] makes all from the n-th on fail, and [`MemStore::power_cut`] gives what
//! a disk would hold afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Aside, Entry, Put, ReadAt, Store, StoreError, Swap, Tag, Tagged, check, tag_of};

/// Objects in memory, shared by all clones of the handle.
#[derive(Debug, Clone, Default)]
pub struct MemStore {
    state: Arc<Mutex<State>>,
}

/// A kind of operation: a service has a price for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    /// [`Store::put_if_absent`].
    PutIfAbsent,
    /// [`Store::swap`].
    Swap,
    /// [`Store::replace`].
    Replace,
    /// [`Store::get`].
    Get,
    /// [`Store::get_tagged`].
    GetTagged,
    /// [`Store::open`].
    Open,
    /// A part of an opened object.
    ReadAt,
    /// [`Store::size`].
    Size,
    /// [`Store::list`].
    List,
    /// [`Store::list_some`].
    ListSome,
    /// [`Store::set_aside`].
    SetAside,
    /// [`Store::delete`].
    Delete,
    /// [`Store::stage`].
    Stage,
    /// [`Store::sync_stage`].
    SyncStage,
    /// [`Store::staged`].
    Staged,
    /// [`Store::unstage`].
    Unstage,
    /// [`Store::publish`].
    Publish,
}

impl Call {
    /// Its verb in messages.
    const fn verb(self) -> &'static str {
        match self {
            Self::PutIfAbsent => "create",
            Self::Swap | Self::Replace => "replace",
            Self::Get | Self::GetTagged | Self::ReadAt => "read",
            Self::Open => "open",
            Self::Size => "look at",
            Self::List | Self::ListSome | Self::Staged => "list",
            Self::SetAside => "set aside",
            Self::Delete | Self::Unstage => "delete",
            Self::Stage => "stage",
            Self::SyncStage => "sync",
            Self::Publish => "publish",
        }
    }
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    operations: u64,
    calls: BTreeMap<Call, u64>,
    /// Conditional writes to come that somebody else is quicker with.
    lost_races: u64,
    crash: Option<Crash>,
    interrupt: Option<Interrupt>,
    /// Nobody reaches it.
    away: bool,
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

/// What somebody else does while whoever uses the store stands still.
struct Interrupt {
    /// Operations that are done before.
    after: u64,
    act: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt after {}", self.after)
    }
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

    /// Operations of a kind since the store was made or [`Self::forget_calls`] was called, failed
    /// ones included.
    #[must_use]
    pub fn calls(&self, kind: Call) -> u64 {
        self.lock().calls.get(&kind).copied().unwrap_or_default()
    }

    /// Operations of each kind, those that there were none of left out.
    #[must_use]
    pub fn all_calls(&self) -> BTreeMap<Call, u64> {
        self.lock().calls.clone()
    }

    /// Counts by kind from zero again.
    pub fn forget_calls(&self) {
        self.lock().calls.clear();
    }

    /// Lets `n` more operations succeed; all later ones fail, without effect.
    pub fn crash_after(&self, n: u64) {
        self.set_crash(n, false);
    }

    /// As [`Self::crash_after`], but the first operation to fail takes effect: its answer is lost.
    pub fn crash_after_landing(&self, n: u64) {
        self.set_crash(n, true);
    }

    /// Lets `n` more operations go by, and `act` before the one after them: whoever begins that one stands
    /// still meanwhile, as a process that was stopped does. `act` may use the store.
    pub fn interrupt_after(&self, n: u64, act: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        state.interrupt = Some(Interrupt {
            after: state.operations + n,
            act: Box::new(act),
        });
    }

    /// Lets what [`MemStore::interrupt_after`] was given act now, unless it has.
    pub fn interrupt(&self) {
        let interrupt = self.lock().interrupt.take();
        if let Some(interrupt) = interrupt {
            (interrupt.act)();
        }
    }

    /// Lets the next `n` conditional writes find that somebody else was quicker, though nothing
    /// changed.
    pub fn lose_races(&self, n: u64) {
        self.lock().lost_races = n;
    }

    /// Lets all operations fail, without effect, until it is told otherwise: the process lives, and the
    /// store cannot be reached.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Whether it cannot be reached.
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.lock().away
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
        call: Call,
        path: &str,
        run: impl FnOnce(&mut State) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let failed = |cause: &str| StoreError::Io {
            action: call.verb(),
            path: path.to_owned(),
            source: io::Error::other(cause.to_owned()),
        };
        let mut state = self.lock();
        let is_due = |interrupt: &Interrupt| interrupt.after <= state.operations;
        if !state.away && state.interrupt.as_ref().is_some_and(is_due) {
            drop(state);
            self.interrupt();
            state = self.lock();
        }
        *state.calls.entry(call).or_default() += 1;
        if state.away {
            return Err(failed("the store cannot be reached"));
        }
        let number = state.operations;
        state.operations += 1;
        match state.crash {
            Some(crash) if number >= crash.after => {
                if crash.lands && number == crash.after {
                    let _ = run(&mut state);
                }
                Err(failed("the store has crashed"))
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

    fn loses_race(&mut self) -> bool {
        let loses = self.lost_races > 0;
        self.lost_races = self.lost_races.saturating_sub(1);
        loses
    }

    fn create(&mut self, path: &str, bytes: Bytes) -> Put {
        if self.loses_race() || self.objects.contains_key(path) {
            return Put::Exists;
        }
        self.keep(path, bytes, true);
        Put::Created
    }

    fn keep(&mut self, path: &str, bytes: Bytes, durable: bool) {
        self.objects
            .insert(path.to_owned(), Object { bytes, durable });
    }

    /// Objects below a folder, in order.
    fn below(&self, prefix: &str) -> impl Iterator<Item = Entry> {
        let folder = if prefix.is_empty() {
            String::new()
        } else {
            format!("{prefix}/")
        };
        let from = self.objects.range(folder.clone()..);
        from.take_while(move |(path, _)| path.starts_with(&folder))
            .map(|(path, object)| Entry {
                path: path.clone(),
                bytes: object.bytes.len() as u64,
            })
    }
}

impl Store for MemStore {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        check(path)?;
        self.operate(Call::PutIfAbsent, path, |s| {
            Ok(s.create(path, Bytes::copy_from_slice(bytes)))
        })
    }

    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError> {
        check(path)?;
        self.operate(Call::Swap, path, |s| {
            let present = s.objects.get(path).map(|object| tag_of(&object.bytes));
            if s.loses_race() || present.as_ref() != expected {
                return Ok(Swap::Changed);
            }
            s.keep(path, Bytes::copy_from_slice(bytes), true);
            Ok(Swap::Done(tag_of(bytes)))
        })
    }

    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check(path)?;
        self.operate(Call::Replace, path, |s| {
            s.keep(path, Bytes::copy_from_slice(bytes), true);
            Ok(())
        })
    }

    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.operate(Call::Get, path, |s| s.find(path).map(|o| o.bytes.clone()))
    }

    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError> {
        self.operate(Call::GetTagged, path, |s| {
            Ok(s.objects.get(path).map(|object| Tagged {
                bytes: object.bytes.clone(),
                tag: tag_of(&object.bytes),
            }))
        })
    }

    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        let bytes = self.operate(Call::Open, path, |s| s.find(path).map(|o| o.bytes.clone()))?;
        let store = self.clone();
        Ok(Arc::new(OpenObject { bytes, store }))
    }

    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        self.operate(Call::Size, path, |s| {
            Ok(s.objects.get(path).map(|o| o.bytes.len() as u64))
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.operate(Call::List, prefix, |s| Ok(s.below(prefix).collect()))
    }

    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        self.operate(Call::ListSome, prefix, |s| {
            Ok(s.below(prefix).take(most).collect())
        })
    }

    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError> {
        check(to)?;
        self.operate(Call::SetAside, path, |s| {
            let bytes = s.find(path)?.bytes.clone();
            if s.objects.contains_key(to) {
                return Ok(Aside::Taken);
            }
            s.keep(to, bytes, true);
            s.objects.remove(path);
            Ok(Aside::Moved)
        })
    }

    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.operate(Call::Delete, path, |s| {
            s.objects.remove(path);
            Ok(())
        })
    }

    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check(path)?;
        self.operate(Call::Stage, path, |s| {
            s.keep(path, Bytes::copy_from_slice(bytes), false);
            Ok(())
        })
    }

    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        let first = paths.first().copied().unwrap_or_default();
        self.operate(Call::SyncStage, first, |s| {
            for path in paths {
                s.find(path)?;
                s.objects
                    .entry((*path).to_owned())
                    .and_modify(|o| o.durable = true);
            }
            Ok(())
        })
    }

    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.operate(Call::Staged, prefix, |s| {
            Ok(s.below(prefix).map(|entry| entry.path).collect())
        })
    }

    fn unstage(&self, path: &str) -> Result<(), StoreError> {
        self.operate(Call::Unstage, path, |s| {
            s.objects.remove(path);
            Ok(())
        })
    }

    fn tidy(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        check(to)?;
        self.operate(Call::Publish, to, |s| {
            let bytes = s.find(from)?.bytes.clone();
            Ok(s.create(to, bytes))
        })
    }
}

struct OpenObject {
    bytes: Bytes,
    store: MemStore,
}

impl ReadAt for OpenObject {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        *self.store.lock().calls.entry(Call::ReadAt).or_default() += 1;
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let start = usize::try_from(offset).map_err(|_| end())?;
        let stop = start
            .checked_add(len)
            .filter(|stop| *stop <= self.bytes.len())
            .ok_or_else(end)?;
        Ok(self.bytes.slice(start..stop))
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
    fn somebody_else_acts_before_the_operation_that_is_due() {
        let store = MemStore::new();
        let other = store.clone();
        store.interrupt_after(1, move || {
            other.put_if_absent("b", b"other").unwrap();
        });
        assert_eq!(store.put_if_absent("a", b"1").unwrap(), Put::Created);
        assert_eq!(store.put_if_absent("b", b"2").unwrap(), Put::Exists);
        let other = store.clone();
        store.interrupt_after(9, move || other.replace("a", b"other").unwrap());
        store.interrupt();
        store.interrupt();
        assert_eq!(&store.get("a").unwrap()[..], b"other");
    }

    #[test]
    fn only_the_object_that_was_read_is_replaced() {
        let store = MemStore::new();
        let Swap::Done(first) = store.swap("a", None, b"1").unwrap() else {
            panic!("there was none");
        };
        assert_eq!(store.swap("a", None, b"2").unwrap(), Swap::Changed);
        assert!(matches!(
            store.swap("a", Some(&first), b"2").unwrap(),
            Swap::Done(_)
        ));
        assert_eq!(store.swap("a", Some(&first), b"3").unwrap(), Swap::Changed);
        let found = store.get_tagged("a").unwrap().unwrap();
        assert_eq!(&found.bytes[..], b"2");
        assert_eq!(store.get_tagged("b").unwrap(), None);
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
