//! What a log does, case by case.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::ops::ControlFlow;

use headwater_spool::format::{FOOTER_BYTES, MAX_PAYLOAD_BYTES, MAX_SNAPSHOT_BYTES};
use headwater_spool::{AppendError, Disk, DiskFile, FakeDisk, FullCause, Log, ReleaseError, fsck};

mod common;
use common::{config, no_snapshot, payload, read_all};

fn open(disk: &FakeDisk) -> Log<FakeDisk> {
    Log::open(disk.clone(), config()).unwrap().0
}

/// Appends and syncs `count` records of `len` bytes.
fn fill(log: &mut Log<FakeDisk>, count: u64, len: usize) {
    for _ in 0..count {
        let next = log.next();
        log.append(1, &payload(next, len), &no_snapshot).unwrap();
    }
    log.sync().unwrap();
}

fn positions(log: &mut Log<FakeDisk>) -> Vec<u64> {
    let (records, damaged) = read_all(log);
    assert!(damaged.is_empty(), "{damaged:?}");
    for (position, kind, bytes) in &records {
        assert_eq!((*kind, bytes), (1, &payload(*position, bytes.len())));
    }
    records.into_iter().map(|record| record.0).collect()
}

fn ids(log: &Log<FakeDisk>) -> Vec<u64> {
    log.segments().map(|s| s.id).collect()
}

fn file(log: &Log<FakeDisk>, at: usize) -> String {
    format!("log-{:016x}.seg", ids(log)[at])
}

#[test]
fn a_record_is_read_after_its_sync_and_not_before() {
    let mut log = open(&FakeDisk::new());
    assert_eq!(log.append(1, &payload(0, 20), &no_snapshot).unwrap(), 0);
    assert!(positions(&mut log).is_empty());
    assert_eq!(log.durable(), 0);
    assert_eq!(log.sync().unwrap(), 1);
    assert_eq!(positions(&mut log), [0]);
}

#[test]
fn a_group_costs_one_write_and_one_sync() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 1, 20);
    let before = disk.stats();
    fill(&mut log, 10, 20);
    let after = disk.stats();
    assert_eq!(
        (after.writes - before.writes, after.syncs - before.syncs),
        (1, 1)
    );
    assert_eq!(after.bytes_written - before.bytes_written, 10 * (16 + 20));
}

#[test]
fn every_segment_begins_with_a_snapshot_taken_before_its_first_record() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    for _ in 0..40 {
        let next = log.next();
        let snapshot = |out: &mut Vec<u8>| out.extend_from_slice(&next.to_le_bytes());
        log.append(1, &payload(next, 1000), &snapshot).unwrap();
    }
    log.sync().unwrap();
    let mut log = open(&disk);
    assert!(log.segments().len() > 4);
    for segment in log.segments() {
        let snapshot = log.snapshot_of(segment.id).unwrap().unwrap();
        assert_eq!(snapshot, segment.first.to_le_bytes());
    }
    let (newest, _) = log.newest_snapshot().unwrap().unwrap();
    assert_eq!(newest.id, *ids(&log).last().unwrap());
    assert_eq!(positions(&mut log), (0..40).collect::<Vec<_>>());
}

#[test]
fn a_snapshot_larger_than_a_segment_makes_its_segment_grow() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    let large = |out: &mut Vec<u8>| out.resize(out.len() + 50_000, 7);
    log.append(1, &payload(0, 20_000), &large).unwrap();
    log.sync().unwrap();
    let log = open(&disk);
    let (info, snapshot) = log.newest_snapshot().unwrap().unwrap();
    assert_eq!(snapshot, vec![7; 50_000]);
    assert_eq!(info.positions(), 0..1);
}

#[test]
fn a_snapshot_or_record_beyond_its_bound_is_refused_and_nothing_changes() {
    let mut log = open(&FakeDisk::new());
    let huge = |out: &mut Vec<u8>| out.resize(out.len() + MAX_SNAPSHOT_BYTES + 1, 0);
    let error = log.append(1, b"x", &huge).unwrap_err();
    assert!(matches!(error, AppendError::SnapshotTooLarge(_)), "{error}");
    let beyond = vec![0; MAX_PAYLOAD_BYTES + 1];
    let error = log.append(1, &beyond, &no_snapshot).unwrap_err();
    assert!(matches!(error, AppendError::TooLarge(_)), "{error}");
    assert_eq!(log.append(1, &payload(0, 8), &no_snapshot).unwrap(), 0);
}

