//! Core: one step of a run: somebody reads, sends, receives, syncs, flushes, or something breaks.

use std::sync::Arc;

use bytes::Bytes;
use headwater_agent::pipeline::engine::Event as AgentEvent;
use headwater_collector::pipeline::custody::{Event, Output};
use headwater_gate::ConnId;
use headwater_proto::time::UnixMicros;
use headwater_spool::{Disk as _, FakeDisk};

use super::check;
use super::collector::{Did, GATEWAY, Which, gateway_id};
use super::device::{Death, Device};
use super::generator::{SOURCES, START_US};
use super::link::{Link, Weather};
use super::plan::MAX_STEP_US;
use super::run::World;

/// Messages that pass in one step, at most.
const MESSAGES_PER_STEP: u64 = 6;
/// Steps of a sink in one step of the world: a read, a delivery, and a retry of it.
const STEPS_OF_A_SINK: u64 = 8;
/// Longest time in which the lake cannot be reached.
const MAX_AWAY_MS: u64 = 10_000;
/// Devices of one run, clones counted.
const MAX_DEVICES: usize = 6;

impl World {
    /// One step.
    pub(super) fn step(&mut self) {
        let place = self.dice.index(self.devices.len());
        match self.dice.below(100) {
            0..=19 => self.read_sensors(place),
            20..=34 => {
                for _ in 0..self.dice.below(MESSAGES_PER_STEP) {
                    self.deliver_up(place, self.plan.weather);
                }
            }
            35..=49 => {
                for _ in 0..self.dice.below(MESSAGES_PER_STEP) {
                    self.deliver_down(place, self.plan.weather);
                }
            }
            50..=62 => self.sync_collector(),
            63..=76 => {
                let ms = self.dice.below(1_500);
                self.pass(ms);
            }
            77..=86 => self.run_sinks(),
            87..=92 => self.come_back(place),
            _ => self.publish_plain(),
        }
        self.break_something(place);
    }

    fn read_sensors(&mut self, place: usize) {
        let source = self.dice.index(SOURCES.len());
        let count = self.dice.below(12);
        self.devices[place].make(source, count);
        self.devices[place].offer(source, count + 3, &mut self.made, self.now);
        self.pump_device(place);
    }

    /// Takes what an agent says, one command after the other; between any two it may die.
    pub(super) fn pump_device(&mut self, place: usize) {
        loop {
            if self.devices[place].is_crashed() {
                self.kill_device(place);
                return;
            }
            self.devices[place].hear_settled();
            let linked = self.links[place].is_some();
            let Some(bytes) = self.devices[place].next_publish(linked, self.now) else {
                break;
            };
            if self.devices[place].is_crashed() {
                // It died within this command.
                self.kill_device(place);
                return;
            }
            if let Some(link) = &mut self.links[place] {
                link.send_up(bytes);
            }
            if self.dice.one_in(self.plan.deaths_between_commands) {
                self.kill_device(place);
                return;
            }
        }
        if self.devices[place].is_crashed() {
            self.kill_device(place);
        }
    }

    /// Takes what the collector says, one command after the other; between any two it may die.
    pub(super) fn pump_collector(&mut self) {
        loop {
            if self.collector.is_crashed() {
                self.kill_collector();
                return;
            }
            let Some(output) = self.collector.next_output() else {
                return;
            };
            match output {
                Output::Send { conn, payload } => {
                    // A gateway hands on to all its nodes; each takes what names it.
                    let links = self.links.iter_mut().flatten();
                    for link in links.filter(|link| link.conn == conn) {
                        link.send_down(payload.clone());
                    }
                }
                Output::PubAck { conn, token } => {
                    for plain in self
                        .plain
                        .iter_mut()
                        .filter(|plain| plain.conn == Some(conn))
                    {
                        plain.acknowledge(token);
                    }
                }
                Output::Read(stretch) => self.collector.read(stretch, self.now),
                Output::Close { conn, reason } => {
                    self.note(|_| format!("collector closes {conn:?}: {reason:?}"));
                    self.cut_all(conn);
                    for plain in self
                        .plain
                        .iter_mut()
                        .filter(|plain| plain.conn == Some(conn))
                    {
                        plain.disconnect();
                    }
                }
            }
            if self.dice.one_in(self.plan.deaths_between_commands) {
                self.kill_collector();
                return;
            }
        }
    }

