//! Core: the agent's engine. It takes readings, makes them durable, numbers them, publishes them
//! and forgets them when they are committed. Generic over its disk; time and entropy are arguments.
//!
//! Records of nodes behind this agent pass through unopened: `hosts.rs` plays the receiver towards them,
//! `store/nodes.rs` keeps them, `outbox/relays.rs` sends them; they meet in `relaying.rs`.
//!
//! Three machines do it, none of which holds another: the intake takes what sources give until it is a
//! record, the store makes records durable, the outbox sends them. They return values, and meet here only:
//! intake and store in `taking.rs`, store and outbox in `writing.rs` and `sending.rs`.
//!
//! | rule | where |
//! |---|---|
//! | a new epoch per lane at each start; the end of the one before is its first record | `store/open.rs`, `writing.rs` |
//! | nothing is published before it is synced | `store/lanes.rs` |
//! | the cursor of a source is in the record of its batch | `record.rs` |
//! | a failed sync ends its epoch before the group; the group goes to a new one | `writing.rs` |
//! | a disk that takes nothing: a RAM epoch for live sources, waiting for those that resume | `store/memory.rs` |
//! | a gap is durable before the segment it names is released | `store/room.rs` |
//! | what cannot be read or is refused becomes a gap and is not sent again | `outbox.rs`, `store/refused.rs` |

use headwater_proto::ids::Lane;
use headwater_proto::portion::Place;
use headwater_proto::time::{Base, Millis, Now};
use headwater_spool::Disk;

mod hosts;
mod intake;
mod outbox;
mod relaying;
mod sending;
mod store;
mod taking;
mod types;
mod writing;

pub use hosts::{MAX_ANSWERS, MAX_LISTED, MAX_NODES, NODE_BUNDLE_BYTES, SILENT_MS, Way};
pub use outbox::{AgentSender, MAX_DOWN_BYTES, MAX_EPOCHS, MAX_FLIGHTS, UNREADABLE_MS};
pub use store::{DEAD_LETTER, GROUP_BYTES, MAX_GAPS, PROBE_MS};
pub use types::{
    Counters, EngineError, Event, LaneStatus, Lost, NodeCounters, NodeFault, NodeReport,
    NodeStatus, OfferError, Offered, Progress, Settings, SourceSettings, SpoolSettings,
};
pub use writing::MAX_FAILED_SYNCS;

use super::batcher::Which;
use super::receipts::Settled;
use super::record::{Cursor, SaidBy, Stray};
use super::timekeeper::Timekeeper;
use hosts::Hosts;
use intake::Intake;
use outbox::{Outbox, Relays};
pub use relaying::Relaying;
use sending::Sending;
use store::{Draft, Moment, News, Over, Own, Store, Trouble, place_of};
use writing::{Step, Writing};

/// The engine of one agent.
pub struct Engine<D: Disk> {
    settings: Settings,
    opened: Millis,
    intake: Intake,
    store: Store<D>,
    outbox: Outbox,
    /// Nodes that speak to this agent.
    hosts: Hosts,
    /// What nodes have to send to the collector.
    relays: Relays,
    nodes: NodeCounters,
    refused_records: u64,
    damaged_records: u64,
    trouble: Vec<String>,
    hidden: Vec<String>,
}