#[test]
fn after_a_clean_roll_the_next_start_scans_and_cuts_nothing() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 3, 100);
    log.roll().unwrap();
    let before = disk.operations();
    let (mut log, recovery) = Log::open(disk.clone(), config()).unwrap();
    assert_eq!((recovery.cut.len(), recovery.next), (0, 3));
    assert!(
        disk.operations() - before <= 7,
        "one list; open, size, header, footer; open and sync of the newest"
    );
    assert_eq!(positions(&mut log), [0, 1, 2]);
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on_behind_it() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 3, 100);
    let tail = file(&log, 0);
    drop(log);
    // The third record, in its middle.
    assert!(disk.rot(&tail, 64 + 2 * 116 + 50, 1));
    let (mut log, recovery) = Log::open(disk.clone(), config()).unwrap();
    assert_eq!((recovery.cut[0].next, recovery.next), (2, 2));
    fill(&mut log, 2, 100);
    assert_eq!(positions(&mut log), [0, 1, 2, 3]);
    assert_eq!(ids(&log).len(), 2);
    assert_eq!(positions(&mut open(&disk)), [0, 1, 2, 3]);
}

#[test]
fn damage_in_a_sealed_segment_is_skipped_and_named_once() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 20, 1000);
    let sealed = file(&log, 0);
    // A payload, and a length: the neighbours of both survive.
    assert!(disk.rot(&sealed, 64 + 1016 + 500, 4));
    assert!(disk.rot(&sealed, 64 + 3 * 1016 + 5, 0x40));
    for mut log in [log, open(&disk)] {
        let (records, damaged) = read_all(&mut log);
        assert_eq!(damaged, [1, 3]);
        let kept: Vec<_> = records.iter().map(|r| r.0).collect();
        assert_eq!(
            kept,
            (0..20).filter(|p| ![1, 3].contains(p)).collect::<Vec<_>>()
        );
        // Reading from inside the damage names only what lies ahead.
        let chunk = log
            .read(2, usize::MAX, |_, _, _| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(chunk.damage.len(), 1);
    }
    let report = fsck::check(&disk).unwrap();
    assert!(!report.sound);
    assert_eq!(report.logs[0].segments[0].damaged, [[1, 2], [3, 4]]);
    assert_eq!(report.logs[0].records, 18);
}

#[test]
fn the_last_records_of_a_sealed_segment_are_named_when_they_are_gone() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 9, 1000);
    let last = log.segments().next().unwrap().next - 1;
    assert!(disk.rot(&file(&log, 0), 64 + last * 1016, 1));
    let (records, damaged) = read_all(&mut log);
    assert_eq!((records.len(), damaged), (8, vec![last]));
}

#[test]
fn a_damaged_header_costs_no_record() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 20, 1000);
    let (sealed, newest) = (file(&log, 0), file(&log, 2));
    drop(log);
    assert!(disk.rot(&sealed, 20, 1));
    assert!(disk.rot(&newest, 20, 1));
    let (mut log, recovery) = Log::open(disk.clone(), config()).unwrap();
    assert_eq!(recovery.unreadable.len(), 2);
    assert_eq!(positions(&mut log), (0..20).collect::<Vec<_>>());
    assert_eq!(log.next(), 20);
}

#[test]
fn a_record_that_rots_in_a_file_without_header_and_footer_is_named_and_hides_none_behind_it() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 5, 1000);
    let first = file(&log, 0);
    drop(log);
    assert!(disk.rot(&first, 20, 1));
    let (mut log, _) = Log::open(disk.clone(), config()).unwrap();
    fill(&mut log, 1, 1000);
    drop(log);
    for (rots, damaged) in [(2, vec![2]), (4, vec![2, 4])] {
        assert!(disk.rot(&first, 64 + rots * 1016 + 500, 1));
        let (mut log, _) = Log::open(disk.clone(), config()).unwrap();
        let (records, found) = read_all(&mut log);
        assert_eq!((records.len(), found), (6 - damaged.len(), damaged));
    }
}

