//! A receiver's bytes in the journal's snapshot, version 1 of which the journal's snapshot is the
//! keeper.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | flags: bit 0 an end follows, bit 1 it was clean, bit 2 the newest record follows |
//! | each set | number of ranges, then for each: distance from the end before it, length |
//! | if flagged | end: first, next |
//! | if flagged | newest record: number, checksum |
//!
//! Sets stand in the order data, gapped, named, committed; all integers are LEB128.

use alloc::vec::Vec;

use crate::delivery::epoch::End;
use crate::delivery::ranges::Ranges;
use crate::delivery::receiver::{MAX_RANGES, Receiver, State};
use crate::ids::SeqRange;
use crate::message::MAX_SEQ;
use crate::varint::{self, MAX_VARINT_BYTES};

const END: u8 = 1;
const CLEAN: u8 = 2;
const NEWEST: u8 = 4;

impl Receiver {
    /// Most ranges that any of its sets has: [`MAX_RANGES`] is the bound.
    #[must_use]
    pub fn most_ranges(&self) -> usize {
        let state = &self.now;
        state.data.len().max(state.gapped.len()).max(state.named.len())
    }

    /// Appends its bytes to `out`: the running group counted as durable, which it is when a journal
    /// begins a segment.
    pub fn save(&self, out: &mut Vec<u8>) {
        let state = &self.now;
        let mut flags = 0;
        if let Some(end) = state.end {
            flags |= END | if end.clean { CLEAN } else { 0 };
        }
        if state.newest.is_some() {
            flags |= NEWEST;
        }
        out.push(flags);
        for set in [&state.data, &state.gapped, &state.named, &self.committed] {
            put(out, set.len() as u64);
            let mut at = 0;
            for range in set.iter() {
                put(out, range.first - at);
                put(out, range.len());
                at = range.next;
            }
        }
        if let Some(end) = state.end {
            put(out, end.first);
            put(out, end.next);
        }
        if let Some((seq, crc)) = state.newest {
            put(out, seq);
            put(out, u64::from(crc));
        }
    }

    /// Reads at `*at` what [`Receiver::save`] wrote; `None` if the bytes are none of its.
    #[must_use]
    pub fn load(bytes: &[u8], at: &mut usize) -> Option<Self> {
        let flags = *bytes.get(*at)?;
        *at += 1;
        let data = set(bytes, at)?;
        let gapped = set(bytes, at)?;
        let named = set(bytes, at)?;
        let committed = set(bytes, at)?;
        let mut state = State { data, gapped, named, ..State::default() };
        if flags & END != 0 {
            let (first, next) = (varint::get(bytes, at)?, varint::get(bytes, at)?);
            state.end = Some(End { first, next, clean: flags & CLEAN != 0 });
        }
        if flags & NEWEST != 0 {
            let seq = varint::get(bytes, at)?;
            state.newest = Some((seq, u32::try_from(varint::get(bytes, at)?).ok()?));
        }
        Some(Self::from_saved(state, committed))
    }
}

fn put(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; MAX_VARINT_BYTES];
    let mut len = 0;
    varint::put(&mut bytes, &mut len, value).expect("the buffer holds any varint");
    out.extend_from_slice(&bytes[..len]);
}

fn set(bytes: &[u8], at: &mut usize) -> Option<Ranges<MAX_RANGES>> {
    let mut set = Ranges::new();
    let mut edge = 0u64;
    for _ in 0..varint::get(bytes, at)? {
        let first = edge.checked_add(varint::get(bytes, at)?)?;
        let next = first.checked_add(varint::get(bytes, at)?)?;
        if next > MAX_SEQ {
            return None;
        }
        set.insert(SeqRange::new(first, next)).ok()?;
        edge = next;
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::receiver::Namer;
    use proptest::prelude::*;

    fn receiver() -> Receiver {
        let mut receiver = Receiver::new();
        for seq in [0, 1, 2, 7, 300] {
            receiver.offer(seq, 9);
        }
        receiver.cover(SeqRange::new(3, 5), Namer::Sender).unwrap();
        receiver.cover(SeqRange::new(5, 7), Namer::Receiver).unwrap();
        receiver.end(End { first: 0, next: 400, clean: true });
        receiver.synced();
        receiver.commit(SeqRange::new(0, 3));
        receiver
    }

    #[test]
    fn the_bytes_of_version_1_are_frozen_and_come_back() {
        let mut out = Vec::new();
        receiver().save(&mut out);
        let golden: &[u8] = &[
            7, 3, 0, 3, 4, 1, 164, 2, 1, 1, 3, 2, 1, 5, 2, 1, 0, 3, 0, 144, 3, 172, 2, 9,
        ];
        assert_eq!(out, golden);
        let mut at = 0;
        assert_eq!(Receiver::load(&out, &mut at), Some(receiver()));
        assert_eq!(at, out.len());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Receiver::load(&bytes, &mut 0);
        }
    }
}
