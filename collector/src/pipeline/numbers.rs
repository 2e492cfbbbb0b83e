//! Core: numbers of records, by stream.

use std::collections::BTreeMap;

use headwater_proto::delivery::Ranges;
use headwater_proto::ids::{SeqRange, Stream};

/// Numbers by stream, as they are listed.
pub type Listed = Vec<(Stream, Vec<SeqRange>)>;

/// A set of numbers by stream. Bounded by whoever fills it.
#[derive(Debug, Clone, Default)]
pub struct Numbers(BTreeMap<Stream, Ranges<{ usize::MAX }>>);

impl Numbers {
    /// Without a number.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds numbers of a stream.
    pub fn insert(&mut self, stream: &Stream, range: SeqRange) {
        let numbers = match self.0.get_mut(stream) {
            Some(numbers) => numbers,
            None => self.0.entry(stream.clone()).or_default(),
        };
        // Without a bound on ranges nothing is refused.
        let _ = numbers.insert(range);
    }

    /// Adds what is listed.
    pub fn add(&mut self, listed: &[(Stream, Vec<SeqRange>)]) {
        for (stream, ranges) in listed {
            for range in ranges {
                self.insert(stream, *range);
            }
        }
    }

    /// Takes numbers of a stream out.
    pub fn remove(&mut self, stream: &Stream, range: SeqRange) {
        if let Some(numbers) = self.0.get_mut(stream) {
            // Without a bound on ranges nothing is refused.
            let _ = numbers.remove(range);
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Ranges::is_empty)
    }

    /// What of the listed numbers is not here.
    #[must_use]
    pub fn missing_of(&self, listed: &[(Stream, Vec<SeqRange>)]) -> Listed {
        let missing = listed.iter().map(|(stream, ranges)| {
            let missing = |range: &SeqRange| match self.0.get(stream) {
                Some(known) => known.holes(*range).collect(),
                None => vec![*range],
            };
            (stream.clone(), ranges.iter().flat_map(missing).collect())
        });
        let missing = missing.filter(|(_, ranges): &(_, Vec<_>)| !ranges.is_empty());
        missing.collect()
    }

    /// Those of the listed numbers of a stream that are here.
    #[must_use]
    pub fn present_of(&self, stream: &Stream, listed: &[SeqRange]) -> Vec<SeqRange> {
        let Some(known) = self.0.get(stream) else {
            return Vec::new();
        };
        let mut present = Vec::new();
        for range in listed {
            let mut from = range.first;
            for hole in known.holes(*range) {
                present.extend((from < hole.first).then(|| SeqRange::new(from, hole.first)));
                from = hole.next;
            }
            present.extend((from < range.next).then(|| SeqRange::new(from, range.next)));
        }
        present
    }

    /// All of them, and it is empty then.
    pub fn take(&mut self) -> Listed {
        let all = std::mem::take(&mut self.0).into_iter();
        let all = all.filter(|(_, numbers)| !numbers.is_empty());
        all.map(|(stream, numbers)| (stream, numbers.as_slice().to_vec()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use headwater_proto::ids::{DeviceId, Epoch, Lane};

    use super::*;

    #[test]
    fn what_is_listed_is_either_here_or_missing() {
        let stream = |epoch| Stream {
            device: DeviceId::new("d").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        };
        let mut numbers = Numbers::new();
        for (first, next) in [(2, 5), (7, 8), (20, 30)] {
            numbers.insert(&stream(1), SeqRange::new(first, next));
        }
        let listed = [SeqRange::new(0, 10), SeqRange::new(25, 26)];
        let present = [(2, 5), (7, 8), (25, 26)].map(|(first, next)| SeqRange::new(first, next));
        assert_eq!(numbers.present_of(&stream(1), &listed), present);
        assert_eq!(numbers.present_of(&stream(2), &listed), []);
        let missing = [(0, 2), (5, 7), (8, 10)].map(|(first, next)| SeqRange::new(first, next));
        let all = [(stream(1), listed.to_vec())];
        assert_eq!(numbers.missing_of(&all), [(stream(1), missing.to_vec())]);
    }
}
