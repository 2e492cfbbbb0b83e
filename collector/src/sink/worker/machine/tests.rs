//! Tests of the worker against a sink whose answers are written down.

use std::collections::VecDeque;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use headwater_proto::ids::{DeviceId, Epoch, Lane};
use headwater_spool::FakeDisk;

use super::*;
use crate::done::DoneInMemory;
use crate::interpret::{Depth, Interpreted};
use crate::pipeline::custody::{Custody, Settings};
use crate::sink::back_off::{FIRST_WAIT_MS, MAX_RETRY_AFTER_MS, MAX_WAIT_MS, SLOW_WAIT_MS};

/// A sink whose answers are written down before.
#[derive(Default)]
struct Scripted {
    plan: Option<Plan>,
    answers: VecDeque<SinkError>,
    refuses: Option<u64>,
    full_at: Option<u64>,
    position: u64,
    cut: u64,
    cursor: u64,
}

impl Sink for Scripted {
    fn take(&mut self, item: &Interpreted<'_>, _now: Now) -> Result<(), SinkError> {
        if self.refuses == Some(item.position) {
            return Err(SinkError::Refused {
                items: Vec::new(),
                cause: "no".to_owned(),
            });
        }
        self.position = item.position + 1;
        Ok(())
    }

    fn passed(&mut self, next: u64, _now: Now) {
        self.position = self.position.max(next);
    }

    fn due(&self, now: Millis) -> Due {
        match self.full_at {
            Some(full) if self.position >= full => Due::Full,
            _ if self.position == self.cursor => Due::Never,
            _ => Due::At(now),
        }
    }

    fn plan(&mut self, _now: Now) -> Result<Option<Plan>, SinkError> {
        self.cut = self.position;
        Ok(self.plan.clone())
    }

    fn deliver(&mut self, _now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        ready(match self.answers.pop_front() {
            Some(error) => Err(error),
            None => {
                self.cursor = self.cut;
                self.full_at = None;
                Ok(Delivered {
                    through: self.cut,
                    streams: Vec::new(),
                })
            }
        })
    }
}

struct Rig {
    custody: Custody<FakeDisk>,
    worker: Worker<Scripted, FakeDisk>,
    ms: u64,
    random: u64,
}

fn rig(sink: Scripted) -> Rig {
    let done = Box::new(DoneInMemory::default());
    let settings = Settings::default();
    let (custody, _) = Custody::open(FakeDisk::new(), settings, done, &mut || 7).unwrap();
    let feed = Feed::new(custody.reader(), 0, Depth::Samples);
    let mut rig = Rig {
        custody,
        worker: Worker::new(sink, feed),
        ms: 1_000,
        random: 0,
    };
    rig.write(3);
    rig
}

impl Rig {
    /// Makes records durable.
    fn write(&mut self, records: u64) {
        for n in 0..records {
            assert!(self.custody.keep_session(&format!("{n}"), true));
        }
        let now = self.now();
        self.custody.sync(now).unwrap();
    }

    fn durable(&self) -> u64 {
        self.custody.log().durable()
    }

    fn now(&self) -> Now {
        Now {
            mono: Millis(self.ms),
            wall: UnixMicros(0),
        }
    }

    fn next(&mut self) -> Step {
        self.worker.next(self.now(), false, self.random)
    }

    /// Carries out the next step; plans become durable at once.
    fn step(&mut self, is_stopping: bool) -> Step {
        let (now, random) = (self.now(), self.random);
        let step = self.worker.next(now, is_stopping, random);
        match &step {
            Step::Read => assert!(self.worker.read(1 << 20, now, random).unwrap().is_empty()),
            Step::Plan(_) => self.worker.planned(Ok(()), now, random),
            Step::Deliver => {
                let polled = pin!(self.worker.deliver(now))
                    .as_mut()
                    .poll(&mut Context::from_waker(Waker::noop()));
                let Poll::Ready(result) = polled else {
                    panic!("a scripted answer is there at once");
                };
                self.worker.delivered(result, now, random);
            }
            Step::Commit(_) | Step::Wait(_) | Step::Done | Step::Fatal(_) => {}
        }
        step
    }

    /// Steps until custody is told.
    fn commit(&mut self) -> Commit {
        for _ in 0..20 {
            match self.step(false) {
                Step::Commit(commit) => return commit,
                Step::Wait(Some(until)) => self.ms = until.0,
                Step::Fatal(error) => panic!("{error}"),
                Step::Read | Step::Plan(_) | Step::Deliver | Step::Wait(None) | Step::Done => {}
            }
        }
        panic!("no commit");
    }
}

fn busy(retry_after: Option<Duration>) -> SinkError {
    SinkError::Busy {
        retry_after,
        cause: "busy".to_owned(),
    }
}

