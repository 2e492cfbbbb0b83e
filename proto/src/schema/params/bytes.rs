//! The parameters of a column as bytes.
//!
//! | bytes | what | for |
//! |---|---|---|
//! | 1 | predictor (3 bits), 0x08 taps follow, share of zeros (4 bits) | all |
//! | varint | reference, zigzag | all |
//! | 1 | scale (5 bits), 0x20 corrections with every value, 0x40 unit follows, 0x80 memory follows | numbers |
//! | 1 | `residual_bits`, 0x80 taps on the first value follow | numbers |
//! | 1 | `reference_bits`, 0x80 kin follows | numbers |
//! | 1 | `kin_bits` | kin |
//! | varint, 1 | slope, zigzag; `slope_bits` | predictors that go on with a slope |
//! | varint | parts of a unit | scales 29 and 30 |
//! | varint, varint | 0, stride; or divisor, offset | unit |
//! | 1 | memory | memory |
//! | 1, varints | count of taps; each: column * 4 + lag, weight in zigzag | taps |
//! | 1, as taps | `first_bits`; taps on the first value | taps on the first value |
//!
//! Scales: 0 to 22 decimals, 28 levels, 29 printed, 30 parts, 31 bits.

use alloc::vec::Vec;

use super::{Corrections, Params, Predictor, Scale, Taps, next};
use crate::schema::ColumnKind;
use crate::varint;

const SCALE: u8 = 0x1f;
const BITS: u8 = 0x1f;
const PARTS: u8 = 0x1e;
const PRINTED: u8 = 0x1d;
const LEVELS: u8 = 0x1c;
const TAPPED: u8 = 0x08;
const KIN: u8 = 0x80;
const FIRST: u8 = 0x80;
const OFTEN: u8 = 0x20;
const DIVIDED: u8 = 0x40;
const REMEMBERS: u8 = 0x80;

impl Params {
    /// Appends the parameters of a column of this kind: 5 to 40 bytes, 2 or more for text and bool.
    pub(crate) fn encode(&self, kind: ColumnKind, out: &mut Vec<u8>) {
        let taps = if self.taps.is_empty() { 0 } else { TAPPED };
        out.push(self.zero_share << 4 | self.predictor.to_u8() | taps);
        varint::append(out, varint::zigzag(self.reference));
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
            varint::append(out, varint::zigzag(self.slope));
            out.push(self.slope_bits);
        }
        if let Scale::Parts(parts) | Scale::Printed(parts) = self.scale {
            varint::append(out, u64::from(parts));
        }
        if self.stride != 0 {
            varint::append(out, 0);
            varint::append(out, u64::from(self.stride));
        } else if self.divisor != 1 {
            varint::append(out, self.divisor);
            varint::append(out, self.offset);
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
