//! Core: hands parts over and counts them.

use crate::MAX_VALUES;
use crate::part::{Cause, Part, Place, Refused, Sample, Tally};

/// The next row would pass [`MAX_VALUES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The way of parts to whoever reads the payload.
pub(crate) struct Out<'v> {
    visit: &'v mut dyn FnMut(Part<'_>),
    tally: Tally,
}

impl<'v> Out<'v> {
    pub(crate) fn new(visit: &'v mut dyn FnMut(Part<'_>)) -> Self {
        Self {
            visit,
            tally: Tally::default(),
        }
    }

    pub(crate) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether `parts` more may follow.
    pub(crate) fn has_room(&self, parts: usize) -> Result<(), Full> {
        let given = self.tally.samples as usize + self.tally.refused as usize;
        if given + parts > MAX_VALUES {
            Err(Full)
        } else {
            Ok(())
        }
    }

    /// Number of the row that the next samples form.
    pub(crate) const fn begin_row(&mut self) -> u32 {
        self.tally.rows += 1;
        self.tally.rows - 1
    }

    pub(crate) fn sample(&mut self, sample: Sample<'_>) {
        self.tally.samples += 1;
        (self.visit)(Part::Sample(sample));
    }

    pub(crate) fn refused(&mut self, place: Place<'_>, cause: Cause, bytes: &[u8]) {
        self.tally.refused += 1;
        (self.visit)(Part::Refused(Refused {
            place,
            cause,
            bytes,
        }));
    }

    pub(crate) const fn missing(&mut self, values: u32) {
        self.tally.missing += values;
    }
}
