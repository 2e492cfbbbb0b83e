//! Core: the site: the collector's machine, copies of its disk, and whether its lake can be reached.

use headwater_collector::pipeline::custody::Event;
use headwater_lake::MemStore;
use headwater_proto::time::Millis;
use headwater_spool::{Disk as _, FakeDisk};

use super::check;
use super::collector::Collector;
use super::copy::CopyFaults;
use super::course::Course;
use super::plan::Plan;
use super::takeover::{Sleeper, take_over, versions};

/// Longest time in which the lake cannot be reached.
const MAX_AWAY_MS: u64 = 10_000;

/// Steps of a sink in which a collector that was stopped is awake, at most.
const STEPS_AWAKE: u64 = 20;

/// Steps of the world between two times that it wakes.
const WAKES_ONCE_IN: u64 = 4;

/// Where everything is brought to rest.
pub(super) struct Home {
    pub(super) collector: Collector,
    /// Until when nobody reaches the lake's store.
    away_until: Option<Millis>,
    /// Copies of the journal's disk.
    journals: Vec<FakeDisk>,
    /// A copy of the lake.
    lake: Option<MemStore>,
    /// The lake was once replaced by an older copy.
    pub(super) was_older: bool,
    /// A collector that stands still, and was taken over from.
    asleep: Option<Sleeper>,
    /// The collector's disk was lost once, or was not what it had been.
    pub(super) lost_disk: bool,
    /// Bits of the journal flipped once.
    pub(super) rotten: bool,
    /// Copies of the journal's disk that were taken before that.
    clean: usize,
    /// An older copy was brought back after that: what the lake passed over as rotten may stand in it whole.
    pub(super) healed: bool,
}

