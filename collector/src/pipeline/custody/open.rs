//! Core: from the journal's bytes to the state before the crash.
//!
//! The newest snapshot that can be read, then every record after it. Where none can be read, the
//! records themselves tell whose journal it is, and the lake what they followed on. What a sink
//! committed beyond the cursor that is found here is told by the sink itself: [`Custody::resume`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use headwater_gate::repeat::OpenEntries;
use headwater_gate::{ConnId, Token};
use headwater_proto::delivery::End;
use headwater_proto::ids::{Epoch, JournalId, SeqRange, Stream};
use headwater_proto::time::Millis;
use headwater_spool::{Disk, Log, ReadError, Recovery};

use super::coverage::Coverage;
use super::loss::Unread;
use super::sessions::Sessions;
use super::{Counters, Custody, Rules, Settings};
use crate::done::DoneEpochs;
use crate::pipeline::envelope::{self, EnvelopeError, Record, RecordKind, SinkCursor};
use crate::pipeline::ledger::{self, Ledger};
use crate::pipeline::pattern::rules_of;
use crate::pipeline::rules::{RuleSet, RulesError, RulesId};
use crate::pipeline::schemas::SchemaBook;
use crate::pipeline::snapshot::{self, NotRead, Plans, Restored};

/// Bytes read at once when the journal is read again.
pub(super) const READ_BYTES: usize = 4 << 20;

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
    /// Its last records were written before a crash and never synced: a repeat of one of them would
    /// be answered for a record that a power cut may still take.
    #[error(
        "cannot sync {file} of the journal; try again, and if its disk is bad for good, move the \
         journal away: a new one begins beside the lake, and agents send again what is not in it"
    )]
    NotSynced {
        /// The first such segment.
        file: String,
    },
    /// Beginning anew beside such a journal would take again what the lake has.
    #[error(
        "the journal was written by another version of this program ({what}); run that version until \
         its sinks have everything, or move the journal away: a new one begins beside the lake, and \
         agents send again what is not in it"
    )]
    OtherVersion {
        /// What this version does not know.
        what: String,
    },
}

/// What a start knows of the time before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// All of it: a snapshot and the records after it.
    Snapshot,
    /// The records that are left, after no snapshot could be read: what came before them is to be
    /// seeded from the lake.
    Records,
    /// Nothing, and the journal has a new name: its marks are to be seeded from the lake beside it.
    Nothing,
}

/// What opening found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What the log did.
    pub recovery: Recovery,
    /// What is known of the time before.
    pub past: Past,
    /// Records read again.
    pub replayed: u64,
    /// Records among them that could not be read: what the lake has of them is to be seeded from it.
    pub damaged: u64,
    /// The position after the last of those; 0 if there is none.
    pub damaged_to: u64,
}