    /// The devices' side of a connection ends.
    pub(super) fn cut_all(&mut self, conn: ConnId) {
        self.gateway = self.gateway.filter(|gateway| *gateway != conn);
        for place in 0..self.links.len() {
            let link = self.links[place].as_ref();
            if link.is_some_and(|link| link.conn == conn) {
                self.cut(place);
            }
        }
    }

    pub(super) fn deliver_up(&mut self, place: usize, weather: Weather) {
        let Some(link) = &mut self.links[place] else {
            return;
        };
        let Some((token, payload)) = link.take_up(weather, &mut self.dice) else {
            return;
        };
        let (conn, mut device) = (link.conn, self.devices[place].id.clone());
        if self.devices[place].is_node {
            self.seen.via_gateway += 1;
            // A gateway publishes on the topic of its node, or on its own.
            if self.dice.one_in(2) {
                device = gateway_id();
            }
        }
        let payload = Bytes::from(payload);
        self.collector.handle(
            Event::Up {
                conn,
                device,
                payload,
                token: Some(token),
            },
            self.now,
        );
        if self.dice.one_in(3) {
            self.sync_collector();
        } else {
            self.pump_collector();
        }
    }

    pub(super) fn deliver_down(&mut self, place: usize, weather: Weather) {
        let Some(link) = &mut self.links[place] else {
            return;
        };
        let Some(payload) = link.take_down(weather, &mut self.dice) else {
            return;
        };
        self.devices[place].handle(AgentEvent::Message(&payload), self.now);
        self.pump_device(place);
    }

    pub(super) fn sync_collector(&mut self) {
        self.collector.sync(self.now);
        self.pump_collector();
    }

