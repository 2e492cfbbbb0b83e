//! The range back end: every cell as adaptive bits and symbols, with the fewest bytes of the three.
//!
//! A row says first whether it is calm. In a calm row nothing comes unexpected: values are missing
//! where they were missing before, there is no exception in columns that rarely have one, and the
//! time and the columns that were foretold eight times in a row are so again. None of that is coded
//! again in the row, so that constant columns and well-behaved floats cost neither bits nor time.

use alloc::vec::Vec;

use super::bits::CodeError;
use super::magnitude::{Own, Shared, Trace, residual};
use super::model::{History, Plan};
use super::range::{Coder, Model};
use super::range_cell::Cell;
use super::range_columns::ColumnModels;
use super::range_plan::{Lane, RangePlan};
use super::rice::bit_len;
use super::split::Said;
use super::table::{Recent, Table};
use super::{DecodeError, TimeParams};
use crate::schema::ColumnKind;

/// Series that have successors of their own; the last also stands for all others.
const MAX_SUCCESSORS: usize = 17;
/// Nodes of a series' tree of successors at most.
const MAX_NODES: usize = 64;
const SUCCESSOR: Model = Model::new(1 << 15, 1);
const EXPECTED: [Model; 2] = [Model::new(1 << 15, 2), Model::new(60_000, 4)];
const CALM: [Model; 2] = [Model::new(45_000, 2), Model::new(63_000, 5)];

/// What a batch has taught so far, beside the histories of a [`Table`].
#[derive(Debug, Clone)]
pub(super) struct RangeRows {
    shared: Shared,
    time: Own,
    columns: Vec<ColumnModels>,
    /// What the models of time and columns start from.
    starts: (Own, Vec<ColumnModels>),
    traces: Vec<Trace>,
    times: Vec<Trace>,
    started: Vec<bool>,
    expected: [Model; 2],
    was_expected: u8,
    calm: [Model; 2],
    was_calm: u8,
    /// Per series before (of the first ones): which one follows, as a tree of bits.
    successors: Vec<Model>,
    nodes: usize,
    before: u32,
    /// Per column: the latest quotient of whatever series.
    latest: Vec<Option<i64>>,
    plan: RangePlan,
    /// Writer: what the numbers of a block of rows were split into, row by row.
    said: Vec<Said>,
}

/// Rows that a writer splits at once: column by column, without asking for the column's kind each time.
pub(super) const BLOCK: usize = 32;

/// Where and when a row is; a reader fills in what it reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The row's series.
    pub(super) series: u32,
    /// Ticks from the batch's earliest time.
    pub(super) ticks: i64,
    /// Whether the time is coded; if not, a reader knows it too.
    pub(super) timed: bool,
    /// Writer: the row's place in its block.
    pub(super) in_block: usize,
}

impl RangeRows {
    /// For batches of these columns and so many series.
    pub(super) fn new(plans: &[Plan], params: &TimeParams, series: usize) -> Self {
        let jitter = u32::from(params.residual_bits).saturating_sub(1);
        let time = Own::new(Model::new(1 << 15, 1), jitter);
        let starts: Vec<ColumnModels> = plans.iter().map(ColumnModels::new).collect();
        let width = bit_len((series as u64).saturating_sub(1));
        let nodes = (1usize << width.min(6)).min(MAX_NODES);
        let successors = if series > 1 {
            series.min(MAX_SUCCESSORS) * nodes
        } else {
            0
        };
        Self {
            shared: Shared::START,
            time,
            columns: starts.clone(),
            starts: (time, starts),
            traces: Vec::new(),
            times: Vec::new(),
            started: Vec::new(),
            expected: EXPECTED,
            was_expected: 1,
            calm: CALM,
            was_calm: 1,
            successors: alloc::vec![SUCCESSOR; successors],
            nodes,
            before: 0,
            latest: alloc::vec![None; plans.len()],
            plan: RangePlan::new(plans),
            said: Vec::new(),
        }
    }