impl<D: Disk> Custody<D> {
    /// Opens the journal on `disk`, or begins one. `entropy` names a new journal, `done` is the index
    /// of epochs that are over.
    ///
    /// # Errors
    /// [`OpenError`] if the disk cannot be read, or was written by another version. Damage is never
    /// a reason.
    pub fn open(
        disk: D,
        settings: Settings,
        done: Box<dyn DoneEpochs>,
        entropy: &mut dyn FnMut() -> u64,
    ) -> Result<(Self, Opened), OpenError> {
        let mut config = settings.log.clone();
        config.reserve_bytes = config.reserve_bytes.max(3 * config.segment_bytes);
        let (log, recovery) = Log::open(disk, config)?;
        if let Some(file) = recovery.hidden.first() {
            return Err(OpenError::Hidden { file: file.clone() });
        }
        if let Some(file) = recovery.unsynced.first() {
            return Err(OpenError::NotSynced { file: file.clone() });
        }
        let (restored, from, past) = restore(&log, entropy)?;
        let rules = RuleSet::new(rules_of(&settings.patterns), settings.window).encode();
        let rules = Rules {
            id: RulesId::of(&rules),
            bytes: rules,
        };
        let required = settings.sinks.iter().filter(|sink| sink.required);
        let coverage = Coverage::new(required.map(|sink| sink.name.as_str()));
        let sessions = Sessions::new(&settings);
        let mut custody = Self {
            coverage,
            settled_lacks: Vec::new(),
            unread: Vec::new(),
            named_unread: Vec::new(),
            is_ending: false,
            journal: restored.journal,
            rules,
            ledger: restored.ledger,
            schemas: restored.schemas,
            in_segment: BTreeSet::new(),
            dictionaries_in_segment: BTreeSet::new(),
            done,
            index_failed: false,
            open: restored.open,
            clients: restored.sessions,
            durable_cursors: restored.sinks.clone(),
            cursors: restored.sinks,
            pending_cursors: None,
            plans: restored.plans,
            apart_since: restored.apart_since,
            lake_term: restored.lake_term,
            next_term: None,
            committed_to: restored.committed_to,
            noted: BTreeMap::new(),
            worth_noting: 0,
            held: Vec::new(),
            moved: Vec::new(),
            began_at: 0,
            log,
            settings,
            sessions,
            absent: BTreeMap::new(),
            watch: None,
            watch_again: false,
            settled: Vec::new(),
            next_expiry: Millis(0),
            next_relayed: None,
            counters: Counters::default(),
            scratch: Vec::new(),
            snapshot_bytes: 0,
            state_bytes: 0,
            grown_bytes: 0,
        };
        custody.add_sinks(from, past);
        let mut opened = Opened {
            recovery,
            past,
            replayed: 0,
            damaged: 0,
            damaged_to: 0,
        };
        custody.replay(from, &mut opened)?;
        custody.catch_up(from, past, &mut opened)?;
        custody.measure();
        let credit = custody.present_credit();
        custody.sessions.grant(credit);
        Ok((custody, opened))
    }

    /// Marks what sinks had by the records that were read again.
    fn catch_up(&mut self, from: u64, past: Past, opened: &mut Opened) -> Result<(), OpenError> {
        // One that left and came back begins as a new one.
        self.add_sinks(from, past);
        self.began_at = self.log.next();
        self.worth_noting = self.began_at;
        let known = match past {
            Past::Snapshot => self.committed_to,
            // Sinks were at least there; what they had of the records that are left is exact again.
            Past::Records | Past::Nothing => from,
        };
        let now = self.required_position();
        let unread = self.commit_stretch(known, now)?;
        self.committed_to = now;
        self.fill_coverage()?;
        if past == Past::Records {
            self.ledger.doubt_ends();
        } else {
            opened.damaged += unread;
        }
        Ok(())
    }

    /// A sink that is new begins at the oldest record there is.
    fn add_sinks(&mut self, from: u64, past: Past) {
        let oldest = self.log.segments().next();
        let oldest = match past {
            Past::Snapshot => oldest.map_or(from, |segment| segment.first),
            Past::Records | Past::Nothing => from,
        };
        let named: BTreeSet<String> = self.cursors.iter().map(|c| c.name.clone()).collect();
        for sink in &self.settings.sinks {
            if !named.contains(&sink.name) {
                self.cursors.push(SinkCursor {
                    name: sink.name.clone(),
                    position: oldest,
                });
            }
        }
    }

    fn replay(&mut self, from: u64, opened: &mut Opened) -> Result<(), OpenError> {
        let mut reader = self.log.reader();
        let mut at = from;
        while at < self.log.durable() {
            let mut failed = None;
            let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
                match self.read_again(position, kind, payload) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = failed {
                return Err(error);
            }
            opened.replayed += chunk.records;
            for damage in &chunk.damage {
                opened.damaged += damage.positions.end - damage.positions.start;
                opened.damaged_to = damage.positions.end;
            }
            if chunk.next == at {
                break;
            }
            at = chunk.next;
        }
        self.counters.records_damaged_total += opened.damaged;
        self.ledger.synced();
        self.schemas.synced();
        Ok(())
    }

