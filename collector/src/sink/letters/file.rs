//! Core: one file of dead letters.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `HWDL` |
//! | 1 | version, now 1 |
//! | 4 | CRC-32C of the rest, little-endian |
//! | rest | [`Entry`]s in postcard, one after the other |
//!
//! Its name says when the sink refused, which journal the records are of, their lowest and highest
//! position, and how many they are; so a listing of the folder is an index of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use headwater_proto::frame::crc32c;
use headwater_proto::ids::JournalId;
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, DiskFile};
use serde::{Deserialize, Serialize};

use super::found::{Context, Found, LetterHead};
use crate::interpret::{Depth, Interpreted, Interpreter};

/// Bytes after which a file takes no more letters.
pub const MAX_FILE_BYTES: usize = 4 << 20;
/// Most bytes of a file that is read: the last letter of one may bring a record and a schema along.
pub const MAX_READ_BYTES: u64 = 32 << 20;

const MAGIC: &[u8; 4] = b"HWDL";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 9;
const SUFFIX: &str = ".letters";

/// What a file holds.
#[derive(Debug, Serialize, Deserialize)]
enum Entry<'a> {
    /// A record that later ones are read with.
    Context {
        kind: u8,
        #[serde(borrow)]
        payload: &'a [u8],
    },
    /// A record that was refused.
    Letter {
        #[serde(borrow)]
        head: LetterHead<'a>,
        kind: u8,
        payload: &'a [u8],
    },
}

/// The name of a file, which says what is in it. Sorted by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// When the sink refused.
    pub at: UnixMicros,
    /// The journal of the records.
    pub journal: JournalId,
    /// Lowest position of a record.
    pub first: u64,
    /// Highest one.
    pub last: u64,
    /// How many there are.
    pub letters: u32,
}

impl Name {
    /// Reads a file's name; `None` for a file that is none of letters.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-');
        let mut next = || {
            let part = parts.next().filter(|part| part.len() == 16)?;
            u64::from_str_radix(part, 16).ok()
        };
        let parsed = Self {
            at: UnixMicros(i64::try_from(next()?).ok()?),
            journal: JournalId(next()?),
            first: next()?,
            last: next()?,
            letters: u32::try_from(next()?).ok()?,
        };
        (parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            at,
            journal,
            first,
            last,
            letters,
        } = self;
        let at = at.0.max(0);
        write!(
            f,
            "{at:016x}-{journal}-{first:016x}-{last:016x}-{letters:016x}{SUFFIX}"
        )
    }
}

/// A file in the making.
#[derive(Debug, Default)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    /// Of which journal; the first and last position, and how many.
    holds: Option<(JournalId, u64, u64, u32)>,
    told: BTreeSet<[u8; 32]>,
}

impl Draft {
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether letters of `journal` may be added.
    pub(super) fn is_of(&self, journal: JournalId) -> bool {
        self.holds.is_none_or(|(of, ..)| of == journal)
    }

    pub(super) fn add(&mut self, found: &Found<'_>) {
        for context in &found.context {
            let Context { id, kind, payload } = &**context;
            if self.told.insert(*id) {
                self.push(&Entry::Context {
                    kind: *kind,
                    payload,
                });
            }
        }
        self.push(&Entry::Letter {
            head: found.head,
            kind: found.kind,
            payload: found.payload,
        });
        self.count(found.journal, found.head.position);
    }

    /// Adds what `body`, the entries of a file of `journal`, has of letters that `keeps` gives a cause for.
    pub(super) fn add_some(
        &mut self,
        journal: JournalId,
        body: &[u8],
        keeps: &BTreeMap<u64, String>,
    ) -> Result<(), Unreadable> {
        each_entry(body, &mut |entry| match entry {
            Entry::Context { .. } => self.push(&entry),
            Entry::Letter {
                head,
                kind,
                payload,
            } => {
                let Some(cause) = keeps.get(&head.position) else {
                    return;
                };
                let position = head.position;
                self.push(&Entry::Letter {
                    head: LetterHead { position, cause },
                    kind,
                    payload,
                });
                self.count(journal, position);
            }
        })
    }

    fn count(&mut self, journal: JournalId, position: u64) {
        let (_, first, last, letters) = self.holds.get_or_insert((journal, position, position, 0));
        (*first, *last) = (position.min(*first), position.max(*last));
        *letters += 1;
    }

    fn push(&mut self, entry: &Entry<'_>) {
        let bytes = std::mem::take(&mut self.bytes);
        // An entry holds plain values and bytes, and a vector takes whatever it is given.
        self.bytes =
            postcard::to_extend(entry, bytes).expect("an entry serialises into a growing buffer");
    }

    /// The file and its name; `None` if nothing was added.
    pub(super) fn finish(&self, at: UnixMicros) -> Option<(Name, Vec<u8>)> {
        let (journal, first, last, letters) = self.holds?;
        let name = Name {
            at,
            journal,
            first,
            last,
            letters,
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.bytes.len());
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&crc32c(&self.bytes).to_le_bytes());
        bytes.extend_from_slice(&self.bytes);
        Some((name, bytes))
    }
}

/// Why a file of letters cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The disk's.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// Another version.
    #[error("it is of version {0}, which this build does not know")]
    Version(u8),
    /// The bytes are not those that were written.
    #[error("it is damaged")]
    Damaged,
}

/// Hands over every letter of a file, with what it means; `None`: this build
/// does not know its kind.
///
/// # Errors
/// [`Unreadable`]; letters before a damaged entry were handed over.
pub fn read<D: Disk>(
    disk: &D,
    name: &Name,
    depth: Depth,
    visit: &mut dyn FnMut(&LetterHead<'_>, Option<&Interpreted<'_>>),
) -> Result<(), Unreadable> {
    let mut interpreter = Interpreter::new(depth);
    each_entry(&body(disk, name)?, &mut |entry| match entry {
        Entry::Context { kind, payload } => interpreter.pass_over(kind, payload),
        Entry::Letter {
            head,
            kind,
            payload,
        } => {
            let item = interpreter.read(head.position, kind, payload);
            visit(&head, item.as_ref().ok());
        }
    })
}

/// The entries of a file, after its checksum was found right.
pub(super) fn body<D: Disk>(disk: &D, name: &Name) -> Result<Vec<u8>, Unreadable> {
    let file = disk.open(&name.to_string())?;
    let len = file.size()?.len;
    if len > MAX_READ_BYTES {
        return Err(Unreadable::Damaged);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Unreadable::Damaged)?];
    let is_whole = file.read_at(&mut bytes, 0)? == bytes.len();
    if !is_whole || bytes.len() < HEAD_BYTES || bytes[..4] != *MAGIC {
        return Err(Unreadable::Damaged);
    }
    if bytes[4] != VERSION {
        return Err(Unreadable::Version(bytes[4]));
    }
    let body = bytes.split_off(HEAD_BYTES);
    if bytes[5..] != crc32c(&body).to_le_bytes() {
        return Err(Unreadable::Damaged);
    }
    Ok(body)
}

/// Hands over the positions of a file's letters.
pub(super) fn positions(body: &[u8], visit: &mut dyn FnMut(u64)) -> Result<(), Unreadable> {
    each_entry(body, &mut |entry| {
        if let Entry::Letter { head, .. } = entry {
            visit(head.position);
        }
    })
}

fn each_entry(mut body: &[u8], visit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Unreadable> {
    while !body.is_empty() {
        let (entry, rest) =
            postcard::take_from_bytes::<Entry<'_>>(body).map_err(|_| Unreadable::Damaged)?;
        body = rest;
        visit(entry);
    }
    Ok(())
}
