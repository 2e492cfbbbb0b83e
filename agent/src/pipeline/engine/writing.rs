//! Core: where store and outbox meet when something is to be stored. It is a list of steps: an append that
//! finds no room, or a group whose sync fails, puts further steps before the ones that are left.

use std::collections::VecDeque;

use headwater_proto::time::{Base, Now};
use headwater_spool::{Disk, Victim};

use super::Engine;
use super::store::{Append, Draft, Evicted, GROUP_BYTES, Group, Moment, News, Over, Own};

/// How often the groups of a lane may fail while one list of steps is carried out; once more, and it gives
/// the disk up for a while.
pub const MAX_FAILED_SYNCS: u32 = 3;

/// One step of storing something in a lane.
#[derive(Debug)]
pub(super) enum Step {
    /// Stores a record: on disk, or in memory while that cannot be written. Rows whose times count from
    /// another base than the lane's begin an epoch.
    Store(Box<Draft>),
    /// Stores a record on disk, if that has room.
    Say(Box<Draft>),
    /// Makes the lane take rows whose times count from another base. `lasting`: it stays with that for a
    /// while.
    Turn { base: Base, lasting: bool },
    /// Makes the open group durable.
    Sync,
    /// Names what was released without a name.
    Name,
    /// Makes room until the reserve is whole again, while the open segment takes the gaps. It is a single
    /// segment, but the quota may have been lowered since the last start: at most `left` go, as many as
    /// there were, and none of those that the gaps themselves begin.
    Restore { left: usize },
    /// The disk takes no more: the lane goes to memory once what the disk has of the open group is synced.
    GiveUp,
}

/// What became of a step.
enum Outcome {
    /// These come next.
    Then(Vec<Step>),
    /// A group could not be synced: it is stored again, then these come.
    Failed(Group, Vec<Step>),
}

const DONE: Outcome = Outcome::Then(Vec::new());

/// Whether a lane found room.
enum Room {
    Made,
    None,
    Failed(Group),
}

impl<D: Disk> Engine<D> {
    /// Stores a record.
    pub(super) fn put(&mut self, at: usize, record: Box<Draft>, now: Now) {
        self.carry_out(at, [Step::Store(record)], now);
    }

    /// Stores what the agent itself says.
    pub(super) fn put_own<B: Own>(&mut self, at: usize, body: &B, now: Now) {
        let record = Draft::own(body, &self.settings.device, self.clock.stamps());
        self.put(at, record, now);
    }

    /// Makes the open group of a lane durable.
    pub(super) fn sync_lane(&mut self, at: usize, now: Now) {
        self.carry_out(at, [Step::Sync], now);
    }

    /// Carries out steps in one lane, and all that they bring with them.
    pub(super) fn carry_out(&mut self, at: usize, steps: impl IntoIterator<Item = Step>, now: Now) {
        let mut steps: VecDeque<Step> = steps.into_iter().collect();
        let mut failures = 0;
        while let Some(step) = steps.pop_front() {
            let next = match self.take_step(at, step, now) {
                Outcome::Then(next) => next,
                Outcome::Failed(group, then) => {
                    failures += 1;
                    let mut next = self.after_failure(at, failures, now);
                    next.extend(group.into_iter().map(Step::Store));
                    next.extend(then);
                    next
                }
            };
            self.pass_on_news();
            for step in next.into_iter().rev() {
                steps.push_front(step);
            }
        }
    }

    fn take_step(&mut self, at: usize, step: Step, now: Now) -> Outcome {
        let moment = self.moment(now);
        match step {
            Step::Store(record) => self.store(at, record, now),
            Step::Say(record) => self.say(at, record, now),
            Step::Turn { base, lasting } => self.turn(at, base, lasting, now),
            Step::Sync => match self.store.lanes.sync(at, now) {
                Ok(()) => DONE,
                Err(group) => Outcome::Failed(group, Vec::new()),
            },
            Step::Name => match self.store.name_released(at, moment) {
                Ok(()) => DONE,
                Err(group) => Outcome::Failed(group, Vec::new()),
            },
            Step::Restore { left } => self.restore(at, left, now),
            Step::GiveUp if self.store.lanes.lane(at).ram.is_some() => DONE,
            Step::GiveUp => match self.store.lanes.sync(at, now) {
                Ok(()) => {
                    self.store.lanes.go_to_memory(at, now.mono);
                    DONE
                }
                Err(group) => Outcome::Failed(group, vec![Step::GiveUp]),
            },
        }
    }

