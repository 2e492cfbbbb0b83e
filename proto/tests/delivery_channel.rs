//! A sender and a receiver joined by a channel that loses, repeats and reorders, with restarts of
//! both: they always converge, forget only what is committed, and lose nothing.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::delivery::{
    Command, HeldEpoch, HelloFacts, Input, Jitter, Receiver, RecordRef, Sender, SenderLimits,
    Verdict,
};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange};
use headwater_proto::message::{Ack, Hello, Reject, RejectReason, Welcome};
use headwater_proto::time::{Base, Millis, UnixMicros};
use proptest::prelude::*;

type Key = (Lane, Epoch);

/// What travels.
#[derive(Debug, Clone)]
enum Message {
    Hello(Hello),
    Bundle(Key, SeqRange),
    Welcome(Welcome),
    Ack(Ack),
    Reject(Reject),
}

const FACTS: HelloFacts = HelloFacts {
    boot: 1,
    uptime_ms: 0,
    wall: None,
    max_down_bytes: 4096,
};
const RECORD_BYTES: u32 = 1_000;
const CREDIT: u32 = 20_000;

/// The sender's side: its disk outlives restarts, its `Sender` does not.
struct Source {
    sender: Sender<16, 8>,
    /// Per epoch, in order of birth: what is on the disk, and whether its writer ended.
    disk: Vec<(Key, SeqRange, bool)>,
    live: Key,
}

/// The receiver's side: the journal (`Receiver`s) outlives restarts, the connection does not.
struct Target {
    journal: JournalId,
    receivers: BTreeMap<Key, Receiver>,
    oldest: BTreeMap<Key, u64>,
    pages: Option<(u64, u64)>,
    /// Every record that ever reached the sinks.
    sunk: BTreeSet<(Key, u64)>,
}

struct World {
    random: Jitter,
    now: Millis,
    source: Source,
    target: Target,
    up: Vec<Message>,
    down: Vec<Message>,
    faults: bool,
}

