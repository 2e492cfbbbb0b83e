//! A receiver as bytes, for the snapshot at the head of a journal segment.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 1 |
//! | 1 | flags: bit 0 the end is known, bit 1 it was clean, bit 2 the newest record is known |
//! | 4 sets | data, sender's gaps, own gaps, committed: count of ranges, then for each range its distance from the end of the one before and its length, all LEB128 |
//! | 2 numbers | first and next of the end, LEB128, only if known |
//! | 1 to 10, 4 | number (LEB128) and checksum (little-endian) of the newest record, only if known |
//!
//! The running group counts as synced: the snapshot stands in the journal after its records.

use crate::delivery::epoch::End;
use crate::delivery::receiver::{MAX_RANGES, Receiver, Set};
use crate::ids::SeqRange;
use crate::message::MAX_SEQ;
use crate::varint::{self, NoRoom};

const VERSION: u8 = 1;
const FLAG_END: u8 = 1;
const FLAG_CLEAN: u8 = 2;
const FLAG_NEWEST: u8 = 4;

/// Most bytes of a receiver, with every set full; a few dozen in practice.
pub const MAX_SNAPSHOT_BYTES: usize = 2 + 4 * (1 + MAX_RANGES * 18) + 18 + 9 + 4;

/// The bytes are not a receiver of a version this build reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a receiver's snapshot")]
pub struct NotASnapshot;

impl Receiver {
    /// Writes the receiver; returns its length.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` is too short; [`MAX_SNAPSHOT_BYTES`] always suffices.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let state = &self.now;
        let mut flags = 0;
        if let Some(end) = state.end {
            flags |= FLAG_END | if end.clean { FLAG_CLEAN } else { 0 };
        }
        if state.newest.is_some() {
            flags |= FLAG_NEWEST;
        }
        out.get_mut(..2)
            .ok_or(NoRoom)?
            .copy_from_slice(&[VERSION, flags]);
        let mut at = 2;
        for set in [
            &state.data,
            &state.sender_gaps,
            &state.own_gaps,
            &self.committed,
        ] {
            put_set(set, out, &mut at)?;
        }
        if let Some(end) = state.end {
            varint::put(out, &mut at, end.first)?;
            varint::put(out, &mut at, end.next)?;
        }
        if let Some((seq, crc)) = state.newest {
            varint::put(out, &mut at, seq)?;
            out.get_mut(at..at + 4)
                .ok_or(NoRoom)?
                .copy_from_slice(&crc.to_le_bytes());
            at += 4;
        }
        Ok(at)
    }

    /// Appends the receiver's bytes.
    #[cfg(feature = "alloc")]
    pub fn append_to(&self, out: &mut alloc::vec::Vec<u8>) {
        let start = out.len();
        out.resize(start + MAX_SNAPSHOT_BYTES, 0);
        let len = self
            .encode(&mut out[start..])
            .expect("MAX_SNAPSHOT_BYTES always suffices");
        out.truncate(start + len);
    }

    /// Reads a receiver at the start of `bytes`; returns it and its length. All of its state is synced.
    ///
    /// # Errors
    /// [`NotASnapshot`]. No bytes make it panic.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), NotASnapshot> {
        let mut at = 0;
        let receiver = Self::read(bytes, &mut at).ok_or(NotASnapshot)?;
        Ok((receiver, at))
    }

    fn read(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let &[VERSION, flags] = bytes.first_chunk::<2>()? else {
            return None;
        };
        if flags & !(FLAG_END | FLAG_CLEAN | FLAG_NEWEST) != 0 {
            return None;
        }
        *at = 2;
        let mut receiver = Self::new();
        receiver.now.data = get_set(bytes, at)?;
        receiver.now.sender_gaps = get_set(bytes, at)?;
        receiver.now.own_gaps = get_set(bytes, at)?;
        receiver.committed = get_set(bytes, at)?;
        if flags & FLAG_END != 0 {
            let (first, next) = (varint::get(bytes, at)?, varint::get(bytes, at)?);
            if first > next || next > MAX_SEQ {
                return None;
            }
            receiver.now.end = Some(End {
                first,
                next,
                clean: flags & FLAG_CLEAN != 0,
            });
        }
        if flags & FLAG_NEWEST != 0 {
            let seq = varint::get(bytes, at)?;
            let crc = bytes.get(*at..*at + 4)?.try_into().ok()?;
            *at += 4;
            receiver.now.newest = Some((seq, u32::from_le_bytes(crc)));
        }
        Some(receiver)
    }
}

fn put_set(set: &Set, out: &mut [u8], at: &mut usize) -> Result<(), NoRoom> {
    varint::put(out, at, set.len() as u64)?;
    let mut end = 0;
    for range in set.iter() {
        varint::put(out, at, range.first - end)?;
        varint::put(out, at, range.len())?;
        end = range.next;
    }
    Ok(())
}

fn get_set(bytes: &[u8], at: &mut usize) -> Option<Set> {
    let count = usize::try_from(varint::get(bytes, at)?).ok()?;
    if count > MAX_RANGES {
        return None;
    }
    let mut set = Set::new();
    let mut end = 0u64;
    for _ in 0..count {
        let first = end.checked_add(varint::get(bytes, at)?)?;
        end = first.checked_add(varint::get(bytes, at)?)?;
        if end > MAX_SEQ || first >= end || (first == set.end() && !set.is_empty()) {
            return None;
        }
        set.insert(SeqRange::new(first, end)).ok()?;
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::receiver::Namer;

    #[test]
    fn the_bytes_of_version_1_are_frozen() {
        let mut receiver = Receiver::new();
        for seq in [0, 1, 2, 7, 300] {
            receiver.offer(seq, 9);
        }
        receiver.cover(SeqRange::new(3, 5), Namer::Sender).unwrap();
        receiver
            .cover(SeqRange::new(5, 7), Namer::Receiver)
            .unwrap();
        receiver.end(End {
            first: 0,
            next: 400,
            clean: true,
        });
        receiver.synced();
        receiver.commit(SeqRange::new(0, 3));
        let mut out = [0; MAX_SNAPSHOT_BYTES];
        let len = receiver.encode(&mut out).unwrap();
        let golden: &[u8] = &[
            1, 7, 3, 0, 3, 4, 1, 164, 2, 1, 1, 3, 2, 1, 5, 2, 1, 0, 3, 0, 144, 3, 172, 2, 9, 0, 0,
            0,
        ];
        assert_eq!(out[..len], *golden);
        assert_eq!(Receiver::decode(golden), Ok((receiver, len)));
    }
}
