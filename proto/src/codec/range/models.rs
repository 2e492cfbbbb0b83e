//! Adaptive probabilities of bits and symbols.

/// Least and most probability of a bit, of 65,536.
const LEAST: i32 = 24;
const MOST: i32 = 0x10000 - LEAST;

/// How fast a model moves after `n` bits: 1/(n + 1.5) in 1/65,536.
#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 43,690, of counts up to 127"
)]
const RATES: [u16; 128] = {
    let mut rates = [0u16; 128];
    let mut n = 0;
    while n < 128 {
        rates[n] = (131_072 / (2 * n as u32 + 3)) as u16;
        n += 1;
    }
    rates
};

/// The probability of one kind of bit, learnt from the bits so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    /// Probability of a one, of 65,536.
    p: u16,
    /// How many bits it has learnt from, up to its limit.
    count: u8,
}

impl Model {
    /// Starts at `p` of 65,536 with the weight of `count` bits.
    #[must_use]
    pub(crate) const fn new(p: u16, count: u8) -> Self {
        Self { p, count }
    }

    /// The probability of a one, of 65,536.
    #[must_use]
    #[inline]
    pub(crate) const fn probability(&self) -> u16 {
        self.p
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, bit: bool, limit: u8) {
        // Towards MOST or LEAST, so that it stays between them; the shift keeps the sign.
        let rate = i32::from(RATES[usize::from(self.count & 127)]);
        let p = i32::from(self.p);
        let aim = if bit { MOST } else { LEAST };
        let moved = p.wrapping_add((aim - p).wrapping_mul(rate >> 1) >> 15);
        self.p = (moved & 0xffff) as u16;
        self.count = self.count.wrapping_add(u8::from(self.count < limit));
    }
}

/// Limits of a model's count: the higher, the longer it remembers.
pub(crate) const SLOW: u8 = 90;
pub(crate) const FAST: u8 = 25;

/// Values of a symbol.
pub(crate) const VALUES: u32 = 16;
const LEN: usize = VALUES as usize;

/// The probabilities of a symbol's values, learnt from the symbols so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Symbols {
    /// Probability of less than each value, of 32,768, and of any; without a sign.
    below: [i16; LEN + 1],
    count: u8,
}

/// Least probability of a value, of 32,768.
const LEAST_PART: i16 = 12;

/// Per symbol: where it moves the probabilities to.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a handful of values"
)]
static AIMS: [[i16; LEN]; LEN] = {
    let mut aims = [[0; LEN]; LEN];
    let mut symbol = 0;
    while symbol < LEN {
        let mut at = 0;
        while at < LEN {
            aims[symbol][at] = at as i16 * LEAST_PART;
            if at > symbol {
                aims[symbol][at] += i16::MAX - LEN as i16 * LEAST_PART;
            }
            at += 1;
        }
        symbol += 1;
    }
    aims
};

impl Symbols {
    /// Starts at such shares of any sum, as sure of them as after `count` symbols, at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "parts of 32,768, and a handful of values"
    )]
    pub(crate) const fn new(shares: [u32; LEN], count: u8) -> Self {
        let mut sum = 0;
        let mut at = 0;
        while at < LEN {
            sum += shares[at] as u64;
            at += 1;
        }
        let room = (1 << 15) - LEAST_PART as u64 * LEN as u64;
        let mut below = [i16::MIN; LEN + 1];
        let mut so_far = 0;
        at = 0;
        while at < LEN {
            below[at] = (so_far * room / sum) as i16 + at as i16 * LEAST_PART;
            so_far += shares[at] as u64;
            at += 1;
        }
        Self {
            below,
            count: if count == 0 { 1 } else { count },
        }
    }

    /// The same with the weight of `count` symbols, at least one.
    #[must_use]
    pub(crate) const fn as_after(mut self, count: u8) -> Self {
        self.count = if count == 0 { 1 } else { count };
        self
    }

    /// Probability of a value below `symbol` (0 to 16), of 32,768.
    #[inline(always)]
    pub(crate) fn below(&self, symbol: u32) -> u32 {
        u32::from(self.below[symbol as usize].cast_unsigned())
    }

    /// Moves towards the symbol that came. Values stay at least [`LEAST_PART`] apart: each moves by the
    /// same share towards an aim, the aims are that far apart, and rounding down keeps whole distances.
    #[expect(
        clippy::cast_possible_wrap,
        reason = "at most 26,214 after one symbol; a step is no larger than the way"
    )]
    #[inline(always)]
    pub(crate) fn learn(&mut self, symbol: u32, limit: u8) {
        let rate = RATES[usize::from(self.count & 127)] as i16;
        let aims = AIMS[symbol as usize % LEN];
        // All but the last, which stays.
        let Some((below, _)) = self.below.split_first_chunk_mut::<LEN>() else {
            return;
        };
        for (below, aim) in below.iter_mut().zip(aims) {
            let way = aim.wrapping_sub(*below);
            let step = (i32::from(way) * i32::from(rate)) >> 16;
            *below = below.wrapping_add(step as i16);
        }
        self.count = self.count.wrapping_add(u8::from(self.count < limit));
    }
}
