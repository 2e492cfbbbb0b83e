//! Core: from the journal's bytes to the state before the crash.
//!
//! The newest snapshot that can be read, then every record after it. What a sink committed beyond
//! the cursor in that snapshot is told by the sink itself: [`Custody::resume`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use headwater_gate::repeat::OpenEntries;
use headwater_gate::{ConnId, Token};
use headwater_proto::delivery::End;
use headwater_proto::ids::{DeviceId, JournalId, SeqRange, Stream};
use headwater_proto::time::Millis;
use headwater_spool::{Disk, Log, ReadError, Recovery};

use super::{Counters, Custody, Group, Mode, Settings};
use crate::ledger::{self, Ledger};
use crate::pipeline::envelope::{self, Record};
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::snapshot::{self, Restored, SinkCursor};

/// Bytes read at once when the journal is read again.
const READ_BYTES: usize = 4 << 20;

/// Why custody cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The journal's folder.
    #[error(transparent)]
    Log(#[from] headwater_spool::OpenError),
    /// The journal's files.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Without the records of a segment the marks are older than what senders were told, and what
    /// the lake has would be taken again.
    #[error(
        "cannot read {file} of the journal; try again, and if its disk is bad for good, move the \
         journal away: a new one begins beside the lake, and agents send again what is not in it"
    )]
    Hidden {
        /// The first such segment.
        file: String,
    },
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What the log did.
    pub recovery: Recovery,
    /// The journal has no past: its marks are to be seeded from the lake beside it.
    pub is_new: bool,
    /// Records read again.
    pub replayed: u64,
}

