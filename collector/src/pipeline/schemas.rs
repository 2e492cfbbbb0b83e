//! Core: which schema a number means, and the schemas themselves.
//!
//! Numbers are bound within (origin, epoch); equal schemas of many devices are kept once, by their
//! SHA-256. A dictionary of log lines is numbered and kept like them, and may be named by its SHA-256
//! alone where it is kept already.
//!
//! The book is shared: custody binds and forgets, the sinks look up. It is filled from the
//! journal's snapshot and Schema records.
//!
//! Custody's book is a cache: a segment of the journal tells every schema that its records need, and a
//! sender is asked for one that left. So a book without room lets numbers go, of the device that takes most
//! of it those first that were used longest ago ([`SchemaBook::make_room`]): a device that announces a new
//! shape or label with every reading sends its own schemas again and again, and no other device notices.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_proto::codec::{BatchHeader, Limits};
use headwater_proto::frame::{Frame, Kind};
use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::schema::Schema;
use headwater_proto::text::{self, TextHeader};
use sha2::{Digest as _, Sha256};

use super::envelope::SchemaHead;

/// Most bytes of distinct schemas and of the numbers bound to them: they all stand in each journal
/// snapshot. A fleet of one make shares one schema.
pub const MAX_SCHEMA_BYTES: usize = 6 << 20;
/// Most bytes of distinct dictionaries among them: a fleet shares one or a few, and schemas need the rest.
pub const MAX_DICTIONARIES_BYTES: usize = 1 << 20;
/// Most bound numbers.
pub const MAX_BOUND: usize = 65_536;
/// The part of the bounds that is made free at once, so that the book is seldom looked through.
const FREED_SHARE: usize = 64;
/// Bytes of a bound number beside its device's name.
const NUMBER_OVERHEAD_BYTES: usize = 24;

/// SHA-256 of a schema's bytes.
pub type SchemaId = [u8; 32];

/// Distinct schemas, and the numbers with the place of theirs.
pub(crate) type Dump = (Vec<Arc<[u8]>>, Vec<(SchemaHead, u32)>);

/// The number of the schema that a frame's batch is read with, or of its text's dictionary.
#[must_use]
pub fn number_in(frame: &Frame<'_>) -> Option<u32> {
    if frame.kind == Kind::Batch {
        Some(BatchHeader::peek(frame.payload).ok()?.schema_no)
    } else if frame.kind == Kind::Text {
        TextHeader::read(frame.payload)?.0.dictionary
    } else {
        None
    }
}

/// What came of binding a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// New: append it to the journal.
    New,
    /// Known already.
    Same,
    /// The number means another schema.
    Conflict,
    /// A dictionary is named that is not kept.
    Unknown,
    /// The bytes are neither a schema nor a dictionary.
    Invalid,
    /// New, and there is no room: [`SchemaBook::make_room`] first.
    Full,
}

/// What bytes that came as a schema are.
#[derive(Debug)]
enum Meaning {
    Columns(Arc<Schema>),
    Dictionary,
}

impl Meaning {
    fn of(bytes: &[u8]) -> Option<Self> {
        if text::is_dictionary(bytes) {
            let taken = zstd::bulk::Decompressor::with_dictionary(bytes);
            return taken.is_ok().then_some(Self::Dictionary);
        }
        let schema = Schema::decode(bytes, &Limits::DEFAULT).ok()?;
        Some(Self::Columns(Arc::new(schema)))
    }
}

#[derive(Debug)]
struct Kept {
    bytes: Arc<[u8]>,
    meaning: Meaning,
    uses: usize,
}

type Key = (DeviceId, Epoch, u32);

#[derive(Debug, Clone, Copy)]
struct Number {
    means: SchemaId,
    /// By the book's count of uses.
    used: u64,
}

#[derive(Debug, Default)]
struct Inner {
    bound: BTreeMap<Key, Number>,
    kept: HashMap<SchemaId, Kept>,
    /// Of schemas and numbers.
    bytes: usize,
    uses: u64,
    tentative: Vec<Key>,
}

