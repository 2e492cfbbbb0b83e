//! The range back end's state within a batch, and the coding of its blocks.

use alloc::vec::Vec;
use core::ops::Range;

use super::block::Block;
use super::cells::Cells;
use super::coder::Coder;
use super::column_models::{ColumnModels, Flags};
use super::magnitude::{Before, Own, Shared, Trace, residual};
use super::models::Model;
use super::plan::RangePlan;
use crate::codec::DecodeError;
use crate::codec::bits::CodeError;
use crate::codec::bits::bit_len;
use crate::codec::model::Table;
use crate::codec::model::{Plan, TimeHistory};
use crate::schema::params::TimeParams;

/// Most series with a tree of successors of their own; the last tree also serves all others.
const MAX_SUCCESSORS: usize = 17;
/// Most nodes of a tree of successors. Beyond 64 series several share a node: the tree of each series
/// stays small.
const MAX_NODES: usize = 64;
const SUCCESSOR: Model = Model::new(1 << 15, 1);
const EXPECTED: [Model; 2] = [Model::new(1 << 15, 2), Model::new(60_000, 4)];

/// State of the range back end within a batch, beside the histories of a [`Table`].
#[derive(Debug, Clone)]
pub(crate) struct RangeRows {
    pub(crate) block: Block,
    shared: Shared,
    time: Own,
    columns: Vec<ColumnModels>,
    /// Where the models of time and columns start from.
    starts: (Own, Vec<ColumnModels>),
    traces: Vec<Trace>,
    times: Vec<Trace>,
    /// For each of the last eight times, whether it was not as predicted: the newest in bit 0.
    late: u8,
    flags: Flags,
    expected: [Model; 2],
    was_expected: u8,
    /// Per preceding series (of the first ones): the one that follows, as a tree of bits.
    successors: Vec<Model>,
    nodes: usize,
    before: u32,
    plan: RangePlan,
}

impl RangeRows {
    /// For batches of these columns and of `series` series.
    pub(crate) fn new(plans: &[Plan], params: &TimeParams, series: usize) -> Self {
        let jitter = u32::from(params.residual_bits).saturating_sub(1);
        let share = if params.residual_bits == 0 {
            60_000
        } else {
            1 << 15
        };
        let time = Own::new(Model::new(share, 1), jitter);
        let plan = RangePlan::new(plans);
        let lanes = plans.iter().zip(&plan.lanes);
        let starts: Vec<ColumnModels> = lanes
            .map(|(plan, lane)| ColumnModels::new(plan, lane))
            .collect();
        let width = bit_len((series as u64).saturating_sub(1));
        let nodes = (1usize << width.min(6)).min(MAX_NODES);
        let successors = if series > 1 {
            series.min(MAX_SUCCESSORS) * nodes
        } else {
            0
        };
        Self {
            block: Block::default(),
            shared: Shared::START,
            time,
            columns: Vec::new(),
            starts: (time, starts),
            traces: Vec::new(),
            times: Vec::new(),
            late: 0,
            flags: Flags::START,
            expected: EXPECTED,
            was_expected: 1,
            successors: alloc::vec![SUCCESSOR; successors],
            nodes,
            before: 0,
            plan,
        }
    }

    /// Begins a batch of `rows` rows; the memory stays.
    pub(crate) fn begin(&mut self, rows: usize, params: &TimeParams) {
        self.block
            .begin(rows, self.plan.lanes.len(), self.plan.trails);
        self.shared = Shared::START;
        self.time = self.starts.0;
        self.columns.clear();
        self.columns.extend_from_slice(&self.starts.1);
        self.traces.clear();
        self.times.clear();
        self.late = if params.residual_bits == 0 {
            0
        } else {
            u8::MAX
        };
        self.flags = Flags::START;
        self.expected = EXPECTED;
        self.was_expected = 1;
        self.successors.fill(SUCCESSOR);
        self.before = 0;
    }

