//! The cells of one column of a block, and the state that their coding needs.

use super::coder::Coder;
use super::column_models::ColumnModels;
use super::magnitude::{Shared, Trace};
use super::plan::{FlatTap, Lane};
use super::steps::Step;
use crate::codec::model::{History, Plan, Recent, parts};

/// The cells of one column of a block, and what is known before they are coded.
pub(super) struct Cells<'a> {
    /// The column's place among `width` columns.
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) plan: &'a Plan,
    pub(super) lane: &'a Lane,
    pub(super) flat: &'a [FlatTap],
    pub(super) models: &'a mut ColumnModels,
    pub(super) shared: &'a mut Shared,
    pub(super) recent: &'a mut Recent,
    /// Histories and traces of all series and columns.
    pub(super) histories: &'a mut [History<i64>],
    pub(super) traces: &'a mut [Trace],
    /// All further slices have one element per place of a row, series by series. Slot of its series.
    pub(super) slots: &'a [u32],
    /// Whether all rows are of one series.
    pub(super) one_series: bool,
    /// Writer: the parts of each number; see [`Plan::split_all`].
    pub(super) quotients: &'a mut [i64],
    pub(super) corrections: &'a mut [i8],
    /// Sums of the taps on earlier columns.
    pub(super) sums: &'a mut [i128],
    pub(super) steps: &'a mut [Step],
    /// How its value is coded.
    pub(super) exceptions: &'a mut [Exception],
    /// Whether there is a value, and its bits.
    pub(super) present: &'a mut [bool],
    pub(super) bits: &'a mut [u64],
    /// Whether the column before moved.
    pub(super) beside: &'a mut [u8],
    /// The last three quotients: of earlier columns, trail by trail, and of this one.
    pub(super) before: &'a [[i64; 3]],
    pub(super) trail: &'a mut [[i64; 3]],
    /// Places of a trail.
    pub(super) stride: usize,
}

/// How a value is coded if not by its quotient alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Exception {
    #[default]
    None,
    /// By its quotient and a rare correction.
    Corrected,
    /// By its bits, or by its rank among recent values.
    Raw,
}

impl Cells<'_> {
    /// Keeps the last quotients of a row's series for taps of later columns.
    #[inline(always)]
    pub(super) fn leave_trail(&mut self, row: usize) {
        let place = self.place(row);
        if let Some(trail) = self.trail.get_mut(row) {
            *trail = self.histories[place].last_three();
        }
    }

    /// Writer: quotient and correction of a row's number. Reader: `None`.
    #[inline(always)]
    pub(super) fn parts<C: Coder>(&self, row: usize) -> Option<(i64, i8)> {
        if C::WRITES {
            parts(self.quotients[row], self.corrections[row])
        } else {
            None
        }
    }

    /// Place of a row's history and trace.
    #[inline(always)]
    pub(super) fn place(&self, row: usize) -> usize {
        self.slots[row] as usize * self.width + self.at
    }
}
