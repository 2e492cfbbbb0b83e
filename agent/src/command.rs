//! The commands beside `run`: status, fsck, send.

use std::fmt::Write as _;
use std::io::{BufRead as _, Read, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use headwater_proto::ids::Lane;
use headwater_proto::time::UnixMicros;
use headwater_spool::{RealDisk, fsck};

use crate::clock::{Clock, wall};
use crate::config::Config;
use crate::pipeline::engine::OfferError;
use crate::run::open_engine;
use crate::source::influx;
use crate::status::Status;

/// How the agent is doing, as a text for people or as one JSON object, and whether it runs. An idle
/// agent leaves its status as it is, so the age of a status does not tell; the lock on the spool does.
///
/// # Errors
/// If there is no status.
pub fn status(config: &Config, json: bool) -> anyhow::Result<(bool, String)> {
    let path = config
        .status
        .file
        .as_ref()
        .context("status.file is empty: no status is kept")?;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; has the agent run yet?", path.display()))?;
    let spool = &config.spool.dir;
    let runs = match RealDisk::is_in_use(spool) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        told => told.with_context(|| {
            format!(
                "cannot tell from the spool in {} whether the agent runs",
                spool.display()
            )
        })?,
    };
    if json {
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).context("the status file is damaged")?;
        object.insert("running".to_owned(), runs.into());
        return Ok((runs, serde_json::to_string(&object)? + "\n"));
    }
    let status: Status = serde_json::from_str(&text).context("the status file is damaged")?;
    Ok((runs, told(config, &status, runs, wall())?))
}

/// A status as a text for people.
fn told(
    config: &Config,
    status: &Status,
    runs: bool,
    now: UnixMicros,
) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    let age_s = (now.0 - status.at_us) / 1_000_000;
    let state = match (runs, status.connected) {
        (false, _) => "does not run; its last status is of",
        (true, true) => "connected, as of",
        (true, false) => "not connected, as of",
    };
    writeln!(out, "{}  {state} {age_s} s ago", config.device)?;
    writeln!(
        out,
        "  {} samples in {} readings",
        status.samples, status.readings
    )?;
    writeln!(
        out,
        "  {} records wait for the lake",
        status.backlog_records
    )?;
    for lane in &status.lanes {
        let where_to = if lane.in_ram {
            ", in memory: the disk takes nothing"
        } else {
            ""
        };
        writeln!(
            out,
            "  {:7} {} KiB on disk{where_to}",
            lane.name,
            lane.disk_bytes / 1024
        )?;
    }
    for (count, what) in [
        (status.evicted_records, "records evicted"),
        (status.damaged_records, "records damaged"),
        (status.refused_records, "records refused by the collector"),
        (status.refused, "readings refused"),
        (status.failed_syncs, "failed syncs"),
    ] {
        if count > 0 {
            writeln!(out, "  {count} {what}")?;
        }
    }
    Ok(out)
}

/// Checks every record of the spool; says whether all is sound, and what was found.
///
/// # Errors
/// If the folder cannot be read.
pub fn check_spool(config: &Config, json: bool) -> anyhow::Result<(bool, String)> {
    let dir = &config.spool.dir;
    let disk = RealDisk::peek(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let report = fsck::check(&disk)?;
    if json {
        return Ok((report.sound, serde_json::to_string(&report)? + "\n"));
    }
    let mut out = String::new();
    for log in &report.logs {
        let segments = log.segments.len();
        writeln!(
            out,
            "{:7} {} records in {segments} segments, {} bytes",
            log.name, log.records, log.bytes
        )?;
        for segment in log
            .segments
            .iter()
            .filter(|s| !s.damaged.is_empty() || s.error.is_some())
        {
            let error = segment.error.as_deref().unwrap_or("damaged records");
            writeln!(
                out,
                "        {}: {error} {:?}",
                segment.file, segment.damaged
            )?;
        }
    }
    writeln!(
        out,
        "{}",
        if report.sound {
            "sound"
        } else {
            "damaged: see above"
        }
    )?;
    Ok((report.sound, out))
}

/// Hands lines in InfluxDB line protocol to the running agent, or stores them where none runs.
/// Returns when they are durable.
///
/// # Errors
/// If a line is no reading, or neither way works.
pub fn send(config: &Config, input: &mut dyn Read) -> anyhow::Result<u64> {
    let mut text = String::new();
    for (number, line) in std::io::BufReader::new(input).lines().enumerate() {
        let line = line.context("cannot read the lines")?;
        influx::parse(&line, wall()).with_context(|| format!("line {}", number + 1))?;
        text.push_str(&line);
        text.push('\n');
    }
    if let Some(path) = &config.status.socket
        && let Ok(mut stream) = UnixStream::connect(path)
    {
        stream.write_all(text.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let taken = answer
            .strip_prefix("ok ")
            .and_then(|rest| rest.trim().parse().ok());
        return taken.context("the agent did not take the lines");
    }
    store(config, &text)
}

/// Stores lines in the spool of an agent that does not run.
fn store(config: &Config, text: &str) -> anyhow::Result<u64> {
    let clock = Clock::start();
    let mut engine = open_engine(config, clock)?;
    let mut stored = 0;
    for line in text.lines() {
        let Some(reading) = influx::parse(line, wall())? else {
            continue;
        };
        let now = clock.now();
        let source = config.sources.len();
        match reading.with_sample(|sample| engine.offer(source, Lane::Normal, sample, None, now)) {
            Ok(()) => stored += 1,
            Err(OfferError::Busy) => bail!("the spool takes nothing: its disk is full or fails"),
            Err(OfferError::Refused(refused)) => bail!("{refused}"),
        }
    }
    engine.stop(clock.now());
    if engine.lanes().any(|lane| lane.in_ram) {
        bail!("the spool takes nothing: its disk is full or fails");
    }
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_the_agent_still_runs() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().display();
        let text = format!(
            "device = \"pump-1\"\n[status]\nfile = \"{dir}/status.json\"\n[spool]\ndir = \
             \"{dir}/spool\"\n"
        );
        let config = Config::parse(&text, "host").unwrap();
        assert!(status(&config, false).is_err(), "there is none yet");
        let engine = open_engine(&config, Clock::start()).unwrap();
        let now = Clock::start().now();
        let written = serde_json::to_string(&crate::status::of(&engine, now)).unwrap();
        std::fs::write(home.path().join("status.json"), written).unwrap();

        let (runs, told) = status(&config, false).unwrap();
        assert!(
            runs && told.starts_with("pump-1  not connected, as of 0 s ago"),
            "{told}"
        );
        drop(engine);
        let (runs, told) = status(&config, false).unwrap();
        assert!(!runs && told.starts_with("pump-1  does not run"), "{told}");
        let (_, json) = status(&config, true).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["running"], &json["device"]),
            (&false.into(), &"pump-1".into())
        );
    }
}
