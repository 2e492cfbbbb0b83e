//! What the range back end asks of every column at every row, made ready once: per schema by a writer,
//! per batch by a reader.

use alloc::vec::Vec;

use super::model::{History, Plan};
use super::params::Tap;
use crate::schema::ColumnKind;

/// The columns of a schema, and the taps of all of them.
#[derive(Debug, Clone)]
pub(super) struct RangePlan {
    pub(super) lanes: Vec<Lane>,
    pub(super) taps: Vec<FlatTap>,
}

/// One column. The flags follow from its [`Plan`], which names them.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) kind: ColumnKind,
    pub(super) nullable: bool,
    /// Whether a value that is no exception is its residual and nothing else.
    pub(super) plain: bool,
    pub(super) remembers_all: bool,
    pub(super) excepts: bool,
    /// Whether the row may tell that there is no exception.
    pub(super) tells: bool,
    /// Whether corrections are rare: they then share the flag of exceptions.
    pub(super) rarely_corrects: bool,
    pub(super) says_corrections: bool,
    pub(super) has_levels: bool,
    /// Whether the column hardly ever moves.
    pub(super) steady: bool,
    pub(super) taps: Foretold,
    /// What a series' first value is foretold by.
    pub(super) first_taps: Foretold,
}

/// What taps add to a prediction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foretold {
    /// Whether there is any tap.
    pub(super) any: bool,
    start: u32,
    end: u32,
    /// In 1/65,536: what is added always, with half a unit for rounding, less the taps' references.
    constant: i128,
}

/// A tap on a value of the row's series, not on its distance from the reference.
#[derive(Debug, Clone, Copy)]
pub(super) struct FlatTap {
    column: u16,
    /// Place among the column's last values, 0 for the newest.
    lag: u8,
    weight: i64,
}

impl RangePlan {
    /// For columns of these plans.
    pub(super) fn new(plans: &[Plan]) -> Self {
        let mut taps = Vec::new();
        let lanes = plans
            .iter()
            .enumerate()
            .map(|(at, plan)| Lane {
                kind: plan.kind,
                nullable: plan.nullable,
                plain: plan.is_number()
                    && !plan.nullable
                    && !plan.remembers_all()
                    && !plan.says_corrections(),
                remembers_all: plan.remembers_all(),
                excepts: plan.excepts(),
                tells: plan.excepts() && !plan.remembers_all(),
                rarely_corrects: plan.corrects() && !plan.says_corrections(),
                says_corrections: plan.says_corrections(),
                has_levels: plan.has_levels(),
                steady: plan.params.zero_share == 15,
                taps: Foretold::new(plans, plan.params.taps.as_slice(), at, &mut taps),
                first_taps: Foretold::new(plans, plan.params.first_taps.as_slice(), at, &mut taps),
            })
            .collect();
        Self { lanes, taps }
    }
}

impl Foretold {
    fn new(plans: &[Plan], taps: &[Tap], at: usize, flat: &mut Vec<FlatTap>) -> Self {
        let place = |flat: &Vec<FlatTap>| u32::try_from(flat.len()).unwrap_or(u32::MAX);
        let start = place(flat);
        let mut constant = 1i128 << 15;
        for tap in taps {
            let column = usize::from(tap.column);
            if column == at && tap.lag == 0 {
                constant = constant.wrapping_add(i128::from(tap.weight));
                continue;
            }
            let Some(plan) = plans.get(column) else {
                continue;
            };
            // An earlier column has learnt this row's value by now, so that its lags begin with 0.
            let lag = tap.lag + u8::from(column < at);
            let reference = i128::from(plan.params.reference);
            constant = constant.wrapping_sub(reference.wrapping_mul(i128::from(tap.weight)));
            flat.push(FlatTap {
                column: tap.column,
                lag: lag.clamp(1, 3) - 1,
                weight: tap.weight,
            });
        }
        Self {
            any: !taps.is_empty(),
            start,
            end: place(flat),
            constant,
        }
    }

    /// The next quotient: `base` and what the taps add to it; it may wrap.
    #[inline]
    pub(super) fn add_to(&self, base: i64, flat: &[FlatTap], columns: &[History<i64>]) -> i64 {
        let mut sum = self.constant;
        let taps = flat.get(self.start as usize..self.end as usize);
        for tap in taps.unwrap_or_default() {
            if let Some(history) = columns.get(usize::from(tap.column)) {
                let past = i128::from(history.past(tap.lag));
                sum = sum.wrapping_add(past.wrapping_mul(i128::from(tap.weight)));
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "a prediction may wrap")]
        let told = (sum >> 16) as i64;
        base.wrapping_add(told)
    }
}
