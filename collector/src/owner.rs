//! The thread that owns custody: drains the gate's queue, appends all, syncs once, answers all.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use headwater_gate::clock::Clock;
use headwater_gate::ingest::{ArrivalsWaker, Waited};
use headwater_gate::session::Admission;
use headwater_gate::store::{Opening, SessionStore, StoreError};
use headwater_gate::{Arrivals, Body, GateEvent, GateHandle};
use headwater_program::notices::Notices;
use headwater_proto::ids::{DeviceId, JournalId};
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Disk, Reader};
use tokio::sync::oneshot;

use crate::done::{Finding, Keeping};
use crate::metrics::{Board, CustodyLook};
use crate::pipeline::clock_doubt::Change;
use crate::pipeline::custody::{
    Crowd, Custody, Event, Forgotten, Found, JournalSide, LakeSide, Meeting, Output, PlainPublish,
    Stretch, clock,
};

/// Longest time without a tick: what was withheld is tried again, absent epochs are looked at.
const TICK_MS: u64 = 100;
/// Time between two posts on the board.
const POST_MS: u64 = 200;
/// Most persistent sessions; about 200 bytes each.
const MAX_SESSIONS: usize = 65_536;
/// Kinds of lines in the log that devices can cause.
const NOTICE_SHARED: usize = 0;
const NOTICE_SCHEMAS: usize = 1;
const NOTICE_STREAMS: usize = 2;
const NOTICE_PORTIONS: usize = 3;
/// How many there are.
pub(crate) const NOTICES: usize = 4;

/// What other threads ask of the owner.
pub(crate) enum Command {
    /// Make a sink's plan durable, then answer.
    Plan {
        sink: Arc<str>,
        bytes: Vec<u8>,
        reply: SyncSender<Result<(), String>>,
    },
    /// A sink has come further. Answered with whether custody has taken it in; after a no, once more when
    /// it has. The sink tells nothing more before.
    Commit {
        event: Event,
        reply: SyncSender<bool>,
    },
    /// What custody asked another thread to do.
    Done(Event),
    /// Make a change to the sessions durable, then answer.
    Session {
        client: Arc<str>,
        present: bool,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    /// A device will not come back: abandon its open epochs, then answer.
    Forget {
        device: DeviceId,
        reply: SyncSender<Result<Forgotten, String>>,
    },
    /// Make the marks agree with a lake that was away at the start, then answer.
    Meet {
        sink: Arc<str>,
        journal: Box<JournalSide>,
        lake: LakeSide,
        reply: SyncSender<Result<Meeting, String>>,
    },
    /// The collector's clock is right as it stands; answered with whether it was in doubt.
    TrustClock {
        reply: SyncSender<Result<bool, String>>,
    },
    /// Answer when all that came before is durable.
    Barrier { reply: SyncSender<()> },
    /// Nothing more comes; end when all that came is durable.
    Stop,
}

/// Where other threads drop commands.
#[derive(Clone)]
pub(crate) struct Mailbox {
    commands: Sender<Command>,
    waker: Arc<Mutex<Option<ArrivalsWaker>>>,
}

impl Mailbox {
    pub(crate) fn new() -> (Self, Receiver<Command>) {
        let (commands, receiver) = channel();
        (
            Self {
                commands,
                waker: Arc::default(),
            },
            receiver,
        )
    }

    /// Whom to wake; the gate is made after the mailbox.
    pub(crate) fn wake_with(&self, waker: ArrivalsWaker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// False when the owner is gone.
    pub(crate) fn send(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake();
        }
        sent
    }

    /// Has the open epochs of a device abandoned, and waits until that is durable.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn forget(&self, device: DeviceId) -> Result<Forgotten, String> {
        self.ask(|reply| Command::Forget { device, reply })
    }

    /// Has the clock believed as it stands, and waits until that is durable. Whether it was in doubt.
    ///
    /// # Errors
    /// Why not, in words.
    pub(crate) fn trust_clock(&self) -> Result<bool, String> {
        self.ask(|reply| Command::TrustClock { reply })
    }

    fn ask<T>(
        &self,
        command: impl FnOnce(SyncSender<Result<T, String>>) -> Command,
    ) -> Result<T, String> {
        let (reply, answer) = sync_channel(1);
        let sent = self.send(command(reply));
        match answer.recv() {
            Ok(result) if sent => result,
            Ok(_) | Err(_) => Err("the collector is stopping".to_owned()),
        }
    }
}