    /// Begins a batch; the memory stays.
    pub(super) fn clear(&mut self) {
        self.shared = Shared::START;
        self.time = self.starts.0;
        self.columns.copy_from_slice(&self.starts.1);
        self.traces.clear();
        self.times.clear();
        self.started.clear();
        self.expected = EXPECTED;
        self.was_expected = 1;
        self.calm = CALM;
        self.was_calm = 1;
        self.successors.fill(SUCCESSOR);
        self.before = 0;
        self.latest.fill(None);
    }

    /// Writer: splits the numbers of at most [`BLOCK`] rows, of which a column has these bits.
    pub(super) fn split<'a>(&mut self, plans: &[Plan], columns: impl Iterator<Item = &'a [u64]>) {
        let width = plans.len();
        self.said.resize(width * BLOCK, Said::default());
        for (at, (plan, bits)) in plans.iter().zip(columns).enumerate() {
            if plan.is_number() {
                let bits = &bits[..bits.len().min(BLOCK)];
                plan.split_all(bits, &mut self.said[at..], width);
            }
        }
    }

    /// Codes one row: its series, its time, and its cells as bits. `text` codes a text of a column,
    /// given a model for "the same again" and its last number, and returns its number and its bits.
    #[inline]
    pub(super) fn row<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        (plans, params): (&[Plan], &TimeParams),
        place: Place,
        cells: &mut [Option<u64>],
        text: impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<Place, CodeError> {
        let series = self.series(coder, table, place.series)?;
        let latest = table.ticks;
        let slot = table.slot(plans, series);
        if slot >= self.times.len() {
            self.begin_series(plans);
        }
        let (time, columns, recents) = table.get(plans, series);
        let expected = time.predict(latest);
        let traces = &mut self.traces[slot * plans.len()..(slot + 1) * plans.len()];
        let said = if C::WRITES {
            &self.said[place.in_block * plans.len()..(place.in_block + 1) * plans.len()]
        } else {
            &[]
        };
        let row = Row {
            plans,
            lanes: &self.plan.lanes,
            columns,
            traces,
            models: &self.columns,
            recents,
        };
        let quiet_time = place.timed && self.times[slot].is_quiet();
        let (told, calm) = row.calm::<C>(cells, said);
        let calm = calm && (!quiet_time || place.ticks == expected);
        let calm = (told || quiet_time) && {
            let calm = coder.bit(&mut self.calm[usize::from(self.was_calm)], calm);
            self.was_calm = u8::from(calm);
            calm
        };

        let trace = &mut self.times[slot];
        let mut ticks = place.ticks;
        if calm && quiet_time {
            trace.rest();
            ticks = expected;
        } else if place.timed {
            let off = place.ticks.wrapping_sub(expected);
            let own = &mut self.time;
            let off = residual(coder, &mut self.shared, own, trace, 0, off);
            ticks = expected.wrapping_add(off);
        }
        if !self.started[slot] {
            self.started[slot] = true;
            let bits = u32::from(params.residual_bits).saturating_sub(1);
            *trace = Trace::new(bits, params.residual_bits == 0);
        }
        time.learn(params, ticks);
        table.ticks = ticks;
        self.cells(
            coder,
            table,
            plans,
            (series, place.in_block, calm),
            cells,
            text,
        )?;
        table.follow(series);
        Ok(Place {
            series,
            ticks,
            ..place
        })
    }

    /// Makes room for a series that has not appeared yet.
    fn begin_series(&mut self, plans: &[Plan]) {
        // Another series of the same moment, or the first row of an unordered batch.
        self.times.push(Trace::new(4, false));
        self.started.push(false);
        for (plan, lane) in plans.iter().zip(&self.plan.lanes) {
            let bits = u32::from(plan.params.reference_bits);
            let quiet =
                lane.steady && bits == 0 && plan.params.kin_bits == 0 && !lane.first_taps.any;
            self.traces.push(Trace::new(bits + 4, quiet));
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
        if count == 1 {
            return Ok(0);
        }
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

    /// Codes the cells of a row of which it is known whether it is calm.
    #[inline]
    fn cells<C: Coder>(
        &mut self,
        coder: &mut C,
        table: &mut Table,
        plans: &[Plan],
        (series, in_block, calm): (u32, usize, bool),
        cells: &mut [Option<u64>],
        mut text: impl FnMut(&mut C, &mut Model, usize, i64) -> Result<(i64, u64), CodeError>,
    ) -> Result<(), CodeError> {
        let slot = table.slot(plans, series);
        let (_, columns, recents) = table.get(plans, series);
        let traces = &mut self.traces[slot * plans.len()..(slot + 1) * plans.len()];
        let said = if C::WRITES {
            &self.said[in_block * plans.len()..(in_block + 1) * plans.len()]
        } else {
            &[]
        };
        let flat = self.plan.taps.as_slice();
        let mut beside = 0usize;
        let lanes = self.plan.lanes.iter().zip(plans);
        let learnt = self.columns.iter_mut().zip(traces).zip(&mut self.latest);
        for (at, (((lane, plan), ((models, trace), latest)), place)) in
            lanes.zip(learnt).zip(cells).enumerate()
        {
            let said = if C::WRITES { said[at] } else { Said::default() };
            let history = &columns[at];
            let plainly = lane.plain && history.is_started();
            let cell = Cell {
                at,
                plan,
                lane,
                models,
                trace,
                latest,
                recent: &mut recents[at],
                columns,
                flat,
                shared: &mut self.shared,
                calm,
                beside: &mut beside,
            };
            if plainly && (!lane.excepts || (calm && cell.models.are_told(lane))) {
                debug_assert!(
                    !C::WRITES || place.and_then(|bits| plan.split(bits)) == said.get(),
                    "another row's block"
                );
                let quotient = cell.plain(coder, said.quotient());
                if !C::WRITES {
                    *place = Some(plan.join(quotient, 0));
                }
            } else {
                *place = cell.code(coder, *place, said.get(), &mut text)?;
            }
        }
        Ok(())
    }
}

/// What is known before the cells of a row.
struct Row<'a> {
    plans: &'a [Plan],
    lanes: &'a [Lane],
    columns: &'a [History<i64>],
    traces: &'a [Trace],
    models: &'a [ColumnModels],
    recents: &'a [Recent],
}