#[test]
fn a_segment_of_another_version_is_kept_named_and_never_read_or_overwritten() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 5, 100);
    log.roll().unwrap();
    let newest = file(&log, 0);
    drop(log);
    let file = disk.open(&newest).unwrap();
    let mut header = [0; 64];
    file.read_at(&mut header, 0).unwrap();
    header[8] = 2;
    let crc = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(&header, 0).unwrap();
    let (mut log, recovery) = Log::open(disk.clone(), config()).unwrap();
    assert_eq!(recovery.unreadable[0].file, newest);
    assert!(log.next() >= 5, "its positions are not given out again");
    let first = log.next();
    fill(&mut log, 1, 100);
    assert_eq!(positions(&mut log), [first]);
    assert!(disk.list().unwrap().contains(&newest));
    assert!(log.release(1).unwrap(), "its owner may let it go");
}

#[test]
fn any_sealed_segment_is_released_wherever_it_stands_but_the_newest_stays() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 30, 1000);
    let all = ids(&log);
    let middle = log.segments().nth(1).copied().unwrap();
    assert!(log.release(middle.id).unwrap());
    assert!(!log.release(middle.id).unwrap(), "it is gone");
    let newest = *all.last().unwrap();
    assert!(matches!(log.release(newest), Err(ReleaseError::Newest(_))));
    let kept: Vec<_> = (0..30)
        .filter(|p| !middle.positions().contains(p))
        .collect();
    assert_eq!(positions(&mut log), kept);
    assert_eq!(positions(&mut open(&disk)), kept);
}

#[test]
fn released_files_are_recycled_and_their_stale_bytes_never_read() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    for round in 0..20 {
        fill(&mut log, 8, 900);
        let sealed: Vec<_> = log.segments().filter(|s| s.sealed).map(|s| s.id).collect();
        for id in sealed {
            log.release(id).unwrap();
        }
        // A restart in the middle of a recycled file, full of what it held before.
        drop(log);
        log = Log::open(disk.process_killed(), config()).unwrap().0;
        let last = positions(&mut log).last().copied();
        assert_eq!(last, Some(round * 8 + 7));
        log = open(&disk);
    }
    let files = disk.list().unwrap();
    assert!(
        files.iter().filter(|f| f.ends_with(".spare")).count() <= 2,
        "{files:?}"
    );
    assert!(disk.used_bytes() <= 5 * (8 << 10));
}

#[test]
fn positions_go_on_after_everything_was_released() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 30, 1000);
    log.roll().unwrap();
    for id in ids(&log) {
        let _ = log.release(id);
    }
    drop(log);
    assert_eq!(open(&disk).next(), 30);
}

#[test]
fn a_snapshot_without_a_record_is_kept_for_its_own_sake() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 3, 100);
    log.roll().unwrap();
    let snapshot = |out: &mut Vec<u8>| out.extend_from_slice(b"marks");
    log.append(1, b"never synced", &snapshot).unwrap();
    // The snapshot is durable, so what stands before it may go.
    let oldest = ids(&log)[0];
    log.release(oldest).unwrap();
    let log = open(&disk.power_cut(5));
    assert_eq!(log.newest_snapshot().unwrap().unwrap().1, b"marks");
    assert_eq!(log.next(), 3);
}

#[test]
fn a_full_quota_says_so_and_the_reserve_names_the_loss() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    let full = loop {
        match log.append(1, &payload(log.next(), 1000), &no_snapshot) {
            Ok(_) => log.sync().unwrap(),
            Err(error) => break error,
        };
    };
    let quota = FullCause::Quota;
    assert!(
        matches!(full, AppendError::Full { cause, .. } if cause == quota),
        "{full}"
    );
    assert!(log.used_bytes() <= (1 << 20) - (8 << 10));
    let before = log.next();
    let gap = log
        .append_reserved(1, &payload(before, 1000), &no_snapshot)
        .unwrap();
    assert_eq!((gap, log.sync().unwrap()), (before, before + 1));
    assert!(log.used_bytes() <= 1 << 20);
    let oldest = ids(&log)[0];
    assert!(log.release(oldest).unwrap());
    let again = log.next();
    fill(&mut log, 7, 1000);
    assert!(positions(&mut log).contains(&again));
}