/// Reads a stretch of the journal of a name; with what the lake tells of it. The error is told in words.
pub(crate) type ReadStretch<D> =
    Arc<dyn Fn(&Stretch, JournalId, &mut Reader<D>) -> Result<Found, String> + Send + Sync>;

/// The owner's parts.
pub(crate) struct Owner<D: Disk> {
    pub(crate) custody: Custody<D>,
    pub(crate) arrivals: Arrivals,
    pub(crate) gate: GateHandle,
    pub(crate) commands: Receiver<Command>,
    /// Where it hears of what it has others do.
    pub(crate) mailbox: Mailbox,
    /// Reads a stretch, on a thread of its own.
    pub(crate) stretches: ReadStretch<D>,
    /// Told whenever something became durable; each holds one token.
    pub(crate) readers: Vec<SyncSender<()>>,
    pub(crate) board: Arc<Board>,
    pub(crate) clock: Clock,
    /// Paces the one kind of line that devices can cause.
    pub(crate) notices: Notices,
}

/// Answers that are due after a sync.
#[derive(Default)]
struct Due {
    /// Groups of the journal that had failed before the first of them.
    failed_before: u64,
    plans: Vec<SyncSender<Result<(), String>>>,
    commits: Vec<(String, SyncSender<bool>)>,
    sessions: Vec<oneshot::Sender<Result<(), StoreError>>>,
    forgotten: Vec<(SyncSender<Result<Forgotten, String>>, Forgotten)>,
    trusted: Vec<(SyncSender<Result<bool, String>>, bool)>,
    barriers: Vec<SyncSender<()>>,
}