impl Row<'_> {
    /// Whether the row has anything to tell of its cells at once, and for a writer whether they are
    /// calm.
    #[inline]
    fn calm<C: Coder>(&self, cells: &[Option<u64>], said: &[Said]) -> (bool, bool) {
        let (mut told, mut calm) = (false, true);
        let columns = self.columns.iter().zip(self.traces).zip(self.models);
        for (at, (lane, ((history, trace), models))) in self.lanes.iter().zip(columns).enumerate() {
            if lane.nullable {
                told = true;
                calm &= !C::WRITES || cells[at].is_none() == history.missing();
                if history.missing() {
                    continue;
                }
            }
            let rare = models.are_told(lane);
            let quiet = trace.is_quiet() && lane.kind != ColumnKind::Str;
            told |= rare | quiet;
            if !C::WRITES || !(rare | quiet) {
                continue;
            }
            let Some(bits) = cells[at] else { continue };
            calm &= if lane.kind == ColumnKind::Bool {
                bits.cast_signed() & 1 == history.last() & 1
            } else if quiet && lane.remembers_all && !self.recents[at].is_empty() {
                self.recents[at].get(0) == Some(bits)
            } else {
                said[at].get().is_some_and(|(quotient, correction)| {
                    (correction == 0 || lane.says_corrections)
                        && (!quiet || quotient == history.predict(&self.plans[at]))
                })
            };
        }
        (told, calm)
    }
}