/// The schemas in use. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SchemaBook {
    inner: Arc<Mutex<Inner>>,
}

impl SchemaBook {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No operation leaves the book half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges a binding without making it.
    #[must_use]
    pub fn judge(&self, head: &SchemaHead, bytes: &[u8]) -> Bound {
        let id = id_of(bytes);
        let inner = self.lock();
        match inner.bound.get(&key(head)) {
            Some(known) if known.means == id => return Bound::Same,
            Some(_) => return Bound::Conflict,
            None => {}
        }
        let kept = inner.kept.get(&id);
        let known = kept.is_some();
        if text::referred(bytes).is_some() {
            match kept.map(|kept| &kept.meaning) {
                None => return Bound::Unknown,
                // Columns are always told in full.
                Some(Meaning::Columns(_)) => return Bound::Invalid,
                Some(Meaning::Dictionary) => {}
            }
        }
        if !known && Meaning::of(bytes).is_none() {
            return Bound::Invalid;
        }
        if !known && text::is_dictionary(bytes) {
            let taken = inner.dictionaries_bytes() + bytes.len();
            if taken > MAX_DICTIONARIES_BYTES {
                return Bound::Full;
            }
        }
        let more = number_bytes(&head.origin) + if known { 0 } else { bytes.len() };
        if inner.bound.len() >= MAX_BOUND || inner.bytes + more > MAX_SCHEMA_BYTES {
            return Bound::Full;
        }
        Bound::New
    }

    /// Lets numbers go until one more with `bytes` finds room, and then somewhat more.
    ///
    /// They are those of the device that takes most, the longest unused first; a schema of several devices
    /// counts in equal parts with each. Returns how many numbers of which device left.
    pub fn make_room(&self, bytes: &[u8]) -> BTreeMap<DeviceId, usize> {
        let mut inner = self.lock();
        let mut left = BTreeMap::new();
        let free = bytes.len() + MAX_SCHEMA_BYTES / FREED_SHARE;
        let free_numbers = MAX_BOUND / FREED_SHARE;
        let is_dictionary = |meaning: &Meaning| matches!(meaning, Meaning::Dictionary);
        while text::is_dictionary(bytes) {
            let kept = inner.dictionaries_bytes();
            let free = (kept + bytes.len()).saturating_sub(MAX_DICTIONARIES_BYTES);
            if kept == 0 || free == 0 {
                break;
            }
            inner.trim((free, 0), is_dictionary, &mut left);
        }
        loop {
            let bytes = (inner.bytes + free).saturating_sub(MAX_SCHEMA_BYTES);
            let numbers = (inner.bound.len() + free_numbers).saturating_sub(MAX_BOUND);
            if inner.bound.is_empty() || (bytes, numbers) == (0, 0) {
                return left;
            }
            inner.trim((bytes, numbers), |_| true, &mut left);
        }
    }

    /// As [`SchemaBook::make_room`], if what was bound without being judged is beyond the bounds.
    pub(crate) fn stay_within(&self) {
        let is_beyond = {
            let inner = self.lock();
            inner.bytes > MAX_SCHEMA_BYTES || inner.bound.len() > MAX_BOUND
        };
        if is_beyond {
            self.make_room(&[]);
        }
    }

    /// Binds a number, in the running group. False if the bytes are neither schema nor dictionary, or
    /// name one that is not kept.
    pub fn bind(&self, head: &SchemaHead, bytes: &[u8]) -> bool {
        let id = id_of(bytes);
        let mut inner = self.lock();
        if !inner.kept.contains_key(&id) {
            let Some(meaning) = Meaning::of(bytes) else {
                return false;
            };
            inner.bytes += bytes.len();
            let kept = Kept {
                bytes: bytes.into(),
                meaning,
                uses: 0,
            };
            inner.kept.insert(id, kept);
        }
        let key = key(head);
        if inner.bound.get(&key).is_some_and(|known| known.means == id) {
            return true;
        }
        // A number that left may come back with another meaning.
        inner.unbind(&key);
        if let Some(kept) = inner.kept.get_mut(&id) {
            kept.uses += 1;
        }
        inner.bytes += number_bytes(&head.origin);
        let used = inner.next_use();
        inner.bound.insert(key.clone(), Number { means: id, used });
        inner.tentative.push(key);
        true
    }