impl<D: Disk> Owner<D> {
    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Vec::new();
        let (mut last_tick, mut last_post) = (Millis(0), Millis(0));
        let mut stopping = false;
        let mut held: Vec<(String, SyncSender<bool>)> = Vec::new();
        while !stopping {
            let waited = self
                .arrivals
                .take(&mut events, Duration::from_millis(TICK_MS));
            for event in events.drain(..) {
                let (event, at) = translate(event);
                self.custody.handle(event, at);
            }
            let now = self.clock.now();
            let mut due = Due {
                failed_before: self.custody.counters().groups_failed_total,
                ..Due::default()
            };
            let mut commands = self.commands.try_iter().collect::<Vec<_>>();
            if waited == Waited::Closed && commands.is_empty() {
                // The gate is gone: only sinks speak, so wait for them.
                commands.extend(self.commands.recv_timeout(Duration::from_millis(TICK_MS)));
            }
            for command in commands {
                stopping |= self.obey(command, now, &mut due);
            }
            if now.mono.since(last_tick) >= TICK_MS {
                last_tick = now.mono;
                self.custody.handle(Event::Tick, now);
            }
            let commits = std::mem::take(&mut due.commits);
            self.sync(now, due);
            self.answer_commits(&mut held, commits);
            self.carry_out();
            for reader in &self.readers {
                match reader.try_send(()) {
                    Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
                }
            }
            if now.mono.since(last_post) >= POST_MS || stopping {
                last_post = now.mono;
                self.post();
            }
        }
    }

    /// True when told to stop.
    fn obey(&mut self, command: Command, now: Now, due: &mut Due) -> bool {
        match command {
            Command::Plan { sink, bytes, reply } => {
                match self.custody.append_plan(&sink, &bytes) {
                    Ok(_) => due.plans.push(reply),
                    // A sink that is gone needs no answer.
                    Err(error) => drop(reply.send(Err(error.to_string()))),
                }
            }
            Command::Commit { event, reply } => {
                if let Event::Committed { sink, .. } = &event {
                    due.commits.push((sink.clone(), reply));
                }
                self.custody.handle(event, now);
            }
            Command::Done(event) => self.custody.handle(event, now),
            Command::Session {
                client,
                present,
                reply,
            } => {
                if self.custody.keep_session(&client, present) {
                    due.sessions.push(reply);
                } else {
                    let cause = "the journal cannot take it".to_owned();
                    drop(reply.send(Err(StoreError { cause })));
                }
            }
            Command::Forget { device, reply } => match self.custody.forget_device(&device, now) {
                Ok(forgotten) => due.forgotten.push((reply, forgotten)),
                // Whoever asked may be gone.
                Err(error) => drop(reply.send(Err(error.to_string()))),
            },
            Command::Meet {
                sink,
                journal,
                lake,
                reply,
            } => {
                // What it changed is durable before the sink's next plan, whatever becomes of this group.
                let at = self.custody.clock.dated(now).wall;
                let met = self.custody.meet_lake(&sink, &journal, &lake, at);
                // A sink that is gone needs no answer.
                drop(reply.send(met.map_err(|error| error.to_string())));
            }
            Command::TrustClock { reply } => {
                let was_in_doubt = clock::trust(&mut self.custody, now);
                due.trusted.push((reply, was_in_doubt));
            }
            Command::Barrier { reply } => due.barriers.push(reply),
            Command::Stop => {
                if !self.custody.note_cursors(now, true) {
                    tracing::warn!(
                        "the journal has no room to note how far sinks are: after the next start they are \
                         given again what came since it last was noted"
                    );
                }
                return true;
            }
        }
        false
    }

    /// Answers sinks whose reports were taken in, and tells the others to wait.
    fn answer_commits(
        &self,
        held: &mut Vec<(String, SyncSender<bool>)>,
        new: Vec<(String, SyncSender<bool>)>,
    ) {
        held.retain(|(sink, reply)| {
            let is_held = self.custody.is_holding(sink);
            // A sink that is gone needs no answer, and each channel has room for its two.
            if !is_held {
                let _ = reply.try_send(true);
            }
            is_held
        });
        for (sink, reply) in new {
            let is_held = self.custody.is_holding(&sink);
            if is_held {
                tracing::warn!(
                    sink,
                    "the sink waits: its report is not taken before the other required sinks come closer, \
                     or the journal has room"
                );
            }
            let is_there = reply.try_send(!is_held).is_ok();
            if is_held && is_there {
                held.push((sink, reply));
            }
        }
    }

    fn sync(&mut self, now: Now, due: Due) {
        let result = self.custody.sync(now);
        if let Err(error) = &result {
            let cause = error.source.to_string();
            tracing::error!(%error, cause, "the journal could not be synced; senders repeat");
        }
        // A group may also have failed before, where a new segment was begun: what it held is gone
        // then, and this sync has nothing to fail at.
        let is_durable = self.custody.counters().groups_failed_total == due.failed_before;
        let durable = || {
            let lost = "the journal could not be synced";
            is_durable.then_some(()).ok_or_else(|| lost.to_owned())
        };
        for reply in due.plans {
            // A sink that is gone needs no answer.
            drop(reply.send(durable()));
        }
        for (reply, forgotten) in due.forgotten {
            // Whoever asked may be gone.
            drop(reply.send(durable().map(|()| forgotten)));
        }
        for (reply, was_in_doubt) in due.trusted {
            // Whoever asked may be gone.
            drop(reply.send(durable().map(|()| was_in_doubt)));
        }
        for reply in due.barriers {
            // Whoever asked may be gone.
            let _ = reply.send(());
        }
        for reply in due.sessions {
            drop(reply.send(durable().map_err(|cause| StoreError { cause })));
        }
    }

    fn carry_out(&mut self) {
        let mut pubacks = Vec::new();
        while let Some(output) = self.custody.next_output() {
            match output {
                Output::PubAck { conn, token } => pubacks.push((conn, token)),
                Output::Send { conn, payload } => {
                    if let Err(error) = self.gate.send_down(conn, Bytes::from(payload)) {
                        tracing::debug!(conn = conn.0, %error, "a message down was not taken");
                    }
                }
                Output::Close { conn, reason } => {
                    // What was promised before leaves first.
                    self.gate.pubacks(std::mem::take(&mut pubacks));
                    tracing::warn!(conn = conn.0, reason = reason.name(), "connection closed");
                    self.gate.close(conn, reason);
                }
                Output::Shared { origin } => {
                    if let Some(unsaid) = self.notices.may_say(NOTICE_SHARED, self.clock.now().mono)
                    {
                        tracing::warn!(
                            device = %origin,
                            unsaid,
                            "two live devices have this identity: each leaves out what the other one holds; give \
                             one of them another name"
                        );
                    }
                }
                Output::Crowded { origin, of } => self.tell_crowded(&origin, of),
                Output::Clock(change) => tell_clock(change),
                Output::Read(stretch) => self.read(stretch),
                Output::Keep(keeping) => self.keep(keeping),
                Output::Find(finding) => self.find(finding),
            }
        }
        if !pubacks.is_empty() {
            self.gate.pubacks(pubacks);
        }
    }

    fn tell_crowded(&self, device: &DeviceId, of: Crowd) {
        let kind = match of {
            Crowd::Schemas(_) => NOTICE_SCHEMAS,
            Crowd::Streams => NOTICE_STREAMS,
            Crowd::Portions => NOTICE_PORTIONS,
        };
        let Some(unsaid) = self.notices.may_say(kind, self.clock.now().mono) else {
            return;
        };
        match of {
            Crowd::Schemas(numbers) => tracing::warn!(
                %device,
                numbers,
                unsaid,
                "the schema book is full, and schemas of the device that has most left it: it sends them again \
                 with the batches that need them; look whether it names a new metric or label value with each \
                 reading"
            ),
            Crowd::Streams => tracing::warn!(
                %device,
                unsaid,
                "no room for one more epoch of this device, which keeps its data and asks again: look whether it \
                 starts again and again, and whether a required sink is behind"
            ),
            Crowd::Portions => tracing::warn!(
                %device,
                unsaid,
                "no room to remember all contents that sources read: the oldest, of the device that has most, is \
                 forgotten; should that device lose its spool, it is read again"
            ),
        }
    }

    /// Has a stretch read on a thread of its own; custody asks for one at a time.
    fn read(&mut self, stretch: Stretch) {
        let mut reader = self.custody.reader();
        let (journal, stretches) = (self.custody.journal(), Arc::clone(&self.stretches));
        let asked = stretch.clone();
        let read = move || {
            let found = stretches(&stretch, journal, &mut reader)?;
            let found = Some(found);
            Ok(Event::Read { stretch, found })
        };
        self.aside("stretch", read, move |why| {
            tracing::warn!(
                why,
                "what a sink lacks cannot be read now; its segments are kept"
            );
            let (stretch, found) = (asked.clone(), None);
            Event::Read { stretch, found }
        });
    }

    /// Has epochs put into the index on a thread of its own; custody asks for it once at a time.
    fn keep(&mut self, keeping: Keeping) {
        let asked = keeping.clone();
        let keep = move || {
            let (epochs, kept) = keeping.keep();
            if let Err(error) = &kept {
                tracing::warn!(%error, "the ledger keeps epochs that are over");
            }
            Ok(Event::Kept { epochs, kept })
        };
        self.aside("index", keep, move |why| {
            tracing::warn!(
                why,
                "the index is not filled; the ledger keeps epochs that are over"
            );
            let (epochs, kept) = asked.clone().failed(why.to_owned());
            Event::Kept { epochs, kept }
        });
    }

    /// Has epochs looked up in the index on a thread of its own; custody asks for it once at a time.
    fn find(&mut self, finding: Finding) {
        let asked = finding.clone();
        let find = move || {
            let looked = finding.find();
            if let Some(error) = looked.iter().find_map(|(_, found)| found.as_ref().err()) {
                tracing::warn!(%error, "epochs that may be over are not taken for new now");
            }
            Ok(Event::Found(looked))
        };
        self.aside("index", find, move |why| {
            tracing::warn!(why, "the index is not asked; no epoch is taken for new now");
            Event::Found(asked.clone().failed(why))
        });
    }

    /// Does work on a thread of its own, and hands in what comes of it; without an owner nobody waits for that.
    ///
    /// - `failed`: what is handed in if it fails, panics or finds no thread; it is told why.
    fn aside(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<Event, String> + Send + 'static,
        failed: impl Fn(&str) -> Event + Clone + Send + 'static,
    ) {
        let (mailbox, otherwise) = (self.mailbox.clone(), failed.clone());
        let work = move || {
            // Custody waits for an answer: a bug in the work must not keep it waiting for ever.
            let done = catch_unwind(AssertUnwindSafe(work));
            let done = done.unwrap_or_else(|_| Err("a bug ended the thread".to_owned()));
            mailbox.send(Command::Done(done.unwrap_or_else(|why| otherwise(&why))));
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        if let Err(error) = thread.spawn(work) {
            let now = self.clock.now();
            let event = failed(&format!("no thread for it: {error}"));
            self.custody.handle(event, now);
        }
    }

    fn post(&self) {
        let log = self.custody.log();
        self.board.post_custody(CustodyLook {
            counters: *self.custody.counters(),
            journal_used_bytes: log.used_bytes(),
            journal_quota_bytes: log.config().quota_bytes,
            journal_durable: log.durable(),
            segments: log
                .segments()
                .map(|segment| (segment.positions(), segment.bytes_allocated))
                .collect(),
            required: self.custody.required_sinks(),
            at: self.custody.clock.dated(self.clock.now()).wall,
            clock_doubt: self.custody.clock.doubt(),
            cursors: self.custody.cursors().to_vec(),
            covered: self.custody.covered_ranges(),
            held: self.custody.held_sinks(),
            streams: self.custody.ledger().len() as u64,
            credit_bytes: self.custody.credit_bytes(),
            is_stalled: self.custody.is_stalled(),
        });
    }
}

