//! How one column is coded: what the schema says once so that a batch need not.

use super::model::Predictor;
use crate::schema::ColumnKind;
#[cfg(feature = "alloc")]
use crate::varint;

/// Largest decimal exponent of an `f64` column: 10^22 is the largest that a double holds exactly.
pub const MAX_EXPONENT_F64: u8 = 22;
/// Largest decimal exponent of an `f32` column.
pub const MAX_EXPONENT_F32: u8 = 9;
/// Most recent values a column may remember.
pub const MAX_MEMORY: u8 = 255;

/// How a float becomes an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scale {
    /// mantissa / 10^exponent, correctly rounded, and up to three units in the last place beside it.
    Decimal(u8),
    /// The bit pattern, ordered as the numbers are.
    Bits,
    /// mantissa / parts, correctly rounded: averages of a few readings. 2 to [`MAX_PARTS`].
    Parts(u16),
    /// The same, then rounded to 15 significant digits, as spreadsheets and many logs print it.
    Printed(u16),
    /// The rank of the value among the column's [levels](crate::schema::Column::levels); also of
    /// integers.
    Levels,
}

/// Most parts of a unit: that many times 10^15 fit 64 bits.
pub const MAX_PARTS: u16 = 18_000;
/// Most taps of a column.
pub const MAX_TAPS: usize = 8;
/// Most taps on the first value of a column.
pub const MAX_FIRST_TAPS: usize = 2;

/// One term of a fitted prediction: `weight` / 2^16 times what a value of the row, or of an earlier
/// row of the series, lies above its column's reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tap {
    /// An earlier column, or the column itself; that at lag 0 is always one.
    pub column: u16,
    /// 0 for this row, 1 to 3 for earlier values.
    pub lag: u8,
    /// In 1/65,536.
    pub weight: i64,
}

/// Up to `N` taps of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Taps<const N: usize = MAX_TAPS> {
    taps: [Tap; N],
    len: u8,
}

impl<const N: usize> Default for Taps<N> {
    fn default() -> Self {
        Self::NONE
    }
}

impl<const N: usize> Taps<N> {
    /// None.
    pub const NONE: Self = Self {
        taps: [Tap {
            column: 0,
            lag: 0,
            weight: 0,
        }; N],
        len: 0,
    };

    /// Adds a tap; false if there is no room.
    pub fn push(&mut self, tap: Tap) -> bool {
        let Some(place) = self.taps.get_mut(usize::from(self.len)) else {
            return false;
        };
        *place = tap;
        self.len += 1;
        true
    }

    /// All of them.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Tap] {
        &self.taps[..usize::from(self.len)]
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[cfg(feature = "alloc")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        out.push(self.len);
        for tap in self.as_slice() {
            append(out, u64::from(tap.column) << 2 | u64::from(tap.lag));
            append(out, varint::zigzag(tap.weight));
        }
    }

    /// At least one tap.
    #[cfg(feature = "alloc")]
    fn decode(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let mut taps = Self::NONE;
        for _ in 0..next(bytes, at)? {
            let place = varint::get(bytes, at)?;
            let tap = Tap {
                column: u16::try_from(place >> 2).ok()?,
                lag: (place & 3) as u8,
                weight: varint::unzigzag(varint::get(bytes, at)?),
            };
            if !taps.push(tap) {
                return None;
            }
        }
        (!taps.is_empty()).then_some(taps)
    }
}

/// How last-bit corrections of a decimal column are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corrections {
    /// As exceptions: for columns that hardly ever need one.
    Rare,
    /// With every value: for products and sums that are often one unit off.
    Often,
}