impl<D: Disk> Engine<D> {
    /// Opens the spool. Every lane begins a new epoch; where the one before has no end on record,
    /// that is the first thing appended and synced. A disk that cannot be written is no reason to
    /// refuse, unless records are on it that were never synced: the lane then begins in memory.
    ///
    /// - `entropy`: 64 random bits at each call, from the operating system.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn open(
        disk: D,
        settings: Settings,
        entropy: &mut dyn FnMut() -> u64,
        now: Now,
    ) -> Result<Self, EngineError> {
        if settings.sources.len() > super::record::MAX_SOURCES {
            return Err(EngineError::Sources(settings.sources.len()));
        }
        let intake = Intake::new(&settings, now);
        let random = (entropy(), entropy(), entropy());
        let (store, Trouble { trouble, hidden }) =
            Store::open(&disk, &settings, intake.base(), random)?;
        let device = settings.device.clone();
        let outbox = Outbox::new(device, settings.boot, settings.sender, entropy());
        let relays = Relays::new(settings.sender, entropy());
        let mut engine = Self {
            settings,
            opened: now.mono,
            intake,
            store,
            outbox,
            hosts: Hosts::default(),
            relays,
            nodes: NodeCounters::default(),
            refused_records: 0,
            damaged_records: 0,
            trouble,
            hidden,
        };
        if engine.store.lanes.counts_from_boot() {
            engine.intake.counts_since_boot();
        }
        for at in 0..Lane::AGENT.len() {
            for epoch in engine.store.lanes.held_epochs(at) {
                engine.outbox.announce(epoch);
            }
        }
        for at in 0..Lane::AGENT.len() {
            engine.writing(at, now).begin_lane();
            engine.pass_on_news();
        }
        Relaying::new(&mut engine, now).pass_on();
        let wall = engine.intake.clock.known_wall(now);
        engine.writing(0, now).name_unclean();
        engine.pass_on_news();
        engine.store.begin_life(&engine.settings.sources, wall);
        engine.intake.stands = engine.cursors();
        Ok(engine)
    }

    /// Where each source resumes: `None` where it has no durable reading or cannot resume.
    #[must_use]
    pub fn cursors(&self) -> Vec<Option<Cursor>> {
        self.settings
            .sources
            .iter()
            .map(|source| self.store.lanes.resume_at(&source.name))
            .collect()
    }

    /// Brings what a source knows of its receipts up to date; says whether it was not.
    ///
    /// # Panics
    /// If `source` is not a place in the settings.
    pub fn tell_settled(&self, source: usize, settled: &mut Settled) -> bool {
        self.intake.tell_settled(source, settled)
    }

    /// Whether to ask the kernel about the wall clock, and to hand over its answer with
    /// [`Event::Clock`]. To be asked before readings are offered, and after they were taken from
    /// their sources: a clock that was set meanwhile holds for them.
    pub fn wants_clock(&mut self, now: Now) -> bool {
        self.intake.clock.wants_measure(now)
    }

    /// Whether the next start will know that this life was there, and name what it lost. It will not while the
    /// disk has taken nothing since the start.
    #[must_use]
    pub const fn is_marked(&self) -> bool {
        self.store.is_life_marked()
    }

    /// When it was opened.
    #[must_use]
    pub const fn opened_at(&self) -> Millis {
        self.opened
    }

    /// How good the wall clock is, and what the times of new rows count from.
    #[must_use]
    pub const fn clock(&self) -> &Timekeeper {
        &self.intake.clock
    }

    /// Takes in what happened.
    pub fn handle(&mut self, event: Event<'_>, now: Now) {
        match event {
            Event::LinkUp => {
                self.outbox.link_up(now.mono);
                self.relays.link(true, now.mono);
            }
            Event::LinkDown => {
                self.outbox.link_down(now.mono);
                self.relays.link(false, now.mono);
            }
            Event::Message(bytes) => Sending::new(self, now).message(bytes),
            Event::Clock(kernel) => self.intake.clock.measured(kernel, now),
            Event::Tick => {
                self.follow_the_clock(now);
                self.date_boot(now);
                self.store.retry_mark(now.mono);
                for at in 0..Lane::AGENT.len() {
                    let ram = self.store.lanes.lane(at).ram.as_ref();
                    if ram.is_some_and(|ram| ram.probe_at <= now.mono) {
                        self.leave_memory(at, now);
                    }
                    self.close(at, Which::Due, now);
                    let sync_at = self.store.lanes.lane(at).sync_at();
                    if sync_at.is_some_and(|at| at <= now.mono) {
                        self.carry_out(at, [Step::Sync], now);
                    }
                }
                self.name_beyond(Some(now.mono), now);
                if let Some(at) = self.store.owes_a_name() {
                    self.carry_out(at, [Step::Name], now);
                }
                self.outbox.tick(now.mono);
                Relaying::new(self, now).tick();
            }
        }
    }

    /// When to call with [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let groups = (0..Lane::AGENT.len()).flat_map(|at| {
            let lane = self.store.lanes.lane(at);
            let probe = lane.ram.as_ref().map(|ram| ram.probe_at);
            let due = self.intake.batches(at).next_due(lane.turn());
            [lane.sync_at(), probe, due]
        });
        let others = [
            self.outbox.next_wakeup(),
            self.intake.next_wakeup(),
            self.relays.next_wakeup(),
            self.store.nodes.sync_at(),
        ];
        groups.chain(others).flatten().min()
    }

    /// Stores and syncs everything that was admitted, without ending anything.
    pub fn flush(&mut self, now: Now) {
        self.follow_the_clock(now);
        for at in 0..Lane::AGENT.len() {
            self.close(at, Which::All, now);
            self.carry_out(at, [Step::Sync], now);
        }
        Relaying::new(self, now).sync();
    }

    /// A clean stop: everything is stored, each lane's epoch ends with a record that says so, and
    /// all is synced. What was published stays valid; nothing may be offered afterwards.
    pub fn stop(&mut self, now: Now) {
        self.flush(now);
        self.date_boot(now);
        self.name_beyond(None, now);
        for at in 0..Lane::AGENT.len() {
            for missed in self.intake.take_missed(at) {
                self.name_missed(at, &missed, now);
            }
            if self.store.lanes.lane(at).ram.is_some() {
                self.leave_memory(at, now);
            }
            self.carry_out(at, [Step::Sync], now);
            let lane = self.store.lanes.lane(at);
            if lane.ram.is_some() || lane.durable_seq == 0 {
                continue;
            }
            let over = Over {
                epoch: lane.epoch,
                next: lane.next_seq + 1,
                clean: true,
            };
            let end = self
                .store
                .lanes
                .end_record(at, over, self.intake.clock.stamps());
            self.carry_out(at, [Step::Store(end), Step::Sync], now);
        }
        self.store.end_life();
    }

    /// The clock that dates rows may have changed: what is open is stored first, with the times it has.
    fn follow_the_clock(&mut self, now: Now) {
        if self.intake.look_at_clock(now) {
            for at in 0..Lane::AGENT.len() {
                self.close(at, Which::All, now);
            }
        }
    }

    /// Ties the boot to wall time in lane normal, once that is known and rows count from it.
    fn date_boot(&mut self, now: Now) {
        if !self.store.lanes.counts_from_boot() {
            return;
        }
        let Some(base) = self.intake.date_boot(now) else {
            return;
        };
        let stamps = self.intake.clock.stamps();
        let record = Draft::own(&base, &self.settings.device, stamps);
        // It stands in another epoch than what it dates: that waits for it.
        let turn = |base| Step::Turn {
            base,
            lasting: false,
        };
        let steps = [
            turn(Base::Wall),
            Step::Store(record),
            turn(self.intake.base()),
        ];
        self.carry_out(place_of(Lane::Normal), steps, now);
    }

    /// Names what passed the bounds of a minute that is over, or of any.
    fn name_beyond(&mut self, over: Option<Millis>, now: Now) {
        for source in 0..self.settings.sources.len() {
            if let Some((at, beyond)) = self.intake.beyond(source, over) {
                self.name_missed(at, &beyond, now);
            }
        }
    }

    /// Carries out steps in one lane of the store.
    fn carry_out(&mut self, at: usize, steps: impl IntoIterator<Item = Step>, now: Now) {
        self.writing(at, now).carry_out(steps);
        self.pass_on_news();
    }

    /// Stores what the agent itself says.
    fn put_own<B: Own>(&mut self, at: usize, body: &B, now: Now) {
        let stamps = self.intake.clock.stamps();
        let record = Draft::own(body, &self.settings.device, stamps);
        self.carry_out(at, [Step::Store(record)], now);
    }

    /// Tries the disk of a lane in memory again; what waited for it is stored.
    fn leave_memory(&mut self, at: usize, now: Now) {
        if self.writing(at, now).leave_memory() {
            self.writing(at, now).name_unclean();
            self.store.mark_life();
            // What was said of the boot in memory is said again where it lasts.
            self.intake.forget_date_of_boot();
        }
        self.pass_on_news();
    }

    fn writing(&mut self, at: usize, now: Now) -> Writing<'_, D> {
        let stamps = self.intake.clock.stamps();
        let wall = self.intake.clock.known_wall(now);
        let moment = Moment { now, wall, stamps };
        Writing::new(&mut self.store, &self.outbox, at, moment)
    }

    /// Tells the outbox and the sources what has become of records.
    fn pass_on_news(&mut self) {
        for news in self.store.lanes.take_news() {
            match news {
                News::Stored(held) => self.outbox.stored(held),
                News::Ended { lane, epoch, named } => self.outbox.ended(lane, epoch, named),
                News::Gone { lane, epoch, range } => self.outbox.absent(lane, epoch, range),
                News::Durable(owed) => self.intake.settle(&owed),
                News::NotDurable(owed) => self.intake.fail(&owed),
            }
        }
    }

    /// The counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        let (taken, stored) = (self.intake.counted(), self.store.lanes.counted());
        Counters {
            readings: taken.readings,
            samples: taken.samples,
            samples_durable: stored.samples_durable,
            covered: taken.covered,
            refused: taken.refused,
            empty: taken.empty,
            busy: taken.busy,
            lost_samples: taken.lost_samples,
            records: taken.records,
            failed_syncs: stored.failed_syncs + self.store.nodes.failed_syncs(),
            disk_failures: stored.disk_failures,
            evicted_records: stored.evicted_records + self.nodes.evicted_records,
            damaged_records: self.damaged_records,
            refused_records: self.refused_records,
            refused_messages: self.outbox.refused_messages() + self.nodes.refused_messages,
        }
    }

    /// The sender, to look at.
    #[must_use]
    pub fn sender(&self) -> &AgentSender {
        self.outbox.sender()
    }

    /// How far the collector is with all that is stored, of this agent and of nodes.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let sender = self.outbox.sender();
        Progress {
            is_delivered: sender.is_delivered() && self.relays.is_delivered(),
            is_drained: sender.is_drained() && self.relays.is_drained(),
        }
    }

    /// How each lane is doing.
    pub fn lanes(&self) -> impl Iterator<Item = LaneStatus> + '_ {
        let statuses = self.store.lanes.statuses().enumerate();
        statuses.map(|(at, status)| LaneStatus {
            memory_bytes: status.memory_bytes + self.intake.batches(at).open_bytes(),
            ..status
        })
    }

    /// Records in the log of dead letters.
    #[must_use]
    pub fn dead_letter_records(&self) -> u64 {
        self.store.dead_letter_records()
    }

    /// What it was opened with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the start could not do with files it found, for the operator.
    #[must_use]
    pub fn trouble(&self) -> &[String] {
        &self.trouble
    }

    /// Segments of the lanes whose records this start could not see, or not all of them: they may be
    /// back at the next.
    #[must_use]
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }
}