/// Says what became of the collector's own clock.
fn tell_clock(change: Change) {
    match change {
        Change::Doubted { .. } => tracing::error!("{change}"),
        Change::Settled { .. } => tracing::warn!("{change}"),
    }
}

fn translate(event: GateEvent) -> (Event, Now) {
    match event {
        GateEvent::Connected { conn, client, at } => (Event::Connected { conn, client }, at),
        GateEvent::Settled {
            conn,
            client,
            through,
        } => {
            let unused = Now {
                mono: Millis(0),
                wall: headwater_proto::time::UnixMicros(0),
            };
            (
                Event::Settled {
                    conn,
                    client,
                    through,
                },
                unused,
            )
        }
        GateEvent::Disconnected {
            conn,
            client,
            orderly,
            at,
        } => (
            Event::Disconnected {
                conn,
                client,
                orderly,
            },
            at,
        ),
        GateEvent::Arrival(arrival) => {
            let (conn, token, at) = (arrival.conn, arrival.token, arrival.at);
            let event = match arrival.body {
                Body::Agent { device, payload } => Event::Up {
                    conn,
                    device: (*device).clone(),
                    payload,
                    token,
                },
                Body::Plain {
                    topic,
                    payload,
                    qos: _,
                    dup,
                    packet_id,
                    fingerprint,
                } => Event::Plain(PlainPublish {
                    conn,
                    client: arrival.client,
                    topic,
                    payload,
                    dup,
                    packet_id,
                    fingerprint,
                    token,
                }),
            };
            (event, at)
        }
    }
}

