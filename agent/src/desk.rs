//! The engine's thread: hands it what comes from sources and link, carries out what it says.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use headwater_proto::ids::Lane;
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, wall_error};
use crate::pipeline::admit::as_text;
use crate::pipeline::engine::{
    Engine, Event, OfferError, Offered, Way, behind, goes_on_at, held_places,
};
use crate::pipeline::record::Cursor;
use crate::source::held::HeldPlaces;
use crate::source::refusals::{NOTICE_MS, Refusals};
use crate::source::{Feed, PortEnd, QUEUE_READINGS};
use crate::status::{Pace, Status, Waiting};
use crate::uplink::LinkEvent;

/// Readings taken from one source before the others have their turn.
const TURN_READINGS: usize = 64;
/// Turns in which a full queue is taken, behind what was taken from it and waits.
const REST_TURNS: usize = QUEUE_READINGS.div_ceil(TURN_READINGS) + 2;
/// How long a stop goes on sending. What the collector has not got by then waits on the disk for
/// the next start.
const FAREWELL_MS: u64 = 5_000;

/// A source as the engine's thread sees it.
#[derive(Debug)]
pub struct Inlet {
    /// Its place in the engine's settings.
    pub source: usize,
    /// Where its readings go.
    pub lane: Lane,
    /// Whether its readings can wait.
    pub resumes: bool,
    /// Its end of the source's port.
    pub end: PortEnd,
    /// Items that left the queue and wait for the engine.
    pub waiting: VecDeque<Feed>,
    /// It has given its last.
    pub ended: bool,
    /// Nothing is drained before it has.
    pub awaited: bool,
}

/// Why the engine's thread ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to.
    Stopped,
    /// Every source has ended, and all is committed.
    Drained,
    /// The link's task is gone: nothing can be sent any more.
    Unlinked,
}

/// The engine's thread: it owns the engine and all that feeds it.
pub struct Desk<D: Disk> {
    /// The engine.
    pub engine: Engine<D>,
    /// The sources.
    pub inlets: Vec<Inlet>,
    /// The refused parts of each source, in the order of the engine's settings.
    pub refusals: Vec<Arc<Refusals>>,
    /// Where answers to nodes go.
    pub ways: BTreeMap<Way, mpsc::Sender<Vec<u8>>>,
    /// To the link; holds one publish.
    pub up: mpsc::Sender<Vec<u8>>,
    /// From the link.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Told when a source gives something.
    pub wake: Arc<Notify>,
    /// Told when the sources have stopped and the rest is to be stored.
    pub stop: Arc<Notify>,
    /// The clock.
    pub clock: Clock,
    /// Where the status goes, and when.
    pub status: Option<StatusFile>,
    /// Where sources hear how far the collector holds what they read.
    pub held: HeldPlaces,
    /// Where each source began in this life.
    pub began: Vec<Option<Cursor>>,
    /// Sources that had begun before the collector said that it holds more than their spool knew; `None` until it has
    /// said.
    pub behind: Option<Vec<usize>>,
    /// Earlier names of this device of which records wait.
    pub earlier: Waiting,
    /// Return when every source has ended and all is committed.
    pub until_drained: bool,
}

impl<D: Disk> Desk<D> {
    /// Works until told to stop, then stores the rest, ends the epochs and syncs.
    pub async fn run(mut self) -> End {
        let mut refusals_due = self.clock.now().mono;
        let mut in_ram = false;
        let end = loop {
            let more = self.take_readings();
            let now = self.look_at_clocks();
            self.take_events(now);
            self.engine.handle(Event::Tick, now);
            self.tell_settled();
            self.tell_held();
            self.answer_nodes(now);
            let blocked = publish(&mut self.engine, &self.up, now);
            self.tell_status(now);
            in_ram = self.tell_disk(in_ram);
            if refusals_due <= now.mono {
                refusals_due = now.mono.plus(NOTICE_MS);
                self.refusals
                    .iter()
                    .for_each(|refusals| refusals.tell_rest());
            }
            if self.until_drained && !more && self.is_done() {
                break End::Drained;
            }
            if more {
                // The link's tasks run on another thread: nobody starves while this one is busy.
                tokio::select! {
                    biased;
                    () = self.stop.notified() => break End::Stopped,
                    () = std::future::ready(()) => continue,
                }
            }
            let wakeup = self.engine.next_wakeup().into_iter();
            let status = self.status.as_ref().map(|file| file.pace.look_at());
            let waiting = self.inlets.iter().any(|inlet| !inlet.waiting.is_empty());
            let retry = waiting.then(|| now.mono.plus(50));
            let due = wakeup.chain(status).chain(retry).min();
            let due = due.unwrap_or(now.mono.plus(60_000));
            let (stop, wake) = (Arc::clone(&self.stop), Arc::clone(&self.wake));
            tokio::select! {
                () = stop.notified() => break End::Stopped,
                () = wake.notified() => {}
                open = self.listen(due, blocked) => if !open {
                    break End::Unlinked;
                },
            }
        };
        self.finish().await;
        end
    }

