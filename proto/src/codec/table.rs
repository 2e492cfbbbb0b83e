//! The histories of a batch: one set per series that has appeared, and recent values per column.

use alloc::vec::Vec;

use super::bits::{Bits, CodeError};
use super::model::{Class, History, Plan, Symbol, TimeHistory};
use super::params::Corrections;
use super::rice::bit_len;
use super::{BackEnd, DecodeError, Limits};
use crate::schema::{ColumnKind, Schema};

/// The plans of a schema's columns under a back end.
pub(super) fn plans(schema: &Schema, back_end: BackEnd) -> Vec<Plan> {
    let plan = |column: &crate::schema::Column| {
        let mut params = column.params;
        if back_end == BackEnd::Varint {
            // Whole bytes gain nothing from either.
            params.memory = 0;
            params.corrections = Corrections::Rare;
        }
        let texts = u32::try_from(column.dictionary.len()).unwrap_or(u32::MAX);
        Plan::new(column.kind, column.nullable, params, texts).with_levels(&column.levels)
    };
    schema.columns.iter().map(plan).collect()
}

/// What the rows of a batch have taught so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    /// Per series of the schema: its slot plus one, 0 while it has not appeared.
    slots: Vec<u32>,
    /// Per series: the one that followed it last time.
    after: Vec<u32>,
    times: Vec<TimeHistory>,
    columns: Vec<History<i64>>,
    recent: Vec<Recent>,
    width: usize,
    used: usize,
    before: u32,
    /// Ticks of the latest row.
    pub(super) ticks: i64,
}

impl Table {
    /// For batches of these columns and so many series.
    pub(super) fn new(plans: &[Plan], series: usize) -> Self {
        let mut table = Self {
            slots: alloc::vec![0; series],
            after: alloc::vec![0; series],
            recent: plans.iter().map(Recent::new).collect(),
            width: plans.len(),
            ..Self::default()
        };
        table.clear();
        table
    }

    /// Begins a batch; the memory stays.
    pub(super) fn clear(&mut self) {
        self.slots.fill(0);
        let count = self.series_count();
        for (next, after) in (1..).zip(&mut self.after) {
            *after = if next == count { 0 } else { next };
        }
        self.recent
            .iter_mut()
            .for_each(|recent| recent.values.clear());
        self.used = 0;
        self.before = count.saturating_sub(1);
        self.ticks = 0;
    }

    /// How many series the schema has.
    pub(super) fn series_count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The series that is foretold for the next row.
    pub(super) fn expected(&self) -> u32 {
        self.after.get(self.before as usize).copied().unwrap_or(0)
    }

    /// Takes in the series of a row.
    pub(super) fn follow(&mut self, series: u32) {
        if let Some(after) = self.after.get_mut(self.before as usize) {
            *after = series;
        }
        self.before = series;
    }

    /// The slot of a series' histories.
    pub(super) fn slot(&mut self, plans: &[Plan], series: u32) -> usize {
        if self.slots[series as usize] == 0 {
            self.get(plans, series);
        }
        self.slots[series as usize] as usize - 1
    }

    /// All histories.
    pub(super) fn all(&mut self) -> Histories<'_> {
        Histories {
            times: &mut self.times,
            columns: &mut self.columns,
            recents: &mut self.recent,
        }
    }

    /// The histories of a series, which the schema has.
    pub(super) fn get(
        &mut self,
        plans: &[Plan],
        series: u32,
    ) -> (&mut TimeHistory, &mut [History<i64>], &mut [Recent]) {
        let slot = &mut self.slots[series as usize];
        if *slot == 0 {
            let fresh = plans.iter().map(History::new);
            let start = self.used * self.width;
            if self.used < self.times.len() {
                self.times[self.used] = TimeHistory::default();
                for (history, fresh) in self.columns[start..].iter_mut().zip(fresh) {
                    *history = fresh;
                }
            } else {
                self.times.push(TimeHistory::default());
                self.columns.extend(fresh);
            }
            self.used += 1;
            *slot = u32::try_from(self.used).unwrap_or(u32::MAX);
        }
        let at = *slot as usize - 1;
        let columns = &mut self.columns[at * self.width..(at + 1) * self.width];
        (&mut self.times[at], columns, &mut self.recent)
    }
}

/// The histories of all series that have appeared, slot by slot, and the columns' recent values.
pub(super) struct Histories<'a> {
    pub(super) times: &'a mut [TimeHistory],
    pub(super) columns: &'a mut [History<i64>],
    pub(super) recents: &'a mut [Recent],
}

