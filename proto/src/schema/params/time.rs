//! Parameters of times: tick, usual step, and pace.

#[cfg(feature = "alloc")]
use super::next;
#[cfg(feature = "alloc")]
use crate::varint;

/// How the next time of a series is predicted from the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// The last step again: for series whose steps differ or change.
    Follow,
    /// The usual step: for a clock whose steps vary one by one.
    Step,
    /// The usual step on a grid that follows the times slowly: for a timer that keeps its grid and
    /// is read late by chance.
    Grid,
}

impl Pace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Follow, Self::Step, Self::Grid];

    #[cfg(feature = "alloc")]
    const fn to_u8(self) -> u8 {
        match self {
            Self::Follow => 0,
            Self::Step => 1,
            Self::Grid => 2,
        }
    }
}

/// How the times of a schema's rows are coded.
///
/// A batch with a time that is no whole number of ticks after its first is coded in microseconds instead: no
/// time is ever rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeParams {
    /// Microseconds per tick, at least 1.
    pub tick_us: u32,
    /// Expected ticks from one row of a series to the next.
    pub step: u32,
    /// The prediction of the next time.
    pub pace: Pace,
    /// Expected error of the prediction in 1/16 tick, as bits of it, 0 to 36.
    pub residual_bits: u8,
}

impl TimeParams {
    /// Times in ticks of `tick_us`, one tick apart.
    #[must_use]
    pub const fn new(tick_us: u32) -> Self {
        Self {
            tick_us,
            step: 1,
            pace: Pace::Follow,
            residual_bits: 6,
        }
    }

    /// Finds the first parameter outside its range.
    ///
    /// # Errors
    /// The parameter's name.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.tick_us == 0 {
            return Err("tick");
        }
        if self.residual_bits > 36 {
            Err("time jitter")
        } else {
            Ok(())
        }
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        varint::append(out, u64::from(self.tick_us));
        varint::append(out, u64::from(self.step));
        out.push(self.pace.to_u8() << PACE_SHIFT | self.residual_bits);
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn decode(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let tick_us = u32::try_from(varint::get(bytes, at)?).ok()?;
        let step = u32::try_from(varint::get(bytes, at)?).ok()?;
        let last = next(bytes, at)?;
        let pace = last >> PACE_SHIFT;
        Some(Self {
            tick_us,
            step,
            pace: Pace::ALL.into_iter().find(|known| known.to_u8() == pace)?,
            residual_bits: last & ((1 << PACE_SHIFT) - 1),
        })
    }
}

/// The pace stands above the bits of the jitter.
#[cfg(feature = "alloc")]
const PACE_SHIFT: u32 = 6;
