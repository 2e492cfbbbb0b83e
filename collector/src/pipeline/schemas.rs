//! Core: which schema a number means, and the schemas themselves.
//!
//! Numbers are bound within (origin, epoch); equal schemas of many devices are kept once, by their
//! SHA-256. A dictionary of log lines is numbered and kept like them, and may be named by its SHA-256
//! alone where it is kept already.
//!
//! The book is shared: custody binds and forgets, the sinks look up. It is filled from the
//! journal's snapshot and Schema records, so that it always knows what records in the journal need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_proto::codec::{BatchHeader, Limits};
use headwater_proto::frame::{Frame, Kind};
use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::schema::Schema;
use headwater_proto::text::{self, TextHeader};
use sha2::{Digest as _, Sha256};

use super::envelope::SchemaHead;

/// Most bytes of distinct schemas: they all stand in each journal snapshot. A fleet of one make
/// shares one schema.
pub const MAX_SCHEMA_BYTES: usize = 6 << 20;
/// Most bytes of distinct dictionaries among them: a fleet shares one or a few, and schemas need the rest.
pub const MAX_DICTIONARIES_BYTES: usize = 1 << 20;
/// Most bound numbers.
pub const MAX_BOUND: usize = 65_536;

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
    /// Too many, or too large together.
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

#[derive(Debug, Default)]
struct Inner {
    bound: BTreeMap<(DeviceId, Epoch, u32), SchemaId>,
    kept: HashMap<SchemaId, Kept>,
    bytes: usize,
    tentative: Vec<(DeviceId, Epoch, u32)>,
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
            Some(known) if *known == id => return Bound::Same,
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
        } else if !known && text::is_dictionary(bytes) {
            let taken = inner.dictionaries_bytes() + bytes.len();
            if taken > MAX_DICTIONARIES_BYTES {
                return Bound::Full;
            }
        }
        if !known && Meaning::of(bytes).is_none() {
            return Bound::Invalid;
        }
        let more = if known { 0 } else { bytes.len() };
        if inner.bound.len() >= MAX_BOUND || inner.bytes + more > MAX_SCHEMA_BYTES {
            return Bound::Full;
        }
        Bound::New
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
        if inner.bound.insert(key(head), id).is_none() {
            if let Some(kept) = inner.kept.get_mut(&id) {
                kept.uses += 1;
            }
            inner.tentative.push(key(head));
        }
        true
    }

    /// The running group is durable.
    pub fn synced(&self) {
        self.lock().tentative.clear();
    }

    /// The running group failed.
    pub fn roll_back(&self) {
        let mut inner = self.lock();
        for key in std::mem::take(&mut inner.tentative) {
            inner.unbind(&key);
        }
    }

    /// Whether a number is bound.
    #[must_use]
    pub fn knows(&self, head: &SchemaHead) -> bool {
        self.lock().bound.contains_key(&key(head))
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
        let id = inner.bound.get(&(origin.clone(), epoch, number))?;
        match &inner.kept.get(id)?.meaning {
            Meaning::Columns(schema) => Some((*id, Arc::clone(schema))),
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
        let id = inner.bound.get(&(origin.clone(), epoch, number))?;
        let kept = inner.kept.get(id)?;
        matches!(kept.meaning, Meaning::Dictionary).then(|| (*id, Arc::clone(&kept.bytes)))
    }

    /// The bytes of the schema of a number.
    #[must_use]
    pub fn bytes_of(&self, head: &SchemaHead) -> Option<Arc<[u8]>> {
        let inner = self.lock();
        let id = inner.bound.get(&key(head))?;
        inner.kept.get(id).map(|kept| Arc::clone(&kept.bytes))
    }

    /// Where `bytes` are a dictionary, or the number `head` means one, its SHA-256 if it is kept.
    #[must_use]
    pub fn dictionary_id(&self, head: &SchemaHead, bytes: &[u8]) -> Option<SchemaId> {
        let inner = self.lock();
        let id = inner.bound.get(&key(head)).copied();
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
        for ((origin, epoch, number), id) in &inner.bound {
            let Some(kept) = inner.kept.get(id) else {
                continue;
            };
            let next = u32::try_from(schemas.len()).unwrap_or(u32::MAX);
            let place = *places.entry(*id).or_insert_with(|| {
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

    fn unbind(&mut self, key: &(DeviceId, Epoch, u32)) {
        let Some(id) = self.bound.remove(key) else {
            return;
        };
        let Some(kept) = self.kept.get_mut(&id) else {
            return;
        };
        kept.uses -= 1;
        if kept.uses == 0 {
            self.bytes -= kept.bytes.len();
            self.kept.remove(&id);
        }
    }
}

/// SHA-256 of the schema that bytes are or stand for.
fn id_of(bytes: &[u8]) -> SchemaId {
    text::referred(bytes).map_or_else(|| Sha256::digest(bytes).into(), |id| *id)
}

fn key(head: &SchemaHead) -> (DeviceId, Epoch, u32) {
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

    const COLUMNS: usize = 128;
    const MOST_BYTES: usize = 13_000;

    #[test]
    fn schemas_are_taken_up_to_their_bytes_and_again_when_others_leave() {
        let book = SchemaBook::default();
        let mut number = 0;
        let mut take = |len: usize| {
            number += 1;
            let bytes = sized(number, len);
            assert_eq!(book.judge(&head(1, number), &bytes), Bound::New);
            assert!(book.bind(&head(1, number), &bytes));
            len
        };
        let mut rest = MAX_SCHEMA_BYTES;
        while rest >= 2 * MOST_BYTES {
            rest -= take(MOST_BYTES);
        }
        rest -= take(rest / 2);
        let fits = head(2, 0);
        assert_eq!(book.judge(&fits, &sized(9_999, rest + 1)), Bound::Full);
        assert_eq!(book.judge(&fits, &sized(9_999, rest)), Bound::New);
        assert!(book.bind(&fits, &sized(9_999, rest)));
        assert_eq!(book.judge(&head(3, 0), &bytes("t")), Bound::Full);
        // What is kept already takes no more bytes.
        assert_eq!(book.judge(&head(3, 0), &sized(9_999, rest)), Bound::New);
        book.forget(&fits.origin, fits.epoch);
        assert_eq!(book.judge(&head(3, 0), &bytes("t")), Bound::New);
    }

    #[test]
    fn numbers_are_bound_up_to_their_bound_and_again_when_others_leave() {
        let book = SchemaBook::default();
        let last = u32::try_from(MAX_BOUND).unwrap() - 1;
        for number in 0..last {
            book.bind(&head(1, number), &bytes("t"));
        }
        assert_eq!(book.judge(&head(2, 0), &bytes("t")), Bound::New);
        book.bind(&head(2, 0), &bytes("t"));
        assert_eq!(book.judge(&head(3, 0), &bytes("t")), Bound::Full);
        assert_eq!(book.judge(&head(2, 0), &bytes("t")), Bound::Same);
        book.synced();
        book.forget(&head(2, 0).origin, Epoch::new(2));
        assert_eq!(book.judge(&head(3, 0), &bytes("t")), Bound::New);
    }
}
