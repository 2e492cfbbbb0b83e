//! The cells of one column of a block.

use super::coder::Coder;
use super::column_models::ColumnModels;
use super::magnitude::{Shared, Trace};
use super::plan::{FlatTap, Lane};
use super::steps::Step;
use crate::codec::model::{History, Plan, Recent, said};

/// The cells of one column of a block, and what is known before.
pub(super) struct Cells<'a> {
    /// Place of the column, of so many.
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) plan: &'a Plan,
    pub(super) lane: &'a Lane,
    pub(super) flat: &'a [FlatTap],
    pub(super) models: &'a mut ColumnModels,
    pub(super) shared: &'a mut Shared,
    pub(super) recent: &'a mut Recent,
    /// Of all series and columns.
    pub(super) histories: &'a mut [History<i64>],
    pub(super) traces: &'a mut [Trace],
    /// The rest is per place of a row, series by series. The slot of its series:
    pub(super) slots: &'a [u32],
    /// Whether all rows are of one series.
    pub(super) one_series: bool,
    /// Writer: what the number was split into; see [`Plan::split_all`].
    pub(super) quotients: &'a mut [i64],
    pub(super) corrections: &'a mut [i8],
    /// What taps on earlier columns add.
    pub(super) sums: &'a mut [i128],
    pub(super) steps: &'a mut [Step],
    /// How its value is coded.
    pub(super) odd: &'a mut [Odd],
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

/// Whether a value is coded otherwise than by its quotient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Odd {
    #[default]
    No,
    /// By its quotient and a rare correction.
    Corrected,
    /// By its bits, or by what came before.
    Raw,
}

impl Cells<'_> {
    /// For taps of later columns: what the row's series remembers.
    #[inline(always)]
    pub(super) fn leave_trail(&mut self, row: usize) {
        let place = self.place(row);
        if let Some(trail) = self.trail.get_mut(row) {
            *trail = self.histories[place].last_three();
        }
    }

    /// Writer: what a row's number was split into. Reader: nothing.
    #[inline(always)]
    pub(super) fn said<C: Coder>(&self, row: usize) -> Option<(i64, i8)> {
        if C::WRITES {
            said(self.quotients[row], self.corrections[row])
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
