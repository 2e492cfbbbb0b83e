//! The latest distinct values of a column.

use alloc::vec::Vec;

use super::plan::Plan;

/// The latest distinct values of one column, newest first.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    pub(super) values: Vec<u64>,
    pub(super) most: usize,
}

impl Recent {
    pub(super) fn new(plan: &Plan) -> Self {
        let most = usize::from(plan.params.memory);
        Self {
            values: Vec::with_capacity(most),
            most,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// The rank of a value, 0 for the newest.
    pub(crate) fn rank(&self, bits: u64) -> Option<usize> {
        self.values.iter().position(|&value| value == bits)
    }

    /// Whether a value with this quotient, if any, becomes the newest.
    #[inline]
    pub(super) fn takes(&self, plan: &Plan, quotient: Option<i64>) -> bool {
        self.most != 0 && (plan.remembers_all() || quotient.is_none())
    }

    /// Makes a value the newest; `rank` is its rank if it was a recent value.
    pub(super) fn put(&mut self, bits: u64, rank: Option<usize>) {
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
    pub(crate) fn get(&self, rank: u64) -> Option<u64> {
        usize::try_from(rank)
            .ok()
            .and_then(|rank| self.values.get(rank))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ColumnKind;
    use crate::schema::params::{MAX_MEMORY, Params};

    #[test]
    fn the_longest_memory_forgets_the_oldest_of_its_values() {
        let params = Params {
            memory: MAX_MEMORY,
            ..Params::default_for(ColumnKind::I64)
        };
        let mut recent = Recent::new(&Plan::new(ColumnKind::I64, false, params, 0));
        for value in 0..u64::from(MAX_MEMORY) {
            recent.put(value, None);
        }
        assert_eq!(recent.rank(0), Some(usize::from(MAX_MEMORY) - 1));
        recent.put(u64::MAX, None);
        assert_eq!(recent.rank(0), None);
        assert_eq!(recent.len(), usize::from(MAX_MEMORY));
    }
}