    fn read_again(&mut self, position: u64, kind: u8, payload: &[u8]) -> Result<(), OpenError> {
        let record = match envelope::decode(kind, payload) {
            Ok(record) => record,
            Err(error) if error.is_other_version() => return Err(other_version(error)),
            Err(_) => {
                self.counters.records_damaged_total += 1;
                return Ok(());
            }
        };
        for stream in ledger::streams_in(&record) {
            // The lake fills an index that fails anew, and knows what this one does not tell.
            if self.recall(&stream).is_err() {
                self.index_failed = true;
            }
        }
        if let Record::Rules(bytes) = &record
            && let Err(error @ RulesError::Newer(_)) = RuleSet::decode(bytes)
        {
            let what = error.to_string();
            return Err(OpenError::OtherVersion { what });
        }
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
        Ok(())
    }

    /// Takes in a record that is in the journal.
    pub(super) fn apply(&mut self, position: u64, record: &Record<'_>) {
        self.ledger.apply(record);
        match record {
            Record::Schema(head, bytes) => {
                self.schemas.bind(head, bytes);
            }
            Record::Plan(head, bytes) => {
                let plan = snapshot::PendingPlan {
                    sink: head.sink.to_owned(),
                    position,
                    bytes: bytes.to_vec(),
                };
                self.plans.insert(head.sink.to_owned(), plan);
            }
            Record::Cursor(head) => self.cursor_noted(head.sink, head.position),
            // Only where a journal is read again: a segment's first record is its own.
            Record::Begin(head) => {
                self.apart_since = head.apart_since;
                self.ledger.begin_plain_epoch(head.plain_epoch);
            }
            Record::Session(head) => {
                if head.present {
                    self.clients.insert(head.client.into());
                } else {
                    self.clients.remove(head.client);
                }
            }
            Record::Batch(..)
            | Record::Raw(..)
            | Record::Mark(_)
            | Record::Registry(_)
            | Record::Gap(_)
            | Record::Park(..)
            | Record::Rules(_)
            | Record::DecoderState(_)
            | Record::Lacks(_) => {}
        }
    }

