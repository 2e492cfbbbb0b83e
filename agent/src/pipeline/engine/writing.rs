//! Core: where store and outbox meet when something is to be stored. It is a list of steps: an append that
//! finds no room, or a group whose sync fails, puts further steps before the ones that are left.

use std::collections::VecDeque;

use headwater_proto::ids::Lane;
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::Base;
use headwater_spool::{Disk, Victim};

use super::outbox::Outbox;
use super::store::{Append, Draft, Evicted, GROUP_BYTES, Group, Moment, Over, Store, place_of};

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
    /// The group of a lane could not be synced: it is stored again there, then these come.
    Failed(usize, Group, Vec<Step>),
}

const DONE: Outcome = Outcome::Then(Vec::new());

/// Whether a lane found room.
enum Room {
    Made,
    None,
    /// The group of a lane could not be synced in which something was to be named.
    Failed(usize, Group),
}

/// What is about to be stored in a lane. Made for one list of steps.
pub(super) struct Writing<'a, D: Disk> {
    store: &'a mut Store<D>,
    /// Knows what is committed.
    outbox: &'a Outbox,
    /// The lane of the present step: another one, while that names what gives way in it.
    at: usize,
    moment: Moment,
}

impl<'a, D: Disk> Writing<'a, D> {
    /// For the lane at a place.
    pub(super) const fn new(
        store: &'a mut Store<D>,
        outbox: &'a Outbox,
        at: usize,
        moment: Moment,
    ) -> Self {
        Self {
            store,
            outbox,
            at,
            moment,
        }
    }

    /// Carries out steps in one lane, and all that they bring with them.
    pub(super) fn carry_out(&mut self, steps: impl IntoIterator<Item = Step>) {
        let here = self.at;
        let mut steps: VecDeque<_> = steps.into_iter().map(|step| (here, step)).collect();
        let mut failures = 0;
        while let Some((at, step)) = steps.pop_front() {
            self.at = at;
            let mut next: Vec<_> = Vec::new();
            let then = match self.take_step(step) {
                Outcome::Then(then) => then,
                Outcome::Failed(lane, group, then) => {
                    failures += 1;
                    self.at = lane;
                    let begun = self.after_failure(failures).into_iter();
                    let again = begun.chain(group.into_iter().map(Step::Store));
                    next.extend(again.map(|step| (lane, step)));
                    then
                }
            };
            next.extend(then.into_iter().map(|step| (at, step)));
            for step in next.into_iter().rev() {
                steps.push_front(step);
            }
        }
        self.at = here;
    }

    fn take_step(&mut self, step: Step) -> Outcome {
        match step {
            Step::Store(record) => self.store(record),
            Step::Say(record) => self.say(record),
            Step::Turn { base, lasting } => self.turn(base, lasting),
            Step::Sync => match self.store.lanes.sync(self.at, self.moment.now) {
                Ok(()) => DONE,
                Err(group) => Outcome::Failed(self.at, group, Vec::new()),
            },
            Step::Name => match self.store.name_released(self.at, self.moment) {
                Ok(()) => DONE,
                Err(group) => Outcome::Failed(self.at, group, Vec::new()),
            },
            Step::Restore { left } => self.restore(left),
            Step::GiveUp if self.store.lanes.lane(self.at).ram.is_some() => DONE,
            Step::GiveUp => match self.store.lanes.sync(self.at, self.moment.now) {
                Ok(()) => {
                    self.store.lanes.go_to_memory(self.at, self.moment.now.mono);
                    DONE
                }
                Err(group) => Outcome::Failed(self.at, group, vec![Step::GiveUp]),
            },
        }
    }