/// The gate's persistent sessions, kept in the journal. They do not expire by time: what is kept is
/// a name, and a client that asks for a clean start removes it.
pub(crate) struct JournalSessions {
    mailbox: Mailbox,
    kept: Arc<Mutex<HashSet<Arc<str>>>>,
}

impl JournalSessions {
    pub(crate) fn new(mailbox: Mailbox, kept: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self {
            mailbox,
            kept: Arc::new(Mutex::new(kept.into_iter().collect())),
        }
    }
}

impl SessionStore for JournalSessions {
    fn open(&self, admission: &Admission) -> Opening {
        let client = Arc::clone(&admission.client);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let had = kept.contains(&client);
        let room = had || kept.len() < MAX_SESSIONS;
        let keep = admission.expiry_s > 0 && room;
        let present = had && !admission.clean_start;
        if keep == had {
            return Box::pin(std::future::ready(Ok(present)));
        }
        if keep {
            kept.insert(Arc::clone(&client));
        } else {
            kept.remove(&client);
        }
        drop(kept);
        let (reply, answer) = oneshot::channel();
        let all = Arc::clone(&self.kept);
        let sent = self.mailbox.send(Command::Session {
            client: Arc::clone(&client),
            present: keep,
            reply,
        });
        Box::pin(async move {
            let answered = match answer.await {
                Ok(result) if sent => result,
                Ok(_) | Err(_) => Err(StoreError {
                    cause: "the collector is stopping".to_owned(),
                }),
            };
            if answered.is_err() {
                // As if it had not been asked.
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                if had {
                    all.insert(client);
                } else {
                    all.remove(&client);
                }
            }
            answered.map(|()| present)
        })
    }