    /// A sink says how far it is: `position` is the first that it has not committed. The stretch
    /// beyond what the journal knew is read again, so that its marks are exact. Returns how many of
    /// its records could not be read: what the lake has of them is to be seeded from it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn resume(&mut self, sink: &str, position: u64) -> Result<u64, ReadError> {
        let known = self.required_position();
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.name == sink) {
            cursor.position = cursor.position.max(position);
        }
        let now = self.required_position();
        let unread = self.commit_stretch(known, now)?;
        self.committed_to = now;
        Ok(unread + self.fill_coverage()?)
    }

    /// Fills the sets of required sinks from the records between the cursor of the last of them and their
    /// own. Returns how many of those could not be read.
    pub(super) fn fill_coverage(&mut self) -> Result<u64, ReadError> {
        self.coverage.clear();
        let least = self.required_position();
        let is_ahead =
            |cursor: &&SinkCursor| cursor.position > least && self.coverage.requires(&cursor.name);
        let ahead: Vec<SinkCursor> = self.cursors.iter().filter(is_ahead).cloned().collect();
        let to = ahead.iter().map(|cursor| cursor.position).max();
        let Some(to) = to.map(|to| to.min(self.log.next())) else {
            return Ok(0);
        };
        let (ledger, coverage) = (&self.ledger, &mut self.coverage);
        let unread = each_number(&self.log, least, to, &mut |position, stream, range| {
            for sink in ahead.iter().filter(|sink| position < sink.position) {
                for open in ledger.uncommitted(stream, range) {
                    // The last of the sinks has none of it, so nothing is committed by this.
                    coverage.add(&sink.name, stream, open);
                }
            }
        })?;
        if unread > 0 {
            self.coverage.doubt();
        }
        Ok(unread)
    }

    /// Reads `from..to` again and marks what it holds as committed. Returns how many records could
    /// not be read.
    fn commit_stretch(&mut self, from: u64, to: u64) -> Result<u64, ReadError> {
        let ledger = &mut self.ledger;
        let mut damaged = each_number(&self.log, from, to, &mut |_, stream, range| {
            ledger.commit(stream, range);
        })?;
        // After an older snapshot than the last one, what that one let go of is missing.
        if let Some(oldest) = self.log.segments().next() {
            damaged += oldest.first.min(to).saturating_sub(from);
        }
        Ok(damaged)
    }

    /// The parts of `held`, which `sink` holds of a stream, that count as committed. With several required
    /// sinks they are not those that another one has yet to read from the journal; of what this journal
    /// took and cannot read any more the others lack what they had not read: it is named for them.
    pub fn to_be_seeded(
        &mut self,
        sink: &str,
        stream: &Stream,
        held: &[SeqRange],
    ) -> Vec<SeqRange> {
        if !self.coverage.is_shared() || !self.coverage.requires(sink) {
            return held.to_vec();
        }
        let mut seeds = Vec::new();
        let split = |range: &SeqRange| self.coverage.split(stream, *range);
        let parts: Vec<SeqRange> = held.iter().flat_map(split).collect();
        for part in parts {
            if self.coverage.is_anywhere(stream, part) {
                continue;
            }
            let taken = self.ledger.taken_and_open(stream, part);
            if taken.is_empty() || self.coverage.is_doubtful() {
                seeds.push(part);
                let others = self.coverage.others(sink);
                let unread = taken.into_iter().map(|range| Unread {
                    sinks: others.clone(),
                    lacks: (stream.clone(), vec![range]),
                });
                self.unread.extend(unread);
                continue;
            }
            // Its records are readable, and the other sinks come to them.
            let mut rest = part.first;
            for range in taken {
                seeds.push(SeqRange::new(rest, range.first));
                self.coverage.add(sink, stream, range);
                rest = range.next;
            }
            seeds.push(SeqRange::new(rest, part.next));
        }
        seeds.retain(|range| !range.is_empty());
        seeds
    }

    /// What an existing lake holds of a stream, where the journal does not know; before the first
    /// Welcome. Numbers in `partial` are there in part, and will be named.
    pub fn seed(&mut self, stream: Stream, held: &[SeqRange], partial: &[u64], end: Option<End>) {
        self.ledger.seed(stream, held, partial, end);
    }

    /// The marks agree with the lake, whose term is `term`. What they take in a snapshot counts from
    /// now on. While records before `until` may be in the lake twice, a start must look again.
    pub(super) fn seeded(&mut self, term: u64, until: u64) {
        self.next_term = Some((term, until));
        self.settle_term();
        self.measure();
    }

    pub(super) fn settle_term(&mut self) {
        let passed = self.required_position();
        if let Some((term, _)) = self.next_term.take_if(|(_, until)| *until <= passed) {
            self.lake_term = term;
        }
    }

    /// The term of the lake with which the marks were made to agree, as the last snapshot says; 0 if
    /// never. In another term another journal may have brought what the marks do not know.
    #[must_use]
    pub const fn lake_term(&self) -> u64 {
        self.lake_term
    }

    /// What a lake proves of a plain device under an epoch of this journal.
    pub fn seed_plain(&mut self, stream: &Stream, held: &[SeqRange], next: u64) {
        self.ledger.seed_plain(stream, held, next);
    }
}

/// Hands over the numbers that the records of `from..to` stand for, with the position of each. Returns
/// how many records could not be read.
///
/// # Errors
/// [`ReadError`].
pub(super) fn each_number<D: Disk>(
    log: &Log<D>,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(u64, &Stream, SeqRange),
) -> Result<u64, ReadError> {
    let mut reader = log.reader();
    let (mut at, mut damaged) = (from, 0);
    while at < to {
        let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
            if position >= to {
                return ControlFlow::Break(());
            }
            if let Ok(record) = envelope::decode(kind, payload) {
                ledger::committed_by(&record, &mut |stream, range| {
                    visit(position, stream, range);
                });
            }
            ControlFlow::Continue(())
        })?;
        for damage in &chunk.damage {
            let lost = damage.positions.start..damage.positions.end.min(to);
            damaged += lost.end.saturating_sub(lost.start);
        }
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(damaged)
}

