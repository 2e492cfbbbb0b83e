//! Core: from the journal's bytes to the state before the crash.
//!
//! The newest snapshot that can be read, then every record after it. Where none can be read, the
//! records themselves tell whose journal it is, and the lake what they followed on. What a sink
//! committed beyond the cursor that is found here is told by the sink itself: [`Custody::resume`].

use std::ops::ControlFlow;

use headwater_gate::{ConnId, Token};
use headwater_proto::delivery::End;
use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::Millis;
use headwater_spool::{Disk, Log, ReadError, Recovery};

use super::clock::HouseClock;
use super::journal::{Rules, other_version, restore};
use super::sessions::Sessions;
use super::streams::Streams;
use super::stretch::READ_BYTES;
use super::upkeep::Earlier;
use super::{Counters, Custody, Journal, OpenError, Past, Settings, recall};
use crate::done::DoneEpochs;
use crate::pipeline::credit::credit;
use crate::pipeline::envelope::{self, Record, SinkCursor};
use crate::pipeline::ledger::{self};
use crate::pipeline::pattern::rules_of;
use crate::pipeline::rules::{RuleSet, RulesError, RulesId};

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
        let sinks = &settings.sinks;
        let (mut journal, ledger) = Journal::new(log, rules, sinks, restored);
        let mut streams = Streams::new(ledger, done, &settings);
        let mut counters = Counters::default();
        let mut opened = Opened {
            recovery,
            past,
            replayed: 0,
            damaged: 0,
            damaged_to: 0,
        };
        let mut replay = Replay {
            journal: &mut journal,
            streams: &mut streams,
            counters: &mut counters,
        };
        replay.add_sinks(from, past);
        replay.run(from, &mut opened)?;
        replay.catch_up(from, past, &mut opened)?;
        journal.measure(streams.ledger());
        let credit = credit(settings.credit, 0, journal.level());
        let clock = HouseClock::new(journal.book.clone());
        let custody = Self {
            sessions: Sessions::new(&settings, credit),
            settings,
            journal,
            streams,
            reading: None,
            read_again_at: Millis(0),
            earlier: Earlier::default(),
            counters,
            clock,
        };
        Ok((custody, opened))
    }

    /// A sink says how far it is: `position` is the first that it has not committed. The stretch
    /// beyond what the journal knew is read again, so that the marks are exact; nothing else is, so that
    /// a sink may say it while the collector runs. Returns how many of its records could not be read:
    /// what the lake has of them is to be seeded from it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn resume(&mut self, sink: &str, position: u64) -> Result<u64, ReadError> {
        let (journal, streams) = (&mut self.journal, &mut self.streams);
        let known = journal.sinks.cursor(sink);
        let Some(known) = known.filter(|known| *known < position) else {
            return Ok(0);
        };
        let unread = if streams.coverage().requires(sink) {
            report_stretch(journal, streams, sink, (known, position))?
        } else {
            0
        };
        journal.sinks.raise(sink, position);
        let committed_to = journal.committed_to();
        let committed_to = committed_to.max(journal.sinks.required_position());
        journal.set_committed_to(committed_to);
        Ok(unread)
    }

    /// What an existing lake holds of a stream, where the journal does not know; before the first
    /// Welcome. Numbers in `partial` are there in part, and will be named.
    pub fn seed(&mut self, stream: Stream, held: &[SeqRange], partial: &[u64], end: Option<End>) {
        self.streams.seed(stream, held, partial, end);
    }

    /// What a lake proves of a plain device under an epoch of this journal.
    pub fn seed_plain(&mut self, stream: &Stream, held: &[SeqRange], next: u64) {
        self.streams.seed_plain(stream, held, next);
    }
}

/// Fills the sets of required sinks from the records between the cursor of the last of them and their
/// own. Returns how many of those could not be read.
pub(super) fn fill_coverage<D: Disk>(
    journal: &Journal<D>,
    streams: &mut Streams,
) -> Result<u64, ReadError> {
    streams.begin_coverage();
    let least = journal.sinks.required_position();
    let cursors = journal.sinks.cursors().iter();
    let ahead: Vec<&SinkCursor> = cursors
        .filter(|cursor| cursor.position > least && streams.coverage().requires(&cursor.name))
        .collect();
    let to = ahead.iter().map(|cursor| cursor.position).max();
    let Some(to) = to.map(|to| to.min(journal.log().next())) else {
        return Ok(0);
    };
    let unread = journal.each_number(least, to, &mut |position, stream, range| {
        for sink in ahead.iter().filter(|sink| position < sink.position) {
            streams.cover(&sink.name, stream, range);
        }
    })?;
    if unread > 0 {
        streams.doubt_coverage();
    }
    Ok(unread)
}

