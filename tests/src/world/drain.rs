//! Core: the end of a run. Faults stop, everybody comes back, everything is sent and committed, the
//! writers stop in order, and what was abandoned is closed.

use super::copy::CopyFaults;
use super::device::Device;
use super::link::Weather;
use super::run::World;

/// Rounds after which a drain counts as stuck: far more than back-off and probes need.
const MAX_ROUNDS: u64 = 1_500;
/// Time of a round in which something moved.
const ROUND_MS: u64 = 200;
/// Rounds that one of several devices of a name keeps the connection.
const ROUNDS_PER_CLONE: u64 = 12;
/// Longer than an epoch may be absent before it is abandoned.
const ABANDON_MS: u64 = 25_000;
/// Longer than an epoch of a node may be absent before it is abandoned.
const RELAYED_MS: u64 = 31 * 24 * 3_600 * 1_000;

impl World {
    /// Drains. Adds a fault if that never ends.
    pub(super) fn drain(&mut self) {
        self.note(|_| "the drain begins".to_owned());
        self.calm();
        if !self.settle(false) {
            return;
        }
        self.note(|_| "the writers stop".to_owned());
        for place in 0..self.devices.len() {
            self.devices[place].stop(self.now);
            self.pump_device(place);
        }
        if !self.settle(true) {
            return;
        }
        // After an orderly end no sink is told anything again.
        self.stop_collector();
        self.start_collector();
        // What only the end of another epoch told of is missed by the next Hello.
        for place in 0..self.devices.len() {
            self.hang_up(place);
        }
        self.settle(true);
        for _ in 0..3 {
            self.pass(ABANDON_MS);
            self.round(u64::MAX);
        }
        if self.plan.nodes > 0 {
            // What a node kept in memory alone is named when no gateway has listed it for long.
            self.pass(RELAYED_MS);
            self.round(u64::MAX);
        }
        self.settle(true);
    }

    /// No more faults.
    fn calm(&mut self) {
        self.plan.deaths_between_commands = 0;
        self.bring_lake_back();
        self.collector.copy_faults = CopyFaults {
            refuses: self.plan.copy_faults.refuses,
            ..CopyFaults::default()
        };
        self.collector.stream_faults = CopyFaults {
            refuses: self.plan.stream_faults.refuses,
            ..CopyFaults::default()
        };
        if self.collector.is_up() {
            // Faults that wait for a later operation go with the process.
            self.kill_collector();
        } else {
            self.collector.disk = self.collector.disk.process_killed();
            self.collector.store.restart();
        }
        self.collector.disk.set_capacity(None);
        self.start_collector();
        for place in 0..self.devices.len() {
            let device = &mut self.devices[place];
            if device.engine.is_some() {
                self.kill_device(place);
            }
            let device = &mut self.devices[place];
            device.disk = device.disk.process_killed();
            device.disk.set_capacity(None);
            self.start_device(place);
            // A last row of the source that cannot wait: before it, a gap names what is lost.
            self.devices[place].make(1, 1);
        }
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
        self.faults
            .push(format!("the world never comes to rest: {state}"));
        false
    }

    fn round(&mut self, round: u64) {
        for place in 0..self.devices.len() {
            if !self.is_turn(place, round) {
                continue;
            }
            self.connect(place);
            for source in 0..super::generator::SOURCES.len() {
                self.devices[place].offer(source, 50, &mut self.made, self.now);
            }
            self.pump_device(place);
        }
        for _ in 0..self.plain.len() {
            self.publish_plain_again();
        }
        let mut moved = false;
        for place in 0..self.devices.len() {
            let waiting = self.links[place]
                .as_ref()
                .map_or(0, |link| link.waiting_up());
            for _ in 0..waiting {
                moved = true;
                self.deliver_up(place, Weather::default());
            }
        }
        self.sync_collector();
        self.run_sinks();
        for place in 0..self.devices.len() {
            while self.links[place]
                .as_ref()
                .is_some_and(|link| !link.is_idle())
            {
                moved = true;
                self.deliver_down(place, Weather::default());
                self.deliver_up(place, Weather::default());
            }
        }
        let ms = if moved {
            ROUND_MS
        } else {
            self.until_something_is_due()
        };
        self.pass(ms);
    }

    /// Devices of one name take turns.
    fn is_turn(&self, place: usize, round: u64) -> bool {
        let id = &self.devices[place].id;
        let same: Vec<usize> = (0..self.devices.len())
            .filter(|&other| self.devices[other].id == *id)
            .collect();
        let turn = usize::try_from(round / ROUNDS_PER_CLONE).unwrap_or(0) % same.len();
        same[turn] == place
    }

    fn until_something_is_due(&self) -> u64 {
        let wakeups = self.devices.iter().filter_map(Device::next_wakeup);
        let next = wakeups.min().map_or(1_000, |at| at.since(self.now.mono));
        next.clamp(ROUND_MS, 1_000)
    }

    fn publish_plain_again(&mut self) {
        if self.plain.iter().any(|plain| !plain.is_idle()) {
            self.publish_plain();
        }
    }

    fn is_settled(&self, stopped: bool) -> bool {
        let drained = |device: &Device| {
            let engine = device.engine.as_ref();
            engine.is_some_and(|engine| engine.sender().is_drained())
                && (stopped || device.has_offered_all())
        };
        self.devices.iter().all(drained)
            && self.links.iter().flatten().all(super::link::Link::is_idle)
            && self.plain.iter().all(super::plain::Plain::is_idle)
            && self.collector.is_drained(self.now)
    }

    fn describe(&self) -> String {
        let devices: Vec<String> = self
            .devices
            .iter()
            .map(|device| match &device.engine {
                Some(engine) => {
                    let sender = engine.sender();
                    format!(
                        "{} backlog {} open {} credit {} in flight {} offered all {} {:?} {:?}",
                        device.id,
                        sender.backlog_records(),
                        sender.is_open(),
                        sender.credit(),
                        sender.in_flight_bytes(),
                        device.has_offered_all(),
                        sender.counters(),
                        engine.counters(),
                    )
                }
                None => format!("{} is off", device.id),
            })
            .collect();
        format!(
            "{devices:?}; plain {:?}; collector {}",
            self.plain,
            self.collector.describe()
        )
    }
}
