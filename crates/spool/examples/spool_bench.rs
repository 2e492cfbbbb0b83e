//! What the log costs on this machine's disk: `cargo run --release --example spool_bench -- [--json]
//! [--quick] [--no-rates] [FOLDER]`. The folder (default: a new one under the temporary folder) must not be on a
//! memory file system if the syncs are to mean anything; it is removed at the end.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use headwater_spool::{Config, Log, RealDisk, fsck};
use serde::Serialize;

type Failure = Box<dyn std::error::Error>;

#[derive(Serialize)]
struct Rate {
    payload_bytes: usize,
    group: u64,
    records: u64,
    appends_per_s: f64,
    payload_mb_per_s: f64,
    syncs_per_s: f64,
    disk_bytes_per_payload_byte: f64,
}

#[derive(Serialize)]
struct Backlog {
    bytes: u64,
    segments: usize,
    open_ms: f64,
    open_rss_growth_kib: i64,
    read_mb_per_s: f64,
    read_rss_growth_kib: i64,
}

#[derive(Serialize)]
struct Outage {
    payload_bytes: u64,
    fill_s: f64,
    drain_s: f64,
    peak_rss_growth_kib: i64,
    peak_disk_bytes: u64,
    disk_bytes_after_drain: u64,
    disk_bytes_per_payload_byte: f64,
}

#[derive(Serialize)]
struct Figures {
    buffered_appends_per_s_1_kib: f64,
    group_commit: Vec<Rate>,
    backlog: Backlog,
    outage: Outage,
}

fn main() -> Result<(), Failure> {
    let (mut json, mut quick, mut rates, mut folder) = (false, false, true, None);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--quick" => quick = true,
            "--no-rates" => rates = false,
            path => folder = Some(PathBuf::from(path)),
        }
    }
    let temporary = tempfile::tempdir()?;
    let folder = folder.unwrap_or_else(|| temporary.path().to_owned());
    let scale = if quick { 8 } else { 1 };
    // Small things first: the memory that later ones free would hide their growth.
    let outage = outage(&folder.join("outage"), (160 << 20) / scale)?;
    let backlog = backlog(&folder.join("backlog"), (2 << 30) / scale)?;
    let mut group_commit = Vec::new();
    for (len, group, records) in [
        (1 << 10, 1, 2_000),
        (1 << 10, 64, 100_000),
        (1 << 10, 512, 400_000),
        (16 << 10, 1, 2_000),
        (16 << 10, 4, 8_000),
        (16 << 10, 64, 32_000),
    ] {
        if !rates {
            break;
        }
        group_commit.push(rate(&folder.join("rate"), len, group, records / scale)?);
    }
    let buffered_appends_per_s_1_kib = buffered(&folder.join("buffered"), 400_000 / scale)?;
    let figures = Figures {
        buffered_appends_per_s_1_kib,
        group_commit,
        backlog,
        outage,
    };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(&figures)?)?;
    } else {
        print(&mut out, &figures)?;
    }
    Ok(())
}

fn print(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    writeln!(out, "group commit, recycled 4 MiB segments")?;
    writeln!(
        out,
        "{:>8} {:>6} {:>12} {:>10} {:>9} {:>14}",
        "payload", "group", "appends/s", "MB/s", "syncs/s", "disk B/payl. B"
    )?;
    for r in &figures.group_commit {
        writeln!(
            out,
            "{:>8} {:>6} {:>12.0} {:>10.1} {:>9.0} {:>14.3}",
            r.payload_bytes,
            r.group,
            r.appends_per_s,
            r.payload_mb_per_s,
            r.syncs_per_s,
            r.disk_bytes_per_payload_byte
        )?;
    }
    writeln!(
        out,
        "appends of 1 KiB, syncs not counted: {:.0}/s",
        figures.buffered_appends_per_s_1_kib
    )?;
    let b = &figures.backlog;
    writeln!(
        out,
        "backlog of {} MB in {} segments: open {:.1} ms, {} KiB; read {:.0} MB/s, {} KiB",
        b.bytes / 1_000_000,
        b.segments,
        b.open_ms,
        b.open_rss_growth_kib,
        b.read_mb_per_s,
        b.read_rss_growth_kib
    )?;
    let o = &figures.outage;
    writeln!(
        out,
        "outage of {} MB: fill {:.2} s, drain {:.2} s, memory +{} KiB at most, disk {:.1} MB at most and {:.1} MB after the drain, {:.3} disk B/payload B",
        o.payload_bytes / 1_000_000,
        o.fill_s,
        o.drain_s,
        o.peak_rss_growth_kib,
        o.peak_disk_bytes as f64 / 1e6,
        o.disk_bytes_after_drain as f64 / 1e6,
        o.disk_bytes_per_payload_byte
    )
}

#[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Resident memory in KiB.
fn rss_kib() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn config(quota_bytes: u64) -> Config {
    Config {
        segment_bytes: 4 << 20,
        quota_bytes,
        ..Config::default()
    }
}

/// Gives back all but the newest segment.
fn release_old(log: &mut Log<RealDisk>) -> Result<(), Failure> {
    let ids: Vec<_> = log.segments().rev().skip(1).map(|s| s.id).collect();
    for id in ids {
        log.release(id)?;
    }
    Ok(())
}