    fn store(&mut self, at: usize, record: Box<Draft>, now: Now) -> Outcome {
        let base = record.base;
        if !record.is_own() && self.store.lanes.lane(at).present_life().base != base {
            let turn = Step::Turn {
                base,
                lasting: true,
            };
            return Outcome::Then(vec![turn, Step::Store(record)]);
        }
        match self.append(at, record, now) {
            Append::Appended => {
                let mut then = Vec::new();
                if !self.store.is_all_named() {
                    then.push(Step::Name);
                }
                if self.store.lanes.lane(at).held_bytes >= GROUP_BYTES {
                    then.push(Step::Sync);
                }
                Outcome::Then(then)
            }
            Append::Full {
                record,
                victim,
                by_others,
            } => match self.make_room(at, victim, by_others, now) {
                Room::Made => Outcome::Then(vec![Step::Store(record)]),
                Room::None => Outcome::Then(vec![Step::GiveUp, Step::Store(record)]),
                Room::Failed(group) => {
                    Outcome::Failed(group, vec![Step::GiveUp, Step::Store(record)])
                }
            },
            Append::Failed { group, record } => Outcome::Failed(group, vec![Step::Store(record)]),
            Append::Unwritable(record) => Outcome::Then(vec![Step::GiveUp, Step::Store(record)]),
        }
    }

    fn say(&mut self, at: usize, record: Box<Draft>, now: Now) -> Outcome {
        match self.append(at, record, now) {
            Append::Appended | Append::Unwritable(_) => DONE,
            Append::Full {
                record,
                victim,
                by_others,
            } => match self.make_room(at, victim, by_others, now) {
                Room::Made => Outcome::Then(vec![Step::Say(record)]),
                Room::None => DONE,
                Room::Failed(group) => Outcome::Failed(group, Vec::new()),
            },
            Append::Failed { group, record } => Outcome::Failed(group, vec![Step::Say(record)]),
        }
    }

    fn append(&mut self, at: usize, record: Box<Draft>, now: Now) -> Append {
        let outbox = &self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        self.store.lanes.append(at, record, now, &committed)
    }

    /// Lets a segment go. Where others have filled the file system, the oldest that is here gives way to
    /// what comes, as under a full quota; if not even its gap finds room, it goes first.
    fn make_room(&mut self, at: usize, victim: Option<Victim>, by_others: bool, now: Now) -> Room {
        let moment = self.moment(now);
        let outbox = &self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let evicted = victim.map(|victim| self.store.evict(at, &victim, moment, &committed));
        match evicted {
            Some(Evicted::Gone) => Room::Made,
            Some(Evicted::Failed(group)) => Room::Failed(group),
            Some(Evicted::Stays) | None => {
                if by_others && self.store.release_first(at, &committed) {
                    Room::Made
                } else {
                    Room::None
                }
            }
        }
    }

    fn restore(&mut self, at: usize, left: usize, now: Now) -> Outcome {
        let is_done = left == 0 || self.store.lanes.lane(at).ram.is_some();
        if is_done || !self.store.lanes.lacks_reserve(at) {
            return DONE;
        }
        let outbox = &self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let victim = self.store.lanes.victim(at, &committed);
        match self.make_room(at, victim, false, now) {
            Room::Made => Outcome::Then(vec![Step::Restore { left: left - 1 }]),
            Room::None => DONE,
            Room::Failed(group) => Outcome::Failed(group, Vec::new()),
        }
    }

    fn turn(&mut self, at: usize, base: Base, lasting: bool, now: Now) -> Outcome {
        let lane = self.store.lanes.lane(at);
        if lane.present_life().base == base {
            return DONE;
        }
        if lasting {
            self.store.lanes.note_turn(at, now.mono);
        }
        if let Err(group) = self.store.lanes.sync(at, now) {
            return Outcome::Failed(group, vec![Step::Turn { base, lasting }]);
        }
        if self.store.lanes.lane(at).ram.is_none() {
            if self.store.lanes.turn_new(at, base) {
                return DONE;
            }
            let ends: Vec<_> = self.store.lanes.over(at, true).into_iter().collect();
            if let Some(then) = self.begin_epoch(at, base, &ends, now) {
                return Outcome::Then(then);
            }
            self.store.lanes.go_to_memory(at, now.mono);
        }
        let stamps = self.clock.stamps();
        self.store.lanes.turn_in_memory(at, base, stamps);
        DONE
    }