impl Home {
    /// A collector that is switched off, beside an empty lake.
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            collector: Collector::new(plan),
            away_until: None,
            journals: Vec::new(),
            lake: None,
            was_older: false,
            asleep: None,
            lost_disk: false,
            rotten: false,
            clean: 0,
            healed: false,
        }
    }

    /// Hands the collector what it hears.
    pub(super) fn hear(&mut self, events: impl IntoIterator<Item = Event>, course: &Course) {
        for event in events {
            self.collector.handle(event, course.now);
        }
    }

    /// Time passed.
    pub(super) fn pass(&mut self, course: &mut Course) {
        if self
            .away_until
            .is_some_and(|until| until <= course.now.mono)
        {
            self.bring_lake_back(course);
        }
        self.collector.handle(Event::Tick, course.now);
    }

    /// Somebody looks after the collector's clock.
    pub(super) fn mend_clock(&mut self, course: &mut Course) {
        if self.collector.mend_clock(course.now) {
            course.note(|| "the collector's clock is believed again".to_owned());
        }
    }

    /// Switches the collector on.
    pub(super) fn start(&mut self, course: &mut Course) {
        self.collector.start(course.now, &mut course.dice);
        let collector = &self.collector;
        course.note(|| {
            let (is_up, found) = (collector.is_up(), &collector.found);
            format!("collector starts: {is_up}, {found}")
        });
    }

    /// The collector dies.
    pub(super) fn kill(&mut self, course: &mut Course) {
        let death = course.death(|| "collector".to_owned());
        let (dice, seen) = (&mut course.dice, &mut course.seen);
        self.collector.die(death, dice, seen);
        self.look_at_the_lake(course);
    }

    /// What readers find between a crash and the next start must be explained too, half committed as
    /// it may be.
    fn look_at_the_lake(&self, course: &mut Course) {
        if self.collector.store.is_away() {
            return;
        }
        let known = course.faults.len();
        let has_clones = course.plan.disturbances > 0;
        check::check_audit(&self.collector.store, has_clones, &mut course.faults);
        let mut found = course.faults.split_off(known);
        if self.has_two_times() {
            found.retain(|fault| !fault.contains("verdict: Unexplained"));
        }
        let found = found.into_iter();
        let found = found.map(|fault| format!("after a crash: {fault}"));
        course.faults.extend(found);
    }

    /// Rot that an old copy of the journal undoes counts as committed, and a journal that rot cut short has two
    /// times beside such a copy: nobody tells them apart (README, known limits).
    pub(super) const fn has_two_times(&self) -> bool {
        self.rotten && self.lost_disk
    }

    /// Ends the collector in order: nothing that its sinks were answered for comes again.
    pub(super) fn stop(&mut self, course: &mut Course) {
        let (dice, seen) = (&mut course.dice, &mut course.seen);
        let is_noted = self.collector.stop(course.now, dice, seen);
        course.note(|| format!("the collector ends in order, its cursors noted: {is_noted}"));
        course.seen.orderly_ends += u64::from(is_noted);
    }

    /// Nobody reaches the lake for a while.
    pub(super) fn lose_sight_of_lake(&mut self, course: &mut Course) {
        let ms = course.dice.below(MAX_AWAY_MS);
        course.note(|| format!("the lake is away for {ms} ms"));
        self.away_until = Some(course.now.mono.plus(ms));
        self.collector.store.set_away(true);
    }

    pub(super) fn bring_lake_back(&mut self, course: &mut Course) {
        course.note(|| "the lake is back".to_owned());
        self.away_until = None;
        self.collector.store.set_away(false);
    }

    /// Somebody takes the second sink out of the configuration, from the next start on. Whether one does.
    pub(super) fn take_copy_out(&mut self, course: &mut Course) -> bool {
        self.collector.take_copy_out();
        let is_out = self.collector.taken_out.is_some();
        if is_out {
            course.note(|| "the copy is taken out".to_owned());
            course.seen.copies_taken_out += 1;
        }
        is_out
    }

    /// The collector's disk is gone, and it died of that.
    pub(super) fn lose_disk(&mut self, course: &mut Course) {
        course.note(|| "the collector's disk is lost".to_owned());
        course.seen.disks_lost += 1;
        self.undo(FakeDisk::new(), course);
    }

    /// The collector is stopped, and another one with a journal of its own takes the lake over. Whether that
    /// was tried.
    pub(super) fn take_over(&mut self, course: &mut Course) -> bool {
        if !self.collector.has_lake() || self.collector.store.is_away() {
            return false;
        }
        self.end_sleeper(course);
        let next = Collector::new(course.plan);
        let stopped = std::mem::replace(&mut self.collector, next);
        (self.collector, self.asleep) = take_over(stopped, course);
        let (found, is_taken) = (&self.collector.found, self.asleep.is_some());
        course.note(|| format!("another collector takes over: {is_taken}, {found}"));
        course.seen.takeovers += u64::from(is_taken);
        course.deaths += 1;
        self.lost_disk = true;
        true
    }

    /// A collector that was taken over from wakes for a while, now and then.
    pub(super) fn wake_sleeper(&mut self, course: &mut Course) {
        if self.asleep.is_none() || !course.dice.one_in(WAKES_ONCE_IN) {
            return;
        }
        let steps = course.dice.below(STEPS_AWAKE);
        let sleeper = self.asleep.take();
        self.asleep = sleeper.and_then(|sleeper| sleeper.wake(steps, course));
    }

    /// It wakes for the last time.
    fn end_sleeper(&mut self, course: &mut Course) {
        let sleeper = self.asleep.take();
        let sleeper = sleeper.and_then(|sleeper| sleeper.wake(STEPS_AWAKE, course));
        if let Some(sleeper) = sleeper {
            sleeper.end(course);
        }
    }

    /// Bits of the journal flip.
    pub(super) fn rot(&mut self, course: &mut Course) {
        let flipped = self.collector.rot(&mut course.dice);
        course.note(|| format!("{flipped} bits of the journal flip"));
        if flipped > 0 && !self.rotten {
            (self.rotten, self.clean) = (true, self.journals.len());
        }
        course.seen.rotten += flipped;
    }

    /// Whether the journal lost what only it may have known.
    pub(super) const fn is_forgetful(&self) -> bool {
        self.rotten || self.lost_disk
    }

    /// Whether there is a copy of the journal's folder.
    pub(super) const fn has_copies(&self) -> bool {
        !self.journals.is_empty()
    }

    /// Somebody copies the journal's folder.
    pub(super) fn copy_journal(&mut self, course: &mut Course) {
        let copy = self.collector.disk.process_killed();
        // Nobody keeps a copy of nothing.
        if copy.list().is_ok_and(|names| !names.is_empty()) {
            course.note(|| "the journal is copied".to_owned());
            self.journals.push(copy);
        }
    }

    /// Somebody brings a copy of the journal's folder back.
    pub(super) fn restore_journal(&mut self, course: &mut Course) {
        course.note(|| "an old copy of the journal is brought back".to_owned());
        // Later copies are of a time that is undone with this: they are not brought back too.
        let at = course.dice.index(self.journals.len());
        self.journals.truncate(at + 1);
        self.healed |= self.rotten && at < self.clean;
        let disk = self.journals[at].process_killed();
        course.seen.journals_restored += 1;
        self.undo(disk, course);
    }

    /// Whether there is a copy of the lake.
    pub(super) const fn has_copy_of_lake(&self) -> bool {
        self.lake.is_some()
    }

    /// Somebody copies the lake.
    pub(super) fn copy_lake(&mut self, course: &mut Course) {
        let copy = self.collector.store.fork();
        // Nobody keeps a copy of nothing.
        if versions(&copy).iter().any(Option::is_some) {
            course.note(|| "the lake is copied".to_owned());
            self.lake = Some(copy);
        }
    }

    /// Somebody brings the copy of the lake back, while the collector is off.
    pub(super) fn restore_lake(&mut self, course: &mut Course) {
        let Some(copy) = &self.lake else { return };
        course.note(|| "an old copy of the lake is brought back".to_owned());
        course.seen.lakes_restored += 1;
        self.was_older = true;
        let is_away = self.collector.store.is_away();
        self.collector.store = copy.fork();
        self.collector.store.set_away(is_away);
    }

    fn undo(&mut self, disk: FakeDisk, course: &mut Course) {
        self.lost_disk = true;
        self.collector.note_counters(&mut course.seen);
        course.deaths += 1;
        self.collector.replace_disk(disk);
    }

    /// No more faults.
    pub(super) fn calm(&mut self, course: &mut Course) {
        self.end_sleeper(course);
        self.bring_lake_back(course);
        self.collector.calm_clock();
        let plan = &course.plan;
        self.collector.copy_faults = CopyFaults {
            refuses: plan.copy_faults.refuses,
            ..CopyFaults::default()
        };
        self.collector.stream_faults = CopyFaults {
            refuses: plan.stream_faults.refuses,
            ..CopyFaults::default()
        };
    }
}
