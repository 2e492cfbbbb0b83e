//! Facts of a column that the range back end needs in every block. A writer prepares them once per schema,
//! a reader once per batch.

use alloc::vec::Vec;

use crate::codec::model::{Plan, Predictor};
use crate::schema::ColumnKind;
use crate::schema::params::Tap;

/// The columns of a schema, and the taps of all of them.
#[derive(Debug, Clone)]
pub(super) struct RangePlan {
    pub(super) lanes: Vec<Lane>,
    pub(super) taps: Vec<FlatTap>,
    /// How many columns have a [`Lane::trail`].
    pub(super) trails: usize,
}

/// One column. Its flags follow from its [`Plan`].
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) kind: ColumnKind,
    pub(super) nullable: bool,
    /// Whether a value that is no exception is coded by its quotient.
    pub(super) plain: bool,
    pub(super) remembers_all: bool,
    /// Whether the prediction is the last value, or a constant.
    pub(super) holds: bool,
    pub(super) excepts: bool,
    /// Whether one flag may say for a block that it holds no exception.
    pub(super) has_block_flag: bool,
    /// Whether corrections are rare: they then share the flag of exceptions.
    pub(super) rarely_corrects: bool,
    pub(super) often_corrects: bool,
    pub(super) has_levels: bool,
    /// Whether the column hardly ever moves.
    pub(super) steady: bool,
    /// Whether the prediction of even its first value is the reference.
    pub(super) starts_steady: bool,
    /// Place of the column among those that taps of later columns look at.
    pub(super) trail: Option<u16>,
    pub(super) taps: TapSums,
    /// Taps on the first value of a series.
    pub(super) first_taps: TapSums,
}

/// The sum that taps add to a prediction, in parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct TapSums {
    /// Whether there is any tap.
    pub(super) any: bool,
    start: u32,
    end: u32,
    /// In 1/65,536: the constant term and half a unit for rounding, less the taps' weighted references.
    constant: i128,
    /// Weights of the column's own last three quotients.
    own: [i64; 3],
}

/// A tap on a value of the row's series; its reference is part of [`TapSums::constant`].
#[derive(Debug, Clone, Copy)]
pub(super) struct FlatTap {
    /// [`Lane::trail`] of an earlier column.
    trail: u16,
    /// Place among the column's last values, 0 for the newest.
    lag: u8,
    weight: i64,
}

impl RangePlan {
    /// For columns of these plans.
    pub(super) fn new(plans: &[Plan]) -> Self {
        let mut trails = alloc::vec![None; plans.len()];
        for (at, plan) in plans.iter().enumerate() {
            let taps = plan.params.taps.as_slice().iter();
            for tap in taps.chain(plan.params.first_taps.as_slice()) {
                if usize::from(tap.column) < at {
                    trails[usize::from(tap.column)] = Some(0);
                }
            }
        }
        let tapped = trails.iter_mut().flatten();
        let trail_count = (0..)
            .zip(tapped)
            .map(|(place, trail)| *trail = place)
            .count();
        let mut taps = Vec::new();
        let lanes = plans
            .iter()
            .enumerate()
            .map(|(at, plan)| {
                let params = &plan.params;
                let mut flatten =
                    |list: &[Tap]| TapSums::new(plans, list, (at, &trails), &mut taps);
                Lane {
                    kind: plan.kind,
                    nullable: plan.nullable,
                    plain: plan.is_number() && !plan.remembers_all(),
                    remembers_all: plan.remembers_all(),
                    holds: plan.kind != ColumnKind::Str
                        && matches!(params.predictor, Predictor::Last | Predictor::Constant),
                    excepts: plan.excepts(),
                    has_block_flag: plan.excepts() && !plan.remembers_all(),
                    rarely_corrects: plan.corrects() && !plan.often_corrects(),
                    often_corrects: plan.often_corrects(),
                    has_levels: plan.has_levels(),
                    steady: params.zero_share == 15,
                    starts_steady: params.zero_share == 15
                        && params.reference_bits == 0
                        && params.kin_bits == 0
                        && params.first_taps.is_empty(),
                    trail: trails[at],
                    taps: flatten(params.taps.as_slice()),
                    first_taps: flatten(params.first_taps.as_slice()),
                }
            })
            .collect();
        Self {
            lanes,
            taps,
            trails: trail_count,
        }
    }
}

impl TapSums {
    fn new(
        plans: &[Plan],
        taps: &[Tap],
        (at, trails): (usize, &[Option<u16>]),
        flat: &mut Vec<FlatTap>,
    ) -> Self {
        let place = |flat: &Vec<FlatTap>| u32::try_from(flat.len()).unwrap_or(u32::MAX);
        let start = place(flat);
        let (mut constant, mut own) = (1i128 << 15, [0i64; 3]);
        for tap in taps {
            let column = usize::from(tap.column);
            if column == at && tap.lag == 0 {
                constant = constant.wrapping_add(i128::from(tap.weight));
                continue;
            }
            let Some(plan) = plans[..=at].get(column) else {
                continue;
            };
            let reference = i128::from(plan.params.reference);
            constant = constant.wrapping_sub(reference.wrapping_mul(i128::from(tap.weight)));
            match trails[column] {
                Some(trail) if column < at => flat.push(FlatTap {
                    trail,
                    // An earlier column learnt this row's value already: its lags begin with 0.
                    lag: tap.lag.min(2),
                    weight: tap.weight,
                }),
                _ => {
                    let own = &mut own[usize::from(tap.lag.clamp(1, 3)) - 1];
                    *own = own.wrapping_add(tap.weight);
                }
            }
        }
        Self {
            any: !taps.is_empty(),
            start,
            end: place(flat),
            constant,
            own,
        }
    }

    /// For consecutive rows: the constant plus the taps on earlier columns, in 1/65,536. `trails` returns
    /// the last values of an earlier column in these rows.
    pub(super) fn sum_earlier<'a>(
        &self,
        sums: &mut [i128],
        flat: &[FlatTap],
        trails: impl Fn(u16) -> &'a [[i64; 3]],
    ) {
        sums.fill(self.constant);
        let taps = flat.get(self.start as usize..self.end as usize);
        for tap in taps.unwrap_or_default() {
            for (sum, past) in sums.iter_mut().zip(trails(tap.trail)) {
                let past = i128::from(past[usize::from(tap.lag)]);
                *sum = sum.wrapping_add(past.wrapping_mul(i128::from(tap.weight)));
            }
        }
    }

    /// The next quotient: `base` plus all taps; it may wrap. `sum` is that of [`TapSums::sum_earlier`],
    /// `own` are the column's last three quotients.
    #[inline(always)]
    pub(super) fn add_own(&self, base: i64, mut sum: i128, own: [i64; 3]) -> i64 {
        for (past, weight) in own.into_iter().zip(self.own) {
            sum = sum.wrapping_add(i128::from(past).wrapping_mul(i128::from(weight)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "a prediction may wrap")]
        let added = (sum >> 16) as i64;
        base.wrapping_add(added)
    }
}