    /// Codes the series and the times of the block's rows. Only the times of `timed` rows are coded: the
    /// header holds the others.
    pub(crate) fn rows<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        (plans, params): (&[Plan], &TimeParams),
        timed: Range<usize>,
    ) -> Result<(), CodeError> {
        let len = self.block.series.len();
        self.block.slots.clear();
        if table.series_count() == 1 {
            self.block.slots.resize(len, 0);
            self.block.series.fill(0);
            table.slot(plans, 0);
            if self.times.is_empty() {
                self.begin_series(plans);
            }
        } else {
            for row in 0..len {
                let series = self.series(coder, table, self.block.series[row])?;
                self.block.series[row] = series;
                let slot = table.slot(plans, series);
                if slot >= self.times.len() {
                    self.begin_series(plans);
                }
                self.block
                    .slots
                    .push(u32::try_from(slot).unwrap_or(u32::MAX));
                table.follow(series);
            }
        }
        self.ticks(coder, table, params, timed);
        let block = &mut self.block;
        block.order.clear();
        block.order.extend((0..).take(len));
        block.one_series = block.slots.iter().all(|&slot| slot == block.slots[0]);
        if !block.one_series {
            let slots = &mut block.slots;
            // Rows of a series stay in order.
            block.order.sort_by_key(|&row| slots[row as usize]);
            slots.sort_unstable();
        }
        Ok(())
    }

    /// Codes the cells of the block. `text` codes the text of a column and row, given a model for "the same
    /// again" and the last text's number; it returns the text's number and bits.
    pub(crate) fn columns<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        plans: &[Plan],
        mut text: impl FnMut(&mut C, &mut Model, (usize, usize), i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let block = &mut self.block;
        let len = block.series.len();
        let histories = table.all();
        block.beside.fill(0);
        let lanes = plans.iter().zip(&self.plan.lanes);
        for (at, ((plan, lane), models)) in lanes.zip(&mut self.columns).enumerate() {
            let place = at * block.stride..at * block.stride + len;
            let (before, trail) = match lane.trail {
                Some(trail) => {
                    let (before, rest) =
                        block.trails.split_at_mut(usize::from(trail) * block.stride);
                    (&*before, &mut rest[..len])
                }
                None => (block.trails.as_slice(), &mut [][..]),
            };
            let bits = &mut block.bits[place.clone()];
            let order = &block.order;
            let cells = Cells {
                at,
                width: plans.len(),
                plan,
                lane,
                flat: &self.plan.taps,
                models,
                shared: &mut self.shared,
                recent: &mut histories.recents[at],
                histories: histories.columns,
                traces: &mut self.traces,
                slots: &block.slots,
                one_series: block.one_series,
                quotients: &mut block.quotients,
                corrections: &mut block.corrections,
                sums: &mut block.sums,
                steps: &mut block.steps,
                exceptions: &mut block.exceptions,
                present: &mut block.present[place],
                bits,
                beside: &mut block.beside,
                before,
                trail,
                stride: block.stride,
            };
            cells.code(coder, &mut self.flags, &mut |coder, same, row, last| {
                text(coder, same, (at, order[row] as usize), last)
            })?;
        }
        Ok(())
    }

    /// Codes the times of the block.
    fn ticks<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        params: &TimeParams,
        timed: Range<usize>,
    ) {
        let block = &mut self.block;
        let mut latest = table.ticks;
        let histories = table.all().times;
        let mut advance =
            |histories: &mut [TimeHistory], slot: usize, ticks: Option<i64>, off: i64| {
                let history = &mut histories[slot];
                let expected = history.predict(latest);
                let ticks = ticks.unwrap_or(expected.wrapping_add(off));
                history.learn(params, ticks);
                latest = ticks;
                (ticks, ticks.wrapping_sub(expected))
            };
        let len = block.slots.len();
        if C::WRITES {
            let ticks = block.ticks.iter().zip(&block.slots);
            for (late, (&ticks, &slot)) in block.late.iter_mut().zip(ticks) {
                (_, *late) = advance(histories, slot as usize, Some(ticks), 0);
            }
        }
        let mut rests = false;
        if self.late == 0 && !timed.is_empty() {
            let stays = C::WRITES && block.late[timed.clone()].iter().all(|&late| late == 0);
            rests = self.flags.rests(coder, stays);
        }
        for row in 0..len {
            let slot = block.slots[row] as usize;
            let trace = &mut self.times[slot];
            let mut off = 0;
            if timed.contains(&row) && !rests {
                let late = if C::WRITES { block.late[row] } else { 0 };
                off = residual(
                    coder,
                    &mut self.shared,
                    &mut self.time,
                    trace,
                    Before::PLAIN,
                    late,
                );
                self.late = self.late << 1 | u8::from(off != 0);
            }
            if trace.seen == 0 {
                let bits = u32::from(params.residual_bits).saturating_sub(1);
                *trace = Trace::new(bits, params.residual_bits == 0);
                trace.seen = 1;
            }
            if !C::WRITES {
                let known = (!timed.contains(&row)).then_some(block.ticks[row]);
                (block.ticks[row], _) = advance(histories, slot, known, off);
            }
        }
        table.ticks = latest;
    }

    /// Adds the traces of a series that appears for the first time.
    fn begin_series(&mut self, plans: &[Plan]) {
        // Another series of the same moment, or the first row of an unordered batch.
        self.times.push(Trace::new(4, false));
        for (plan, lane) in plans.iter().zip(&self.plan.lanes) {
            let bits = u32::from(plan.params.reference_bits);
            self.traces.push(Trace::new(bits + 4, lane.starts_steady));
        }
    }

    /// Codes which series a row belongs to.
    fn series<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &Table,
        series: u32,
    ) -> Result<u32, CodeError> {
        let count = table.series_count();
        let expected = table.expected();
        let same = coder.bit(
            &mut self.expected[usize::from(self.was_expected)],
            series == expected,
        );
        self.was_expected = u8::from(same);
        let mut found = expected;
        if !same {
            let width = bit_len(u64::from(count - 1));
            let start = (self.before as usize).min(MAX_SUCCESSORS - 1) * self.nodes;
            let models = &mut self.successors[start..start + self.nodes];
            let mut node = 1u32;
            for bit in (0..width).rev() {
                let model = &mut models[node as usize & (self.nodes - 1)];
                let one = coder.bit(model, (series >> bit) & 1 == 1);
                node = node << 1 | u32::from(one);
            }
            found = node - (1 << width);
            if found >= count {
                return Err(DecodeError::Invalid("series").into());
            }
        }
        self.before = found;
        Ok(found)
    }
}