    /// The running group is durable.
    pub fn synced(&self) {
        self.lock().tentative.clear();
    }

    /// The running group failed.
    pub fn roll_back(&self) {
        let mut inner = self.lock();
        for key in mem::take(&mut inner.tentative) {
            inner.unbind(&key);
        }
    }

    /// Whether a number is bound, which is a use of it.
    #[must_use]
    pub fn knows(&self, head: &SchemaHead) -> bool {
        let mut inner = self.lock();
        let now = inner.next_use();
        let number = inner.bound.get_mut(&key(head));
        number.map(|number| number.used = now).is_some()
    }

    /// The schema of a number.
    #[must_use]
    pub fn get(
        &self,
        origin: &DeviceId,
        epoch: Epoch,
        number: u32,
    ) -> Option<(SchemaId, Arc<Schema>)> {
        let inner = self.lock();
        let id = inner.bound.get(&(origin.clone(), epoch, number))?.means;
        match &inner.kept.get(&id)?.meaning {
            Meaning::Columns(schema) => Some((id, Arc::clone(schema))),
            Meaning::Dictionary => None,
        }
    }

    /// The dictionary of a number.
    #[must_use]
    pub fn dictionary(
        &self,
        origin: &DeviceId,
        epoch: Epoch,
        number: u32,
    ) -> Option<(SchemaId, Arc<[u8]>)> {
        let inner = self.lock();
        let id = inner.bound.get(&(origin.clone(), epoch, number))?.means;
        let kept = inner.kept.get(&id)?;
        matches!(kept.meaning, Meaning::Dictionary).then(|| (id, Arc::clone(&kept.bytes)))
    }

    /// The bytes of the schema of a number.
    #[must_use]
    pub fn bytes_of(&self, head: &SchemaHead) -> Option<Arc<[u8]>> {
        let inner = self.lock();
        let id = inner.bound.get(&key(head))?.means;
        inner.kept.get(&id).map(|kept| Arc::clone(&kept.bytes))
    }

    /// Where `bytes` are a dictionary, or the number `head` means one, its SHA-256 if it is kept.
    #[must_use]
    pub fn dictionary_id(&self, head: &SchemaHead, bytes: &[u8]) -> Option<SchemaId> {
        let inner = self.lock();
        let id = inner.bound.get(&key(head)).map(|number| number.means);
        let id = id.unwrap_or_else(|| id_of(bytes));
        let kept = inner.kept.get(&id)?;
        matches!(kept.meaning, Meaning::Dictionary).then_some(id)
    }

    /// The bytes of a schema.
    #[must_use]
    pub fn bytes(&self, id: &SchemaId) -> Option<Arc<[u8]>> {
        self.lock().kept.get(id).map(|kept| Arc::clone(&kept.bytes))
    }

    /// Forgets the numbers of an epoch of which no record is in the journal any more.
    pub fn forget(&self, origin: &DeviceId, epoch: Epoch) {
        let mut inner = self.lock();
        let from = (origin.clone(), epoch, 0);
        let to = (origin.clone(), epoch, u32::MAX);
        let keys: Vec<_> = inner
            .bound
            .range(from..=to)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            inner.unbind(&key);
        }
    }

    /// All of it, for a snapshot.
    pub(crate) fn dump(&self) -> Dump {
        let inner = self.lock();
        let mut places = BTreeMap::new();
        let mut schemas = Vec::new();
        let mut heads = Vec::new();
        for ((origin, epoch, number), bound) in &inner.bound {
            let Some(kept) = inner.kept.get(&bound.means) else {
                continue;
            };
            let next = u32::try_from(schemas.len()).unwrap_or(u32::MAX);
            let place = *places.entry(bound.means).or_insert_with(|| {
                schemas.push(Arc::clone(&kept.bytes));
                next
            });
            let head = SchemaHead {
                origin: origin.clone(),
                epoch: *epoch,
                number: *number,
            };
            heads.push((head, place));
        }
        (schemas, heads)
    }
}

