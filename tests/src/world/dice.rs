//! Core: every choice of a run comes from here, and so from the seed alone.

use headwater_proto::delivery::Jitter;

/// How a process ends against its will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process dies; what it wrote stays.
    Killed,
    /// The machine loses power; of what was not synced, anything may be gone.
    PowerCut,
}

/// A stream of choices.
#[derive(Debug, Clone)]
pub struct Dice(Jitter);

impl Dice {
    /// The choices of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Jitter::new(seed))
    }

    /// Other choices that follow from the same state, and change nothing of those of this stream.
    #[must_use]
    pub fn aside(&self, mark: u64) -> Self {
        let bits = self.clone().bits();
        Self::new(bits ^ mark)
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number below `n`; 0 if `n` is.
    pub const fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.bits() % n }
    }

    /// A place in a list of `len`.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a length")
    }

    /// True once in `n` times on average; never if `n` is 0.
    pub const fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// How somebody dies.
    pub const fn death(&mut self) -> Death {
        if self.one_in(2) {
            Death::Killed
        } else {
            Death::PowerCut
        }
    }
}
