//! Core: whether the collector's own wall clock can be right.
//!
//! | evidence | what follows |
//! |---|---|
//! | more than half of at least [`MIN_WITNESSES`] senders whose clocks are synchronised differ by over [`DIFFERS_US`] | doubt, until more than half agree within [`AGREES_US`] |
//! | the clock stands before the last run or the last commit, or was set back, by over [`STEP_US`] | doubt, until it no longer does, or those senders agree with it |
//! | an operator trusts it | it is believed, until it is set by over [`STEP_US`] |
//! | none | it is believed |
//!
//! A sender is a witness by what its own bundles say; what it relays makes no other one. So a single device, or a
//! gateway with all its nodes, never causes doubt.
//!
//! While in doubt, time goes on from what was last believed, by the monotonic clock. Where doubt does not arise from
//! the senders, these times are no later than the truth.

use std::collections::BTreeMap;
use std::fmt;

use headwater_lake::date::instant_text;
use headwater_proto::ids::DeviceId;
use headwater_proto::time::{Millis, Now, UnixMicros};

/// Least senders that can speak against the clock.
pub const MIN_WITNESSES: usize = 3;
/// Most senders whose word is kept; the one heard of longest ago gives way.
pub const MAX_WITNESSES: usize = 1_024;
/// From here on a sender's clock speaks against the collector's.
pub const DIFFERS_US: i64 = 3_600_000_000;
/// Up to here it agrees. What lies between decides nothing, so that the verdict does not swing.
pub const AGREES_US: i64 = DIFFERS_US / 2;
/// A clock may be set back by so much without doubt: a time service that corrects itself.
pub const STEP_US: i64 = 60_000_000;

/// Why the clock is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It stands before a time at which the collector ran or committed.
    Before {
        /// By how much, in microseconds.
        us: i64,
    },
    /// The devices' clocks speak against it.
    Fleet {
        /// So many differ by over an hour.
        differ: usize,
        /// Of so many.
        of: usize,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before { us } => {
                let seconds = us / 1_000_000;
                write!(
                    f,
                    "it stands {seconds} s before a time at which the collector has run"
                )
            }
            Self::Fleet { of: 0, .. } => f.write_str(
                "devices with a synchronised clock spoke against it before the last start",
            ),
            Self::Fleet { differ, of } => write!(
                f,
                "{differ} of {of} devices with a synchronised clock differ from it by over an hour"
            ),
        }
    }
}

/// What became of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is in doubt from now on.
    Doubted {
        /// Why.
        why: Why,
        /// What it shows.
        shows: UnixMicros,
        /// Added to monotonic time, in microseconds, it gives the times that stand for receipts meanwhile.
        zero_us: i64,
    },
    /// It is believed again.
    Settled {
        /// Wall time minus monotonic time, in microseconds.
        offset_us: i64,
        /// An operator said so.
        by_operator: bool,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Doubted { why, shows, .. } => {
                let shows = instant_text(shows.0);
                write!(
                    f,
                    "the collector's clock ({shows}) is in doubt: {why}; {REMEDY}"
                )
            }
            Self::Settled { by_operator, .. } => {
                let who = if *by_operator {
                    "an operator trusts it"
                } else {
                    "it agrees again"
                };
                write!(
                    f,
                    "the collector's clock is believed: {who}; what came meanwhile is dated by it"
                )
            }
        }
    }
}

/// What an operator can do.
pub const REMEDY: &str = "data is taken and kept in the journal, and nothing of it reaches a sink before the clock \
     is right: set it (is a time service running?), or, if it is right, run `headwater-collector clock trust`";

/// What a sender says of the time.
#[derive(Debug, Clone, Copy)]
struct Witness {
    /// Its wall time minus the collector's monotonic time, in microseconds.
    offset_us: i64,
    heard: Millis,
}

/// What the senders say together.
enum Fleet {
    Silent,
    Agrees,
    Differs(Why),
}

/// The collector's clock. All offsets are wall time minus monotonic time, in microseconds.
#[derive(Debug, Default)]
pub struct ClockDoubt {
    /// As last believed. A clock that is slewed is followed.
    believed_us: Option<i64>,
    doubt: Option<Why>,
    trusted_us: Option<i64>,
    witnesses: BTreeMap<DeviceId, Witness>,
    /// When it was looked at last, and the offset then.
    looked: Option<(Millis, i64)>,
    has_news: bool,
}

impl ClockDoubt {
    /// A start: the collector ran or committed last at `last`, if anybody knows.
    ///
    /// - `fleet`: the senders had caused doubt then, and it did not end.
    pub fn begin(&mut self, last: Option<UnixMicros>, fleet: bool, now: Now) -> Option<Change> {
        self.believed_us = last.map(|last| last.0.saturating_sub(micros(now.mono)));
        if fleet {
            let why = Why::Fleet { differ: 0, of: 0 };
            (self.doubt, self.looked) = (Some(why), Some((now.mono, offset(now))));
            return Some(self.doubted(why, offset(now)));
        }
        self.look(now)
    }

    /// The lake had been committed to at `at`, as far as is known.
    pub fn know_commit(&mut self, at: UnixMicros) -> Option<(Millis, Change)> {
        let (mono, offset_us) = self.looked?;
        let at_us = at.0.saturating_sub(micros(mono));
        if self.doubt.is_some() || at_us <= self.believed_us? {
            return None;
        }
        self.believed_us = Some(at_us);
        Some((mono, self.judge(offset_us)?))
    }