/// Parameters of one column.
///
/// A number is seen as `mantissa = offset + divisor * quotient`; the quotient is what is predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Params {
    /// How a float becomes a mantissa; ignored for other kinds.
    pub scale: Scale,
    /// How corrections are said.
    pub corrections: Corrections,
    /// Common divisor of the mantissas, at least 1.
    pub divisor: u64,
    /// Steps of a converter: a mantissa is this times the quotient in 1/65,536, rounded. 0 for none;
    /// the divisor is then 1.
    pub stride: u32,
    /// Remainder of the mantissas by the divisor, below it; 0 when the divisor is 1.
    pub offset: u64,
    /// How the next quotient is foretold from the last three of its series.
    pub predictor: Predictor,
    /// The usual difference from one quotient to the next, for predictors that go on with it.
    pub slope: i64,
    /// Expected distance of the second quotient's difference from the slope: bits of it, 0 to 63.
    pub slope_bits: u8,
    /// The quotient that a series starts from.
    pub reference: i64,
    /// Expected distance of a series' first quotient from the reference: bits of it, 0 to 63.
    pub reference_bits: u8,
    /// Where the first value of a series is foretold from the latest of another: bits of the expected
    /// distance plus one; 0 where it is foretold from the reference.
    pub kin_bits: u8,
    /// Expected size of a residual (in zigzag) at the start of a batch, in 1/16, as bits of it, 0 to 68.
    pub residual_bits: u8,
    /// How often a residual is expected to be zero at the start of a batch, in 1/16, 0 to 15.
    pub zero_share: u8,
    /// How many recent values are remembered and named by rank: 0, or 2 to [`MAX_MEMORY`].
    pub memory: u8,
    /// What the range back end adds to the prediction.
    pub taps: Taps,
    /// What it adds to the reference to foretell a series' first value: taps on earlier columns of
    /// the row.
    pub first_taps: Taps<MAX_FIRST_TAPS>,
    /// With such taps: expected distance of the first quotient from that, in bits of it, 0 to 63.
    pub first_bits: u8,
}

impl Params {
    /// Parameters that suit nothing badly, for a column nobody has seen yet.
    #[must_use]
    pub const fn default_for(kind: ColumnKind) -> Self {
        Self {
            scale: match kind {
                ColumnKind::F32 => Scale::Decimal(3),
                ColumnKind::F64 => Scale::Decimal(4),
                ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => Scale::Decimal(0),
            },
            corrections: Corrections::Rare,
            divisor: 1,
            stride: 0,
            offset: 0,
            predictor: Predictor::Last,
            slope: 0,
            slope_bits: 0,
            reference: 0,
            reference_bits: match kind {
                ColumnKind::Bool | ColumnKind::Str => 0,
                ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64 => 12,
            },
            kin_bits: 0,
            residual_bits: 6,
            zero_share: 8,
            memory: 0,
            taps: Taps::NONE,
            first_taps: Taps::NONE,
            first_bits: 0,
        }
    }
}