impl Inner {
    fn dictionaries_bytes(&self) -> usize {
        let kept = self.kept.values();
        kept.filter(|kept| matches!(kept.meaning, Meaning::Dictionary))
            .map(|kept| kept.bytes.len())
            .sum()
    }

    const fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    /// Lets numbers go whose meaning `counts`, of the device that takes most half of them, until about `free`
    /// bytes and `free_numbers` numbers are free.
    fn trim(
        &mut self,
        (free, free_numbers): (usize, usize),
        counts: impl Fn(&Meaning) -> bool,
        left: &mut BTreeMap<DeviceId, usize>,
    ) {
        let mut devices: BTreeMap<DeviceId, Vec<(u64, usize, Key)>> = BTreeMap::new();
        for (key, number) in &self.bound {
            let Some(kept) = self.kept.get(&number.means) else {
                continue;
            };
            if counts(&kept.meaning) {
                let bytes = number_bytes(&key.0) + kept.bytes.len() / kept.uses.max(1);
                let one = (number.used, bytes, key.clone());
                devices.entry(key.0.clone()).or_default().push(one);
            }
        }
        let by_bytes = |(device, mut numbers): (DeviceId, Vec<(u64, usize, Key)>)| {
            // The longest unused last, to be taken from there.
            numbers.sort_unstable_by_key(|(used, ..)| std::cmp::Reverse(*used));
            let bytes: usize = numbers.iter().map(|(_, bytes, _)| bytes).sum();
            (bytes, device, numbers)
        };
        let mut devices: BinaryHeap<_> = devices.into_iter().map(by_bytes).collect();
        let (mut freed, mut freed_numbers) = (0, 0);
        while freed < free || freed_numbers < free_numbers {
            let most = devices.pop().filter(|(bytes, ..)| *bytes > 0);
            let Some((bytes, device, mut numbers)) = most else {
                return;
            };
            let mut rest = bytes;
            while rest > bytes / 2
                && let Some((_, bytes, key)) = numbers.pop()
            {
                self.unbind(&key);
                rest -= bytes;
                freed_numbers += 1;
                *left.entry(device.clone()).or_default() += 1;
            }
            freed += bytes - rest;
            devices.push((rest, device, numbers));
        }
    }

    fn unbind(&mut self, key: &Key) {
        let Some(number) = self.bound.remove(key) else {
            return;
        };
        self.bytes -= number_bytes(&key.0);
        let Some(kept) = self.kept.get_mut(&number.means) else {
            return;
        };
        kept.uses -= 1;
        if kept.uses == 0 {
            self.bytes -= kept.bytes.len();
            self.kept.remove(&number.means);
        }
    }
}

/// Bytes that a bound number of a device takes.
fn number_bytes(origin: &DeviceId) -> usize {
    NUMBER_OVERHEAD_BYTES + origin.as_str().len()
}

/// SHA-256 of the schema that bytes are or stand for.
fn id_of(bytes: &[u8]) -> SchemaId {
    text::referred(bytes).map_or_else(|| Sha256::digest(bytes).into(), |id| *id)
}

