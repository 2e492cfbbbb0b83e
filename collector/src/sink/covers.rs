//! Core: the numbers that a sink was handed, until it reports them.

use std::collections::BTreeMap;

use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{SeqRange, Stream};

/// Numbers by stream, as a sink takes them from [`crate::interpret::Interpreted::covers`] and gives them to
/// custody in [`crate::sink::Delivered::streams`]. Bounded by what the sink takes before a delivery.
#[derive(Debug, Default)]
pub struct Covers(BTreeMap<Stream, Ranges<{ usize::MAX }>>);

impl Covers {
    /// Adds what a record covers.
    pub fn add(&mut self, covers: &[(Stream, SeqRange)]) {
        for (stream, range) in covers {
            let numbers = match self.0.get_mut(stream) {
                Some(numbers) => numbers,
                None => self.0.entry(stream.clone()).or_default(),
            };
            // Without a bound on ranges nothing is refused.
            let _ = numbers.insert(*range);
        }
    }

    /// All of it, and it is empty then.
    pub fn take(&mut self) -> Vec<(Stream, Vec<SeqRange>)> {
        let all = std::mem::take(&mut self.0).into_iter();
        all.map(|(stream, numbers)| (stream, numbers.as_slice().to_vec()))
            .collect()
    }
}