impl Params {
    /// Names the first parameter outside its range, if there is one.
    ///
    /// # Errors
    /// The parameter's name.
    pub fn check(&self, kind: ColumnKind) -> Result<(), &'static str> {
        let most = match kind {
            ColumnKind::F32 => MAX_EXPONENT_F32,
            ColumnKind::F64 => MAX_EXPONENT_F64,
            ColumnKind::Bool | ColumnKind::I64 | ColumnKind::Str => 0,
        };
        match self.scale {
            Scale::Decimal(exponent) if exponent > most => return Err("exponent"),
            Scale::Bits | Scale::Parts(_) | Scale::Printed(_) if most == 0 => return Err("scale"),
            Scale::Levels if !Self::is_number(kind) => return Err("scale"),
            Scale::Printed(_) if kind == ColumnKind::F32 => return Err("scale"),
            Scale::Parts(parts) | Scale::Printed(parts) if !(2..=MAX_PARTS).contains(&parts) => {
                return Err("parts");
            }
            Scale::Bits
            | Scale::Decimal(_)
            | Scale::Parts(_)
            | Scale::Printed(_)
            | Scale::Levels => {}
        }
        if self.stride != 0 && (self.stride <= 1 << 16 || self.divisor != 1) {
            return Err("stride");
        }
        if self.taps.as_slice().iter().any(|tap| tap.lag > 3)
            || self.first_taps.as_slice().iter().any(|tap| tap.lag > 0)
            || (self.first_taps.is_empty() && self.first_bits != 0)
        {
            return Err("tap");
        }
        if self.divisor == 0 || self.divisor > i64::MAX.unsigned_abs() {
            return Err("divisor");
        }
        if self.offset >= self.divisor {
            return Err("offset");
        }
        if self.reference_bits > 63
            || self.slope_bits > 63
            || self.kin_bits > 64
            || self.first_bits > 63
            || self.residual_bits > 68
            || self.zero_share > 15
        {
            return Err("start value");
        }
        if !self.predictor.goes_on() && (self.slope != 0 || self.slope_bits != 0) {
            return Err("slope");
        }
        let plain = most == 0 && kind != ColumnKind::I64;
        if plain
            && (self.memory != 0
                || self.predictor.goes_on()
                || self.kin_bits != 0
                || !self.taps.is_empty()
                || !self.first_taps.is_empty()
                || self.stride != 0
                || self.divisor != 1
                || self.reference < 0)
        {
            return Err("parameter of a column that is no number");
        }
        if self.memory == 1 {
            return Err("memory");
        }
        Ok(())
    }

    /// Whether a value of this kind may need an escape, a correction or nothing but a residual.
    const fn is_number(kind: ColumnKind) -> bool {
        matches!(kind, ColumnKind::I64 | ColumnKind::F32 | ColumnKind::F64)
    }

    /// Appends the parameters of a column of this kind: 5 to 40 bytes, 2 or more for text and bool.
    #[cfg(feature = "alloc")]
    pub(crate) fn encode(&self, kind: ColumnKind, out: &mut alloc::vec::Vec<u8>) {
        let taps = if self.taps.is_empty() { 0 } else { TAPPED };
        out.push(self.zero_share << 4 | self.predictor.to_u8() | taps);
        append(out, varint::zigzag(self.reference));
        if !Self::is_number(kind) {
            return;
        }
        let scale = match self.scale {
            Scale::Decimal(exponent) => exponent,
            Scale::Bits => BITS,
            Scale::Parts(_) => PARTS,
            Scale::Printed(_) => PRINTED,
            Scale::Levels => LEVELS,
        };
        let mut head = scale;
        if self.corrections == Corrections::Often {
            head |= OFTEN;
        }
        if self.divisor != 1 || self.stride != 0 {
            head |= DIVIDED;
        }
        if self.memory != 0 {
            head |= REMEMBERS;
        }
        let kin = if self.kin_bits == 0 { 0 } else { KIN };
        let first = if self.first_taps.is_empty() { 0 } else { FIRST };
        let residual = self.residual_bits | first;
        out.extend_from_slice(&[head, residual, self.reference_bits | kin]);
        if kin != 0 {
            out.push(self.kin_bits);
        }
        if self.predictor.goes_on() {
            append(out, varint::zigzag(self.slope));
            out.push(self.slope_bits);
        }
        if let Scale::Parts(parts) | Scale::Printed(parts) = self.scale {
            append(out, u64::from(parts));
        }
        if self.stride != 0 {
            append(out, 0);
            append(out, u64::from(self.stride));
        } else if self.divisor != 1 {
            append(out, self.divisor);
            append(out, self.offset);
        }
        if self.memory != 0 {
            out.push(self.memory);
        }
        if !self.taps.is_empty() {
            self.taps.encode(out);
        }
        if first != 0 {
            out.push(self.first_bits);
            self.first_taps.encode(out);
        }
    }

    /// Reads the parameters of a column of this kind; ranges are checked by [`Params::check`].
    #[cfg(feature = "alloc")]
    pub(crate) fn decode(kind: ColumnKind, bytes: &[u8], at: &mut usize) -> Option<Self> {
        let mut params = Self::default_for(kind);
        let first = next(bytes, at)?;
        params.zero_share = first >> 4;
        params.predictor = Predictor::from_u8(first & 0x07)?;
        params.reference = varint::unzigzag(varint::get(bytes, at)?);
        if !Self::is_number(kind) {
            return (first & TAPPED == 0).then_some(params);
        }
        let head = next(bytes, at)?;
        params.scale = match head & SCALE {
            BITS => Scale::Bits,
            // Completed below.
            PARTS => Scale::Parts(0),
            PRINTED => Scale::Printed(0),
            LEVELS => Scale::Levels,
            exponent => Scale::Decimal(exponent),
        };
        params.corrections = if head & OFTEN == 0 {
            Corrections::Rare
        } else {
            Corrections::Often
        };
        let residual = next(bytes, at)?;
        params.residual_bits = residual & !FIRST;
        params.reference_bits = next(bytes, at)?;
        if params.reference_bits & KIN != 0 {
            params.reference_bits ^= KIN;
            params.kin_bits = next(bytes, at)?;
            if params.kin_bits == 0 {
                return None;
            }
        }
        if params.predictor.goes_on() {
            params.slope = varint::unzigzag(varint::get(bytes, at)?);
            params.slope_bits = next(bytes, at)?;
        }
        if let Scale::Parts(parts) | Scale::Printed(parts) = &mut params.scale {
            *parts = u16::try_from(varint::get(bytes, at)?).ok()?;
        }
        if head & DIVIDED != 0 {
            match varint::get(bytes, at)? {
                0 => {
                    params.stride = u32::try_from(varint::get(bytes, at)?).ok()?;
                    if params.stride == 0 {
                        return None;
                    }
                }
                1 => return None,
                divisor => {
                    params.divisor = divisor;
                    params.offset = varint::get(bytes, at)?;
                }
            }
        }
        if head & REMEMBERS != 0 {
            params.memory = next(bytes, at)?;
            if params.memory == 0 {
                return None;
            }
        }
        if first & TAPPED != 0 {
            params.taps = Taps::decode(bytes, at)?;
        }
        if residual & FIRST != 0 {
            params.first_bits = next(bytes, at)?;
            params.first_taps = Taps::decode(bytes, at)?;
        }
        Some(params)
    }
}

