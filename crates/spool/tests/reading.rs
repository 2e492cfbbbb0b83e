//! Reading a log by its segments.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::ops::ControlFlow;

use headwater_spool::{FakeDisk, Log};

mod common;
use common::{config, no_snapshot, payload};

#[test]
fn a_segment_is_read_alone_by_who_asks_for_it() {
    let disk = FakeDisk::new();
    let mut log = Log::open(disk, config()).unwrap().0;
    for position in 0..300 {
        log.append(1, &payload(position, 100), &no_snapshot)
            .unwrap();
    }
    log.sync().unwrap();
    let mut reader = log.reader();
    let all: Vec<u64> = log.segments().flat_map(|s| s.first..s.next).collect();
    let mut read = Vec::new();
    let mut at = 0;
    while let Some(segment) = reader.segment_at(at) {
        assert!(segment.positions().contains(&at));
        let take = |position, _: u8, _: &[u8]| {
            read.push(position);
            ControlFlow::Continue(())
        };
        let chunk = reader
            .read_within(segment.id, at, usize::MAX, take)
            .unwrap();
        assert_eq!(chunk.next, segment.next, "it ends with its segment");
        let (none, id) = (
            |_, _: u8, _: &[u8]| unreachable!("another segment"),
            segment.id,
        );
        let elsewhere = reader
            .read_within(id, segment.next, usize::MAX, none)
            .unwrap();
        assert_eq!(elsewhere.records, 0);
        at = chunk.next;
    }
    assert!(log.segments().len() > 2);
    assert_eq!(read, all);
}