    /// The sources have stopped: what they gave is stored and sent as far as the link goes along,
    /// and the epochs end.
    async fn finish(mut self) {
        for refusals in &self.refusals {
            refusals.tell_rest();
        }
        self.take_rest();
        self.send_rest().await;
        // A source that did not stop in time may have given more meanwhile; now it hears that the agent
        // stops.
        for inlet in &mut self.inlets {
            inlet.end.queue.close();
        }
        self.take_rest();
        let now = self.look_at_clocks();
        for inlet in &self.inlets {
            let refusals = self.refusals.get(inlet.source);
            if let Some(lost) = refusals.and_then(|refusals| refusals.take_owed()) {
                self.engine.lost(inlet.source, inlet.lane, lost, None, now);
            }
        }
        self.engine.stop(now);
        self.tell_settled();
        let status = self.status_now(now);
        if let Some(file) = &mut self.status {
            file.write(&status);
        }
    }

    /// Takes what the sources' queues hold, and no more than these can hold at once.
    fn take_rest(&mut self) {
        for _ in 0..REST_TURNS {
            if !self.take_readings() {
                break;
            }
        }
    }

    /// Sends what is stored, for a short time and only over an open link. The ends of the epochs
    /// come after it: a refusal heard here may still add its gap to one.
    async fn send_rest(&mut self) {
        let mut now = self.look_at_clocks();
        let end = now.mono.plus(FAREWELL_MS);
        self.engine.flush(now);
        loop {
            self.take_events(now);
            self.engine.handle(Event::Tick, now);
            self.answer_nodes(now);
            let blocked = publish(&mut self.engine, &self.up, now);
            let is_open = self.engine.sender().is_open();
            if !is_open || self.engine.progress().is_delivered || now.mono >= end {
                return;
            }
            let due = self.engine.next_wakeup().map_or(end, |due| due.min(end));
            if !self.listen(due, blocked).await {
                return;
            }
            now = self.clock.now();
        }
    }

    /// Waits until the link says something, which is taken in, until it has room again if it was
    /// `blocked`, or until `due`. False: the link is gone. Cancel-safe.
    async fn listen(&mut self, due: Millis, blocked: bool) -> bool {
        let event = tokio::select! {
            () = tokio::time::sleep_until(self.clock.instant(due).into()) => return true,
            permit = self.up.reserve(), if blocked => {
                drop(permit);
                return true;
            }
            event = self.events.recv() => event,
        };
        let Some(event) = event else { return false };
        let now = self.clock.now();
        take_event(&mut self.engine, &event, now);
        true
    }

    /// Reads the clocks, and asks the kernel of the wall clock where the engine wants it.
    fn look_at_clocks(&mut self) -> Now {
        look_at_clocks(&mut self.engine, self.clock)
    }

    fn take_events(&mut self, now: Now) {
        take_events(&mut self.engine, &mut self.events, now);
    }

