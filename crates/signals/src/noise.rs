//! Core: noise by hashing a position, so that any value can be had without those before it.

/// Mixes 64 bits.
///
/// # Source
/// The finaliser of SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014.
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The key of a device under a seed.
pub(crate) fn key_of(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(mix(seed), |key, byte| mix(key ^ u64::from(byte)))
}

/// One channel of noise.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) const fn new(key: u64, channel: u64) -> Self {
        Self(mix(key ^ mix(channel)))
    }

    /// 64 bits that belong to position `k`.
    pub(crate) const fn at(self, k: u64) -> u64 {
        mix(self.0 ^ mix(k))
    }

    /// White noise: the mean of two even draws from -1 to 1.
    pub(crate) fn signed(self, k: u64) -> f64 {
        let bits = self.at(k);
        (unit(bits >> 32) + unit(bits & 0xffff_ffff)) - 1.0
    }

    /// Slow noise from -1 to 1: random points every `stretch` positions, joined smoothly.
    pub(crate) fn smooth(self, k: u64, stretch: u64) -> f64 {
        let (point, step) = (k / stretch, k % stretch);
        let x = step as f64 / stretch as f64;
        let ease = x * x * (3.0 - 2.0 * x);
        let (a, b) = (self.signed(point), self.signed(point + 1));
        a + (b - a) * ease
    }
}

/// 32 bits as a number from 0 up to 1.
fn unit(bits: u64) -> f64 {
    bits as f64 / 4_294_967_296.0
}

/// `value` to the nearest `1 / scale`.
pub(crate) fn round_to(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}
