//! Core: the end of a run. Faults stop, everybody comes back, everything is sent and committed, the
//! writers stop in order, and what was abandoned is closed.

use super::link::Weather;
use super::run::World;

/// Rounds after which a drain counts as stuck: far more than back-off and probes need.
const MAX_ROUNDS: u64 = 1_500;
/// Time of a round in which something moved.
const ROUND_MS: u64 = 200;
/// Longest time of a round in which nothing did.
const MAX_ROUND_MS: u64 = 1_000;
/// Longer than an epoch may be absent before it is abandoned.
const ABANDON_MS: u64 = 25_000;
/// Longer than an epoch of a node may be absent before it is abandoned.
const RELAYED_MS: u64 = 31 * 24 * 3_600 * 1_000;

impl World {
    /// Drains. Adds a fault if that never ends.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
        self.course.note(|| "the drain begins".to_owned());
        self.calm();
        if !self.settle(false) {
            return;
        }
        self.course.note(|| "the writers stop".to_owned());
        for place in 0..self.fleet.devices.len() {
            self.fleet.devices[place].stop(self.course.now);
            self.pump_device(place);
        }
        if !self.settle(true) {
            return;
        }
        // After an orderly end no sink is told anything again.
        self.stop_collector();
        self.start_collector();
        // What only the end of another epoch told of is missed by the next Hello.
        for place in 0..self.fleet.devices.len() {
            self.hang_up(place);
        }
        self.settle(true);
        for _ in 0..3 {
            self.pass(ABANDON_MS);
            self.round(u64::MAX);
        }
        if self.course.plan.nodes + self.course.plan.behind > 0 {
            // What a node kept in memory alone is named when no gateway has listed it for long.
            self.pass(RELAYED_MS);
            self.round(u64::MAX);
        }
        self.settle(true);
    }

    /// No more faults.
    fn calm(&mut self) {
        self.course.plan.deaths_between_commands = 0;
        self.site.calm(&mut self.course);
        if self.site.collector.is_up() {
            // Faults that wait for a later operation go with the process.
            self.kill_collector();
        } else {
            self.site.collector.disk = self.site.collector.disk.process_killed();
            self.site.collector.store.restart();
        }
        self.site.collector.disk.set_capacity(None);
        self.start_collector();
        if self.course.plan.shared_nodes {
            // One gateway comes back long after the other one.
            let left = self.fleet.lose_gateway(&mut self.course);
            self.site.hear(left, &self.course);
        }
        for place in 0..self.fleet.devices.len() {
            let device = &mut self.fleet.devices[place];
            if device.engine.is_some() {
                self.kill_device(place);
            }
            let device = &mut self.fleet.devices[place];
            device.disk = device.disk.process_killed();
            device.disk.set_capacity(None);
            self.start_device(place);
            // A last row of the source that cannot wait: before it, a gap names what is lost.
            self.fleet.devices[place].make(1, 1);
        }
        self.fleet.calm_nodes(&mut self.course);
    }

    /// Rounds until nothing is left to do.
    fn settle(&mut self, stopped: bool) -> bool {
        for round in 0..MAX_ROUNDS {
            self.round(round);
            if self.is_settled(stopped) {
                return true;
            }
        }
        let state = self.describe();
        self.course
            .faults
            .push(format!("the world never comes to rest: {state}"));
        false
    }

    fn round(&mut self, round: u64) {
        self.site.mend_clock(&mut self.course);
        for place in 0..self.fleet.devices.len() {
            if !self.fleet.is_turn(place, round) {
                continue;
            }
            self.connect(place);
            self.fleet.offer_all(place, self.course.now);
            self.pump_device(place);
        }
        for _ in 0..self.fleet.plain.len() {
            self.publish_plain_again();
        }
        let mut moved = false;
        for agent in self.fleet.drain_nodes(self.course.now) {
            moved = true;
            self.pump_device(agent);
        }
        for place in 0..self.fleet.devices.len() {
            for _ in 0..self.fleet.waiting_up(place) {
                moved = true;
                self.deliver_up(place, Weather::default());
            }
        }
        self.sync_collector();
        self.run_sinks();
        for place in 0..self.fleet.devices.len() {
            while !self.fleet.is_idle(place) {
                moved = true;
                self.deliver_down(place, Weather::default());
                self.deliver_up(place, Weather::default());
            }
        }
        let ms = if moved {
            ROUND_MS
        } else {
            let due = self.fleet.until_something_is_due(self.course.now);
            due.unwrap_or(MAX_ROUND_MS).clamp(ROUND_MS, MAX_ROUND_MS)
        };
        self.pass(ms);
    }

    fn publish_plain_again(&mut self) {
        if self.fleet.plain.iter().any(|plain| !plain.is_idle()) {
            self.publish_plain();
        }
    }

    fn is_settled(&self, stopped: bool) -> bool {
        self.fleet.is_drained(stopped) && self.site.collector.is_drained(self.course.now)
    }

    fn describe(&self) -> String {
        let (fleet, collector) = (self.fleet.describe(), self.site.collector.describe());
        format!("{fleet}; collector {collector}")
    }
}
