//! The models of one column beside those of its residuals, and the codes that use them.

use super::coder::Coder;
use super::magnitude::Own;
use super::models::Model;
use super::plan::Lane;
use crate::codec::bits::bit_len;
use crate::codec::model::Plan;
use crate::varint::{unzigzag, zigzag};

/// Exceptions rarer than this share of 65,536 have one flag per block.
const RARE: u16 = 6_000;

/// Flags that speak for all cells of a column in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags {
    rests: [Model; 2],
    rested: u8,
    calm: [Model; 2],
    was_calm: u8,
}

impl Flags {
    /// The start of every batch.
    pub(super) const START: Self = Self {
        rests: [Model::new(45_000, 2), Model::new(52_000, 3)],
        rested: 1,
        calm: [Model::new(45_000, 2), Model::new(58_000, 4)],
        was_calm: 1,
    };

    /// Codes whether all values of a column that rested before are as predicted.
    pub(super) fn rests<C: Coder>(&mut self, coder: &mut C, rests: bool) -> bool {
        let rests = coder.bit(&mut self.rests[usize::from(self.rested)], rests);
        self.rested = u8::from(rests);
        rests
    }

    /// Codes whether values are missing where they were before, and nothing is an exception.
    pub(super) fn calm<C: Coder>(&mut self, coder: &mut C, calm: bool) -> bool {
        let calm = coder.bit(&mut self.calm[usize::from(self.was_calm)], calm);
        self.was_calm = u8::from(calm);
        calm
    }
}

/// Models of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColumnModels {
    pub(super) own: Own,
    pub(super) present: [Model; 2],
    raw: [Model; 2],
    was_raw: u8,
    hit: [Model; 3],
    pub(super) was_hit: u8,
    rank: [Model; 5],
    corrected: [Model; 2],
    negative: Model,
    more: Model,
    was_corrected: u8,
    /// The latest quotient of any series.
    pub(super) latest: Option<i64>,
    /// For each of the last eight values of the batch, whether it was not as predicted: the newest in bit 0.
    pub(super) moved: u8,
    /// Numbers of the batch that were coded one after the other.
    pub(super) numbers: u32,
    /// Whether the batch has had no value yet.
    pub(super) is_fresh: bool,
}

impl ColumnModels {
    pub(super) fn new(plan: &Plan, lane: &Lane) -> Self {
        let often = plan.often_corrects();
        let share = if plan.params.zero_share == 15 {
            64_500
        } else {
            u16::from(plan.params.zero_share) * 4000 + 2000
        };
        Self {
            own: Own::new(
                Model::new(share, 5),
                u32::from(plan.params.residual_bits).saturating_sub(1),
            ),
            present: [Model::new(1 << 14, 2), Model::new(62_000, 4)],
            raw: [Model::new(2_000, 6), Model::new(1 << 15, 3)],
            was_raw: 0,
            hit: [Model::new(1 << 15, 2); 3],
            was_hit: 1,
            rank: [Model::new(1 << 14, 3); 5],
            corrected: [
                Model::new(
                    if often { 20_000 } else { 1 << 15 },
                    if often { 6 } else { 2 },
                ),
                Model::new(1 << 15, 3),
            ],
            negative: Model::new(1 << 15, 3),
            more: Model::new(1 << 13, 3),
            was_corrected: 0,
            latest: None,
            moved: if lane.starts_steady { 0 } else { u8::MAX },
            numbers: 0,
            is_fresh: true,
        }
    }

    /// Whether exceptions of this column are few enough for one flag per block. A column with a memory
    /// has no such flag: its exceptions are often recent values.
    #[inline]
    pub(super) const fn uses_block_flag(&self, lane: &Lane) -> bool {
        lane.has_block_flag && self.was_raw == 0 && self.raw[0].probability() < RARE
    }

    /// Codes whether a value is an exception.
    #[inline]
    pub(super) fn exception<C: Coder>(&mut self, coder: &mut C, exception: bool) -> bool {
        let exception = coder.bit(&mut self.raw[usize::from(self.was_raw)], exception);
        self.was_raw = u8::from(exception);
        exception
    }

    /// Codes whether an exception is a correction.
    #[inline]
    pub(super) fn is_corrected<C: Coder>(&mut self, coder: &mut C, corrected: bool) -> bool {
        coder.bit(&mut self.corrected[0], corrected)
    }

    /// Codes whether a value is among the recent ones.
    #[inline]
    pub(super) fn hit<C: Coder>(&mut self, coder: &mut C, hit: bool) -> bool {
        let hit = coder.bit(&mut self.hit[usize::from(self.was_hit)], hit);
        self.was_hit = u8::from(hit);
        hit
    }

    /// Codes the place of a value among `len` recent ones.
    pub(super) fn rank<C: Coder>(&mut self, coder: &mut C, len: usize, rank: usize) -> usize {
        let mut found = 0;
        while found < 4 && found + 1 < len {
            if coder.bit(&mut self.rank[found], rank == found) {
                return found;
            }
            found += 1;
        }
        if found == 4 && len > 5 {
            let width = bit_len(len as u64 - 5);
            let above = coder.raw((rank.saturating_sub(4)) as u64, width);
            found += usize::try_from(above).unwrap_or(usize::MAX).min(len);
        }
        found
    }

    /// Codes a correction.
    pub(super) fn correction<C: Coder>(&mut self, coder: &mut C, correction: i8) -> i8 {
        let any = coder.bit(
            &mut self.corrected[usize::from(self.was_corrected)],
            correction != 0,
        );
        self.was_corrected = u8::from(any);
        if any {
            self.units(coder, correction)
        } else {
            0
        }
    }

    /// Codes a correction that is not zero.
    pub(super) fn units<C: Coder>(&mut self, coder: &mut C, correction: i8) -> i8 {
        let negative = coder.bit(&mut self.negative, correction < 0);
        let mut units = 1;
        if coder.bit(&mut self.more, correction.unsigned_abs() > 1) {
            units = 2 + i8::from(coder.even(u32::from(correction.unsigned_abs() > 2), 1) != 0);
        }
        if negative { -units } else { units }
    }
}

/// Codes a value that is no level by its distance from the level of a rank: neighbours on a smooth curve
/// share their upper bits.
pub(super) fn beside_level<C: Coder>(coder: &mut C, plan: &Plan, rank: i64, bits: u64) -> u64 {
    if plan.width() == 32 {
        // Too few bits are shared to pay for their count.
        return coder.raw(bits, 32);
    }
    let level = plan.level(rank);
    let code = zigzag(plan.order(bits).wrapping_sub(level));
    // A damaged batch may hold any length here.
    let len = coder.raw(u64::from(bit_len(code)), 7).min(64);
    let code = coder.raw(code, u32::try_from(len).unwrap_or(64));
    if C::WRITES {
        bits
    } else {
        plan.unorder(level.wrapping_add(unzigzag(code)))
    }
}