    /// Takes what sources gave, a turn each. Says whether there may be more at once.
    fn take_readings(&mut self) -> bool {
        let mut more = false;
        for at in 0..self.inlets.len() {
            let inlet = &mut self.inlets[at];
            while inlet.waiting.len() < TURN_READINGS {
                match inlet.end.queue.try_recv() {
                    Ok(feed) => inlet.waiting.push_back(feed),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        inlet.ended = true;
                        break;
                    }
                }
            }
            if inlet.waiting.is_empty() {
                continue;
            }
            let is_full = inlet.waiting.len() == TURN_READINGS;
            // After they were taken: a clock that was set before holds for them.
            let now = self.look_at_clocks();
            let inlet = &mut self.inlets[at];
            let refusals = self.refusals.get(inlet.source);
            while let Some(feed) = inlet.waiting.pop_front() {
                let feed = match feed {
                    Feed::Way(change) => {
                        self.engine.nodes(now).pass(inlet.source);
                        match change.answers {
                            Some(answers) => self.ways.insert(change.way, answers),
                            None => {
                                self.engine.nodes(now).way_gone(change.way);
                                self.ways.remove(&change.way)
                            }
                        };
                        continue;
                    }
                    other @ (Feed::Reading(..)
                    | Feed::Line(..)
                    | Feed::Refused(..)
                    | Feed::Lost(..)
                    | Feed::Adopted(_)
                    | Feed::Packet(_)) => other,
                };
                if let Some(back) = offer(&mut self.engine, inlet, refusals, feed, now) {
                    inlet.waiting.push_front(back);
                    break;
                }
            }
            more |= is_full && inlet.waiting.is_empty();
        }
        more
    }

    /// Hands answers to the ways to nodes, and ends those that all nodes have left: a way ends with its
    /// answers. An answer that finds no room on a slow line is lost: it can be asked for again.
    fn answer_nodes(&mut self, now: Now) {
        for way in self.engine.nodes(now).take_left() {
            self.ways.remove(&way);
        }
        for (way, answer) in self.engine.nodes(now).take_answers() {
            if let Some(answers) = self.ways.get(&way) {
                let _ = answers.try_send(answer);
            }
        }
    }

    /// Tells sources what is settled of what they gave.
    fn tell_settled(&self) {
        for inlet in &self.inlets {
            let tell = |settled: &mut _| self.engine.tell_settled(inlet.source, settled);
            inlet.end.settled.send_if_modified(tell);
        }
    }

    /// Tells sources, once, how far the collector holds what they read; of those that did not wait for it and know
    /// less, the log and the status tell.
    fn tell_held(&mut self) {
        if self.behind.is_some() {
            return;
        }
        let Some(places) = held_places(&self.engine) else {
            return;
        };
        let behind = if self.held.tell(places.clone()) {
            behind(&self.engine, &places, &self.began)
        } else {
            Vec::new()
        };
        for source in &behind {
            tracing::warn!(
                source = self.engine.settings().sources[*source].name,
                "the collector, which answered late, holds more of what it reads than this spool knew when it \
                 began: what was read since may be in the lake twice, or what stood between may be missing; \
                 after a restart it goes on behind what is held"
            );
        }
        self.behind = Some(behind);
    }

    /// Writes the status where its time has come.
    fn tell_status(&mut self, now: Now) {
        let due = |file: &StatusFile| file.pace.look_at() <= now.mono;
        if !self.status.as_ref().is_some_and(due) {
            return;
        }
        let status = self.status_now(now);
        if let Some(file) = &mut self.status
            && file.pace.take(status.clone(), now.mono)
        {
            file.write(&status);
        }
    }

    fn status_now(&self, now: Now) -> Status {
        let mut status = crate::status::of(&self.engine, &self.refusals, now);
        status.earlier_names = self.earlier.names();
        for inlet in &self.inlets {
            if let Some(source) = status.sources.get_mut(inlet.source) {
                source.health = inlet.end.report();
                let behind = self.behind.as_deref().unwrap_or_default();
                source.behind = behind.contains(&inlet.source);
            }
        }
        status
    }

    fn is_done(&self) -> bool {
        let ended = self
            .inlets
            .iter()
            .filter(|inlet| inlet.awaited)
            .all(|inlet| inlet.ended && inlet.waiting.is_empty());
        ended
            && self.engine.lanes().all(|lane| lane.memory_bytes == 0)
            && self.engine.progress().is_drained
    }

    /// Tells the operator when the disk goes and when it comes back.
    fn tell_disk(&self, before: bool) -> bool {
        let now = self.engine.lanes().any(|lane| lane.in_ram);
        if now && !before {
            tracing::error!(
                "the spool's disk takes nothing: it is full or fails; readings of files and replays \
                 wait, others go through memory"
            );
        } else if before && !now {
            tracing::info!("the spool's disk takes records again");
        }
        now
    }
}

/// Reads the clocks, and asks the kernel of the wall clock where the engine wants it.
pub(crate) fn look_at_clocks<D: Disk>(engine: &mut Engine<D>, clock: Clock) -> Now {
    let now = clock.now();
    if engine.wants_clock(now) {
        engine.handle(Event::Clock(wall_error()), now);
    }
    now
}

/// Tells the engine an event of the link.
pub(crate) fn take_event<D: Disk>(engine: &mut Engine<D>, event: &LinkEvent, now: Now) {
    let event = match event {
        LinkEvent::Up => Event::LinkUp,
        LinkEvent::Down => Event::LinkDown,
        LinkEvent::Message(bytes) => Event::Message(bytes),
    };
    engine.handle(event, now);
}