/// Reads a stretch again as what a required sink reports. Returns how many records could not be read.
fn report_stretch<D: Disk>(
    journal: &Journal<D>,
    streams: &mut Streams,
    sink: &str,
    (from, to): (u64, u64),
) -> Result<u64, ReadError> {
    let unread = journal.each_number(from, to, &mut |_, stream, range| {
        streams.has(sink, stream, &[range]);
    })?;
    let unread = unread + let_go_of(journal, from, to);
    if unread > 0 {
        streams.doubt_coverage();
    }
    Ok(unread)
}

/// Reads `from..to` again and marks what it holds as committed. Returns how many records could
/// not be read.
fn commit_stretch<D: Disk>(
    journal: &Journal<D>,
    streams: &mut Streams,
    from: u64,
    to: u64,
) -> Result<u64, ReadError> {
    let unread = journal.each_number(from, to, &mut |_, stream, range| {
        streams.commit(stream, range);
    })?;
    Ok(unread + let_go_of(journal, from, to))
}

/// Records of `from..to` that are gone: after an older snapshot than the last one, what that one let go of
/// is missing.
fn let_go_of<D: Disk>(journal: &Journal<D>, from: u64, to: u64) -> u64 {
    let oldest = journal.log().segments().next();
    oldest.map_or(0, |oldest| oldest.first.min(to).saturating_sub(from))
}

/// Journal and streams while a start reads the records again.
struct Replay<'a, D: Disk> {
    journal: &'a mut Journal<D>,
    streams: &'a mut Streams,
    counters: &'a mut Counters,
}

impl<D: Disk> Replay<'_, D> {
    /// Marks what sinks had by the records that were read again.
    fn catch_up(&mut self, from: u64, past: Past, opened: &mut Opened) -> Result<(), OpenError> {
        // One that left and came back begins as a new one.
        self.add_sinks(from, past);
        let next = self.journal.log().next();
        self.journal.sinks.begin_at(next);
        let known = match past {
            Past::Snapshot => self.journal.committed_to(),
            // Sinks were at least there; what they had of the records that are left is exact again.
            Past::Records | Past::Nothing => from,
        };
        let now = self.journal.sinks.required_position();
        let unread = commit_stretch(self.journal, self.streams, known, now)?;
        self.journal.set_committed_to(now);
        let between = fill_coverage(self.journal, self.streams)?;
        if unread > 0 {
            // All sinks passed them, and what each had or was named for is not known.
            self.streams.doubt_coverage();
        }
        if past == Past::Records {
            self.streams.doubt_ends();
        } else {
            opened.damaged += unread + between;
        }
        Ok(())
    }

    /// A sink that is new begins at the oldest record there is.
    fn add_sinks(&mut self, from: u64, past: Past) {
        let oldest = self.journal.log().segments().next();
        let oldest = match past {
            Past::Snapshot => oldest.map_or(from, |segment| segment.first),
            Past::Records | Past::Nothing => from,
        };
        self.journal.sinks.add_new(oldest);
    }

    fn run(&mut self, from: u64, opened: &mut Opened) -> Result<(), OpenError> {
        let mut reader = self.journal.log().reader();
        let mut at = from;
        while at < self.journal.log().durable() {
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
        self.streams.synced();
        self.journal.schemas.synced();
        // What a group that fails later takes back stands behind all of this.
        self.journal.sinks.synced();
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
            if !recall(self.journal, self.streams, self.counters, &stream) {
                self.streams.doubt_index();
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
            self.journal
                .open
                .open(&client, head.packet_id, head.hash, position, on);
        }
        Ok(())
    }

    /// Takes in a record that is in the journal.
    fn apply(&mut self, position: u64, record: &Record<'_>) {
        self.journal.apply(position, record);
        if let Record::Schema(..) = record {
            // Those that left to make room leave no record.
            self.journal.schemas.stay_within();
        }
        let undated = self.journal.clock.undated().is_some();
        self.streams.apply_as(record, undated);
        if let Record::Begin(head) = record {
            self.streams.begin_plain_epoch(head.plain_epoch);
        }
    }
}