/// Where sources stopped that resume and that the engine's settings do not have.
#[must_use]
pub fn strays<D: Disk>(engine: &Engine<D>) -> Vec<Stray> {
    let is_known = |name: &&str| engine.settings.sources.iter().any(|it| it.name == *name);
    let lanes = &engine.store.lanes;
    let names = lanes.resumable().into_iter();
    let strays = names.filter(|name| !is_known(name)).filter_map(|name| {
        let cursor = lanes.resume_at(name)?;
        Some(Stray {
            name: name.to_owned(),
            cursor,
            said_by: SaidBy::Spool,
        })
    });
    strays.collect()
}

/// How far the collector holds the contents of sources, by the names that they had; `None` before it has said.
#[must_use]
pub fn held_places<D: Disk>(engine: &Engine<D>) -> Option<Vec<Stray>> {
    let sources = &engine.settings.sources;
    let stray = |place: &Place| {
        let name = place.source.as_str();
        Stray {
            name: name.to_owned(),
            cursor: place.cursor,
            said_by: SaidBy::Collector {
                is_last: place.is_last,
                is_taken: sources.iter().any(|source| source.name == name),
            },
        }
    };
    Some(engine.outbox.held()?.iter().map(stray).collect())
}

/// The sources that knew less of their content when they began, at `began`, than the collector holds, as `places`
/// say.
#[must_use]
pub fn behind<D: Disk>(
    engine: &Engine<D>,
    places: &[Stray],
    began: &[Option<Cursor>],
) -> Vec<usize> {
    let sources = engine.settings.sources.iter().zip(began).enumerate();
    let knew_less = |name: &str, began: Option<Cursor>| {
        let mut of = places.iter().filter(|place| place.name == name);
        // Of another content nobody can say what comes first.
        let is_beyond =
            |began: Cursor, place: Cursor| began.major == place.major && !began.covers(place);
        of.any(|place| began.is_none_or(|began| is_beyond(began, place.cursor)))
    };
    let behind = sources.filter(|(_, (source, began))| knew_less(&source.name, **began));
    behind.map(|(at, _)| at).collect()
}

/// A source goes on behind `cursor`, of which no record of this spool tells: it read the same content under another
/// name, or with a spool that is gone.
///
/// # Panics
/// If `source` is not a place in the settings.
pub fn goes_on_at<D: Disk>(engine: &mut Engine<D>, source: usize, cursor: Cursor) {
    engine.intake.pass(source);
    engine.intake.stands[source] = Some(cursor);
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the numbers of a test are small"
)]
pub(crate) mod tests;