    fn store(&mut self, record: Box<Draft>) -> Outcome {
        let base = record.base;
        if !record.is_own() && self.store.lanes.lane(self.at).present_life().base != base {
            let turn = Step::Turn {
                base,
                lasting: true,
            };
            return Outcome::Then(vec![turn, Step::Store(record)]);
        }
        match self.append(record) {
            Append::Appended => {
                let mut then = Vec::new();
                if !self.store.is_all_named() {
                    then.push(Step::Name);
                }
                if self.store.lanes.lane(self.at).held_bytes >= GROUP_BYTES {
                    then.push(Step::Sync);
                }
                Outcome::Then(then)
            }
            Append::Full {
                record,
                victim,
                by_others,
            } => match self.make_room(victim, by_others) {
                Room::Made => Outcome::Then(vec![Step::Store(record)]),
                Room::None => Outcome::Then(vec![Step::GiveUp, Step::Store(record)]),
                Room::Failed(lane, group) => {
                    Outcome::Failed(lane, group, vec![Step::GiveUp, Step::Store(record)])
                }
            },
            Append::Failed { group, record } => {
                Outcome::Failed(self.at, group, vec![Step::Store(record)])
            }
            Append::Unwritable(record) => Outcome::Then(vec![Step::GiveUp, Step::Store(record)]),
        }
    }

    fn say(&mut self, record: Box<Draft>) -> Outcome {
        match self.append(record) {
            Append::Appended | Append::Unwritable(_) => DONE,
            Append::Full {
                record,
                victim,
                by_others,
            } => match self.make_room(victim, by_others) {
                Room::Made => Outcome::Then(vec![Step::Say(record)]),
                Room::None => DONE,
                Room::Failed(lane, group) => Outcome::Failed(lane, group, Vec::new()),
            },
            Append::Failed { group, record } => {
                Outcome::Failed(self.at, group, vec![Step::Say(record)])
            }
        }
    }

    fn append(&mut self, record: Box<Draft>) -> Append {
        let outbox = self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        self.store
            .lanes
            .append(self.at, record, self.moment.now, &committed)
    }

    /// Lets a segment go. Where others have filled the file system, the oldest that is here gives way to
    /// what comes, as under a full quota; if not even its gap finds room, it goes first.
    fn make_room(&mut self, victim: Option<Victim>, by_others: bool) -> Room {
        let outbox = self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let lane = victim.map_or(self.at, |victim| victim.lane);
        let evicted = victim.map(|victim| self.store.evict(&victim, self.moment, &committed));
        match evicted {
            Some(Evicted::Gone) => Room::Made,
            Some(Evicted::Failed(group)) => Room::Failed(lane, group),
            Some(Evicted::Stays) | None => {
                if by_others && self.store.release_first(self.at, &committed) {
                    Room::Made
                } else {
                    Room::None
                }
            }
        }
    }

    fn restore(&mut self, left: usize) -> Outcome {
        let is_done = left == 0 || self.store.lanes.lane(self.at).ram.is_some();
        if is_done || !self.store.lanes.lacks_reserve(self.at) {
            return DONE;
        }
        let outbox = self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let victim = self.store.lanes.victim(self.at, &committed);
        match self.make_room(victim, false) {
            Room::Made => Outcome::Then(vec![Step::Restore { left: left - 1 }]),
            Room::None => DONE,
            Room::Failed(lane, group) => Outcome::Failed(lane, group, Vec::new()),
        }
    }

    fn turn(&mut self, base: Base, lasting: bool) -> Outcome {
        let lane = self.store.lanes.lane(self.at);
        if lane.present_life().base == base {
            return DONE;
        }
        if lasting {
            self.store.lanes.note_turn(self.at, self.moment.now.mono);
        }
        if let Err(group) = self.store.lanes.sync(self.at, self.moment.now) {
            return Outcome::Failed(self.at, group, vec![Step::Turn { base, lasting }]);
        }
        if self.store.lanes.lane(self.at).ram.is_none() {
            if self.store.lanes.turn_new(self.at, base) {
                return DONE;
            }
            let ends: Vec<_> = self.store.lanes.over(self.at).into_iter().collect();
            if let Some(then) = self.begin_epoch(base, &ends) {
                return Outcome::Then(then);
            }
            self.store.lanes.go_to_memory(self.at, self.moment.now.mono);
        }
        let stamps = self.moment.stamps;
        self.store.lanes.turn_in_memory(self.at, base, stamps);
        DONE
    }

