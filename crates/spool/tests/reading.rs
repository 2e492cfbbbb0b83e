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

#[test]
fn from_any_position_each_later_one_is_read_or_named_as_damaged() {
    let disk = FakeDisk::new();
    let mut log = Log::open(disk.clone(), config()).unwrap().0;
    for position in 0..100 {
        log.append(1, &payload(position, 100), &no_snapshot)
            .unwrap();
    }
    log.sync().unwrap();
    let first = *log.segments().next().unwrap();
    assert!(first.sealed && first.next > 40);
    // All headers from one record to the segment's end are damaged, and so nothing tells where the
    // next good record is.
    let (header, record_header) = (64, 16);
    let record = record_header + 100;
    for bad in [5, 20, first.next - 1] {
        let disk = disk.process_killed();
        let name = format!("log-{:016x}.seg", first.id);
        for position in bad..first.next {
            let at = header + (position - first.first) * record;
            (0..record_header).for_each(|byte| {
                assert!(disk.rot(&name, at + byte, 0xff));
            });
        }
        let log = Log::open(disk, config()).unwrap().0;
        for from in 0..100 {
            let mut reader = log.reader();
            let mut seen = Vec::new();
            let chunk = reader
                .read(from, usize::MAX, |position, _, _| {
                    seen.push(position);
                    ControlFlow::Continue(())
                })
                .unwrap();
            seen.extend(chunk.damage.iter().flat_map(|d| d.positions.clone()));
            seen.sort_unstable();
            assert_eq!(seen, (from..100).collect::<Vec<_>>(), "bad {bad}");
        }
    }
}