#[test]
fn a_full_disk_is_told_clearly_and_the_same_handle_works_on_after_a_release() {
    let disk = FakeDisk::new();
    disk.set_capacity(Some(100 << 10));
    let loose = headwater_spool::Config {
        fs_reserve_percent: 0,
        fs_reserve_bytes: 0,
        ..config()
    };
    for (config, expected) in [
        (loose, FullCause::FileSystem),
        (
            headwater_spool::Config {
                fs_reserve_percent: 5,
                fs_reserve_bytes: 9 << 10,
                ..config()
            },
            FullCause::FileSystem,
        ),
    ] {
        let disk = disk.process_killed();
        let (mut log, _) = Log::open(disk.clone(), config).unwrap();
        let full = loop {
            match log.append(1, &payload(log.next(), 1000), &no_snapshot) {
                Ok(_) => log.sync().unwrap(),
                Err(error) => break error,
            };
        };
        assert!(
            matches!(full, AppendError::Full { cause, .. } if cause == expected),
            "{full}"
        );
        let stored = log.durable();
        for id in ids(&log).into_iter().take(2) {
            assert!(log.release(id).unwrap());
        }
        fill(&mut log, 10, 1000);
        let all = positions(&mut log);
        assert_eq!(*all.last().unwrap(), stored + 9);
        assert_eq!(
            positions(&mut Log::open(disk, common::config()).unwrap().0),
            all
        );
    }
}

#[test]
fn a_disk_that_others_fill_between_look_and_write_is_met_as_full_too() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 5, 1000);
    // `space` told of a roomy disk; the allocation meets the truth.
    let squeezed = headwater_spool::Config {
        fs_reserve_percent: 0,
        fs_reserve_bytes: 0,
        ..config()
    };
    let other = disk.create("other").unwrap();
    other.allocate(64 << 10).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    drop(log);
    let (mut log, _) = Log::open(disk.clone(), squeezed).unwrap();
    let error = log.append(1, b"12345678", &no_snapshot).unwrap_err();
    assert!(matches!(error, AppendError::Full { .. }), "{error}");
    disk.remove("other").unwrap();
    assert_eq!(log.append(1, &payload(5, 100), &no_snapshot).unwrap(), 5);
    log.sync().unwrap();
    assert_eq!(positions(&mut log).len(), 6);
}

#[test]
fn a_failed_sync_costs_its_group_and_nothing_else() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 2, 100);
    for _ in 0..3 {
        let next = log.next();
        log.append(1, &payload(next, 100), &no_snapshot).unwrap();
    }
    disk.fail_sync(0);
    let error = log.sync().unwrap_err();
    assert_eq!(error.lost, 2..5);
    assert_eq!(positions(&mut log), [0, 1]);
    fill(&mut log, 2, 100);
    assert_eq!(positions(&mut log), [0, 1, 5, 6]);
    for seed in 0..50 {
        assert_eq!(positions(&mut open(&disk.power_cut(seed))), [0, 1, 5, 6]);
    }
}

#[test]
fn a_failed_write_or_sync_anywhere_loses_only_what_it_says() {
    for at in 0..120 {
        let disk = FakeDisk::new();
        let mut log = open(&disk);
        disk.fail_operation(at);
        let mut durable = Vec::new();
        let mut group = Vec::new();
        for i in 0..60 {
            let next = log.next();
            match log.append(1, &payload(next, 300), &no_snapshot) {
                Ok(position) => group.push(position),
                Err(AppendError::Sync(error)) => group.retain(|p| !error.lost.contains(p)),
                Err(_) => {}
            }
            if i % 5 == 4 {
                match log.sync() {
                    Ok(_) => durable.append(&mut group),
                    Err(error) => {
                        group.retain(|p| !error.lost.contains(p));
                        durable.append(&mut group);
                    }
                }
            }
        }
        disk.fail_operation(1 << 40);
        assert_eq!(positions(&mut log), durable, "operation {at}");
        assert_eq!(
            positions(&mut open(&disk.power_cut(at))),
            durable,
            "operation {at}"
        );
    }
}

#[test]
fn records_told_lost_stay_lost_when_the_segment_behind_them_is_released() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    fill(&mut log, 2, 100);
    log.append(1, &payload(2, 100), &no_snapshot).unwrap();
    // The sync and the sealing of the cut segment both fail; the bytes are in the file.
    disk.fail_sync(0);
    let before = disk.operations();
    log.sync().unwrap_err();
    assert!(disk.operations() - before <= 6);
    fill(&mut log, 8, 1000);
    fill(&mut log, 8, 1000);
    let second = ids(&log)[1];
    log.release(second).unwrap();
    let kept = positions(&mut log);
    assert_eq!(positions(&mut open(&disk)), kept);
    assert!(!kept.contains(&2));
}

