//! Core: the hands of a sink's worker: carries out what it decides, as the thread of a sink does.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use headwater_collector::pipeline::custody::{Custody, Event};
use headwater_collector::sink::Sink;
use headwater_collector::sink::worker::{Commit, Step, Worker};
use headwater_proto::time::Now;
use headwater_spool::FakeDisk;

use super::dice::Dice;
use super::letters::MailRoom;

/// What a sink did in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Did {
    /// It took in records.
    Read,
    /// It sent, or its plan was made durable, or custody was told.
    Moved,
    /// Nothing.
    Nothing,
    /// It ends its process.
    Ended,
}

/// Steps of a sink at an orderly end, far more than it needs.
const STEPS_OF_AN_END: usize = 10_000;

/// The steps of a sink at an orderly end. False if it never comes to it.
pub(super) fn finish<S: Sink>(
    worker: &mut Worker<S, FakeDisk>,
    name: &str,
    letters: &mut MailRoom,
    custody: &mut Custody<FakeDisk>,
    now: Now,
    dice: &mut Dice,
) -> bool {
    let mut hands = Hands {
        letters,
        custody,
        most_bytes: 1 << 20,
        is_stopping: true,
        now,
        dice,
    };
    for _ in 0..STEPS_OF_AN_END {
        match hands.step(worker, name) {
            Did::Read | Did::Moved => {}
            Did::Nothing => {
                // As its thread does: by what the clock is worth.
                worker.close(hands.custody.clock.dated(now));
                return true;
            }
            Did::Ended => return false,
        }
    }
    false
}

/// Carries out what a worker decides, as the thread of a sink does.
pub(super) struct Hands<'a> {
    letters: &'a mut MailRoom,
    custody: &'a mut Custody<FakeDisk>,
    /// What it may read.
    most_bytes: usize,
    is_stopping: bool,
    now: Now,
    dice: &'a mut Dice,
}

/// Hands of a worker that goes on.
pub(super) const fn hands<'a>(
    letters: &'a mut MailRoom,
    custody: &'a mut Custody<FakeDisk>,
    most_bytes: usize,
    now: Now,
    dice: &'a mut Dice,
) -> Hands<'a> {
    Hands {
        letters,
        custody,
        most_bytes,
        is_stopping: false,
        now,
        dice,
    }
}

impl Hands<'_> {
    pub(super) fn step<S: Sink>(&mut self, worker: &mut Worker<S, FakeDisk>, name: &str) -> Did {
        let Self {
            letters,
            custody,
            now,
            dice,
            ..
        } = self;
        let now = *now;
        // A sink's thread goes by what the clock is worth.
        let at = custody.clock.dated(now);
        if !custody.is_holding(name) {
            worker.hold(false);
        }
        match worker.next(at, self.is_stopping, dice.bits()) {
            Step::Read if self.most_bytes == 0 => return Did::Nothing,
            Step::Read => {
                // What cannot be read is tried again.
                let _ = worker.read(self.most_bytes, at, dice.bits());
                return Did::Read;
            }
            Step::Plan(plan) => {
                let appended = custody.append_plan(name, &plan.0);
                let durable = appended.map_err(|error| error.to_string()).and_then(|_| {
                    let synced = custody.sync(now);
                    synced.map_err(|error| error.to_string())
                });
                worker.planned(durable, at, dice.bits());
            }
            Step::Deliver => {
                // One that waits is given up, as when a thread stops waiting for an answer.
                let polled = {
                    let delivery = pin!(worker.deliver(at));
                    delivery.poll(&mut Context::from_waker(Waker::noop()))
                };
                if let Poll::Ready(result) = polled {
                    worker.delivered(result, at, dice.bits());
                }
            }
            Step::Commit(commit) => {
                let when = (at.wall, worker.clock_book());
                letters.keep(name, &commit, &mut worker.reader(), when);
                let Commit {
                    through,
                    streams,
                    refused,
                    damaged,
                    ..
                } = commit;
                let event = Event::Committed {
                    sink: name.to_owned(),
                    through,
                    streams,
                    refused,
                    damaged,
                };
                custody.handle(event, now);
                worker.hold(custody.is_holding(name));
            }
            Step::Wait(_) | Step::Done => return Did::Nothing,
            Step::Fatal(_) => return Did::Ended,
        }
        Did::Moved
    }
}