#[test]
fn nothing_is_sent_before_its_plan_is_durable() {
    let mut rig = rig(Scripted {
        plan: Some(Plan(vec![7])),
        ..Scripted::default()
    });
    assert_eq!(rig.step(false), Step::Read);
    assert_eq!(rig.next(), Step::Plan(Plan(vec![7])));
    let now = rig.now();
    rig.worker.planned(Err("no room".to_owned()), now, 0);
    assert!(matches!(rig.next(), Step::Read | Step::Wait(_)));
    assert_eq!(rig.worker.look().failures["plan"], 1);
    rig.ms += MAX_WAIT_MS;
    assert_eq!(rig.step(false), Step::Plan(Plan(vec![7])));
    assert_eq!(rig.step(false), Step::Deliver);
    assert_eq!(rig.commit().through, rig.durable());
}

#[test]
fn a_sink_that_fails_is_tried_again_without_end_at_random_times_that_are_bounded() {
    let mut rig = rig(Scripted {
        answers: std::iter::repeat_n(busy(None), 1_000).collect(),
        ..Scripted::default()
    });
    let (mut tries, mut longest) = (0u64, 0);
    let commit = loop {
        rig.random = rig
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        match rig.step(false) {
            Step::Deliver => tries += 1,
            Step::Wait(Some(until)) => {
                longest = longest.max(until.since(rig.now().mono));
                rig.ms = until.0;
            }
            Step::Commit(commit) => break commit,
            Step::Fatal(error) => panic!("{error}"),
            Step::Read | Step::Plan(_) | Step::Wait(None) | Step::Done => {}
        }
    };
    assert_eq!(tries, 1_001);
    assert!(longest > MAX_WAIT_MS / 2 && longest <= MAX_WAIT_MS);
    assert_eq!(rig.worker.look().failures["busy"], 1_000);
    assert_eq!(commit.through, rig.durable());
    assert_eq!(rig.worker.look().state, SinkState::Up);
}

#[test]
fn who_may_not_is_tried_slowly_and_says_why() {
    let mut rig = rig(Scripted {
        answers: VecDeque::from([SinkError::Denied {
            cause: "no permission".to_owned(),
            remedy: "grant it".to_owned(),
        }]),
        ..Scripted::default()
    });
    while rig.step(false) != Step::Deliver {}
    let look = rig.worker.look();
    assert_eq!(look.state, SinkState::Denied);
    assert_eq!(look.why.as_deref(), Some("no permission; grant it"));
    rig.ms += SLOW_WAIT_MS / 2 - 1;
    assert_ne!(rig.next(), Step::Deliver);
    rig.commit();
}

#[test]
fn a_sink_for_which_this_process_can_do_nothing_ends_it() {
    let cause = "another one owns it".to_owned();
    let fatal = SinkError::Fatal { cause };
    let mut rig = rig(Scripted {
        answers: [busy(None), fatal.clone()].into(),
        ..Scripted::default()
    });
    for _ in 0..20 {
        match rig.step(false) {
            Step::Wait(Some(until)) => rig.ms = until.0,
            Step::Fatal(error) => {
                assert_eq!(error, fatal);
                assert_eq!(rig.worker.look().cursor, 0, "nothing was delivered");
                return;
            }
            Step::Commit(commit) => panic!("{commit:?}"),
            Step::Read | Step::Plan(_) | Step::Deliver | Step::Wait(None) | Step::Done => {}
        }
    }
    panic!("it goes on");
}

#[test]
fn a_sink_is_left_alone_for_as_long_as_it_asks_within_reason() {
    let long = Duration::from_secs(1_000_000);
    for (asked, expected) in [
        (Duration::from_secs(20), 20_000),
        (long, MAX_RETRY_AFTER_MS),
    ] {
        let mut rig = rig(Scripted {
            answers: VecDeque::from([busy(Some(asked))]),
            ..Scripted::default()
        });
        while rig.step(false) != Step::Deliver {}
        rig.ms += expected - 1;
        assert_ne!(rig.step(false), Step::Deliver);
        rig.ms += 1 + FIRST_WAIT_MS;
        while rig.step(false) != Step::Deliver {}
    }
}

#[test]
fn records_are_taken_until_it_is_full_while_a_delivery_waits() {
    let mut rig = rig(Scripted {
        answers: VecDeque::from([busy(None)]),
        ..Scripted::default()
    });
    while rig.step(false) != Step::Deliver {}
    let before = rig.durable();
    rig.write(2);
    assert_eq!(rig.step(false), Step::Read);
    assert_eq!(rig.worker.sink().position, rig.durable());
    rig.worker.sink.full_at = Some(0);
    rig.write(2);
    while !matches!(rig.step(false), Step::Wait(_)) {}
    assert_eq!(rig.worker.sink().position + 2, rig.durable());
    // The delivery is what was cut before.
    assert_eq!(rig.commit().through, before);
}

