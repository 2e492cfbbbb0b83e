//! Core: how far each sink is, what it plans, and what it said that is not taken in yet.
//!
//! A group that fails takes its records back, and with them the cursors that they let pass.

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::Millis;

use super::super::stretch::Found;
use super::super::types::SinkSpec;
use crate::pipeline::envelope::{GONE, SINK_OF, SinkCursor};
use crate::pipeline::snapshot::{PendingPlan, Plans};

/// Time between two records of how far a sink is. A kill repeats no more than a sink was told in it.
const NOTE_CURSOR_MS: u64 = 1_000;

/// What a sink said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Report {
    /// Its name.
    pub(in super::super) sink: String,
    /// The first position that it does not have.
    pub(in super::super) through: u64,
    /// What that covers of each stream.
    pub(in super::super) streams: Vec<(Stream, Vec<SeqRange>)>,
    /// Numbers of each stream that it refused for good.
    pub(in super::super) refused: Vec<(Stream, Vec<SeqRange>)>,
    /// Records on the way there that it could not read.
    pub(in super::super) damaged: u64,
    /// What the lake has of those, once records name it.
    pub(in super::super) named: Option<Found>,
}

/// A cursor that records of the running group let pass.
#[derive(Debug)]
pub(in super::super) struct Moved {
    /// Where it stood.
    pub(in super::super) cursor: SinkCursor,
    /// What the sink said, to be taken in once more.
    pub(in super::super) said: Option<Report>,
}

/// All sinks. See the module's page.
#[derive(Debug)]
pub(in super::super) struct Sinks {
    specs: Vec<SinkSpec>,
    cursors: Vec<SinkCursor>,
    /// The cursors in the newest snapshot that is durable.
    durable: Vec<SinkCursor>,
    /// The cursors in a snapshot whose segment has no durable record yet.
    pending: Option<Vec<SinkCursor>>,
    plans: Plans,
    /// Plans in whose place the running group put others.
    replaced: Vec<PendingPlan>,
    /// Up to where records name all that sinks of earlier journals may lack.
    settled: BTreeMap<String, u64>,
    /// How far each sink's cursor stands in the journal, and since when.
    noted: BTreeMap<String, (u64, Millis)>,
    /// The position after the last record that is more than a sink's progress.
    worth_noting: u64,
    /// What sinks said and the journal has not taken yet.
    held: Vec<Report>,
    /// Cursors that were moved by records of the running group, each with the plan that its sink had until then.
    moved: Vec<(Moved, Option<PendingPlan>)>,
    /// The first position that sinks which were taken out never had to have.
    began_at: u64,
    /// The end has come: reports are taken however much they are, since nothing more comes.
    is_ending: bool,
    /// The name of the lake, once it and the journal have met.
    lake: Option<String>,
}

impl Sinks {
    /// - `specs`: the sinks of the configuration.
    /// - `cursors`, `plans`: what the newest snapshot says.
    pub(super) fn new(specs: Vec<SinkSpec>, cursors: Vec<SinkCursor>, plans: Plans) -> Self {
        Self {
            specs,
            durable: cursors.clone(),
            cursors,
            pending: None,
            plans,
            replaced: Vec::new(),
            settled: BTreeMap::new(),
            noted: BTreeMap::new(),
            worth_noting: 0,
            held: Vec::new(),
            moved: Vec::new(),
            began_at: 0,
            is_ending: false,
            lake: None,
        }
    }

    /// Sinks that are new begin at a position.
    pub(in super::super) fn add_new(&mut self, at: u64) {
        let named: BTreeSet<String> = self.cursors.iter().map(|c| c.name.clone()).collect();
        for sink in &self.specs {
            if !named.contains(&sink.name) {
                self.cursors.push(SinkCursor {
                    name: sink.name.clone(),
                    position: at,
                });
            }
        }
    }

    /// How far each sink is.
    pub(in super::super) fn cursors(&self) -> &[SinkCursor] {
        &self.cursors
    }

    /// The first position that a sink has not committed.
    pub(in super::super) fn cursor(&self, sink: &str) -> Option<u64> {
        position(&self.cursors, sink)
    }

    /// The journal has met the lake, which is the sink of that name.
    pub(in super::super) fn has_met(&mut self, lake: &str) {
        self.lake = Some(lake.to_owned());
    }

    /// Whether a sink is the lake that the journal has met.
    pub(in super::super) fn is_lake(&self, sink: &str) -> bool {
        self.lake.as_deref() == Some(sink)
    }

    /// The lake that the journal has met.
    pub(in super::super) fn lake(&self) -> Option<&str> {
        self.lake.as_deref()
    }

    /// The first position that the lake has not committed; `None` before the journal has met it.
    pub(in super::super) fn lake_position(&self) -> Option<u64> {
        self.cursor(self.lake.as_deref()?)
    }

