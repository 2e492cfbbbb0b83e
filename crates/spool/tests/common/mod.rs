//! What the tests of the log share.

#![allow(dead_code, reason = "not every test file needs all of it")]
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::ops::ControlFlow;

use headwater_spool::{Config, Disk, Log};

/// Small segments, so that every path is walked within a few records.
pub(crate) fn config() -> Config {
    Config {
        segment_bytes: 8 << 10,
        quota_bytes: 1 << 20,
        reserve_bytes: 8 << 10,
        group_bytes: 4 << 10,
        ..Config::default()
    }
}

/// The payload of a position: tells which it is, and differs in every byte from its neighbours.
pub(crate) fn payload(position: u64, len: usize) -> Vec<u8> {
    let mut bytes = position.to_le_bytes().to_vec();
    let mut word = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < len {
        word = word.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(len.max(8));
    bytes
}

/// An owner without state.
pub(crate) fn no_snapshot(_: &mut Vec<u8>) {}

/// A record: position, kind, payload.
pub(crate) type Record = (u64, u8, Vec<u8>);

/// Everything that can be read, and the positions named as damaged.
pub(crate) fn read_all<D: Disk>(log: &mut Log<D>) -> (Vec<Record>, Vec<u64>) {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    let mut from = 0;
    loop {
        let chunk = log
            .read(from, 1000, |position, kind, payload| {
                records.push((position, kind, payload.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        damaged.extend(chunk.damage.into_iter().flat_map(|d| d.positions));
        if chunk.records == 0 && chunk.next == from {
            return (records, damaged);
        }
        from = chunk.next;
    }
}
