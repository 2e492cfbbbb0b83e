//! LEB128 integers and zigzag: the integers of every header, and runs of bytes between them.

/// The output is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room left in the output")]
pub struct NoRoom;

/// Most bytes of a 64-bit varint.
pub const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` at `*at`.
///
/// # Errors
/// [`NoRoom`] if `out` ends first; `*at` is then unchanged.
pub fn put(out: &mut [u8], at: &mut usize, mut value: u64) -> Result<(), NoRoom> {
    let mut i = *at;
    loop {
        let slot = out.get_mut(i).ok_or(NoRoom)?;
        i += 1;
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            *slot = low;
            *at = i;
            return Ok(());
        }
        *slot = low | 0x80;
    }
}

/// Appends `value` to a vector.
#[cfg(feature = "alloc")]
pub fn append(out: &mut alloc::vec::Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Reads a varint at `*at`; `None` if the bytes end or the number passes 64 bits.
pub fn get(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0u64;
    let mut shift = 0u32;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// Copies `bytes` to `*at`.
///
/// # Errors
/// [`NoRoom`] if `out` ends first; `*at` is then unchanged.
pub(crate) fn put_bytes(out: &mut [u8], at: &mut usize, bytes: &[u8]) -> Result<(), NoRoom> {
    let end = *at + bytes.len();
    out.get_mut(*at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
    *at = end;
    Ok(())
}

/// The `len` bytes at `*at`; `None` if there are fewer.
pub(crate) fn take<'a>(bytes: &'a [u8], at: &mut usize, len: usize) -> Option<&'a [u8]> {
    let end = at.checked_add(len)?;
    let taken = bytes.get(*at..end)?;
    *at = end;
    Some(taken)
}

/// Bytes that [`put`] takes for `value`.
#[must_use]
pub const fn len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Maps small magnitudes of either sign to small numbers.
#[must_use]
#[expect(clippy::cast_sign_loss, reason = "zigzag is a bit pattern")]
pub const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[must_use]
#[expect(clippy::cast_possible_wrap, reason = "zigzag is a bit pattern")]
pub const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_and_takes_the_predicted_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = [0u8; MAX_VARINT_BYTES];
                let mut at = 0;
                put(&mut out, &mut at, value).unwrap();
                assert_eq!(at, len(value));
                let mut read = 0;
                assert_eq!(get(&out[..at], &mut read), Some(value));
                assert_eq!(read, at);
            }
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let mut at = 0;
        assert_eq!(get(&[0xff; 11], &mut at), None);
        let mut at = 0;
        assert_eq!(
            get(
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
                &mut at
            ),
            None
        );
    }

    #[test]
    fn zigzag_is_undone_at_the_extremes() {
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