    /// The names of the sinks that the journal waits for, in the order of the configuration.
    pub(in super::super) fn required(&self) -> impl Iterator<Item = &str> {
        let required = self.specs.iter().filter(|sink| sink.required);
        required.map(|sink| sink.name.as_str())
    }

    /// The first position that some required sink has not committed.
    pub(in super::super) fn required_position(&self) -> u64 {
        let positions = self.required().map(|sink| self.cursor(sink).unwrap_or(0));
        positions.min().unwrap_or(0)
    }

    /// The first position that some sink has not committed: of those that are required, those that
    /// are not, and those that were taken out and are not named yet.
    pub(in super::super) fn least_of_all(&self) -> u64 {
        self.least(&self.cursors)
    }

    /// The same as the newest durable snapshot says.
    pub(in super::super) fn least_of_all_durable(&self) -> u64 {
        self.least(&self.durable)
    }

    fn least(&self, cursors: &[SinkCursor]) -> u64 {
        let configured = self.specs.iter();
        let configured = configured.map(|sink| position(cursors, &sink.name).unwrap_or(0));
        let all = cursors.iter().map(|cursor| cursor.position);
        configured.chain(all).min().unwrap_or(0)
    }

    /// Sinks that are no longer in the configuration.
    pub(in super::super) fn leavers(&self) -> Vec<SinkCursor> {
        let is_configured = |cursor: &&SinkCursor| self.specs.iter().any(|s| s.name == cursor.name);
        let leavers = self.cursors.iter().filter(|cursor| !is_configured(cursor));
        leavers.cloned().collect()
    }

    /// Sinks that have not come to a position.
    pub(in super::super) fn behind(&self, to: u64) -> Vec<SinkCursor> {
        let behind = self.cursors.iter().filter(|cursor| cursor.position < to);
        behind.cloned().collect()
    }

    /// Plans that may not be carried out yet.
    pub(in super::super) const fn plans(&self) -> &Plans {
        &self.plans
    }

    /// A plan is in the journal.
    pub(super) fn planned(&mut self, plan: PendingPlan) {
        let before = self.plans.insert(plan.sink.clone(), plan);
        self.replaced.extend(before);
    }

    /// A sink has all before a position. It has one plan at a time, so it carried that out. The lake's is kept:
    /// it shows what a lake has at least.
    pub(in super::super) fn has_come(&mut self, sink: &str, to: u64) {
        if !self.is_lake(sink) {
            self.plans.remove(sink);
        }
        self.raise(sink, to);
    }

    /// A sink has come no further than a position, whatever it said before.
    pub(super) fn go_back(&mut self, sink: &str, to: u64) {
        let pending = self.pending.iter_mut().flatten();
        let all = self
            .cursors
            .iter_mut()
            .chain(&mut self.durable)
            .chain(pending);
        for cursor in all.filter(|cursor| cursor.name == sink) {
            cursor.position = cursor.position.min(to);
        }
    }

    /// A sink is at least at a position.
    pub(in super::super) fn raise(&mut self, sink: &str, to: u64) {
        if let Some(cursor) = self.cursors.iter_mut().find(|cursor| cursor.name == sink) {
            cursor.position = cursor.position.max(to);
        }
    }

    /// A record says how far a sink is.
    pub(super) fn stands(&mut self, sink: &str, position: u64) {
        if position == GONE {
            self.cursors.retain(|cursor| cursor.name != sink);
        } else if sink.contains(SINK_OF) {
            self.settled.insert(sink.to_owned(), position);
        } else {
            self.raise(sink, position);
        }
    }

    /// Whether records of the journal name all that a sink of an earlier journal may lack below a position.
    pub(in super::super) fn is_settled(&self, place: &str, to: u64) -> bool {
        self.settled.get(place).is_some_and(|at| *at >= to)
    }

    /// Whether what a sink said last is not taken in yet: until then it must not go on.
    pub(in super::super) fn is_holding(&self, sink: &str) -> bool {
        self.held.iter().any(|held| held.sink == sink)
    }

    /// The sinks whose last report is not taken in yet.
    pub(in super::super) fn held(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(|held| held.sink.as_str())
    }

    /// Keeps a report that cannot be taken in now, beside what is held of that sink already.
    pub(in super::super) fn hold(&mut self, said: Report) {
        match self.held.iter_mut().find(|held| held.sink == said.sink) {
            Some(held) => {
                held.through = held.through.max(said.through);
                held.streams.extend(said.streams);
                held.refused.extend(said.refused);
                held.damaged += said.damaged;
                if said.damaged > 0 {
                    held.named = None;
                }
            }
            None => self.held.push(said),
        }
    }

