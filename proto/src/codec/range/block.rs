//! The rows of a block, column by column.

use alloc::vec::Vec;

use super::cells::Exception;
use super::steps::Step;

/// Rows of a block: enough that the work per block and column takes little time, few enough that a reader
/// of the largest batch needs a buffer of a few MiB at most.
pub(crate) const BLOCK: usize = 64;

/// The rows of a block: given by a writer, filled in by a reader.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    /// Rows that the buffers hold.
    pub(super) stride: usize,
    pub(super) one_series: bool,
    /// Per row.
    pub(crate) series: Vec<u32>,
    /// Per row: ticks from the batch's earliest time. A reader knows the ticks that are not coded.
    pub(crate) ticks: Vec<i64>,
    /// Places of rows within a column, series by series: the row of each.
    pub(super) order: Vec<u32>,
    /// Column by column.
    pub(super) present: Vec<bool>,
    pub(super) bits: Vec<u64>,
    /// Per place: the slot of the row's series.
    pub(super) slots: Vec<u32>,
    /// Writer: how far each time is off its prediction, in ticks.
    pub(super) late: Vec<i64>,
    /// Writer: the parts of a column's numbers.
    pub(super) quotients: Vec<i64>,
    pub(super) corrections: Vec<i8>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) beside: Vec<u8>,
    /// Per column with a trail, and row: the last three quotients.
    pub(super) trails: Vec<[i64; 3]>,
    /// The sum of the taps on earlier columns.
    pub(super) sums: Vec<i128>,
    pub(super) steps: Vec<Step>,
}

impl Block {
    /// Sizes the buffers for the blocks of a batch of `rows` rows.
    pub(super) fn begin(&mut self, rows: usize, columns: usize, trails: usize) {
        let stride = rows.min(BLOCK);
        self.stride = stride;
        self.present.resize(columns * stride, true);
        self.bits.resize(columns * stride, 0);
        self.late.resize(stride, 0);
        self.quotients.resize(stride, 0);
        self.corrections.resize(stride, 0);
        self.exceptions.resize(stride, Exception::None);
        self.beside.resize(stride, 0);
        self.sums.resize(stride, 0);
        self.steps.resize(stride, Step::default());
        self.trails.resize(trails * stride, [0; 3]);
    }

    /// Makes it a block of `rows` rows.
    pub(crate) fn resize(&mut self, rows: usize) {
        self.series.resize(rows, 0);
        self.ticks.resize(rows, 0);
    }

    /// The row of each place within a column.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// Place by place: whether the cells of a column have a value, and their bits.
    pub(crate) fn cells(&self, column: usize) -> (&[bool], &[u64]) {
        let places = column * self.stride..column * self.stride + self.series.len();
        (&self.present[places.clone()], &self.bits[places])
    }

    /// Writer: stores the cells of a column, given row by row.
    pub(crate) fn fill(&mut self, column: usize, present: &[bool], bits: &[u64]) {
        let places = column * self.stride..column * self.stride + self.series.len();
        if self.one_series {
            self.present[places.clone()].copy_from_slice(present);
            self.bits[places].copy_from_slice(bits);
            return;
        }
        let cells = self.present[places.clone()]
            .iter_mut()
            .zip(&mut self.bits[places]);
        for ((to_present, to_bits), &row) in cells.zip(&self.order) {
            (*to_present, *to_bits) = (present[row as usize], bits[row as usize]);
        }
    }
}
