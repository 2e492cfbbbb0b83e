//! A store whose users take turns call by call, as a test decides: any interleaving of two writers,
//! each of which may stand still at any call.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

use bytes::Bytes;
use headwater_lake::store::{Entry, ReadAt};
use headwater_lake::{Aside, MemStore, Put, Store, StoreError, Swap, Tag, Tagged};

/// Who may call next.
#[derive(Debug, Default)]
struct State {
    /// Turns to come; after them the first user runs to its end, then the second.
    order: VecDeque<usize>,
    done: [bool; 2],
    calls: [usize; 2],
}

impl State {
    fn next(&mut self) -> usize {
        while let Some(&who) = self.order.front() {
            if !self.done[who] {
                return who;
            }
            self.order.pop_front();
        }
        usize::from(self.done[0])
    }
}

/// The turns of two users.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<(Mutex<State>, Condvar)>);

impl Turns {
    pub(crate) fn new(order: impl IntoIterator<Item = usize>) -> Self {
        let state = State {
            order: order.into_iter().collect(),
            ..State::default()
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// How many calls a user made.
    pub(crate) fn calls(&self, who: usize) -> usize {
        self.0.0.lock().unwrap().calls[who]
    }

    fn take<T>(&self, who: usize, call: impl FnOnce() -> T) -> T {
        let (state, turned) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.next() != who {
            state = turned.wait(state).unwrap();
        }
        state.order.pop_front();
        state.calls[who] += 1;
        let result = call();
        turned.notify_all();
        result
    }

    fn end(&self, who: usize) {
        self.0.0.lock().unwrap().done[who] = true;
        self.0.1.notify_all();
    }
}

/// Runs both, each on its own handle of the store, and gives what they give.
pub(crate) fn run<A: Send, B: Send>(
    turns: &Turns,
    store: &MemStore,
    first: impl FnOnce(Turned) -> A + Send,
    second: impl FnOnce(Turned) -> B + Send,
) -> (A, B) {
    struct End<'a>(&'a Turns, usize);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.end(self.1);
        }
    }
    let handle = |who| Turned {
        inner: store.clone(),
        turns: turns.clone(),
        who,
    };
    let (ours, theirs) = (handle(0), handle(1));
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            let _end = End(turns, 0);
            first(ours)
        });
        let second = scope.spawn(move || {
            let _end = End(turns, 1);
            second(theirs)
        });
        (first.join().unwrap(), second.join().unwrap())
    })
}

/// One user's handle.
#[derive(Clone)]
pub(crate) struct Turned {
    inner: MemStore,
    turns: Turns,
    who: usize,
}

impl Turned {
    fn turn<T>(&self, call: impl FnOnce(&MemStore) -> T) -> T {
        self.turns.take(self.who, || call(&self.inner))
    }
}

impl Store for Turned {
    fn put_if_absent(&self, path: &str, bytes: &[u8]) -> Result<Put, StoreError> {
        self.turn(|store| store.put_if_absent(path, bytes))
    }
    fn swap(&self, path: &str, expected: Option<&Tag>, bytes: &[u8]) -> Result<Swap, StoreError> {
        self.turn(|store| store.swap(path, expected, bytes))
    }
    fn replace(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.turn(|store| store.replace(path, bytes))
    }
    fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.turn(|store| store.get(path))
    }
    fn get_tagged(&self, path: &str) -> Result<Option<Tagged>, StoreError> {
        self.turn(|store| store.get_tagged(path))
    }
    fn open(&self, path: &str) -> Result<Arc<dyn ReadAt>, StoreError> {
        self.turn(|store| store.open(path))
    }
    fn size(&self, path: &str) -> Result<Option<u64>, StoreError> {
        self.turn(|store| store.size(path))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        self.turn(|store| store.list(prefix))
    }
    fn list_some(&self, prefix: &str, most: usize) -> Result<Vec<Entry>, StoreError> {
        self.turn(|store| store.list_some(prefix, most))
    }
    fn set_aside(&self, path: &str, to: &str) -> Result<Aside, StoreError> {
        self.turn(|store| store.set_aside(path, to))
    }
    fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.turn(|store| store.delete(path))
    }
    fn stage(&self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.turn(|store| store.stage(path, bytes))
    }
    fn sync_stage(&self, paths: &[&str]) -> Result<(), StoreError> {
        self.turn(|store| store.sync_stage(paths))
    }
    fn staged(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.turn(|store| store.staged(prefix))
    }
    fn unstage(&self, path: &str) -> Result<(), StoreError> {
        self.turn(|store| store.unstage(path))
    }
    fn tidy(&self) -> Result<(), StoreError> {
        self.inner.tidy()
    }
    fn publish(&self, from: &str, to: &str) -> Result<Put, StoreError> {
        self.turn(|store| store.publish(from, to))
    }
}