#[test]
fn what_is_refused_is_told_with_the_next_delivery_and_holds_up_nothing() {
    let stream = Stream {
        device: DeviceId::new("dev").unwrap(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    };
    let items = vec![
        (stream.clone(), SeqRange::new(4, 6)),
        (stream.clone(), SeqRange::new(6, 7)),
    ];
    let cause = "ä".repeat(MAX_CAUSE_BYTES);
    let mut rig = rig(Scripted {
        refuses: Some(1),
        answers: VecDeque::from([SinkError::Refused { items, cause }]),
        ..Scripted::default()
    });
    let commit = rig.commit();
    assert_eq!(commit.through, rig.durable());
    assert_eq!(
        commit.refused,
        [(stream.clone(), vec![SeqRange::new(4, 7)])]
    );
    assert_eq!(commit.causes[&stream].len(), MAX_CAUSE_BYTES);
    assert_eq!((commit.from, commit.read_to), (0, rig.durable()));
    assert_eq!(rig.worker.look().refused, 3);
    rig.write(1);
    assert_eq!(rig.commit().refused, []);
}

#[test]
fn an_end_delivers_what_is_durable_and_waits_for_nobody_who_fails() {
    let mut rig1 = rig(Scripted::default());
    rig1.commit();
    rig1.write(1);
    let mut steps = Vec::new();
    while steps.last() != Some(&Step::Done) {
        steps.push(rig1.step(true));
    }
    let all = rig1.durable();
    let told = steps
        .iter()
        .any(|step| matches!(step, Step::Commit(commit) if commit.through == all));
    assert!(told, "{steps:?}");
    let mut rig2 = rig(Scripted {
        answers: std::iter::repeat_n(busy(None), 1_000).collect(),
        ..Scripted::default()
    });
    for _ in 0..10 {
        if rig2.step(true) == Step::Done {
            return;
        }
    }
    panic!("it does not end");
}

#[test]
fn who_leaves_the_rest_delivers_at_an_end_what_was_taken_alone() {
    let mut rig = rig(Scripted::default());
    rig.worker = rig.worker.leaving_the_rest();
    assert_eq!(rig.step(false), Step::Read);
    let taken = rig.durable();
    rig.write(2);
    assert_eq!(rig.step(true), Step::Deliver);
    let Step::Commit(commit) = rig.step(true) else {
        panic!("what was delivered is not told");
    };
    assert_eq!(commit.through, taken);
    assert!(taken < rig.durable());
    assert_eq!(rig.step(true), Step::Done);
}

#[test]
fn damage_is_told_once_the_sink_has_passed_it() {
    let mut rig = rig(Scripted::default());
    let now = rig.now();
    let stretch = |first: u64| Damage {
        segment: 1,
        positions: first..first + 2,
    };
    let stretches = MAX_STRETCHES as u64 + 10;
    let first = 1_000;
    let chunk = Chunk {
        next: first + 4 * stretches,
        damage: (0..stretches).map(|n| stretch(first + 4 * n)).collect(),
        ..Chunk::default()
    };
    rig.worker.passed(0, chunk, now);
    assert_eq!(rig.worker.damage.len(), MAX_STRETCHES);
    let delivered = |through| Delivered {
        through,
        streams: Vec::new(),
    };
    rig.worker.delivered(Ok(delivered(first + 5)), now, 0);
    let Step::Commit(commit) = rig.next() else {
        panic!("it was delivered");
    };
    // One stretch, and the first half of the next one.
    assert_eq!(commit.damaged, 3);
    rig.worker
        .delivered(Ok(delivered(first + 4 * stretches)), now, 0);
    let Step::Commit(commit) = rig.next() else {
        panic!("it was delivered");
    };
    assert_eq!(commit.damaged, 2 * stretches - 3);
}

#[test]
fn a_delivery_that_ends_in_the_midst_of_damage_tells_of_the_part_that_it_passes() {
    let mut rig = rig(Scripted::default());
    let first = rig.durable();
    let chunk = Chunk {
        next: first + 10,
        damage: vec![Damage {
            segment: 1,
            positions: first..first + 10,
        }],
        ..Chunk::default()
    };
    let now = rig.now();
    rig.worker.passed(first, chunk, now);
    for (through, damaged) in [(0, 0), (4, 4), (5, 1), (5, 0), (10, 5), (12, 0)] {
        rig.worker.commit(Delivered {
            through: first + through,
            streams: Vec::new(),
        });
        let commit = rig.worker.commit.take().unwrap();
        assert_eq!(commit.damaged, damaged, "through {through}");
    }
    assert!(rig.worker.damage.is_empty());
}

#[test]
fn a_worker_is_drained_once_custody_knows_that_its_sink_has_all_that_is_durable() {
    let mut rig = rig(Scripted::default());
    while rig.step(false) != Step::Deliver {}
    assert!(!rig.worker.is_drained(Millis(0)));
    rig.commit();
    assert!(rig.worker.is_drained(Millis(0)));
    rig.write(1);
    assert!(!rig.worker.is_drained(Millis(0)));
}

#[test]
fn a_sink_whose_report_is_held_reads_and_delivers_nothing_until_it_is_taken() {
    let mut rig = rig(Scripted::default());
    rig.commit();
    rig.worker.hold(true);
    rig.write(2);
    assert_eq!(rig.step(false), Step::Wait(None));
    assert!(!rig.worker.is_drained(Millis(rig.ms)));
    rig.worker.hold(false);
    assert_eq!(rig.step(false), Step::Read);
    let commit = rig.commit();
    assert_eq!(commit.through, rig.durable());
    // At an orderly end custody takes in what it held.
    rig.worker.hold(true);
    assert_eq!(rig.step(true), Step::Done);
}
