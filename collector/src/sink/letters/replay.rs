//! Gives a sink its dead letters once more, without a journal: for a destination that takes now what it
//! refused before.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_proto::ids::{SeqRange, Stream};
use headwater_proto::time::Now;
use headwater_spool::Disk;
use tokio::runtime::Runtime;

use super::file::{self, Name, Unreadable};
use super::{Letters, LettersError};
use crate::interpret::{Depth, Interpreted};
use crate::sink::{Due, Sink, SinkError};

/// How often in a row a sink that does not take is tried.
const MAX_TRIES: u32 = 5;
/// Time between two tries, if the sink asks for no other, and the longest one.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What became of the letters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Replayed {
    /// Letters that the sink has now; they are gone from the folder.
    pub taken: u64,
    /// Letters that it refused again; they stay.
    pub refused: u64,
    /// Letters in files that cannot be read; they stay.
    pub unreadable: u64,
}

/// Why a replay ended early. What was taken before is gone from the folder; the rest stays.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The sink does not take now.
    #[error("the sink does not take its letters")]
    Sink(#[source] SinkError),
    /// The folder.
    #[error(transparent)]
    Letters(#[from] LettersError),
}

/// What a replay needs of the program around it.
pub struct Around<'a> {
    /// Where deliveries run.
    pub runtime: &'a Runtime,
    /// The time.
    pub clock: &'a dyn Fn() -> Now,
    /// Waits.
    pub pause: &'a dyn Fn(Duration),
    /// Told of each file that is done, and of the sum until then.
    pub progress: &'a dyn Fn(&Name, Replayed),
}

/// Gives `sink` every letter, the oldest file first, and takes away those that it has then. What a crash
/// repeats has the same identity.
///
/// # Errors
/// [`ReplayError`].
pub fn replay<S: Sink, D: Disk>(
    sink: &mut S,
    letters: &mut Letters<D>,
    depth: Depth,
    around: &Around<'_>,
) -> Result<Replayed, ReplayError> {
    let names: Vec<Name> = letters.files().copied().collect();
    let (mut sum, mut given) = (Replayed::default(), 0);
    for name in &names {
        let mut giving = Giving {
            sink: &mut *sink,
            around,
            given,
            covers: Vec::new(),
            refused: BTreeMap::new(),
        };
        let mut outcome = Ok(());
        let read = file::read(letters.disk(), name, depth, &mut |head, item| {
            if outcome.is_ok() {
                outcome = giving.give(head.position, item);
            }
        });
        outcome
            .and_then(|()| giving.deliver())
            .map_err(ReplayError::Sink)?;
        given = giving.given;
        let refused = std::mem::take(&mut giving.refused);
        match read {
            Ok(()) => {
                letters.keep_refused(name, &refused)?;
                sum.refused += refused.len() as u64;
                sum.taken += u64::from(name.letters).saturating_sub(refused.len() as u64);
            }
            // Those before the damage were taken; to give them again changes nothing.
            Err(Unreadable::Damaged | Unreadable::Version(_)) => {
                sum.unreadable += u64::from(name.letters);
            }
            Err(Unreadable::Disk(error)) => return Err(LettersError::from(error).into()),
        }
        (around.progress)(name, sum);
    }
    Ok(sum)
}

/// One file on its way to the sink.
struct Giving<'a, S: Sink> {
    sink: &'a mut S,
    around: &'a Around<'a>,
    /// Letters given so far, which are the sink's positions.
    given: u64,
    /// By position in the journal, what each letter covers.
    covers: Vec<(u64, Vec<(Stream, SeqRange)>)>,
    /// Positions of letters that were refused again, and why.
    refused: BTreeMap<u64, String>,
}

impl<S: Sink> Giving<'_, S> {
    fn give(&mut self, position: u64, item: Option<&Interpreted<'_>>) -> Result<(), SinkError> {
        let Some(item) = item else {
            let cause = "this build does not know its kind".to_owned();
            self.refused.insert(position, cause);
            return Ok(());
        };
        let mut tries = 0;
        loop {
            match self.sink.take(item, (self.around.clock)()) {
                Ok(()) => break,
                Err(SinkError::Refused { cause, .. }) => {
                    self.refused.insert(position, cause);
                    return Ok(());
                }
                Err(error) => {
                    // What it holds may be what keeps it from taking more.
                    self.deliver()?;
                    self.wait(&mut tries, error)?;
                }
            }
        }
        self.covers.push((position, item.covers.to_vec()));
        self.given += 1;
        let now = (self.around.clock)();
        self.sink.passed(self.given, now);
        match self.sink.due(now.mono) {
            Due::Full => self.deliver(),
            Due::At(_) | Due::Never => Ok(()),
        }
    }

    /// Delivers all that was taken.
    fn deliver(&mut self) -> Result<(), SinkError> {
        let mut tries = 0;
        while self.sink.due((self.around.clock)().mono) != Due::Never {
            let now = (self.around.clock)();
            let cut = self.sink.plan(now);
            let sent = match cut {
                Ok(_) => self.around.runtime.block_on(self.sink.deliver(now)),
                Err(error) => Err(error),
            };
            match sent {
                Ok(_) => tries = 0,
                Err(SinkError::Refused { items, cause }) if !items.is_empty() => {
                    self.refuse(&items, &cause);
                }
                Err(error) => {
                    if self.sink.is_ahead() {
                        tries = 0;
                    }
                    self.wait(&mut tries, error)?;
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, items: &[(Stream, SeqRange)], cause: &str) {
        let meets = |(stream, range): &(Stream, SeqRange)| {
            let mut items = items.iter();
            items.any(|(other, refused)| other == stream && refused.overlaps(*range))
        };
        for (position, covers) in &self.covers {
            if covers.iter().any(meets) {
                self.refused.insert(*position, cause.to_owned());
            }
        }
    }

    fn wait(&self, tries: &mut u32, error: SinkError) -> Result<(), SinkError> {
        *tries += 1;
        if *tries >= MAX_TRIES || matches!(error, SinkError::Fatal { .. }) {
            return Err(error);
        }
        let asked = if let SinkError::Busy { retry_after, .. } = &error {
            *retry_after
        } else {
            None
        };
        (self.around.pause)(asked.unwrap_or(PAUSE.0).min(PAUSE.1));
        Ok(())
    }
}
