//! Values as ranks among the levels of a column: doubles of all digits that come again, because a
//! converter of few bits produces them. A value that is no level is an exception.

use super::plan::Plan;
#[cfg(feature = "alloc")]
use super::scale;
#[cfg(feature = "alloc")]
use crate::schema::ColumnKind;
#[cfg(feature = "alloc")]
use crate::schema::params::Scale;

impl Plan {
    /// The ordered integer of a number's bits.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn order(&self, bits: u64) -> i64 {
        match self.kind {
            ColumnKind::F32 => scale::order_f32((bits & 0xffff_ffff) as u32),
            ColumnKind::F64 => scale::order_f64(bits),
            ColumnKind::I64 | ColumnKind::Bool | ColumnKind::Str => bits.cast_signed(),
        }
    }

    /// Undoes [`Plan::order`].
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn unorder(&self, ordered: i64) -> u64 {
        match self.kind {
            ColumnKind::F32 => u64::from(scale::unorder_f32(ordered)),
            ColumnKind::F64 => scale::unorder_f64(ordered),
            ColumnKind::I64 | ColumnKind::Bool | ColumnKind::Str => ordered.cast_unsigned(),
        }
    }

    /// The level of a rank; a rank out of range has the nearest.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn level(&self, rank: i64) -> i64 {
        let last = self.levels.len().saturating_sub(1);
        let at = usize::try_from(rank.max(0)).unwrap_or(usize::MAX).min(last);
        self.levels.get(at).copied().unwrap_or(0)
    }

    /// Whether values are ranks among levels.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) fn has_levels(&self) -> bool {
        self.params.scale == Scale::Levels
    }

    /// Whether the memory holds all values, and not only those that are no level.
    #[cfg(feature = "alloc")]
    #[inline]
    pub(crate) const fn remembers_all(&self) -> bool {
        self.params.memory != 0 && !matches!(self.params.scale, Scale::Levels)
    }

    /// The rank of a value among the levels, if it is one.
    #[inline]
    pub(crate) fn rank(&self, bits: u64) -> Option<i64> {
        #[cfg(feature = "alloc")]
        return self
            .levels
            .binary_search(&self.order(bits))
            .ok()
            .and_then(|rank| i64::try_from(rank).ok());
        // An encoder without allocation refuses such columns.
        #[cfg(not(feature = "alloc"))]
        {
            let _ = bits;
            None
        }
    }

    /// The bits of the level of a rank.
    #[inline]
    pub(crate) fn at_rank(&self, rank: i64) -> u64 {
        #[cfg(feature = "alloc")]
        return self.unorder(self.level(rank));
        #[cfg(not(feature = "alloc"))]
        rank.cast_unsigned()
    }
}
