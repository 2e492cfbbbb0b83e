//! Core: one step of a run: somebody reads, sends, receives, syncs, flushes, or something breaks.

use headwater_agent::pipeline::engine::Event as AgentEvent;
use headwater_collector::pipeline::custody::Output;

use super::collector::Which;
use super::faults::break_something;
use super::hands::Did;
use super::link::Weather;
use super::run::World;

/// Messages that pass in one step, at most.
const MESSAGES_PER_STEP: u64 = 6;
/// Steps of a sink in one step of the world: a read, a delivery, and a retry of it.
const STEPS_OF_A_SINK: u64 = 8;

/// Marks the choice whether somebody looks after the collector's clock, and how many steps pass between two times.
const CLOCKS: u64 = 0x6d65_6e64;
const CLOCK_STEPS: u64 = 25;

impl World {
    /// One step.
    pub(super) fn step(&mut self) {
        let place = self.course.dice.index(self.fleet.devices.len());
        let weather = self.course.plan.weather;
        match self.course.dice.below(100) {
            0..=19 => {
                self.fleet.read_sensors(place, &mut self.course);
                self.pump_device(place);
            }
            20..=34 => {
                for _ in 0..self.course.dice.below(MESSAGES_PER_STEP) {
                    self.deliver_up(place, weather);
                }
            }
            35..=49 => {
                for _ in 0..self.course.dice.below(MESSAGES_PER_STEP) {
                    self.deliver_down(place, weather);
                }
            }
            50..=62 => self.sync_collector(),
            63..=76 => {
                let ms = self.course.dice.below(1_500);
                self.pass(ms);
            }
            77..=86 => self.run_sinks(),
            87..=92 => self.come_back(place),
            _ => self.publish_plain(),
        }
        break_something(self, place);
        if self.course.dice.aside(CLOCKS).one_in(CLOCK_STEPS) {
            self.site.mend_clock(&mut self.course);
        }
        self.site.wake_sleeper(&mut self.course);
        for agent in self.fleet.serve_nodes(&mut self.course) {
            self.pump_device(agent);
        }
    }

    /// Takes what an agent says; the collector hears of it if it dies over that.
    pub(super) fn pump_device(&mut self, place: usize) {
        let left = self.fleet.pump(place, &mut self.course);
        self.site.hear(left, &self.course);
    }

    /// Takes what the collector says, one command after the other; between any two it may die.
    pub(super) fn pump_collector(&mut self) {
        loop {
            if self.site.collector.is_crashed() {
                self.kill_collector();
                return;
            }
            match self.site.collector.next_output() {
                Some(Output::Read(stretch)) => self.site.collector.read(stretch, self.course.now),
                Some(Output::Keep(keeping)) => self.site.collector.keep(keeping),
                Some(Output::Find(finding)) => self.site.collector.find(finding),
                Some(output) => self.fleet.hear(output, &mut self.course),
                // The other thread may be done at once, or later; in the drain it is faster than a turn of two
                // that fight for one name.
                None if self.site.collector.is_finding()
                    && (self.is_draining || self.course.dice.one_in(2)) =>
                {
                    self.site.collector.look_up(self.course.now);
                }
                None => return,
            }
            if self.course.dies_here() {
                self.kill_collector();
                return;
            }
        }
    }

    pub(super) fn deliver_up(&mut self, place: usize, weather: Weather) {
        let Some(event) = self.fleet.take_up(place, weather, &mut self.course) else {
            return;
        };
        self.site.hear([event], &self.course);
        if self.course.dice.one_in(3) {
            self.sync_collector();
        } else {
            self.pump_collector();
        }
    }

    pub(super) fn deliver_down(&mut self, place: usize, weather: Weather) {
        if self.fleet.take_down(place, weather, &mut self.course) {
            self.pump_device(place);
        }
    }

    pub(super) fn sync_collector(&mut self) {
        self.site.collector.sync(self.course.now);
        self.pump_collector();
    }

    /// Time passes for everybody.
    pub(super) fn pass(&mut self, ms: u64) {
        self.course.pass(ms);
        self.site.pass(&mut self.course);
        self.site.collector.look_up(self.course.now);
        self.sync_collector();
        for place in 0..self.fleet.devices.len() {
            self.fleet.devices[place].handle(AgentEvent::Tick, self.course.now);
            self.pump_device(place);
        }
    }

    /// The sinks read on and, when their time has come, deliver.
    pub(super) fn run_sinks(&mut self) {
        let most = 1 + self.course.dice.index(20_000);
        let sinks = [
            (Which::Lake, most),
            (Which::Copy, 1 + most / 2),
            (Which::Stream, 1 + most / 2),
        ];
        for (which, most) in sinks {
            let mut most = most;
            for _ in 0..STEPS_OF_A_SINK {
                let (now, dice) = (self.course.now, &mut self.course.dice);
                match self.site.collector.step_sink(which, most, now, dice) {
                    Did::Read => most = 0,
                    Did::Moved => {
                        self.pump_collector();
                        if self.course.dies_here() {
                            self.kill_collector();
                        }
                    }
                    Did::Ended => {
                        self.kill_collector();
                        break;
                    }
                    Did::Nothing => break,
                }
            }
            self.sync_collector();
        }
    }

    /// Whoever is down comes back; whoever is not connected connects.
    pub(super) fn come_back(&mut self, place: usize) {
        if !self.site.collector.is_up() {
            self.start_collector();
        }
        if self.fleet.devices[place].engine.is_none() {
            self.start_device(place);
        }
        self.connect(place);
    }

    pub(super) fn start_collector(&mut self) {
        self.site.start(&mut self.course);
        if self.site.collector.is_crashed() {
            self.kill_collector();
        }
    }

    pub(super) fn start_device(&mut self, place: usize) {
        self.fleet.start(place, &mut self.course);
        self.pump_device(place);
    }

    /// Connects a device, if the collector runs.
    pub(super) fn connect(&mut self, place: usize) {
        if !self.site.collector.is_up() {
            return;
        }
        let Some(events) = self.fleet.connect(place, &mut self.course) else {
            return;
        };
        self.site.hear(events, &self.course);
        self.pump_device(place);
    }

    /// The connection of a device ends at both sides.
    pub(super) fn hang_up(&mut self, place: usize) {
        let left = self.fleet.hang_up(place, self.course.now);
        self.site.hear(left, &self.course);
    }

    pub(super) fn publish_plain(&mut self) {
        if self.fleet.plain.is_empty() || !self.site.collector.is_up() {
            return;
        }
        let events = self.fleet.publish_plain(&mut self.course);
        self.site.hear(events, &self.course);
        self.pump_collector();
        if self.course.dies_here() {
            self.kill_collector();
        }
    }

    pub(super) fn kill_device(&mut self, place: usize) {
        let left = self.fleet.kill(place, &mut self.course);
        self.site.hear(left, &self.course);
    }

    pub(super) fn kill_collector(&mut self) {
        self.site.kill(&mut self.course);
        self.drop_connections();
    }

    /// Ends the collector in order, if it runs.
    pub(super) fn stop_collector(&mut self) {
        if self.site.collector.is_up() {
            self.site.stop(&mut self.course);
            self.drop_connections();
        }
    }

    /// The collector is gone: everybody's connection ends.
    pub(super) fn drop_connections(&mut self) {
        self.fleet.forget_gateways();
        for place in 0..self.fleet.devices.len() {
            self.fleet.cut(place, self.course.now);
            self.pump_device(place);
        }
        // Nobody is left to hear of it.
        self.fleet.hang_up_plain();
    }
}