/// Tells the engine the events of the link that wait.
pub(crate) fn take_events<D: Disk>(
    engine: &mut Engine<D>,
    events: &mut mpsc::Receiver<LinkEvent>,
    now: Now,
) {
    while let Ok(event) = events.try_recv() {
        take_event(engine, &event, now);
    }
}

/// Hands publishes to the link while it has room. Says whether it had not.
pub(crate) fn publish<D: Disk>(
    engine: &mut Engine<D>,
    up: &mpsc::Sender<Vec<u8>>,
    now: Now,
) -> bool {
    loop {
        let Ok(permit) = up.try_reserve() else {
            return true;
        };
        match engine.next_publish(now) {
            Some(bytes) => permit.send(bytes),
            None => return false,
        }
    }
}

/// Offers one thing; gives it back if it must wait.
fn offer<D: Disk>(
    engine: &mut Engine<D>,
    inlet: &Inlet,
    refusals: Option<&Arc<Refusals>>,
    feed: Feed,
    now: Now,
) -> Option<Feed> {
    let (source, lane) = (inlet.source, inlet.lane);
    let offered = match &feed {
        Feed::Reading(reading, cursor) => {
            reading.with_sample(|sample| engine.offer(source, lane, sample, *cursor, now))
        }
        Feed::Line(time, line, cursor) => {
            engine.offer_line(source, lane, *time, line, *cursor, now)
        }
        Feed::Refused(part, cursor) => engine.refuse(source, lane, &part.borrowed(), *cursor, now),
        Feed::Lost(lost, cursor) => {
            engine.lost(source, lane, *lost, *cursor, now);
            return None;
        }
        Feed::Adopted(cursor) => {
            goes_on_at(engine, source, *cursor);
            return None;
        }
        Feed::Packet(packet) => {
            let mut nodes = engine.nodes(now);
            nodes.pass(source);
            let allows = |device: &_| packet.allowed.allows(device);
            let faults = nodes.packet(packet.way, &allows, &packet.bytes);
            for (fault, refusals) in faults.iter().zip(refusals) {
                refusals.note(&"a packet", fault, &[]);
            }
            return None;
        }
        Feed::Way(_) => return None,
    };
    match offered {
        Err(OfferError::Busy) if inlet.resumes => Some(feed),
        // The engine counts and names what it could not take.
        Err(OfferError::Busy) => None,
        Err(OfferError::Lane(error)) => {
            tracing::error!(source, "a reading is lost: {error}");
            None
        }
        Ok(Offered { receipt, refused }) => {
            if !refused.is_empty() {
                inlet.end.refused(receipt, refused.len() as u64);
            }
            for (at, fault) in refused {
                let Some(refusals) = refusals else { break };
                match &feed {
                    Feed::Reading(reading, _) => {
                        let name = reading.columns.get(at).map_or("", |column| &column.name);
                        let value = reading.values.get(at).and_then(Option::as_ref);
                        let shown = value
                            .map(|value| as_text(value.borrowed()))
                            .unwrap_or_default();
                        refusals.note(&format_args!("value of {name}"), &fault, shown.as_bytes());
                    }
                    Feed::Line(_, line, _) => refusals.note(&"a line", &fault, line),
                    Feed::Refused(..)
                    | Feed::Lost(..)
                    | Feed::Adopted(_)
                    | Feed::Packet(_)
                    | Feed::Way(_) => {}
                }
            }
            None
        }
    }
}

/// Where the status goes, and when.
#[derive(Debug)]
pub struct StatusFile {
    path: PathBuf,
    pace: Pace,
    /// The last write failed, and the log says so.
    fails: bool,
}

impl StatusFile {
    /// Nothing is written yet.
    ///
    /// - `interval_ms`: milliseconds between two statuses while samples flow.
    #[must_use]
    pub const fn new(path: PathBuf, interval_ms: u64) -> Self {
        Self {
            path,
            pace: Pace::new(interval_ms),
            fails: false,
        }
    }

    /// Replaces the file as a whole. A status that cannot be written is told and no reason to stop.
    fn write(&mut self, status: &Status) {
        let path = self.path.display();
        match (self.replace(status), self.fails) {
            (Err(error), false) => {
                tracing::warn!("cannot write the status to {path}: {error}; it is tried again");
                self.fails = true;
            }
            (Ok(()), true) => {
                tracing::info!("the status is written to {path} again");
                self.fails = false;
            }
            (Err(_), true) | (Ok(()), false) => {}
        }
    }

    fn replace(&self, status: &Status) -> io::Result<()> {
        let text = serde_json::to_string(status)?;
        let new = self.path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, &self.path)
    }
}

#[cfg(test)]
mod tests;
