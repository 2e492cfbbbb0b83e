//! Predictors of the next quotient of a series from its last three.

/// How the next quotient is predicted from the last three of its series, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Predictor {
    /// The reference, always: for noise around a level.
    Constant,
    /// The last one: for values that hold or wander.
    Last,
    /// The last one plus the last difference: for ramps and counters.
    Linear,
    /// The mean of the last two: for noise on a slow signal.
    Mean,
    /// The last one plus half the last difference.
    HalfSlope,
    /// The parabola through the last three: for smooth curves.
    Quadratic,
}

impl Predictor {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Constant,
        Self::Last,
        Self::Linear,
        Self::Mean,
        Self::HalfSlope,
        Self::Quadratic,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Constant => 0,
            Self::Last => 1,
            Self::Linear => 2,
            Self::Mean => 3,
            Self::HalfSlope => 4,
            Self::Quadratic => 5,
        }
    }

    /// The predictor of a number, if there is one.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|predictor| predictor.to_u8() == number)
    }

    /// Whether it goes on with the last difference.
    #[must_use]
    #[inline]
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Linear | Self::HalfSlope | Self::Quadratic)
    }

    /// The prediction of the next quotient; all arithmetic wraps.
    #[must_use]
    #[inline]
    pub const fn predict(self, past: [i64; 3], reference: i64) -> i64 {
        let [a, b, c] = past;
        match self {
            Self::Constant => reference,
            Self::Last => a,
            Self::Linear => a.wrapping_add(a.wrapping_sub(b)),
            // The mean of two without overflow.
            Self::Mean => (a & b).wrapping_add((a ^ b) >> 1),
            Self::HalfSlope => a.wrapping_add(a.wrapping_sub(b) >> 1),
            Self::Quadratic => a.wrapping_sub(b).wrapping_mul(3).wrapping_add(c),
        }
    }
}