/// Codes whether a row's series is the expected one, and which it is if not.
pub(super) fn code_series<B: Bits>(
    bits: &mut B,
    series: u32,
    expected: u32,
    count: u32,
) -> Result<u32, CodeError> {
    if !bits.bit(series != expected)? {
        return Ok(expected);
    }
    let width = bit_len(u64::from(count.saturating_sub(1)));
    known_series(bits.bits(u64::from(series), width)?, count)
}

/// Checks that the schema has the series.
pub(super) fn known_series(series: u64, count: u32) -> Result<u32, CodeError> {
    u32::try_from(series)
        .ok()
        .filter(|&series| series < count)
        .ok_or(CodeError::Decode(DecodeError::Invalid("series")))
}

/// Checks a schema against what a decoder may keep.
pub(super) fn check(schema: &Schema, limits: &Limits) -> Result<(), DecodeError> {
    let states = schema.columns.len().saturating_mul(schema.series.len());
    if states > limits.states as usize || schema.series.len() > limits.series as usize {
        return Err(DecodeError::Limit("series"));
    }
    if schema.columns.len() > limits.columns as usize {
        return Err(DecodeError::Limit("columns"));
    }
    Ok(())
}

/// The latest distinct values of one column, newest first.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    values: Vec<u64>,
    most: usize,
}

impl Recent {
    fn new(plan: &Plan) -> Self {
        let most = usize::from(plan.params.memory);
        Self {
            values: Vec::with_capacity(most),
            most,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// The rank of a value, 0 for the newest.
    pub(super) fn rank(&self, bits: u64) -> Option<usize> {
        self.values.iter().position(|&value| value == bits)
    }

    /// Whether a value becomes the newest, of which the quotient is this if it has one.
    #[inline]
    fn takes(&self, plan: &Plan, quotient: Option<i64>) -> bool {
        self.most != 0 && (plan.remembers_all() || quotient.is_none())
    }

    /// Makes a value the newest, which had this rank if it was one of them.
    fn put(&mut self, bits: u64, rank: Option<usize>) {
        let at = rank.unwrap_or_else(|| {
            if self.values.len() < self.most {
                self.values.push(bits);
            }
            self.values.len() - 1
        });
        if at > 0 {
            self.values.copy_within(..at, 1);
        }
        self.values[0] = bits;
    }

    /// The value of a rank.
    pub(super) fn get(&self, rank: u64) -> Option<u64> {
        usize::try_from(rank)
            .ok()
            .and_then(|rank| self.values.get(rank))
            .copied()
    }
}

/// The symbol of a value's bits; not for text.
#[inline]
pub(super) fn symbol(plan: &Plan, history: &History<i64>, recent: &Recent, bits: u64) -> Symbol {
    if plan.kind == ColumnKind::Bool {
        let code = (bits ^ history.last().cast_unsigned()) & 1;
        return Symbol {
            class: Class::Number,
            correction: 0,
            code,
        };
    }
    if recent.most != 0
        && let Some(rank) = recent.rank(bits)
    {
        return Symbol {
            class: Class::Recent,
            correction: 0,
            code: rank as u64,
        };
    }
    match plan.split(bits) {
        Some((quotient, correction)) => {
            let residual = quotient.wrapping_sub(history.predict(plan));
            Symbol {
                class: Class::Number,
                correction,
                code: crate::varint::zigzag(residual),
            }
        }
        None => Symbol {
            class: Class::Raw,
            correction: 0,
            code: bits,
        },
    }
}

/// Takes in a value; `quotient` is known for a symbol of class number.
#[inline]
pub(super) fn learn(
    plan: &Plan,
    history: &mut History<i64>,
    recent: &mut Recent,
    quotient: Option<i64>,
    bits: u64,
) {
    let rank = if recent.takes(plan, quotient) {
        recent.rank(bits)
    } else {
        None
    };
    learn_at(plan, history, (recent, rank), quotient, bits);
}

/// As [`learn`], where the value's rank among the recent ones is known, if it is one of them.
#[inline]
pub(super) fn learn_at(
    plan: &Plan,
    history: &mut History<i64>,
    (recent, rank): (&mut Recent, Option<usize>),
    quotient: Option<i64>,
    bits: u64,
) {
    history.set_missing(false);
    if let Some(quotient) = quotient {
        history.learn(plan, quotient);
    }
    if recent.takes(plan, quotient) {
        recent.put(bits, rank);
    }
}