fn device() -> DeviceId {
    DeviceId::new("pump-7").unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Jitter::new(seed);
        let live = (Lane::Normal, Epoch::new(random.bits()));
        let mut world = Self {
            source: Source {
                sender: Sender::new(device(), SenderLimits::DEFAULT, random.bits()),
                disk: vec![(live, SeqRange::new(0, 0), false)],
                live,
            },
            target: Target {
                journal: JournalId(random.bits()),
                receivers: BTreeMap::new(),
                oldest: BTreeMap::new(),
                pages: None,
                sunk: BTreeSet::new(),
            },
            random,
            now: Millis(0),
            up: Vec::new(),
            down: Vec::new(),
            faults: true,
        };
        world.load_disk();
        world
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.random.bits().is_multiple_of(n)
    }

    /// Tells a new `Sender` what the disk holds.
    fn load_disk(&mut self) {
        for &((lane, epoch), range, ended) in &self.source.disk {
            let end_named_in = ended.then_some(()).and_then(|()| {
                let next = self.source.disk.iter().find(|(_, _, ended)| !ended)?;
                let (lane, epoch) = next.0;
                Some(RecordRef {
                    lane,
                    epoch,
                    seq: 0,
                })
            });
            let held = HeldEpoch {
                lane,
                epoch,
                first: range.first,
                next: range.next,
                ram: false,
                ended,
                boot: 1,
                base: Base::Wall,
                end_named_in,
            };
            self.source.sender.add_epoch(held).unwrap();
        }
    }

    /// The sender's process dies and comes back: a new epoch, what is on the disk remains.
    fn restart_sender(&mut self) {
        if self.source.disk.len() >= 12 {
            return;
        }
        for (_, _, ended) in &mut self.source.disk {
            *ended = true;
        }
        let lane = if self.one_in(3) {
            Lane::Alarm
        } else {
            Lane::Normal
        };
        self.source.live = (lane, Epoch::new(self.random.bits()));
        self.source
            .disk
            .push((self.source.live, SeqRange::new(0, 1), false));
        self.source.sender = Sender::new(device(), SenderLimits::DEFAULT, self.random.bits());
        self.load_disk();
        self.link_down();
    }

    fn link_down(&mut self) {
        self.up.clear();
        self.down.clear();
        self.target.pages = None;
        self.source
            .sender
            .handle(Input::LinkDown, self.now)
            .unwrap();
        self.source.sender.handle(Input::LinkUp, self.now).unwrap();
    }

    /// The collector's disk is lost: a new journal, seeded with what the lake holds.
    fn lose_journal(&mut self) {
        self.target.journal = JournalId(self.random.bits());
        self.target.receivers.clear();
        self.target.pages = None;
        for &(key, seq) in &self.target.sunk {
            let receiver = self.target.receivers.entry(key).or_default();
            receiver.seed(SeqRange::new(seq, seq + 1)).unwrap();
        }
    }

    fn store(&mut self, count: u64) {
        let live = self.source.live;
        let held = self
            .source
            .disk
            .iter_mut()
            .find(|(key, _, _)| *key == live)
            .unwrap();
        held.1.next += count;
        self.source
            .sender
            .stored(live.0, live.1, held.1.next)
            .unwrap();
    }

    fn run_commands(&mut self) {
        for _ in 0..200 {
            let Some(command) = self.source.sender.next_command(self.now) else {
                return;
            };
            match command {
                Command::SendHello { page } => {
                    self.up
                        .push(Message::Hello(self.source.sender.hello(page, &FACTS)));
                }
                Command::Publish {
                    lane,
                    epoch,
                    first,
                    limit,
                    max_bytes,
                } => {
                    let most = u64::from(max_bytes / RECORD_BYTES).min(5);
                    if most == 0 {
                        self.source.sender.held_back();
                        continue;
                    }
                    let range = SeqRange::new(first, limit.min(first + most));
                    let held = self
                        .source
                        .disk
                        .iter()
                        .find(|(key, _, _)| *key == (lane, epoch));
                    let (_, stored, _) = held.expect("only what is held is published");
                    assert!(stored.first <= range.first && range.next <= stored.next);
                    let bytes = u32::try_from(range.len()).unwrap() * RECORD_BYTES;
                    self.source
                        .sender
                        .sent(lane, epoch, range, bytes, self.now)
                        .unwrap();
                    assert!(self.source.sender.in_flight_bytes() <= CREDIT + bytes);
                    self.up.push(Message::Bundle((lane, epoch), range));
                }
                Command::Release {
                    lane,
                    epoch,
                    through,
                } => {
                    let key = (lane, epoch);
                    let at = self
                        .source
                        .disk
                        .iter()
                        .position(|held| held.0 == key)
                        .unwrap();
                    let held = &mut self.source.disk[at];
                    for seq in held.1.first..through {
                        assert!(
                            self.target.sunk.contains(&(key, seq)),
                            "{key:?} {seq} was released and no sink has it"
                        );
                    }
                    held.1.first = through;
                }
                Command::Refused { .. } => panic!("nothing here is refused for good"),
            }
        }
        panic!("the sender never comes to rest");
    }

    /// Takes one message from a queue, as the faults will have it.
    fn take(&mut self, up: bool) -> Option<Message> {
        let len = if up { self.up.len() } else { self.down.len() };
        if len == 0 {
            return None;
        }
        let at = if self.faults && self.one_in(3) {
            usize::try_from(self.random.bits() % len as u64).unwrap()
        } else {
            0
        };
        let (lost, kept) = (self.faults && self.one_in(6), self.faults && self.one_in(6));
        let queue = if up { &mut self.up } else { &mut self.down };
        let message = if kept {
            queue[at].clone()
        } else {
            queue.remove(at)
        };
        (!lost).then_some(message)
    }

    fn receive_up(&mut self) {
        match self.take(true) {
            Some(Message::Hello(hello)) => self.receive_hello(&hello),
            Some(Message::Bundle(key, range)) => self.receive_bundle(key, range),
            _ => {}
        }
    }

    fn receive_hello(&mut self, hello: &Hello) {
        let target = &mut self.target;
        let seen = match target.pages {
            Some((nonce, seen)) if nonce == hello.nonce => seen,
            _ => 0,
        } | 1 << hello.page;
        target.pages = Some((hello.nonce, seen));
        for stream in &hello.streams {
            target
                .oldest
                .insert((stream.lane, stream.epoch), stream.oldest);
        }
        if seen.count_ones() != u32::from(hello.pages) {
            return;
        }
        let marks: Vec<_> = target
            .oldest
            .iter()
            .map(|(&key, &oldest)| {
                target
                    .receivers
                    .entry(key)
                    .or_default()
                    .mark(key.0, key.1, oldest)
            })
            .collect();
        let pages = marks.chunks(4).count().max(1);
        for (page, marks) in marks.chunks(4).enumerate() {
            self.down.push(Message::Welcome(Welcome {
                version: headwater_proto::message::PROTOCOL,
                origin: device(),
                nonce: hello.nonce,
                page: u8::try_from(page).unwrap(),
                pages: u8::try_from(pages).unwrap(),
                journal: target.journal,
                credit: CREDIT,
                max_bundle: 10_000,
                time: UnixMicros(0),
                marks: marks.iter().cloned().collect(),
            }));
        }
    }

    fn receive_bundle(&mut self, key: Key, range: SeqRange) {
        let (lane, epoch) = key;
        let known = self.target.oldest.contains_key(&key) && self.target.pages.is_some();
        let receiver = self.target.receivers.entry(key).or_default();
        let mut refused = (!known).then_some(RejectReason::NotInHello);
        for seq in range.first..range.next {
            if refused.is_some() {
                break;
            }
            if let Verdict::Refuse(reason) = receiver.offer(seq, 0) {
                refused = Some(reason);
            }
        }
        if let Some(reason) = refused {
            let origin = device();
            self.down.push(Message::Reject(Reject {
                origin,
                lane,
                epoch,
                range,
                reason,
            }));
        }
    }

    /// The group is synced, or fails; then everybody is told.
    fn sync(&mut self) {
        let failed = self.faults && self.one_in(8);
        for receiver in self.target.receivers.values_mut() {
            if failed {
                receiver.rollback();
            } else {
                receiver.synced();
            }
        }
        self.tell();
    }

    /// The sinks take all that is synced.
    fn commit(&mut self) {
        for (key, receiver) in &mut self.target.receivers {
            if receiver.is_tentative() {
                continue;
            }
            receiver.commit_all();
            let data = receiver.data().iter();
            self.target
                .sunk
                .extend(data.flat_map(|r| r.first..r.next).map(|seq| (*key, seq)));
        }
        self.tell();
    }

    fn tell(&mut self) {
        let receivers = &self.target.receivers;
        let marks: Vec<_> = self
            .target
            .oldest
            .iter()
            .filter_map(|(key, &oldest)| Some(receivers.get(key)?.mark(key.0, key.1, oldest)))
            .collect();
        for marks in marks.chunks(4) {
            self.down.push(Message::Ack(Ack {
                origin: device(),
                journal: self.target.journal,
                credit: CREDIT,
                time: UnixMicros(0),
                marks: marks.iter().cloned().collect(),
            }));
        }
    }

    fn receive_down(&mut self) {
        let Some(message) = self.take(false) else {
            return;
        };
        let sender = &mut self.source.sender;
        // Old messages are refused and counted; the world only asks that none does harm.
        let _ = match &message {
            Message::Welcome(welcome) => sender.handle(Input::Welcome(welcome), self.now),
            Message::Ack(ack) => sender.handle(Input::Ack(ack), self.now),
            Message::Reject(reject) => sender.handle(Input::Reject(reject), self.now),
            Message::Hello(_) | Message::Bundle(..) => unreachable!("these go up"),
        };
    }

    fn step(&mut self) {
        match self.random.bits() % 20 {
            0..=3 => {
                let count = self.random.bits() % 7;
                self.store(count);
            }
            4..=9 => self.receive_up(),
            10..=14 => self.receive_down(),
            15 => self.sync(),
            16 => self.commit(),
            17 => self.now = self.now.plus(self.random.bits() % 4_000),
            _ if self.one_in(40) => self.lose_journal(),
            _ if self.one_in(20) => self.restart_sender(),
            _ if self.one_in(20) => self.link_down(),
            _ => {}
        }
        let _ = self.source.sender.handle(Input::Tick, self.now);
        self.run_commands();
    }

    /// No more faults: everything must arrive, be committed and be released.
    fn drain(&mut self) {
        self.faults = false;
        for _ in 0..400 {
            if self
                .source
                .disk
                .iter()
                .all(|(_, range, _)| range.is_empty())
            {
                return;
            }
            while !self.up.is_empty() || !self.down.is_empty() {
                self.receive_up();
                self.receive_down();
            }
            self.sync();
            self.commit();
            while !self.down.is_empty() {
                self.receive_down();
            }
            if let Some(wakeup) = self.source.sender.next_wakeup() {
                self.now = self.now.max(wakeup);
            }
            let _ = self.source.sender.handle(Input::Tick, self.now);
            self.run_commands();
        }
        panic!(
            "never drained: {:?}\n{:#?}",
            self.source.disk, self.source.sender
        );
    }
}

fn run(seed: u64, steps: u64) {
    let mut world = World::new(seed);
    world.link_down();
    for _ in 0..steps {
        world.step();
    }
    world.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn they_always_converge_and_forget_only_what_is_committed(seed: u64, steps in 0u64..400) {
        run(seed, steps);
    }
}

#[cfg(feature = "sabotage")]
#[test]
fn a_sender_that_forgets_what_is_only_received_is_noticed() {
    use headwater_proto::sabotage::{self, Bug};
    sabotage::set(Some(Bug::ReleaseBeforeAck));
    let noticed = (0..50).any(|seed| std::panic::catch_unwind(|| run(seed, 300)).is_err());
    sabotage::set(None);
    assert!(noticed);
}