    /// What the lake has of the records that a sink could not read up to a position is named: a report that goes no
    /// further has not to wait for it.
    pub(in super::super) fn named_damage(&mut self, sink: &str, lacks: &Found, to: u64) {
        let mut held = self.held.iter_mut();
        if let Some(held) = held.find(|held| held.sink == sink && held.through <= to) {
            held.named = Some(lacks.clone());
        }
    }

    /// All that is held, to be taken in once more.
    pub(in super::super) fn take_held(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.held)
    }

    /// A sink's cursor is about to be moved by records of the running group.
    pub(in super::super) fn moving(&mut self, moved: Moved) {
        let plan = self.plans.get(&moved.cursor.name).cloned();
        self.moved.push((moved, plan));
    }

    /// The end has come.
    pub(in super::super) const fn end(&mut self) {
        self.is_ending = true;
    }

    /// Whether a sink is further than another required one, so that its reports can wait. The lake cannot
    /// while another one waits for what it has of damaged records.
    pub(in super::super) fn can_wait(&self, sink: &str) -> bool {
        let is_behind = |held: &Report| self.cursor(&held.sink) < Some(held.through);
        let mut held = self.held.iter();
        let is_awaited = self.is_lake(sink) && held.any(|held| held.damaged > 0 && is_behind(held));
        self.cursor(sink) > Some(self.required_position()) && !self.is_ending && !is_awaited
    }

    /// A start has read the journal up to `position`.
    pub(in super::super) const fn begin_at(&mut self, position: u64) {
        self.began_at = position;
        self.worth_noting = position;
    }

    /// The first position that sinks which were taken out never had to have.
    pub(in super::super) const fn began_at(&self) -> u64 {
        self.began_at
    }

    /// A record below `position` is more than a sink's progress.
    pub(in super::super) const fn worth_noting_to(&mut self, position: u64) {
        self.worth_noting = position;
    }

    /// Cursors that a record is to note, each once in a while, so that a kill repeats little; `at_once` at
    /// an orderly end, so that it repeats nothing.
    pub(in super::super) fn to_note(&self, now: Millis, at_once: bool) -> Vec<SinkCursor> {
        let noted = |name: &str| self.noted.get(name).copied().unwrap_or_default();
        let due = self.cursors.iter().filter(|cursor| {
            let (position, at) = noted(&cursor.name);
            let is_new = cursor.position > position && position < self.worth_noting;
            is_new && (at_once || now.since(at) >= NOTE_CURSOR_MS)
        });
        due.cloned().collect()
    }

    /// A record notes a cursor.
    pub(in super::super) fn note(&mut self, cursor: SinkCursor, now: Millis) {
        self.noted.insert(cursor.name, (cursor.position, now));
    }

    /// A segment was begun: its snapshot holds the cursors.
    pub(super) fn segment_begun(&mut self) {
        self.pending = Some(self.cursors.clone());
    }

    /// Whether the newest segment's snapshot has no durable record after it yet.
    pub(super) const fn is_segment_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// All that was appended is durable.
    pub(in super::super) fn synced(&mut self) {
        if let Some(cursors) = self.pending.take() {
            self.durable = cursors;
        }
        self.moved.clear();
        self.replaced.clear();
    }

    /// The group from `first` on failed: cursors go back to before its records.
    pub(super) fn failed(&mut self, first: u64) {
        self.pending = None;
        self.settled.clear();
        self.plans.retain(|_, plan| plan.position < first);
        for plan in std::mem::take(&mut self.replaced) {
            if plan.position < first {
                self.plans.insert(plan.sink.clone(), plan);
            }
        }
        for (Moved { cursor, said }, plan) in std::mem::take(&mut self.moved).into_iter().rev() {
            if let Some(plan) = plan.filter(|plan| plan.position < first) {
                // It is carried out once more, should the process end before its sink is named again.
                self.plans.insert(cursor.name.clone(), plan);
            }
            match self.cursors.iter_mut().find(|c| c.name == cursor.name) {
                Some(present) => present.position = cursor.position,
                None => self.cursors.push(cursor),
            }
            self.held.extend(said);
        }
        self.held.iter_mut().for_each(|held| held.named = None);
        self.noted.clear();
    }

    /// The journal goes on under a new name: every sink has what stands before `since`.
    pub(super) fn go_on_from(&mut self, since: u64) {
        // A sink that was there meanwhile may have planned since.
        self.plans.retain(|_, plan| plan.position >= since);
        self.durable.clear();
        for cursor in &mut self.cursors {
            cursor.position = cursor.position.max(since);
        }
        self.noted.clear();
    }
}

fn position(cursors: &[SinkCursor], sink: &str) -> Option<u64> {
    cursors
        .iter()
        .find(|cursor| cursor.name == sink)
        .map(|cursor| cursor.position)
}