#[test]
fn a_reader_in_another_thread_keeps_up_with_a_writer_that_recycles() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    let mut reader = log.reader();
    let (done, finished) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let (mut from, mut seen) = (0, 0u64);
        let mut last_round = false;
        loop {
            let chunk = reader
                .read(from, 4096, |position, _, bytes| {
                    assert!(position >= from);
                    assert_eq!(bytes, payload(position, 200));
                    seen += 1;
                    ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(chunk.damage, [], "released is not damaged");
            from = chunk.next;
            if last_round && chunk.records == 0 {
                return (from, seen);
            }
            last_round |= finished.try_recv().is_ok();
        }
    });
    for round in 0..400 {
        fill(&mut log, 10, 200);
        if round % 3 == 0 {
            let sealed: Vec<_> = log.segments().filter(|s| s.sealed).map(|s| s.id).collect();
            for id in sealed.iter().take(sealed.len().saturating_sub(2)) {
                log.release(*id).unwrap();
            }
        }
    }
    done.send(()).unwrap();
    let (reached, seen) = thread.join().unwrap();
    assert_eq!(reached, 4000);
    assert!(seen >= 60, "the newest segments are never released here");
}

#[test]
fn a_start_survives_any_file_content_under_its_names() {
    for content in [&b""[..], &[0; 64], &[0xff; 9000], b"HWSPOOL\0"] {
        let disk = FakeDisk::new();
        let mut log = open(&disk);
        fill(&mut log, 2, 100);
        drop(log);
        for name in [
            "log-0000000000000009.seg",
            "log-ffffffffffffffff.spare",
            "log-x.seg",
            "x",
        ] {
            disk.create(name).unwrap().write_at(content, 0).unwrap();
        }
        let (mut log, recovery) = Log::open(disk.clone(), config()).unwrap();
        assert_eq!(recovery.dropped, ["log-0000000000000009.seg"]);
        assert_eq!(positions(&mut log), [0, 1]);
        assert!(disk.list().unwrap().contains(&"x".to_owned()));
    }
}

#[test]
fn a_file_that_cannot_be_read_at_a_start_is_there_at_the_next_and_its_positions_are_not_reused() {
    for at in 0..40 {
        let disk = FakeDisk::new();
        let mut log = open(&disk);
        fill(&mut log, 25, 1000);
        drop(log);
        disk.fail_operation(at);
        let Ok((mut log, _)) = Log::open(disk.clone(), config()) else {
            continue;
        };
        disk.fail_operation(1 << 40);
        let first = log.next();
        assert!(first >= 25, "operation {at}");
        fill(&mut log, 3, 1000);
        drop(log);
        let mut expected: Vec<_> = (0..25).collect();
        expected.extend(first..first + 3);
        assert_eq!(positions(&mut open(&disk)), expected, "operation {at}");
    }
}

#[test]
fn a_segment_without_its_footer_is_not_cut_where_the_file_after_it_cannot_be_read() {
    for at in 0..40 {
        let disk = FakeDisk::new();
        let mut log = open(&disk);
        fill(&mut log, 25, 1000);
        let sealed = file(&log, 0);
        let size = disk.open(&sealed).unwrap().size().unwrap().len;
        drop(log);
        // A record, and what says where the segment ends.
        assert!(disk.rot(&sealed, 64 + 1016 + 500, 4));
        for byte in 1..=FOOTER_BYTES as u64 {
            assert!(disk.rot(&sealed, size - byte, 0xff));
        }
        disk.fail_operation(at);
        drop(Log::open(disk.clone(), config()));
        disk.fail_operation(1 << 40);
        let (records, damaged) = read_all(&mut open(&disk));
        assert_eq!(damaged, [1], "operation {at}");
        assert_eq!(records.len(), 24, "operation {at}");
    }
}

#[test]
fn what_is_kept_for_records_that_make_room_is_not_filled_by_others() {
    let disk = FakeDisk::new();
    let mut log = open(&disk);
    while log
        .append(1, &payload(log.next(), 1000), &no_snapshot)
        .is_ok()
    {
        log.sync().unwrap();
    }
    log.append_reserved(1, &payload(log.next(), 1000), &no_snapshot)
        .unwrap();
    log.sync().unwrap();
    // The segment has room, but it stands in the reserve.
    let next = payload(log.next(), 1000);
    let refused = log.append(1, &next, &no_snapshot).unwrap_err();
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    for _ in 0..5 {
        log.append_reserved(1, &payload(log.next(), 1000), &no_snapshot)
            .unwrap();
    }
    assert!(log.release(ids(&log)[0]).unwrap());
    log.append(1, &payload(log.next(), 100), &no_snapshot)
        .unwrap();
}