    /// The group is in memory: its epoch ends before it, and it goes to a new one; or, if that fails too,
    /// to memory.
    fn after_failure(&mut self, at: usize, failures: u32, now: Now) -> Vec<Step> {
        let base = self.store.lanes.lane(at).life.base;
        let ends: Vec<_> = self.store.lanes.over(at, false).into_iter().collect();
        if failures <= MAX_FAILED_SYNCS
            && let Some(then) = self.begin_epoch(at, base, &ends, now)
        {
            return then;
        }
        self.store.lanes.go_to_memory(at, now.mono);
        Vec::new()
    }

    /// Begins an epoch whose first records name the ends of others; returns what is then to be done.
    fn begin_epoch(&mut self, at: usize, base: Base, ends: &[Over], now: Now) -> Option<Vec<Step>> {
        let moment = self.moment(now);
        let outbox = &self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let unsaid = self.store.begin_epoch(at, base, ends, moment, &committed)?;
        Some(self.after_begin(at, &unsaid))
    }

    /// What is to be done once an epoch has begun. `unsaid`: ends that found no room in the reserve.
    fn after_begin(&self, at: usize, unsaid: &[Over]) -> Vec<Step> {
        let stamps = self.clock.stamps();
        let mut then = vec![Step::Name];
        for over in unsaid {
            then.push(Step::Say(self.store.lanes.end_record(at, *over, stamps)));
            then.push(Step::Sync);
        }
        let left = self.store.lanes.segments();
        then.push(Step::Restore { left });
        then
    }

    /// Begins what a lane must say at its start. All lanes are there by now: to make room for it, a
    /// segment of any may have to go.
    pub(super) fn begin_lane(&mut self, at: usize, now: Now) {
        use headwater_proto::sabotage::{self, Bug};
        if sabotage::is(Bug::EpochNotRenewed) && self.store.lanes.go_on_with_last(at) {
            return;
        }
        let lane = self.store.lanes.lane(at);
        let (base, missing) = (lane.life.base, lane.without_end());
        if missing.is_empty() {
            return;
        }
        if let Some(then) = self.begin_epoch(at, base, &missing, now) {
            self.pass_on_news();
            self.carry_out(at, then, now);
            return;
        }
        self.store.lanes.go_to_memory(at, now.mono);
        // Said from memory, and again on the disk when that takes records.
        let stamps = self.clock.stamps();
        for over in missing {
            self.store.lanes.end_in_memory(at, over, stamps);
        }
        self.pass_on_news();
    }

    /// Tries the disk of a lane in memory again; what waited for it is stored.
    pub(super) fn leave_memory(&mut self, at: usize, now: Now) {
        let moment = self.moment(now);
        let outbox = &self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let left = self.store.leave_memory(at, moment, &committed);
        self.pass_on_news();
        let Some((unsaid, waiting)) = left else {
            return;
        };
        // What was said of the boot in memory is said again where it lasts.
        self.told = None;
        let mut steps = self.after_begin(at, &unsaid);
        steps.extend(waiting.into_iter().map(Step::Store));
        steps.push(Step::Sync);
        self.carry_out(at, steps, now);
    }

    /// Tells the outbox and the sources what has become of records.
    fn pass_on_news(&mut self) {
        for news in self.store.lanes.take_news() {
            match news {
                News::Stored(held) => self.outbox.stored(held),
                News::Ended { lane, epoch, named } => self.outbox.ended(lane, epoch, named),
                News::Gone { lane, epoch, range } => self.outbox.absent(lane, epoch, range),
                News::Durable(owed) => self.receipts[owed.source].settle(owed.span),
                News::NotDurable(owed) => self.receipts[owed.source].fail(owed.span),
            }
        }
    }

    fn moment(&self, now: Now) -> Moment {
        let stamps = self.clock.stamps();
        Moment { now, stamps }
    }
}
