//! A writer process that is killed at any moment, on a real disk.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use headwater_spool::{Config, Log, RealDisk};

mod common;
use common::{no_snapshot, payload, read_all};

const FOLDER: &str = "HEADWATER_SPOOL_KILL_FOLDER";
/// Segments that the writer keeps.
const KEPT: usize = 6;

fn config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        quota_bytes: 4 << 20,
        ..Config::default()
    }
}

fn len_of(position: u64) -> usize {
    let word = position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    8 + usize::try_from(word % 5000).unwrap()
}

/// Appends, syncs and releases until it is killed, and says on standard output what must be there:
/// `first next`, where `first` is told before what stands before it is released, and `next` after
/// its sync.
#[test]
#[ignore = "the other tests start it as a process of its own"]
fn the_writer_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let disk = RealDisk::open(Path::new(&folder)).unwrap();
    let (mut log, _) = Log::open(disk, config()).unwrap();
    let mut group = 0;
    loop {
        group = group % 9 + 1;
        for _ in 0..group {
            let position = log.next();
            log.append(1, &payload(position, len_of(position)), &no_snapshot)
                .unwrap();
        }
        let next = log.sync().unwrap();
        let segments: Vec<_> = log.segments().copied().collect();
        let old = &segments[..segments.len().saturating_sub(KEPT)];
        println!("{} {next}", segments[old.len()].first);
        for segment in old {
            log.release(segment.id).unwrap();
        }
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_process", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills `kills` writers on one folder; after each, everything it called durable must be there.
fn kill(kills: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (mut first, mut next) = (0, 0);
    for round in 0..kills {
        let mut writer = start(folder.path());
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut left = 1 + round * 7919 % 60;
        let mut told = |line: &str| {
            let mut numbers = line.split(' ').filter_map(|n| n.parse::<u64>().ok());
            if let (Some(a), Some(b)) = (numbers.next(), numbers.next()) {
                (first, next) = (a, b);
                return true;
            }
            false
        };
        for line in lines {
            // What it still says after the kill counts as well.
            if told(&line.unwrap()) {
                left = left.saturating_sub(1);
                if left == 0 {
                    writer.kill().unwrap();
                }
            }
        }
        writer.wait().unwrap();
        let disk = RealDisk::open(folder.path()).unwrap();
        let (mut log, recovery) = Log::open(disk, config()).unwrap();
        assert_eq!(
            (recovery.unreadable.len(), recovery.trouble.len()),
            (0, 0),
            "{recovery:?}"
        );
        let (records, damaged) = read_all(&mut log);
        assert!(damaged.is_empty(), "round {round}: {damaged:?}");
        let mut expected = first;
        for (position, _, bytes) in records.into_iter().filter(|r| r.0 >= first) {
            assert_eq!(position, expected, "round {round}");
            assert_eq!(bytes, payload(position, len_of(position)), "round {round}");
            expected += 1;
        }
        assert!(expected >= next, "round {round}: {expected} of {next}");
        assert!(log.used_bytes() <= config().quota_bytes);
    }
    assert!(next > kills, "the writers wrote");
}

#[test]
fn ten_kills_lose_no_durable_record() {
    kill(10);
}

#[test]
#[ignore = "takes a minute; part of the long run"]
fn a_hundred_kills_lose_no_durable_record() {
    kill(100);
}