#[cfg(feature = "alloc")]
const SCALE: u8 = 0x1f;
#[cfg(feature = "alloc")]
const BITS: u8 = 0x1f;
#[cfg(feature = "alloc")]
const PARTS: u8 = 0x1e;
#[cfg(feature = "alloc")]
const PRINTED: u8 = 0x1d;
#[cfg(feature = "alloc")]
const LEVELS: u8 = 0x1c;
#[cfg(feature = "alloc")]
const TAPPED: u8 = 0x08;
#[cfg(feature = "alloc")]
const KIN: u8 = 0x80;
#[cfg(feature = "alloc")]
const FIRST: u8 = 0x80;
#[cfg(feature = "alloc")]
const OFTEN: u8 = 0x20;
#[cfg(feature = "alloc")]
const DIVIDED: u8 = 0x40;
#[cfg(feature = "alloc")]
const REMEMBERS: u8 = 0x80;

/// How the next time of a series is foretold from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// The last step again: for series whose steps differ or change.
    Follow,
    /// The usual step: for a clock whose steps vary one by one.
    Step,
    /// The usual step on a grid that follows the times slowly: for a timer that keeps its grid and
    /// is read late by chance.
    Grid,
}

impl Pace {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Follow, Self::Step, Self::Grid];

    #[cfg(feature = "alloc")]
    const fn to_u8(self) -> u8 {
        match self {
            Self::Follow => 0,
            Self::Step => 1,
            Self::Grid => 2,
        }
    }
}

/// How the times of a schema's rows are coded.
///
/// A batch whose times are not all whole ticks from its first is coded in microseconds instead: no
/// time is ever rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeParams {
    /// Microseconds per tick, at least 1.
    pub tick_us: u32,
    /// Expected ticks from one row of a series to the next.
    pub step: u32,
    /// What is foretold.
    pub pace: Pace,
    /// Expected error of that in 1/16 tick, as bits of it, 0 to 36.
    pub residual_bits: u8,
}

impl TimeParams {
    /// Times in ticks of `tick_us`, one tick apart.
    #[must_use]
    pub const fn new(tick_us: u32) -> Self {
        Self {
            tick_us,
            step: 1,
            pace: Pace::Follow,
            residual_bits: 6,
        }
    }

    /// Names the first parameter outside its range, if there is one.
    ///
    /// # Errors
    /// The parameter's name.
    pub const fn check(&self) -> Result<(), &'static str> {
        if self.tick_us == 0 {
            return Err("tick");
        }
        if self.residual_bits > 36 {
            Err("time jitter")
        } else {
            Ok(())
        }
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        append(out, u64::from(self.tick_us));
        append(out, u64::from(self.step));
        out.push(self.pace.to_u8() << PACE_SHIFT | self.residual_bits);
    }

    #[cfg(feature = "alloc")]
    pub(crate) fn decode(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let tick_us = u32::try_from(varint::get(bytes, at)?).ok()?;
        let step = u32::try_from(varint::get(bytes, at)?).ok()?;
        let last = next(bytes, at)?;
        let pace = last >> PACE_SHIFT;
        Some(Self {
            tick_us,
            step,
            pace: Pace::ALL.into_iter().find(|known| known.to_u8() == pace)?,
            residual_bits: last & ((1 << PACE_SHIFT) - 1),
        })
    }
}

/// The pace stands above the bits of the jitter.
#[cfg(feature = "alloc")]
const PACE_SHIFT: u32 = 6;

#[cfg(feature = "alloc")]
fn next(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let byte = *bytes.get(*at)?;
    *at += 1;
    Some(byte)
}

/// Appends a varint.
#[cfg(feature = "alloc")]
pub(crate) fn append(out: &mut alloc::vec::Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}