/// The rows whose time is coded, counted from the first of `rows`: the header of an ordered batch holds
/// the times of its first and last row.
pub(crate) fn timed(rows: Range<usize>, count: usize, unordered: bool) -> Range<usize> {
    let len = rows.len();
    if unordered {
        return 0..len;
    }
    let start = usize::from(rows.start == 0);
    start..(len - usize::from(rows.end == count)).max(start)
}

/// Cells of a batch from which on its raw bits stand beside the interval: that takes less time, and two
/// thirds of a byte more per batch.
const MANY_CELLS: usize = 512;

/// Whether the raw bits of a batch of this size stand beside the interval.
pub(crate) const fn aside(rows: usize, columns: usize) -> bool {
    rows.saturating_mul(columns) >= MANY_CELLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{BackEnd, Encoder, Limits, RowVisitor, Rows, decode};
    use crate::sample::Value;
    use crate::schema::{Column, ColumnKind, Schema, Series};
    use alloc::vec;

    #[test]
    fn trees_of_successors_are_bounded_and_any_order_of_series_comes_back() {
        for (series, trees, nodes) in [
            (1, 0, 0),
            (3, 3, 4),
            (MAX_SUCCESSORS, MAX_SUCCESSORS, 32),
            (1_000, MAX_SUCCESSORS, MAX_NODES),
        ] {
            let rows = RangeRows::new(&[], &TimeParams::new(1), series);
            assert_eq!(rows.successors.len(), trees * nodes, "{series} series");
        }
        let mut schema = Schema::new(1, vec![Column::new("value", ColumnKind::I64)]);
        schema.series = vec![Series::default(); 1_000];
        let mut rows = Rows::new(&schema);
        let mut noise = 1u32;
        let mut expected = Vec::new();
        for time in 0..2_000 {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let series = (noise >> 8) % 1_000;
            expected.push(series);
            rows.push_row(time, series, &[Some(Value::I64(0))]).unwrap();
        }
        let mut payload = Vec::new();
        Encoder::with_back_end(&schema, BackEnd::Range)
            .encode(0, &rows, &mut payload)
            .unwrap();
        let mut found = SeriesOf(Vec::new());
        let limits = Limits {
            series: 1_000,
            ..Limits::DEFAULT
        };
        decode(&payload, &schema, &limits, &mut found).unwrap();
        assert_eq!(found.0, expected);
    }

    struct SeriesOf(Vec<u32>);

    impl RowVisitor for SeriesOf {
        fn row(&mut self, _: u32, _: i64, series: u32) {
            self.0.push(series);
        }
        fn value(&mut self, _: usize, _: Value<'_>) {}
    }
}