    fn ended(&self, _client: &str, _expiry_s: u32) {}
}

#[cfg(test)]
mod tests {
    use headwater_gate::identity::Loopback;
    use headwater_gate::{Gate, Settings as GateSettings};
    use headwater_spool::FakeDisk;

    use super::*;
    use crate::config::Config;
    use crate::done::DoneInMemory;

    /// An owner of `custody`, and the gate that it serves.
    fn owner_of(custody: Custody<FakeDisk>, clock: Clock) -> (Owner<FakeDisk>, Arc<Gate>) {
        let config = Config::parse("").unwrap();
        let (mailbox, commands) = Mailbox::new();
        let (gate, arrivals) = Gate::new(GateSettings {
            limits: config.limits,
            queue_bytes: GateSettings::QUEUE_BYTES,
            acl: config.acl.clone(),
            identity: Box::new(Loopback),
            store: Arc::new(JournalSessions::new(mailbox.clone(), [])),
            clock,
        });
        mailbox.wake_with(arrivals.waker());
        let owner = Owner {
            custody,
            arrivals,
            gate: gate.handle(),
            commands,
            mailbox,
            stretches: Arc::new(|stretch, _, reader| {
                let pass = stretch.read(reader).map_err(|error| error.to_string())?;
                Ok(pass.numbers)
            }),
            readers: Vec::new(),
            board: Arc::default(),
            clock,
            notices: Notices::new(NOTICES),
        };
        (owner, gate)
    }

    fn settings() -> crate::pipeline::custody::Settings {
        let mut settings = Config::parse("").unwrap().custody;
        settings.log.segment_bytes = 8_192;
        settings.log.fs_reserve_percent = 0;
        settings
    }

    fn open(disk: &FakeDisk, settings: crate::pipeline::custody::Settings) -> Custody<FakeDisk> {
        let done = Box::new(DoneInMemory::default());
        let opened = Custody::open(disk.clone(), settings, done, &mut || 7);
        opened.unwrap().0
    }

    #[test]
    fn what_a_sink_lacks_is_read_on_another_thread_and_comes_back_to_custody() {
        let (disk, clock) = (FakeDisk::new(), Clock::start());
        let mut custody = open(&disk, settings());
        assert!(custody.keep_session("a", true));
        custody.sync(clock.now()).unwrap();
        // The hot store is taken out.
        let mut without = settings();
        without.sinks.retain(|sink| sink.required);
        let (owner, _gate) = owner_of(open(&disk, without), clock);
        assert_eq!(owner.custody.cursors().len(), 2);
        let (mailbox, board) = (owner.mailbox.clone(), Arc::clone(&owner.board));
        let thread = std::thread::spawn(move || owner.run());
        while board.custody().cursors.len() != 1 {
            assert!(!thread.is_finished(), "the owner ended");
            std::thread::yield_now();
        }
        mailbox.send(Command::Stop);
        thread.join().unwrap();
    }

    #[test]
    fn a_plan_whose_group_failed_before_the_sync_is_not_called_durable() {
        let (disk, clock) = (FakeDisk::new(), Clock::start());
        let (mut owner, _gate) = owner_of(open(&disk, settings()), clock);
        let now = clock.now();
        let turn = |owner: &mut Owner<FakeDisk>, plans: &[usize]| {
            let mut due = Due {
                failed_before: owner.custody.counters().groups_failed_total,
                ..Due::default()
            };
            let answers: Vec<_> = plans
                .iter()
                .map(|bytes| {
                    let (reply, answer) = sync_channel(1);
                    let bytes = vec![7; *bytes];
                    let sink = "lake".into();
                    owner.obey(Command::Plan { sink, bytes, reply }, now, &mut due);
                    answer
                })
                .collect();
            owner.sync(now, due);
            answers
                .iter()
                .map(|answer| answer.recv().unwrap().is_ok())
                .collect::<Vec<_>>()
        };
        assert_eq!(turn(&mut owner, &[100]), [true]);
        // The second plan begins a segment, for which the group of the first one is synced.
        disk.fail_sync(0);
        assert_eq!(turn(&mut owner, &[101, 8_000]), [false, false]);
        assert_eq!(turn(&mut owner, &[102]), [true]);
    }
}
