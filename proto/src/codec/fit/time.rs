//! The parameters of times.

use alloc::vec::Vec;

use super::predictors::bits16;
use super::values::{gcd, small};
use crate::codec::batch::Rows;
use crate::codec::bits::bit_len;
use crate::codec::model::TimeHistory;
use crate::schema::params::{Pace, TimeParams};
use crate::varint::zigzag;

/// The tick that all times share, the usual step within a series, and its jitter.
pub(super) fn fit_time(rows: &Rows, series: usize) -> TimeParams {
    let first = rows.times[0];
    let mut tick = 0u64;
    for &time in &rows.times {
        tick = gcd(tick, time.wrapping_sub(first).unsigned_abs());
        if tick == 1 {
            break;
        }
    }
    let tick_us = u32::try_from(tick.max(1)).unwrap_or(1);
    let ticks = |time: i64| time.wrapping_sub(first) / i64::from(tick_us);
    let step = usual_step(rows, series, tick_us);
    let mut best: Option<(u64, TimeParams)> = None;
    for pace in Pace::ALL {
        let mut params = TimeParams {
            tick_us,
            step,
            pace,
            residual_bits: 0,
        };
        let mut histories: Vec<Option<TimeHistory>> = alloc::vec![None; series];
        let (mut bits, mut sum, mut count) = (0u64, 0u128, 0u128);
        for (&time, &series) in rows.times.iter().zip(&rows.series) {
            let history = &mut histories[series as usize];
            let ticks = ticks(time);
            if let Some(history) = history {
                let code = zigzag(ticks.wrapping_sub(history.predict(0)));
                bits += bits16(code);
                sum += u128::from(code);
                count += 1;
            }
            history.get_or_insert_default().learn(&params, ticks);
        }
        let mean16 = u64::try_from(sum.saturating_mul(16) / count.max(1)).unwrap_or(u64::MAX);
        params.residual_bits = small(bit_len(mean16)).min(36);
        if best.is_none_or(|(least, _)| bits < least) {
            best = Some((bits, params));
        }
    }
    best.map_or(TimeParams::new(tick_us), |(_, params)| params)
}

/// The median distance from one row of a series to its next, in ticks; 1 if no series has two rows.
fn usual_step(rows: &Rows, series: usize, tick_us: u32) -> u32 {
    let mut last: Vec<Option<i64>> = alloc::vec![None; series];
    let mut steps: Vec<i64> = Vec::new();
    for (&time, &series) in rows.times.iter().zip(&rows.series) {
        if let Some(last) = last[series as usize].replace(time) {
            steps.push(time.wrapping_sub(last) / i64::from(tick_us));
        }
    }
    steps.sort_unstable();
    let step = steps.get(steps.len() / 2).copied().unwrap_or(1);
    u32::try_from(step).unwrap_or(1)
}
