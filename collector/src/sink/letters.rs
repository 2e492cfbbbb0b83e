//! Core: dead letters of one sink: copies of the records that it refused for good, in a folder of its own.
//!
//! A letter is a record of the journal together with the rules and schemas that it is read with. It
//! means later what it meant when the sink refused it, also when its segment is long gone and the
//! configuration has changed. Letters are durable before custody hears of the refusal, and a repeat
//! after a crash keeps none twice.
//!
//! ```text
//! sink refuses ──► copied from the journal ──► file, synced ──► commit: named in a gap, cursor moves
//!                                               │
//!                    list, show ◄───────────────┴──► replay: the sink is given them once more
//! ```
//! The folder is bounded. Beyond that the oldest file goes, and is counted: what its letters held is named
//! in gaps, and the lake has it.

mod copy;
mod file;
mod found;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use headwater_proto::ids::JournalId;
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk, DiskFile, ReadError, Reader};

pub use copy::Refusal;
pub use file::{MAX_FILE_BYTES, MAX_READ_BYTES, Name, Unreadable, read};
pub use found::LetterHead;
pub use replay::{Around, ReplayError, Replayed, replay};

use file::Draft;

use crate::metrics::LetterLook;

/// Most bytes of one sink's letters.
pub const MAX_LETTERS_BYTES: u64 = 64 << 20;
/// Most files of one sink's letters: each is a name to be listed.
pub const MAX_LETTER_FILES: usize = 4_096;
/// A file that is being written: what a crash leaves of it is no letter yet.
const UNFINISHED: &str = "unfinished";

/// Why letters could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// The journal did not give them.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// Their folder.
    #[error("the folder of dead letters cannot be used")]
    Folder(#[from] io::Error),
}

/// The letters of one sink.
#[derive(Debug)]
pub struct Letters<D: Disk> {
    disk: D,
    /// With their bytes, oldest first.
    files: BTreeMap<Name, u64>,
    /// The records that they are and that may be refused again, once somebody asked.
    known: Option<BTreeSet<(JournalId, u64)>>,
    dropped: u64,
}

impl<D: Disk> Letters<D> {
    /// Looks through the folder, and takes away what a crash left unfinished there.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(disk: D) -> io::Result<Self> {
        let files = list(&disk)?;
        if disk.list()?.iter().any(|name| name == UNFINISHED) {
            disk.remove(UNFINISHED)?;
        }
        Ok(Self {
            files,
            disk,
            known: None,
            dropped: 0,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn look(&self) -> LetterLook {
        LetterLook {
            kept: self.files.keys().map(|name| u64::from(name.letters)).sum(),
            bytes: self.files.values().sum(),
            dropped: self.dropped,
            lost: 0,
        }
    }

    /// The files, oldest first.
    pub fn files(&self) -> impl Iterator<Item = &Name> {
        self.files.keys()
    }

    /// The folder.
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// Copies what a sink refused out of its journal; durable when this returns. Passes over records that
    /// are letters already, and those that the journal cannot give back. Returns how many it kept.
    ///
    /// # Errors
    /// [`LettersError`]; some may be kept then.
    pub fn keep<J: Disk>(
        &mut self,
        refusal: &Refusal<'_>,
        journal: &mut Reader<J>,
    ) -> Result<u64, LettersError> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => self.records(),
        };
        // What stands before is answered for: it is not refused again in this life.
        known.retain(|(_, position)| *position >= refusal.from);
        let (mut draft, mut kept) = (Draft::default(), 0);
        copy::each_refused(refusal, journal, &mut |found| {
            if !known.insert((found.journal, found.head.position)) {
                return Ok(());
            }
            // One file is of one journal.
            if draft.len() >= MAX_FILE_BYTES || !draft.is_of(found.journal) {
                self.put(&std::mem::take(&mut draft), refusal.at)?;
            }
            draft.add(found);
            kept += 1;
            Ok(())
        })?;
        self.put(&draft, refusal.at)?;
        // Where one of these failed, the folder is asked again.
        self.known = Some(known);
        Ok(kept)
    }

    /// The records that are letters. A file that cannot be read tells of none: they may be kept twice.
    fn records(&self) -> BTreeSet<(JournalId, u64)> {
        let mut records = BTreeSet::new();
        for name in self.files.keys() {
            if let Ok(body) = file::body(&self.disk, name) {
                let _ = file::positions(&body, &mut |position| {
                    records.insert((name.journal, position));
                });
            }
        }
        records
    }

    /// Writes a file, and makes room for it.
    fn put(&mut self, draft: &Draft, at: UnixMicros) -> io::Result<()> {
        let Some((name, bytes)) = draft.finish(at) else {
            return Ok(());
        };
        self.make_room(bytes.len() as u64)?;
        self.write(name, &bytes)
    }

    fn write(&mut self, name: Name, bytes: &[u8]) -> io::Result<()> {
        let file = self.disk.create(UNFINISHED)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.disk.rename(UNFINISHED, &name.to_string())?;
        self.disk.sync_dir()?;
        self.files.insert(name, bytes.len() as u64);
        Ok(())
    }

    fn make_room(&mut self, more: u64) -> io::Result<()> {
        let is_full = |files: &BTreeMap<Name, u64>| {
            let bytes: u64 = files.values().sum();
            files.len() >= MAX_LETTER_FILES || bytes.saturating_add(more) > MAX_LETTERS_BYTES
        };
        while is_full(&self.files) {
            let Some(oldest) = self.files.keys().next().copied() else {
                break;
            };
            self.remove(&oldest)?;
            self.dropped += u64::from(oldest.letters);
        }
        Ok(())
    }

    /// Of a file, only those letters stay that a sink refused again.
    ///
    /// # Errors
    /// [`LettersError`]; the file is as it was then, or both are there.
    fn keep_refused(
        &mut self,
        name: &Name,
        refused: &BTreeMap<u64, String>,
    ) -> Result<(), LettersError> {
        if !refused.is_empty() {
            let mut draft = Draft::default();
            // It was read before, and the folder is this process's alone.
            let body = file::body(&self.disk, name).map_err(io::Error::other)?;
            let read = draft.add_some(name.journal, &body, refused);
            read.map_err(io::Error::other)?;
            if let Some((shorter, bytes)) = draft.finish(name.at) {
                self.write(shorter, &bytes)?;
                if shorter == *name {
                    return Ok(());
                }
            }
        }
        Ok(self.remove(name)?)
    }

    fn remove(&mut self, name: &Name) -> io::Result<()> {
        self.disk.remove(&name.to_string())?;
        self.files.remove(name);
        Ok(())
    }
}

/// The files of a folder with their bytes, oldest first; for a look at the folder of a running collector
/// too.
///
/// # Errors
/// The disk's.
pub fn list<D: Disk>(disk: &D) -> io::Result<BTreeMap<Name, u64>> {
    let mut files = BTreeMap::new();
    for name in disk.list()? {
        if let Some(parsed) = Name::parse(&name) {
            match disk.open(&name).and_then(|file| file.size()) {
                Ok(size) => drop(files.insert(parsed, size.len)),
                // It went for room meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(files)
}
