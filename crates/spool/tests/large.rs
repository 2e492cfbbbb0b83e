//! Segments with large snapshots, when they are damaged.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use headwater_spool::{FakeDisk, Log};

mod common;
use common::{config, payload, read_all};

#[test]
fn a_lost_header_before_a_large_snapshot_is_got_over_in_one_pass() {
    let disk = FakeDisk::new();
    let config = headwater_spool::Config {
        segment_bytes: 2 << 20,
        quota_bytes: 64 << 20,
        ..config()
    };
    let mut log = Log::open(disk.clone(), config.clone()).unwrap().0;
    // Looks everywhere like headers of long records.
    let snapshot = |out: &mut Vec<u8>| {
        for at in 0..40_000u64 {
            out.extend_from_slice(&(at << 8 | 7 << 40).to_le_bytes());
        }
    };
    for _ in 0..50 {
        log.append(1, &payload(log.next(), 1000), &snapshot)
            .unwrap();
    }
    log.roll().unwrap();
    log.append(1, &payload(log.next(), 1000), &snapshot)
        .unwrap();
    log.sync().unwrap();
    let first = format!("log-{:016x}.seg", log.segments().next().unwrap().id);
    drop(log);
    let disk = disk.process_killed();
    disk.rot(&first, 3, 1);
    let before = disk.operations();
    let (mut log, recovery) = Log::open(disk.clone(), config).unwrap();
    let operations = disk.operations() - before;
    assert_eq!(recovery.unreadable.len(), 1);
    assert_eq!(read_all(&mut log).0.len(), 51);
    assert!(operations < 200, "{operations} for a file of 2 MiB");
}