    /// Time passes for everybody.
    pub(super) fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus(ms);
        let elapsed_us = i64::try_from(self.now.mono.0).unwrap_or(0) * 1000;
        self.now.wall = UnixMicros(START_US + elapsed_us);
        if self.away_until.is_some_and(|until| until <= self.now.mono) {
            self.bring_lake_back();
        }
        self.collector.handle(Event::Tick, self.now);
        self.sync_collector();
        for place in 0..self.devices.len() {
            self.devices[place].handle(AgentEvent::Tick, self.now);
            self.pump_device(place);
        }
    }

    /// The sinks read on and, when their time has come, deliver.
    pub(super) fn run_sinks(&mut self) {
        let most = 1 + self.dice.index(20_000);
        let sinks = [
            (Which::Lake, most),
            (Which::Copy, 1 + most / 2),
            (Which::Stream, 1 + most / 2),
        ];
        for (which, most) in sinks {
            let mut most = most;
            for _ in 0..STEPS_OF_A_SINK {
                let (now, dice) = (self.now, &mut self.dice);
                match self.collector.step_sink(which, most, now, dice) {
                    Did::Read => most = 0,
                    Did::Moved => {
                        self.pump_collector();
                        if self.dice.one_in(self.plan.deaths_between_commands) {
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
        if !self.collector.is_up() {
            self.start_collector();
        }
        if self.devices[place].engine.is_none() {
            self.start_device(place);
        }
        self.connect(place);
    }

    pub(super) fn start_collector(&mut self) {
        self.collector.start(self.now, &mut self.dice);
        self.note(|world| {
            format!(
                "collector starts: {}, {}",
                world.collector.is_up(),
                world.collector.found
            )
        });
        if self.collector.is_crashed() {
            self.kill_collector();
        }
    }

    pub(super) fn start_device(&mut self, place: usize) {
        self.devices[place].start(&mut self.dice, self.now);
        self.note(|world| {
            let engine = world.devices[place].engine.as_ref();
            let lanes = engine.map(|engine| engine.lanes().map(|l| l.epoch).collect::<Vec<_>>());
            format!("device {place} starts: {lanes:?}")
        });
        self.pump_device(place);
    }

    /// Connects a device; another of the same name is thrown out, as MQTT has it.
    pub(super) fn connect(&mut self, place: usize) {
        let up = self.collector.is_up() && self.devices[place].engine.is_some();
        if !up || self.links[place].is_some() {
            return;
        }
        let id = self.devices[place].id.clone();
        for other in 0..self.devices.len() {
            if other != place && self.devices[other].id == id && self.links[other].is_some() {
                self.hang_up(other);
            }
        }
        let is_node = self.devices[place].is_node;
        let conn = match self.gateway.filter(|_| is_node) {
            Some(conn) => conn,
            None => self.open_connection(if is_node { GATEWAY } else { id.as_str() }),
        };
        self.note(|_| format!("device {place} connects as {conn:?}"));
        self.links[place] = Some(if is_node {
            self.gateway = Some(conn);
            Link::of_node(conn, self.next_conn)
        } else {
            Link::new(conn)
        });
        self.next_conn += 1;
        self.devices[place].handle(AgentEvent::LinkUp, self.now);
        self.pump_device(place);
    }

    fn open_connection(&mut self, client: &str) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let client = Arc::from(client);
        self.collector
            .handle(Event::Connected { conn, client }, self.now);
        conn
    }

    /// The connection of a device ends at both sides; what was on its way is gone. A node is lost to
    /// its gateway, whose own connection stays.
    pub(super) fn hang_up(&mut self, place: usize) {
        let Some(conn) = self.links[place].as_ref().map(|link| link.conn) else {
            return;
        };
        if !self.devices[place].is_node {
            let client = self.devices[place].id.clone();
            self.close_connection(conn, client.as_str());
        }
        self.cut(place);
    }

    /// The gateway's connection ends at both sides, for all its nodes.
    fn hang_up_gateway(&mut self) {
        if let Some(conn) = self.gateway {
            self.close_connection(conn, GATEWAY);
            self.cut_all(conn);
        }
    }

    fn close_connection(&mut self, conn: ConnId, client: &str) {
        let event = Event::Disconnected {
            conn,
            client: Arc::from(client),
            orderly: false,
        };
        self.collector.handle(event, self.now);
    }

    /// The device's side of a connection ends.
    fn cut(&mut self, place: usize) {
        if self.links[place].take().is_some() {
            self.devices[place].handle(AgentEvent::LinkDown, self.now);
        }
    }

    pub(super) fn publish_plain(&mut self) {
        if self.plain.is_empty() || !self.collector.is_up() {
            return;
        }
        let place = self.dice.index(self.plain.len());
        if self.plain[place].conn.is_none() {
            let conn = ConnId(self.next_conn);
            self.next_conn += 1;
            let event = self.plain[place].connect(conn);
            self.collector.handle(event, self.now);
        }
        if let Some(event) = self.plain[place].publish(true) {
            self.collector.handle(event, self.now);
        }
        if self.dice.one_in(8) {
            // It lost its connection at once, and comes again with what it was not answered for.
            if let Some(event) = self.plain[place].disconnect() {
                self.collector.handle(event, self.now);
            }
            let event = self.plain[place].connect(ConnId(self.next_conn));
            self.next_conn += 1;
            self.collector.handle(event, self.now);
            if let Some(event) = self.plain[place].publish(false) {
                self.collector.handle(event, self.now);
            }
        }
        self.pump_collector();
        if self.dice.one_in(self.plan.deaths_between_commands) {
            self.kill_collector();
        }
    }

    fn a_death(&mut self) -> Death {
        if self.dice.one_in(2) {
            Death::Killed
        } else {
            Death::PowerCut
        }
    }

    pub(super) fn kill_device(&mut self, place: usize) {
        let death = self.a_death();
        self.note(|_| format!("device {place} dies: {death:?}"));
        self.deaths += 1;
        let Self {
            devices,
            dice,
            seen,
            now,
            ..
        } = self;
        devices[place].die(death, dice, seen, *now);
        // The collector hears of it sooner or later; here at once.
        self.hang_up(place);
    }

    pub(super) fn kill_collector(&mut self) {
        let death = self.a_death();
        self.note(|_| format!("collector dies: {death:?}"));
        self.deaths += 1;
        self.collector.die(death, &mut self.dice, &mut self.seen);
        self.look_at_the_lake();
        self.drop_connections();
    }

    /// What readers find between a crash and the next start must be explained too, half committed as
    /// it may be.
    fn look_at_the_lake(&mut self) {
        if self.collector.store.is_away() {
            return;
        }
        let known = self.faults.len();
        check::check_audit(&self.collector.store, &mut self.faults);
        for fault in &mut self.faults[known..] {
            fault.insert_str(0, "after a crash: ");
        }
    }

    /// Ends the collector in order: nothing that its sinks were answered for comes again.
    pub(super) fn stop_collector(&mut self) {
        if !self.collector.is_up() {
            return;
        }
        let (now, dice, seen) = (self.now, &mut self.dice, &mut self.seen);
        let is_noted = self.collector.stop(now, dice, seen);
        self.note(|_| format!("the collector ends in order, its cursors noted: {is_noted}"));
        self.seen.orderly_ends += u64::from(is_noted);
        self.drop_connections();
    }

    fn drop_connections(&mut self) {
        self.gateway = None;
        for place in 0..self.devices.len() {
            self.cut(place);
            self.pump_device(place);
        }
        for plain in &mut self.plain {
            plain.disconnect();
        }
    }

    fn break_something(&mut self, place: usize) {
        let plan = self.plan;
        if self.dice.one_in(plan.cuts) {
            self.note(|_| format!("the link of device {place} is cut"));
            if self.devices[place].is_node && self.dice.one_in(2) {
                self.hang_up_gateway();
            }
            self.hang_up(place);
            for at in 0..self.plain.len() {
                if let Some(event) = self.plain[at].disconnect() {
                    self.collector.handle(event, self.now);
                }
            }
        }
        if self.dice.one_in(plan.deaths) {
            if self.dice.one_in(2) {
                self.kill_device(place);
            } else if self.collector.is_up() {
                self.kill_collector();
            }
        }
        if self.dice.one_in(plan.stops) {
            self.stop_collector();
        }
        if self.dice.one_in(plan.crashes) {
            self.crash_later(place);
        }
        if self.dice.one_in(plan.failures) {
            self.fail_once(place);
        }
        if self.dice.one_in(plan.full_disks) {
            self.fill_a_disk(place);
        }
        if self.dice.one_in(plan.disturbances) {
            self.disturb(place);
        }
        if self.dice.one_in(plan.clock_steps) {
            self.set_a_clock(place);
        }
        if self.dice.one_in(plan.copy_leaves) && self.collector.taken_out.is_none() {
            self.take_copy_out();
        }
        if self.dice.one_in(plan.disk_losses) {
            self.note(|_| "the collector's disk is lost".to_owned());
            self.lost_disk = true;
            self.seen.disks_lost += 1;
            self.collector.note_counters(&mut self.seen);
            self.deaths += 1;
            self.collector.lose_disk();
            self.lose_acknowledged();
        }
        if self.dice.one_in(plan.rots) {
            let flipped = self.collector.rot(&mut self.dice);
            self.note(|_| format!("{flipped} bits of the journal flip"));
            self.rotten |= flipped > 0;
            self.seen.rotten += flipped;
        }
        if self.dice.one_in(plan.old_journals) {
            self.copy_journal();
        }
        if self.dice.one_in(plan.lake_aways) {
            self.lose_sight_of_lake();
        }
    }

    /// Nobody reaches the lake for a while; sometimes the collector is started anew meanwhile.
    fn lose_sight_of_lake(&mut self) {
        let ms = self.dice.below(MAX_AWAY_MS);
        self.note(|_| format!("the lake is away for {ms} ms"));
        self.away_until = Some(self.now.mono.plus(ms));
        self.collector.store.set_away(true);
        if self.collector.is_up() && self.dice.one_in(2) {
            self.kill_collector();
        }
    }

    pub(super) fn bring_lake_back(&mut self) {
        self.note(|_| "the lake is back".to_owned());
        self.away_until = None;
        self.collector.store.set_away(false);
    }

    /// Somebody takes the second sink out of the configuration and starts the collector anew.
    fn take_copy_out(&mut self) {
        if self.plan.copy.is_none() || !self.collector.is_up() {
            return;
        }
        self.sync_collector();
        self.collector.take_copy_out();
        if self.collector.taken_out.is_some() {
            self.note(|_| "the copy is taken out".to_owned());
            self.seen.copies_taken_out += 1;
            self.kill_collector();
        }
    }

    /// Somebody copies the journal's folder, or brings a copy back.
    fn copy_journal(&mut self) {
        if self.journals.is_empty() || self.dice.one_in(2) {
            let copy = self.collector.disk.process_killed();
            // Nobody keeps a copy of nothing.
            if copy.list().is_ok_and(|names| !names.is_empty()) {
                self.note(|_| "the journal is copied".to_owned());
                self.journals.push(copy);
            }
            return;
        }
        let is_away = self.plan.lake_aways > 0 && self.dice.one_in(2);
        if is_away {
            // It is old to the lake too.
            self.pass(self.plan.flush_after_ms);
            self.run_sinks();
        }
        self.note(|_| "an old copy of the journal is brought back".to_owned());
        // Later copies are of a time that is undone with this: they are not brought back too.
        let at = self.dice.index(self.journals.len());
        self.journals.truncate(at + 1);
        let disk = self.journals[at].process_killed();
        self.lost_disk = true;
        self.seen.journals_restored += 1;
        self.collector.note_counters(&mut self.seen);
        self.deaths += 1;
        self.collector.restore_disk(disk);
        self.lose_acknowledged();
        if is_away {
            self.lose_sight_of_lake();
            // Devices bring more than the lake has seen of that time, or less.
            for place in 0..self.devices.len() {
                self.come_back(place);
            }
        }
    }

    /// The journal is gone, and with it what plain devices had acknowledged of it.
    fn lose_acknowledged(&mut self) {
        self.drop_connections();
        let acknowledged = self.plain.iter_mut().map(|plain| &mut plain.acknowledged);
        acknowledged.for_each(Vec::clear);
    }

    /// Somebody sets a wall clock, forward or back.
    fn set_a_clock(&mut self, place: usize) {
        let most_ms = MAX_STEP_US.cast_unsigned() / 1000;
        let ms = self.dice.below(2 * most_ms).cast_signed() - most_ms.cast_signed();
        if self.dice.one_in(3) {
            self.note(|_| format!("the collector's clock is set to {ms} ms"));
            self.seen.collector_clock_steps += 1;
            self.collector.set_clock(ms * 1000);
        } else {
            self.note(|_| format!("the clock of device {place} is set to {ms} ms"));
            self.seen.device_clock_steps += 1;
            self.devices[place].set_clock(ms * 1000);
        }
    }

    fn crash_later(&mut self, place: usize) {
        let operations = self.dice.below(60);
        match self.dice.below(3) {
            0 => {
                self.note(|_| format!("device {place} dies at disk operation {operations}"));
                self.devices[place].disk.crash_after(operations);
            }
            1 => {
                self.note(|_| format!("the collector dies at disk operation {operations}"));
                self.collector.disk.crash_after(operations);
            }
            _ => {
                self.note(|_| format!("the collector dies at store operation {operations}"));
                if self.dice.one_in(2) {
                    self.collector.store.crash_after(operations);
                } else {
                    self.collector.store.crash_after_landing(operations);
                }
            }
        }
    }

    fn fail_once(&mut self, place: usize) {
        let turn = self.dice.below(8);
        let of_collector = self.dice.one_in(2);
        let sync = self.dice.one_in(2);
        self.note(|_| format!("failure {turn} ahead: collector {of_collector}, sync {sync}"));
        let disk = if of_collector {
            &self.collector.disk
        } else {
            &self.devices[place].disk
        };
        if sync {
            disk.fail_sync(turn)
        } else {
            disk.fail_operation(turn)
        }
    }

    fn fill_a_disk(&mut self, place: usize) {
        let of_collector = self.dice.one_in(3);
        let disk = if of_collector {
            &self.collector.disk
        } else {
            &self.devices[place].disk
        };
        let roomy = self.dice.one_in(2);
        let room = self.dice.below(3) * 4096;
        disk.set_capacity((!roomy).then(|| disk.used_bytes() + room));
        self.note(|_| {
            format!(
                "disk full {}: collector {of_collector}, device {place}",
                !roomy
            )
        });
    }

    /// Somebody copies an SD card, restores a backup, or puts a new card into an old device.
    fn disturb(&mut self, place: usize) {
        match self.dice.below(4) {
            0 if self.devices.len() < MAX_DEVICES => {
                self.note(|_| format!("device {place} is cloned"));
                let clone = self.devices[place].cloned(self.devices.len());
                self.devices[place].disturbed = true;
                self.seen.clones += 1;
                self.devices.push(clone);
                self.links.push(None);
            }
            1 => {
                self.note(|_| format!("device {place} is backed up"));
                self.backups
                    .push((place, self.devices[place].disk.process_killed()));
            }
            2 => {
                let Some(at) = self.backups.iter().position(|backup| backup.0 == place) else {
                    return;
                };
                self.note(|_| format!("the backup of device {place} is restored"));
                self.kill_device(place);
                let (_, disk) = self.backups.swap_remove(at);
                self.replace_disk(place, disk);
            }
            _ => {
                self.note(|_| format!("device {place} gets an empty disk"));
                self.kill_device(place);
                self.replace_disk(place, FakeDisk::new());
            }
        }
    }

    fn replace_disk(&mut self, place: usize, disk: FakeDisk) {
        let id = self.devices[place].id.clone();
        let device: &mut Device = &mut self.devices[place];
        device.disk = disk;
        for device in self.devices.iter_mut().filter(|device| device.id == id) {
            device.disturbed = true;
            device.forgotten = true;
        }
    }
}