fn key(head: &SchemaHead) -> Key {
    (head.origin.clone(), head.epoch, head.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::schema::{Column, ColumnKind};

    fn head(epoch: u64, number: u32) -> SchemaHead {
        SchemaHead {
            origin: DeviceId::new("d").unwrap(),
            epoch: Epoch::new(epoch),
            number,
        }
    }

    fn bytes(name: &str) -> Vec<u8> {
        let mut out = Vec::new();
        Schema::new(1, vec![Column::new(name, ColumnKind::F64)])
            .encode(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn equal_schemas_are_kept_once_and_leave_with_their_last_number() {
        let book = SchemaBook::default();
        assert_eq!(book.judge(&head(1, 0), &bytes("t")), Bound::New);
        assert!(book.bind(&head(1, 0), &bytes("t")));
        assert!(book.bind(&head(2, 0), &bytes("t")));
        book.synced();
        assert_eq!(book.dump().0.len(), 1);
        book.forget(&head(1, 0).origin, Epoch::new(1));
        assert!(book.get(&head(2, 0).origin, Epoch::new(2), 0).is_some());
        book.forget(&head(2, 0).origin, Epoch::new(2));
        assert_eq!(book.dump().0.len(), 0);
    }

    #[test]
    fn a_number_never_changes_its_meaning() {
        let book = SchemaBook::default();
        book.bind(&head(1, 0), &bytes("t"));
        assert_eq!(book.judge(&head(1, 0), &bytes("t")), Bound::Same);
        assert_eq!(book.judge(&head(1, 0), &bytes("u")), Bound::Conflict);
        assert_eq!(book.judge(&head(1, 1), b"nonsense"), Bound::Invalid);
    }

    #[test]
    fn a_failed_group_binds_nothing() {
        let book = SchemaBook::default();
        book.bind(&head(1, 0), &bytes("t"));
        book.roll_back();
        assert!(!book.knows(&head(1, 0)));
    }

    fn head_of(device: &str, number: u32) -> SchemaHead {
        SchemaHead {
            origin: DeviceId::new(device).unwrap(),
            epoch: Epoch::new(1),
            number,
        }
    }

    /// Binds a schema, with room made for it where there is none; how many numbers of which device left.
    fn take(book: &SchemaBook, head: &SchemaHead, bytes: &[u8]) -> Vec<(String, usize)> {
        let left = match book.judge(head, bytes) {
            Bound::New => BTreeMap::new(),
            Bound::Full => book.make_room(bytes),
            other @ (Bound::Same | Bound::Conflict | Bound::Unknown | Bound::Invalid) => {
                panic!("{other:?}")
            }
        };
        assert_eq!(book.judge(head, bytes), Bound::New);
        assert!(book.bind(head, bytes));
        book.synced();
        let left = left.into_iter();
        left.map(|(device, numbers)| (device.to_string(), numbers))
            .collect()
    }

    #[test]
    fn schemas_beyond_their_bytes_leave_from_the_device_with_most_the_longest_unused_first() {
        let book = SchemaBook::default();
        assert_eq!(take(&book, &head_of("modest", 0), &bytes("t")), []);
        let mut number = 0;
        let left = loop {
            let left = take(
                &book,
                &head_of("greedy", number),
                &sized(number, MOST_BYTES),
            );
            if !left.is_empty() {
                break left;
            }
            assert!(book.lock().bytes <= MAX_SCHEMA_BYTES);
            // The first one stays in use.
            assert!(book.knows(&head_of("greedy", 0)));
            number += 1;
        };
        let [(device, numbers)] = left.as_slice() else {
            panic!("{left:?}")
        };
        assert_eq!(device, "greedy");
        assert!(*numbers >= MAX_SCHEMA_BYTES / FREED_SHARE / MOST_BYTES);
        assert!(book.knows(&head_of("modest", 0)));
        assert!(book.knows(&head_of("greedy", 0)));
        assert!(!book.knows(&head_of("greedy", 1)));
        assert!(book.knows(&head_of("greedy", number)));
        let inner = book.lock();
        assert!(inner.bytes <= MAX_SCHEMA_BYTES);
        let kept: usize = inner.kept.values().map(|kept| kept.bytes.len()).sum();
        let numbers: usize = inner.bound.keys().map(|key| number_bytes(&key.0)).sum();
        assert_eq!(inner.bytes, kept + numbers);
    }

    #[test]
    fn nonsense_lets_no_dictionary_go() {
        let book = SchemaBook::default();
        let line = |n: u32| format!("valve {} of pump {n} does not close", n % 7);
        let lines: Vec<String> = (0..2_000).map(line).collect();
        let mut whole = zstd::dict::from_samples(&lines, 4096).unwrap();
        let end = whole.len() - 4;
        for number in 0u32.. {
            // zstd takes any content behind the tables of a dictionary.
            whole[end..].copy_from_slice(&number.to_le_bytes());
            match book.judge(&head(1, number), &whole) {
                Bound::New => assert!(book.bind(&head(1, number), &whole)),
                Bound::Full => break,
                other @ (Bound::Same | Bound::Conflict | Bound::Unknown | Bound::Invalid) => {
                    panic!("{other:?}")
                }
            }
        }
        assert!(text::is_dictionary(&whole[..24]));
        let longer = [&whole[..24], &[0; 4_096]].concat();
        assert_eq!(book.judge(&head(2, 0), &longer), Bound::Invalid);
    }

    #[test]
    fn numbers_beyond_their_bound_leave_from_the_device_with_most() {
        let book = SchemaBook::default();
        let last = u32::try_from(MAX_BOUND).unwrap() - 1;
        assert_eq!(take(&book, &head_of("modest", 0), &bytes("t")), []);
        for number in 0..last {
            book.bind(&head_of("greedy", number), &bytes("t"));
        }
        assert_eq!(book.lock().bound.len(), MAX_BOUND);
        let left = take(&book, &head_of("third", 0), &bytes("t"));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, "greedy");
        assert!(left[0].1 >= MAX_BOUND / FREED_SHARE);
        assert!(book.knows(&head_of("modest", 0)));
    }

    #[test]
    fn a_fleet_of_equals_gives_up_no_more_than_the_share_that_is_made_free() {
        let book = SchemaBook::default();
        for n in 0..MAX_BOUND {
            book.bind(&head_of(&format!("d{n:05}"), 0), &bytes("t"));
        }
        let left = take(&book, &head_of("new", 0), &bytes("t"));
        let numbers: usize = left.iter().map(|(_, numbers)| numbers).sum();
        assert_eq!(numbers, MAX_BOUND / FREED_SHARE);
    }

    #[test]
    fn a_number_that_left_may_come_back_with_another_meaning() {
        let book = SchemaBook::default();
        book.bind(&head_of("d", 0), &bytes("a"));
        book.bind(&head_of("d", 0), &bytes("b"));
        book.synced();
        let (_, schema) = book.get(&head_of("d", 0).origin, Epoch::new(1), 0).unwrap();
        assert_eq!(schema.columns[0].name, "b");
        assert_eq!(book.dump().0.len(), 1);
        book.forget(&head_of("d", 0).origin, Epoch::new(1));
        assert_eq!(book.lock().bytes, 0);
    }

    const COLUMNS: usize = 128;
    const MOST_BYTES: usize = 13_000;

    /// A schema of exactly `len` bytes, which is about from 2,000 to 14,000.
    fn sized(number: u32, len: usize) -> Vec<u8> {
        let padded = |pad: usize| {
            let column = |place: usize| {
                let mut column = Column::new(&format!("{number:04}-{place:03}"), ColumnKind::F64);
                let share = pad / COLUMNS + usize::from(place < pad % COLUMNS);
                column.unit = "u".repeat(share);
                column
            };
            let mut out = Vec::new();
            Schema::new(1, (0..COLUMNS).map(column).collect())
                .encode(&mut out)
                .unwrap();
            out
        };
        let least = padded(0).len();
        assert!((least..=least + 100 * COLUMNS).contains(&len), "{len}");
        let out = padded(len - least);
        assert_eq!(out.len(), len);
        out
    }
}