/// What is known of the time before, the first position to read again, and how that is known.
fn restore<D: Disk>(
    log: &Log<D>,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<(Restored, u64, Past), OpenError> {
    Ok(match newest_snapshot(log)? {
        Found::Good(first, restored) => (restored, first, Past::Snapshot),
        Found::Older(first, restored) => match newest_begin(log)? {
            // The journal began anew since: what the old snapshot says is of another one.
            Some((begun, records)) if records.journal != restored.journal => {
                (records, begun, Past::Records)
            }
            Some(_) | None => (restored, first, Past::Snapshot),
        },
        Found::None => match newest_begin(log)? {
            Some((first, restored)) => (restored, first, Past::Records),
            // Nothing says what the records were: senders still hold what was not committed, and
            // send it again to the new journal.
            None => {
                let name = JournalId(entropy());
                let plain_epoch = Epoch::new(name.0);
                (begin(name, plain_epoch), log.next(), Past::Nothing)
            }
        },
    })
}

fn other_version(error: EnvelopeError) -> OpenError {
    OpenError::OtherVersion {
        what: error.to_string(),
    }
}

fn begin(journal: JournalId, plain_epoch: Epoch) -> Restored {
    Restored {
        journal,
        apart_since: None,
        rules: Vec::new(),
        sinks: Vec::new(),
        plans: Plans::new(),
        lake_term: 0,
        committed_to: 0,
        sessions: BTreeSet::new(),
        ledger: Ledger::new(plain_epoch),
        schemas: SchemaBook::default(),
        open: OpenEntries::default(),
    }
}

/// The newest snapshot that can be read, and the position after it.
enum Found {
    /// That of the newest segment.
    Good(u64, Restored),
    /// An older one.
    Older(u64, Restored),
    None,
}

fn newest_snapshot<D: Disk>(log: &Log<D>) -> Result<Found, OpenError> {
    if let Some(segment) = log.segments().find(|segment| !segment.readable) {
        return Err(OpenError::OtherVersion {
            what: format!("segment {:016x} is of another format", segment.id),
        });
    }
    let newest = log.segments().next_back().map(|segment| segment.id);
    for segment in log.segments().rev() {
        let Some(bytes) = log.snapshot_of(segment.id)? else {
            continue;
        };
        match snapshot::read(&bytes) {
            Ok(restored) if Some(segment.id) == newest => {
                return Ok(Found::Good(segment.first, restored));
            }
            Ok(restored) => return Ok(Found::Older(segment.first, restored)),
            Err(NotRead::OtherVersion(version)) => {
                let what = format!("its snapshots are of version {version}");
                return Err(OpenError::OtherVersion { what });
            }
            Err(NotRead::Damaged) => {}
        }
    }
    Ok(Found::None)
}

/// Whose journal it is, as its records say, and the first of them.
fn newest_begin<D: Disk>(log: &Log<D>) -> Result<Option<(u64, Restored)>, OpenError> {
    let Some(oldest) = log.segments().next() else {
        return Ok(None);
    };
    let mut found: Option<(u64, Restored)> = None;
    let mut reader = log.reader();
    let mut at = oldest.first;
    while at < log.durable() {
        let mut failed = None;
        let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
            if kind != RecordKind::Begin.to_u8() {
                return ControlFlow::Continue(());
            }
            match envelope::decode(kind, payload) {
                Ok(Record::Begin(head)) => {
                    let first = match &found {
                        None => oldest.first,
                        Some((first, known)) if known.journal == head.journal => *first,
                        // What came before belongs to a journal that is gone, or was taken over from
                        // it where its sinks begin.
                        Some(_) => {
                            let sinks = head.sinks.iter().map(|cursor| cursor.position);
                            sinks.fold(position, u64::min)
                        }
                    };
                    let mut restored = begin(head.journal, head.plain_epoch);
                    restored.apart_since = head.apart_since;
                    restored.sinks = head.sinks;
                    found = Some((first, restored));
                }
                Err(error) if error.is_other_version() => failed = Some(other_version(error)),
                Ok(_) | Err(_) => {}
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(found)
}