    /// The group is in memory: its epoch ends before it, and it goes to a new one; or, if that fails too,
    /// to memory.
    fn after_failure(&mut self, failures: u32) -> Vec<Step> {
        let base = self.store.lanes.lane(self.at).life.base;
        let ends: Vec<_> = self.store.lanes.over(self.at).into_iter().collect();
        if failures <= MAX_FAILED_SYNCS
            && let Some(then) = self.begin_epoch(base, &ends)
        {
            return then;
        }
        self.store.lanes.go_to_memory(self.at, self.moment.now.mono);
        Vec::new()
    }

    /// Begins an epoch whose first records name the ends of others; returns what is then to be done.
    fn begin_epoch(&mut self, base: Base, ends: &[Over]) -> Option<Vec<Step>> {
        let outbox = self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let unsaid = self
            .store
            .begin_epoch(self.at, base, ends, self.moment, &committed)?;
        Some(self.after_begin(&unsaid))
    }

    /// What is to be done once an epoch has begun. `unsaid`: ends that found no room in the reserve.
    fn after_begin(&self, unsaid: &[Over]) -> Vec<Step> {
        let stamps = self.moment.stamps;
        let mut then = vec![Step::Name];
        for over in unsaid {
            then.push(Step::Say(
                self.store.lanes.end_record(self.at, *over, stamps),
            ));
            then.push(Step::Sync);
        }
        let left = self.store.lanes.segments();
        then.push(Step::Restore { left });
        then
    }

    /// Begins what a lane must say at its start. All lanes are there by now: to make room for it, a
    /// segment of any may have to go.
    pub(super) fn begin_lane(&mut self) {
        if sabotage::is(Bug::EpochNotRenewed) && self.store.lanes.go_on_with_last(self.at) {
            return;
        }
        let lane = self.store.lanes.lane(self.at);
        let (base, missing) = (lane.life.base, lane.without_end());
        if missing.is_empty() {
            return;
        }
        if let Some(then) = self.begin_epoch(base, &missing) {
            self.carry_out(then);
            return;
        }
        self.store.lanes.go_to_memory(self.at, self.moment.now.mono);
        // Said from memory, and again on the disk when that takes records.
        let stamps = self.moment.stamps;
        for over in missing {
            self.store.lanes.end_in_memory(self.at, over, stamps);
        }
    }

    /// Names what lives before this one may have lost: whatever the sources are now, and before anything is taken.
    /// Where a lane had to say that an epoch of its own did not end cleanly, the gap stands before that already.
    pub(super) fn name_unclean(&mut self) {
        for gap in self.store.unclean_gaps(self.moment) {
            let record = Draft::own(&gap, &gap.origin, self.moment.stamps);
            self.at = place_of(gap.lane);
            self.carry_out([Step::Store(record)]);
        }
        for at in 0..Lane::AGENT.len() {
            self.at = at;
            self.carry_out([Step::Sync]);
        }
        self.store.named_unclean();
    }

    /// Tries the disk of a lane in memory again; what waited for it is stored. False: it is still in memory.
    pub(super) fn leave_memory(&mut self) -> bool {
        let outbox = self.outbox;
        let committed = |lane, epoch, range| outbox.is_committed(lane, epoch, range);
        let left = self.store.leave_memory(self.at, self.moment, &committed);
        let Some((unsaid, waiting)) = left else {
            return false;
        };
        let mut steps = self.after_begin(&unsaid);
        steps.extend(waiting.into_iter().map(Step::Store));
        steps.push(Step::Sync);
        self.carry_out(steps);
        true
    }
}

#[cfg(test)]
mod tests;