fn rate(folder: &Path, len: usize, group: u64, records: u64) -> Result<Rate, Failure> {
    let disk = RealDisk::open(folder)?;
    let (mut log, _) = Log::open(disk.clone(), config(256 << 20))?;
    let payload: Vec<u8> = (0u8..=255).cycle().take(len).collect();
    // Steady state: as many segments written as there are spares, so that files are recycled.
    let warm = 4 * (4 << 20) / len as u64;
    let mut run = |records: u64| -> Result<(), Failure> {
        for i in 0..records {
            log.append(1, &payload, &|_| {})?;
            if (i + 1) % group == 0 {
                log.sync()?;
                release_old(&mut log)?;
            }
        }
        log.sync()?;
        Ok(())
    };
    let chunk = 256 / group * group;
    run(warm / chunk.max(group) * chunk.max(group))?;
    let (before, start) = (disk.stats(), now());
    run(records)?;
    let (seconds, after) = (start.elapsed().as_secs_f64(), disk.stats());
    drop(log);
    std::fs::remove_dir_all(folder)?;
    let bytes = records as f64 * len as f64;
    Ok(Rate {
        payload_bytes: len,
        group,
        records,
        appends_per_s: records as f64 / seconds,
        payload_mb_per_s: bytes / seconds / 1e6,
        syncs_per_s: (after.syncs - before.syncs) as f64 / seconds,
        disk_bytes_per_payload_byte: (after.bytes_written - before.bytes_written) as f64 / bytes,
    })
}

/// Appends within segments, without the time of syncs: what one core can do.
fn buffered(folder: &Path, records: u64) -> Result<f64, Failure> {
    let disk = RealDisk::open(folder)?;
    let (mut log, _) = Log::open(disk, config(256 << 20))?;
    let payload = vec![7; 1 << 10];
    let (mut seconds, mut done) = (0.0, 0);
    while done < records {
        let start = now();
        for _ in 0..512 {
            log.append(1, &payload, &|_| {})?;
        }
        seconds += start.elapsed().as_secs_f64();
        done += 512;
        log.sync()?;
        // A new segment's syncs belong to no append.
        log.roll()?;
        log.append(1, &payload, &|_| {})?;
        release_old(&mut log)?;
    }
    drop(log);
    std::fs::remove_dir_all(folder)?;
    Ok(done as f64 / seconds)
}

fn backlog(folder: &Path, bytes: u64) -> Result<Backlog, Failure> {
    let payload = vec![3; 16 << 10];
    let wide = Config {
        segment_bytes: 2 << 20,
        ..config(u64::MAX / 2)
    };
    {
        let (mut log, _) = Log::open(RealDisk::open(folder)?, wide.clone())?;
        let mut written = 0;
        while written < bytes {
            for _ in 0..256 {
                log.append(1, &payload, &|out| out.resize(out.len() + 300, 1))?;
                written += payload.len() as u64;
            }
            log.sync()?;
        }
    }
    let disk = RealDisk::open(folder)?;
    let (memory, start) = (rss_kib(), now());
    let (mut log, _) = Log::open(disk.clone(), wide)?;
    let ids: Vec<_> = log.segments().map(|s| s.id).collect();
    for id in &ids {
        log.snapshot_of(*id)?;
    }
    let (open_ms, open_rss_growth_kib) = (start.elapsed().as_secs_f64() * 1e3, rss_kib() - memory);
    let (start, mut from, mut read) = (now(), 0, 0u64);
    loop {
        let chunk = log.read(from, 1 << 20, |_, _, _| ControlFlow::Continue(()))?;
        if chunk.records == 0 {
            break;
        }
        from = chunk.next;
        read += chunk.bytes as u64;
    }
    let read_mb_per_s = read as f64 / start.elapsed().as_secs_f64() / 1e6;
    let read_rss_growth_kib = rss_kib() - memory;
    if !fsck::check(&disk)?.sound {
        return Err("the backlog is damaged".into());
    }
    drop((log, disk));
    std::fs::remove_dir_all(folder)?;
    let segments = ids.len();
    Ok(Backlog {
        bytes: read,
        segments,
        open_ms,
        open_rss_growth_kib,
        read_mb_per_s,
        read_rss_growth_kib,
    })
}

/// An outage: records pile up durably in groups of 16, then drain in order.
fn outage(folder: &Path, bytes: u64) -> Result<Outage, Failure> {
    let disk = RealDisk::open(folder)?;
    let wide = Config {
        segment_bytes: 2 << 20,
        ..config(bytes * 2)
    };
    let (mut log, _) = Log::open(disk.clone(), wide)?;
    let payload = vec![5; 8 << 10];
    let memory = rss_kib();
    let mut peak = memory;
    let start = now();
    let records = bytes / payload.len() as u64;
    for i in 0..records {
        log.append(1, &payload, &|_| {})?;
        if (i + 1) % 16 == 0 {
            log.sync()?;
        }
        if i % 1024 == 0 {
            peak = peak.max(rss_kib());
        }
    }
    log.sync()?;
    let fill_s = start.elapsed().as_secs_f64();
    let peak_disk_bytes = log.used_bytes();
    let (start, mut from) = (now(), 0);
    loop {
        let chunk = log.read(from, 256 << 10, |_, _, _| ControlFlow::Continue(()))?;
        if chunk.records == 0 {
            break;
        }
        from = chunk.next;
        let done: Vec<_> = log
            .segments()
            .filter(|s| s.sealed && s.next <= from)
            .map(|s| s.id)
            .collect();
        for id in done {
            log.release(id)?;
        }
        peak = peak.max(rss_kib());
    }
    let drain_s = start.elapsed().as_secs_f64();
    let disk_bytes_after_drain = log.used_bytes();
    let written = disk.stats().bytes_written;
    drop((log, disk));
    std::fs::remove_dir_all(folder)?;
    Ok(Outage {
        payload_bytes: bytes,
        fill_s,
        drain_s,
        peak_rss_growth_kib: peak - memory,
        peak_disk_bytes,
        disk_bytes_after_drain,
        disk_bytes_per_payload_byte: written as f64 / bytes as f64,
    })
}
