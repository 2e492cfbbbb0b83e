//! Core: what a stretch of the journal stands for, read beside the thread that acknowledges.
//!
//! ```text
//! a sink is left behind, was taken out, ──► Output::Read ──► another thread: Stretch::read
//!     or passed damage                                                 │
//!        named, and its cursor moves ◄── less what it reported ◄── Event::Read
//! ```
//! Of records that rotted the lake tells what they were, as far as it has them; so the thread adds that.
//!
//! One stretch is read at a time.

use std::ops::{ControlFlow, Range};

use headwater_proto::ids::{SeqRange, Stream};
use headwater_spool::{Disk, ReadError, Reader};

use crate::pipeline::envelope::{self, Record};
use crate::pipeline::ledger;
use crate::pipeline::numbers::{Listed, Numbers};

/// Bytes read at once when the journal is read again.
pub(super) const READ_BYTES: usize = 4 << 20;

/// A stretch of the journal that a sink will be said to lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The sink.
    pub sink: String,
    /// The first position of it.
    pub from: u64,
    /// The first position after it.
    pub to: u64,
}

/// What the records of a stretch stand for.
pub type Found = Listed;

/// What a sink of a journal that is gone may lack: the lake has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lacking {
    /// The sink.
    pub sink: String,
    /// The numbers.
    pub numbers: Found,
    /// The sink's place among those of the lake's flushes.
    pub place: String,
    /// Where that place goes when the numbers are named.
    pub through: u64,
}

/// A stretch as the journal has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pass {
    /// What the records that can be read stand for.
    pub numbers: Found,
    /// The positions of those that cannot.
    pub damage: Vec<Range<u64>>,
}

impl Stretch {
    /// Reads it; to be called on a thread that may wait for the disk.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read<D: Disk>(&self, reader: &mut Reader<D>) -> Result<Pass, ReadError> {
        let mut numbers = Numbers::new();
        let mut damage = Vec::new();
        let visit = &mut |_, record: &Record<'_>| {
            ledger::committed_by(record, &mut |stream, range| {
                numbers.insert(stream, range);
            });
        };
        each(reader, self.from, self.to, visit, &mut |lost| {
            damage.push(lost);
        })?;
        Ok(Pass {
            numbers: numbers.take(),
            damage,
        })
    }
}

/// What a stretch is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhatFor {
    /// The sink has not come there and will not: its cursor goes to a position when it is named.
    Skipped(u64),
    /// The sink passed it and met damage: its report counts when it is named.
    Damaged,
}

/// The stretch that is being read, or has been.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) stretch: Stretch,
    /// What it is read for.
    pub(super) what_for: WhatFor,
    /// What the sink reported since it was asked for.
    reported: Numbers,
    found: Option<Found>,
}

impl Reading {
    pub(super) const fn new(stretch: Stretch, what_for: WhatFor) -> Self {
        Self {
            stretch,
            what_for,
            reported: Numbers::new(),
            found: None,
        }
    }

    /// A sink reports what it has meanwhile.
    pub(super) fn reported(&mut self, sink: &str, streams: &[(Stream, Vec<SeqRange>)]) {
        if self.stretch.sink != sink {
            return;
        }
        self.reported.add(streams);
    }

    /// It was read.
    pub(super) fn read(&mut self, found: Found) {
        self.found = Some(found);
    }

    /// What the sink lacks of it, once it was read.
    pub(super) fn lacks(&self) -> Option<Found> {
        Some(self.reported.missing_of(self.found.as_ref()?))
    }
}

/// Hands over the numbers that the records of `from..to` stand for, with the position of each. Returns
/// how many records could not be read.
///
/// # Errors
/// [`ReadError`].
pub(super) fn each_number<D: Disk>(
    reader: &mut Reader<D>,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(u64, &Stream, SeqRange),
) -> Result<u64, ReadError> {
    each_record(reader, from, to, &mut |position, record| {
        ledger::committed_by(record, &mut |stream, range| visit(position, stream, range));
    })
}

/// Hands over the records of `from..to`. Returns how many could not be read.
///
/// # Errors
/// [`ReadError`].
pub(super) fn each_record<D: Disk>(
    reader: &mut Reader<D>,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(u64, &Record<'_>),
) -> Result<u64, ReadError> {
    let mut damaged = 0;
    each(reader, from, to, visit, &mut |lost| {
        damaged += lost.end - lost.start;
    })?;
    Ok(damaged)
}

fn each<D: Disk>(
    reader: &mut Reader<D>,
    from: u64,
    to: u64,
    visit: &mut impl FnMut(u64, &Record<'_>),
    lost: &mut impl FnMut(Range<u64>),
) -> Result<(), ReadError> {
    let mut at = from;
    while at < to {
        let chunk = reader.read(at, READ_BYTES, |position, kind, payload| {
            if position >= to {
                return ControlFlow::Break(());
            }
            if let Ok(record) = envelope::decode(kind, payload) {
                visit(position, &record);
            }
            ControlFlow::Continue(())
        })?;
        for damage in &chunk.damage {
            let positions = damage.positions.start..damage.positions.end.min(to);
            if !positions.is_empty() {
                lost(positions);
            }
        }
        if chunk.next == at {
            break;
        }
        at = chunk.next;
    }
    Ok(())
}