impl<D: Disk> Custody<D> {
    /// Opens the journal on `disk`, or begins one. `entropy` names a new journal.
    ///
    /// # Errors
    /// [`OpenError`] if the disk cannot be read. What the files hold is never a reason.
    pub fn open(
        disk: D,
        settings: Settings,
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<(Self, Opened), OpenError> {
        let mut config = settings.log.clone();
        config.reserve_bytes = config.reserve_bytes.max(3 * config.segment_bytes);
        let (log, recovery) = Log::open(disk, config)?;
        if let Some(file) = recovery.hidden.first() {
            return Err(OpenError::Hidden { file: file.clone() });
        }
        let (restored, from, is_new) = match newest_snapshot(&log)? {
            Some((first, restored)) => (restored, first, false),
            // Without any snapshot nothing says what the records were: senders still hold what was
            // not committed, and send it again to the new journal.
            None => (begin(JournalId(entropy())), log.next(), true),
        };
        let mut custody = Self {
            journal: restored.journal,
            ledger: restored.ledger,
            schemas: restored.schemas,
            open: restored.open,
            sessions: restored.sessions,
            durable_cursors: restored.sinks.clone(),
            cursors: restored.sinks,
            pending_cursors: None,
            plan: restored.plan,
            log,
            settings,
            conns: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            absent: BTreeMap::new(),
            withheld: VecDeque::new(),
            withheld_bytes: 0,
            group: Group::default(),
            outputs: VecDeque::new(),
            credit: 0,
            next_expiry: Millis(0),
            counters: Counters::default(),
            scratch: Vec::new(),
            snapshot_bytes: 0,
            state_bytes: 0,
            grown_bytes: 0,
        };
        if is_new {
            let position = custody.log.next();
            custody
                .cursors
                .iter_mut()
                .for_each(|cursor| cursor.position = position);
        }
        custody.add_sinks(from);
        let replayed = custody.replay(from)?;
        custody.measure();
        custody.credit = custody.present_credit();
        Ok((
            custody,
            Opened {
                recovery,
                is_new,
                replayed,
            },
        ))
    }

    /// A sink that is new begins at the oldest record there is.
    fn add_sinks(&mut self, otherwise: u64) {
        let oldest = self
            .log
            .segments()
            .next()
            .map_or(otherwise, |segment| segment.first);
        let named: BTreeSet<String> = self.cursors.iter().map(|c| c.name.clone()).collect();
        for sink in &self.settings.sinks {
            if !named.contains(&sink.name) {
                self.cursors.push(SinkCursor {
                    name: sink.name.clone(),
                    position: oldest,
                });
            }
        }
        let specs = &self.settings.sinks;
        self.cursors
            .retain(|cursor| specs.iter().any(|spec| spec.name == cursor.name));
    }

    fn replay(&mut self, from: u64) -> Result<u64, OpenError> {
        let mut reader = self.log.reader();
        let (mut at, mut records) = (from, 0);
        while at < self.log.durable() {
            let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
                match envelope::decode(kind, payload) {
                    Ok(record) => {
                        self.apply(position, &record);
                        if let Record::Raw(head, _) = &record
                            && head.packet_id != 0
                        {
                            // Not known which connection: time closes it no more.
                            let on = (ConnId(u64::MAX), Token(u64::MAX));
                            let client = head.client.into();
                            self.open
                                .open(&client, head.packet_id, head.hash, position, on);
                        }
                    }
                    Err(_) => self.counters.records_damaged_total += 1,
                }
                ControlFlow::Continue(())
            })?;
            records += chunk.records;
            self.counters.records_damaged_total += chunk
                .damage
                .iter()
                .map(|d| d.positions.end - d.positions.start)
                .sum::<u64>();
            if chunk.next == at {
                break;
            }
            at = chunk.next;
        }
        self.ledger.synced();
        self.schemas.synced();
        if self.settings.mode == Mode::Journal {
            self.ledger.commit_everything();
        }
        Ok(records)
    }

    /// Takes in a record that is in the journal.
    pub(super) fn apply(&mut self, position: u64, record: &Record<'_>) {
        self.ledger.apply(record);
        match record {
            Record::Schema(head, bytes) => {
                self.schemas.bind(head, bytes);
            }
            Record::Plan(head, bytes) => {
                self.plan = Some(snapshot::PendingPlan {
                    sink: head.sink.to_owned(),
                    position,
                    bytes: bytes.to_vec(),
                });
            }
            Record::Session(head) => {
                if head.present {
                    self.sessions.insert(head.client.into());
                } else {
                    self.sessions.remove(head.client);
                }
            }
            Record::Batch(..)
            | Record::Raw(..)
            | Record::Cursor(_)
            | Record::Mark(_)
            | Record::Registry(_)
            | Record::Gap(_)
            | Record::Park(..) => {}
        }
    }

    /// A sink says how far it is: `position` is the first that it has not committed. The stretch
    /// beyond what the journal knew is read again, so that its marks are exact.
    ///
    /// # Errors
    /// [`OpenError::Read`].
    pub fn resume(&mut self, sink: &str, position: u64) -> Result<(), OpenError> {
        let known = self.required_position();
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.name == sink) {
            cursor.position = cursor.position.max(position);
        }
        let now = self.required_position();
        if now > known {
            self.commit_stretch(known, now)?;
        }
        Ok(())
    }

    /// Reads `from..to` again and marks what it holds as committed.
    pub(super) fn commit_stretch(&mut self, from: u64, to: u64) -> Result<(), ReadError> {
        let mut reader = self.log.reader();
        let mut at = from;
        while at < to {
            let ledger = &mut self.ledger;
            let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
                if position >= to {
                    return ControlFlow::Break(());
                }
                if let Ok(record) = envelope::decode(kind, payload) {
                    ledger::committed_by(&record, &mut |stream, range| {
                        ledger.commit(stream, range);
                    });
                }
                ControlFlow::Continue(())
            })?;
            if chunk.next == at {
                break;
            }
            at = chunk.next;
        }
        Ok(())
    }

    /// What an existing lake holds of a stream, for a journal that is new beside it; before the
    /// first Welcome.
    pub fn seed(&mut self, stream: Stream, held: &[SeqRange], end: Option<End>) {
        self.ledger.seed(stream, held, end);
    }

    /// The counter of a plain device under this journal's id, as a lake proves it.
    pub fn seed_plain(&mut self, device: DeviceId, next: u64) {
        self.ledger.seed_plain(device, next);
    }
}

fn begin(journal: JournalId) -> Restored {
    Restored {
        journal,
        sinks: Vec::new(),
        plan: None,
        sessions: BTreeSet::new(),
        ledger: Ledger::default(),
        schemas: SchemaBook::default(),
        open: OpenEntries::default(),
    }
}

fn newest_snapshot<D: Disk>(log: &Log<D>) -> Result<Option<(u64, Restored)>, ReadError> {
    for segment in log.segments().rev() {
        let bytes = log.snapshot_of(segment.id)?;
        if let Some(restored) = bytes.as_deref().and_then(snapshot::read) {
            return Ok(Some((segment.first, restored)));
        }
    }
    Ok(None)
}
