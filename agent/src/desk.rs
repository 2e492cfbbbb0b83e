//! The engine's thread: hands it what comes from sources and link, carries out what it says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_proto::ids::Lane;
use headwater_proto::time::{Millis, Now};
use headwater_spool::Disk;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::pipeline::engine::{Engine, Event, OfferError, Output};
use crate::source::Feed;
use crate::status::{Pace, Status};
use crate::uplink::LinkEvent;

/// Readings taken from one source before the others have their turn.
const TURN_READINGS: usize = 64;
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
    /// What it gives.
    pub queue: mpsc::Receiver<Feed>,
    /// What found no room and is offered again.
    pub waiting: Option<Feed>,
    /// It has given its last.
    pub ended: bool,
}

/// What the engine's thread works with.
pub struct Desk<D: Disk> {
    /// The engine.
    pub engine: Engine<D>,
    /// The sources.
    pub inlets: Vec<Inlet>,
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
    pub status: Option<(PathBuf, Pace)>,
    /// Return when every source has ended and all is committed.
    pub until_drained: bool,
}

impl<D: Disk> Desk<D> {
    /// Works until told to stop, then stores the rest, ends the epochs and syncs.
    pub async fn run(mut self) {
        let mut in_ram = false;
        loop {
            let now = self.clock.now();
            let more = self.take_readings(now);
            while let Ok(event) = self.events.try_recv() {
                self.take_event(&event, now);
            }
            self.engine.handle(Event::Tick, now);
            let blocked = self.publish(now);
            self.tell_status(now);
            in_ram = self.tell_disk(in_ram);
            if self.until_drained && !more && self.is_done() {
                break;
            }
            if more {
                // The link's tasks run on another thread: nobody starves while this one is busy.
                continue;
            }
            let wakeup = self.engine.next_wakeup().into_iter();
            let status = self.status.as_ref().map(|(_, pace)| pace.look_at());
            let waiting = self.inlets.iter().any(|inlet| inlet.waiting.is_some());
            let retry = waiting.then(|| now.mono.plus(50));
            let due = wakeup.chain(status).chain(retry).min();
            let due = due.unwrap_or(now.mono.plus(60_000));
            let (stop, wake) = (Arc::clone(&self.stop), Arc::clone(&self.wake));
            tokio::select! {
                () = stop.notified() => break,
                () = wake.notified() => {}
                open = self.listen(due, blocked) => if !open {
                    break;
                },
            }
        }
        self.finish().await;
    }

    /// The sources have stopped: what they gave is stored and sent as far as the link goes along,
    /// and the epochs end.
    async fn finish(mut self) {
        loop {
            let now = self.clock.now();
            let before = self.engine.counters().busy;
            if !self.take_readings(now) || self.engine.counters().busy > before {
                break;
            }
        }
        self.send_rest().await;
        let now = self.clock.now();
        self.engine.stop(now);
        if let Some((path, _)) = &self.status {
            write_status(path, &crate::status::of(&self.engine, now));
        }
    }

    /// Sends what is stored, for a short time and only over an open link. The ends of the epochs
    /// come after it: a refusal heard here may still add its gap to one.
    async fn send_rest(&mut self) {
        let mut now = self.clock.now();
        let end = now.mono.plus(FAREWELL_MS);
        self.engine.flush(now);
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.take_event(&event, now);
            }
            self.engine.handle(Event::Tick, now);
            let blocked = self.publish(now);
            let sender = self.engine.sender();
            if !sender.is_open() || sender.is_delivered() || now.mono >= end {
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
        self.take_event(&event, now);
        true
    }

    /// Takes what sources gave, a turn each. Says whether there may be more at once.
    fn take_readings(&mut self, now: Now) -> bool {
        let mut more = false;
        for inlet in &mut self.inlets {
            for turn in 0..=TURN_READINGS {
                if turn == TURN_READINGS {
                    more = true;
                    break;
                }
                let feed = match inlet
                    .waiting
                    .take()
                    .map_or_else(|| inlet.queue.try_recv(), Ok)
                {
                    Ok(feed) => feed,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        inlet.ended = true;
                        break;
                    }
                };
                if let Some(back) = offer(&mut self.engine, inlet, feed, now) {
                    inlet.waiting = Some(back);
                    break;
                }
            }
        }
        more
    }

    fn take_event(&mut self, event: &LinkEvent, now: Now) {
        let event = match event {
            LinkEvent::Up => Event::LinkUp,
            LinkEvent::Down => Event::LinkDown,
            LinkEvent::Message(bytes) => Event::Message(bytes),
        };
        self.engine.handle(event, now);
    }

    /// Hands publishes to the link while it has room. Says whether it had not.
    fn publish(&mut self, now: Now) -> bool {
        loop {
            // Durable marks are for sources that could forget; those of the agent keep nothing.
            while self.engine.next_durable().is_some() {}
            let Ok(permit) = self.up.try_reserve() else {
                return true;
            };
            match self.engine.next_output(now) {
                Some(Output::Publish(bytes)) => permit.send(bytes),
                Some(Output::Durable { .. }) => {}
                None => return false,
            }
        }
    }

    /// Writes the status where its time has come.
    fn tell_status(&mut self, now: Now) {
        if let Some((path, pace)) = &mut self.status
            && pace.look_at() <= now.mono
        {
            let status = crate::status::of(&self.engine, now);
            if pace.take(status.clone(), now.mono) {
                write_status(path, &status);
            }
        }
    }

    fn is_done(&self) -> bool {
        let ended = self
            .inlets
            .iter()
            .all(|inlet| inlet.ended && inlet.waiting.is_none());
        ended
            && self.engine.lanes().all(|lane| lane.memory_bytes == 0)
            && self.engine.sender().is_drained()
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

/// Offers one thing; gives it back if it must wait.
fn offer<D: Disk>(engine: &mut Engine<D>, inlet: &Inlet, feed: Feed, now: Now) -> Option<Feed> {
    let (source, lane) = (inlet.source, inlet.lane);
    let offered = match &feed {
        Feed::Reading(reading, cursor) => {
            reading.with_sample(|sample| engine.offer(source, lane, sample, *cursor, now))
        }
        Feed::Line(time, line, cursor) => {
            engine.offer_line(source, lane, *time, line, *cursor, now)
        }
        Feed::Lost(lost) => {
            engine.lost(source, lane, *lost);
            return None;
        }
        Feed::Flush(_) => {
            engine.flush(now);
            if let Feed::Flush(done) = feed {
                // The client may have gone meanwhile.
                let _ = done.send(());
            }
            return None;
        }
    };
    match offered {
        Err(OfferError::Busy) if inlet.resumes => Some(feed),
        // The engine counts and names what it could not take.
        Ok(()) | Err(OfferError::Busy) => None,
        Err(OfferError::Refused(refused)) => {
            if engine.counters().refused.is_multiple_of(1000) {
                tracing::warn!(source, "a reading is refused: {refused}");
            }
            None
        }
    }
}

/// Replaces the file as a whole. A status that cannot be written is told and no reason to stop.
fn write_status(path: &Path, status: &Status) {
    let replace = || -> io::Result<()> {
        let text = serde_json::to_string(status)?;
        let new = path.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(&new, path)
    };
    if let Err(error) = replace() {
        tracing::debug!("cannot write the status to {}: {error}", path.display());
    }
}
