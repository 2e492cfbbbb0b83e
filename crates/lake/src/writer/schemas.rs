//! Core: which wire schemas the lake is known to have.

use std::collections::{HashSet, VecDeque};

use crate::plan::Sha256;

/// Schemas that are remembered, 100 bytes each: a fleet has tens. One that was forgotten costs a put
/// that finds it there.
const MAX_KNOWN: usize = 4_096;

/// Hashes, the oldest of which give way.
#[derive(Debug, Default)]
pub(super) struct KnownSchemas {
    known: HashSet<Sha256>,
    order: VecDeque<Sha256>,
}

impl KnownSchemas {
    pub(super) fn has(&self, hash: Sha256) -> bool {
        self.known.contains(&hash)
    }

    pub(super) fn learn(&mut self, hash: Sha256) {
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > MAX_KNOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_to_one_too_many() {
        let mut schemas = KnownSchemas::default();
        let hash = |n: usize| Sha256::of(&n.to_le_bytes());
        for n in 0..=MAX_KNOWN {
            schemas.learn(hash(n));
            schemas.learn(hash(n));
        }
        assert!(!schemas.has(hash(0)));
        assert!((1..=MAX_KNOWN).all(|n| schemas.has(hash(n))));
        assert_eq!(schemas.order.len(), MAX_KNOWN);
    }
}