    /// The wall time at the last look, or what stands for it.
    #[must_use]
    pub fn present(&self) -> Option<UnixMicros> {
        self.wall_at(self.looked?.0)
    }

    /// Looks at the clock, unless it was looked at since. Says what changed.
    pub fn look(&mut self, now: Now) -> Option<Change> {
        let before = self.looked;
        if before.is_some_and(|(at, _)| now.mono < at) {
            return None;
        }
        let offset_us = offset(now);
        self.looked = Some((now.mono, offset_us));
        if !self.has_news && self.doubt.is_some() && before.is_some_and(|(_, us)| us == offset_us) {
            return None;
        }
        self.judge(offset_us)
    }

    /// A sender whose clock is synchronised says what time it was when it was heard.
    pub fn heard(&mut self, sender: &DeviceId, said: UnixMicros, heard: Millis) -> Option<Change> {
        let (_, offset_us) = self.looked?;
        let witness = Witness {
            offset_us: said.0.saturating_sub(micros(heard)),
            heard,
        };
        let known = self.witnesses.insert(sender.clone(), witness);
        let is_same =
            |known: Witness| known.offset_us.abs_diff(witness.offset_us) < STEP_US.unsigned_abs();
        if known.is_some_and(is_same) {
            return None;
        }
        if self.witnesses.len() > MAX_WITNESSES {
            let oldest = self
                .witnesses
                .iter()
                .min_by_key(|(_, witness)| witness.heard);
            if let Some(oldest) = oldest.map(|(sender, _)| sender.clone()) {
                self.witnesses.remove(&oldest);
            }
        }
        self.judge(offset_us)
    }

    /// An operator says that the clock is right as it stands.
    pub fn trust(&mut self, now: Now) -> Option<Change> {
        self.trusted_us = Some(offset(now));
        self.has_news = true;
        self.look(now)
    }

    /// Why it is in doubt.
    #[must_use]
    pub const fn doubt(&self) -> Option<Why> {
        self.doubt
    }

    /// What stands for the wall time at a moment; `None` before the start.
    #[must_use]
    pub fn wall_at(&self, mono: Millis) -> Option<UnixMicros> {
        self.looked?;
        let offset_us = self.believed_us?;
        Some(UnixMicros(offset_us.saturating_add(micros(mono))))
    }

    fn judge(&mut self, offset_us: i64) -> Option<Change> {
        self.has_news = false;
        let is_near = |us: i64| us.abs_diff(offset_us) <= STEP_US.unsigned_abs();
        self.trusted_us = self.trusted_us.filter(|us| is_near(*us)).map(|_| offset_us);
        let back_us = self
            .believed_us
            .map_or(0, |us| us.saturating_sub(offset_us));
        let why = match self.fleet(offset_us) {
            _ if self.trusted_us.is_some() => None,
            Fleet::Agrees => None,
            Fleet::Differs(why) => Some(why),
            Fleet::Silent => match self.doubt {
                // Who spoke against it has not taken that back.
                Some(why @ Why::Fleet { .. }) => Some(why),
                _ => (back_us > STEP_US).then_some(Why::Before { us: back_us }),
            },
        };
        let before = std::mem::replace(&mut self.doubt, why);
        match (before, why) {
            (Some(_), Some(_)) => None,
            (None, Some(why)) => Some(self.doubted(why, offset_us)),
            (before, None) => {
                self.believed_us = Some(offset_us);
                before.is_some().then_some(Change::Settled {
                    offset_us,
                    by_operator: self.trusted_us.is_some(),
                })
            }
        }
    }

    fn doubted(&mut self, why: Why, offset_us: i64) -> Change {
        let mono = self.looked.map_or(Millis(0), |(at, _)| at);
        Change::Doubted {
            why,
            shows: UnixMicros(offset_us.saturating_add(micros(mono))),
            zero_us: *self.believed_us.get_or_insert(offset_us),
        }
    }

    fn fleet(&self, offset_us: i64) -> Fleet {
        let of = self.witnesses.len();
        if of < MIN_WITNESSES {
            return Fleet::Silent;
        }
        let beyond = |us: i64| {
            let off =
                |witness: &&Witness| witness.offset_us.abs_diff(offset_us) > us.unsigned_abs();
            self.witnesses.values().filter(off).count()
        };
        let (differ, agree) = (beyond(DIFFERS_US), of - beyond(AGREES_US));
        if 2 * differ > of {
            Fleet::Differs(Why::Fleet { differ, of })
        } else if 2 * agree > of {
            Fleet::Agrees
        } else {
            Fleet::Silent
        }
    }
}

impl ClockDoubt {
    /// Wall time minus monotonic time, in microseconds.
    #[must_use]
    pub fn offset(now: Now) -> i64 {
        offset(now)
    }

    /// The wall time by an offset.
    #[must_use]
    pub fn at(offset_us: i64, mono: Millis) -> UnixMicros {
        UnixMicros(offset_us.saturating_add(micros(mono)))
    }
}

/// Monotonic time in microseconds.
pub(crate) fn micros(mono: Millis) -> i64 {
    i64::try_from(mono.0.saturating_mul(1_000)).unwrap_or(i64::MAX)
}

fn offset(now: Now) -> i64 {
    now.wall.0.saturating_sub(micros(now.mono))
}

#[cfg(test)]
mod tests;
