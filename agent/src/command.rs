//! The commands beside `run`: status, fsck, send.

use std::fmt::{Display, Write as _};
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};
use headwater_payload::Format;
use headwater_proto::ids::Lane;
use headwater_proto::time::UnixMicros;
use headwater_spool::{RealDisk, fsck};

use crate::clock::{Clock, wall};
use crate::config::Config;
use crate::origins::home;
use crate::pipeline::engine::{Engine, OfferError, Offered};
use crate::pipeline::receipts::Settled;
use crate::run::open_engine;
use crate::source::health::State;
use crate::source::lines::{Answer, TooLong};
use crate::source::records::{Record, Records};
use crate::source::refusals::beginning;
use crate::source::rows::{self, RowReader};
use crate::source::{CHUNK_BYTES, MAX_LINE_BYTES, Reading};
use crate::status::{Node, Status};

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
    let spool = &home(&config.spool.dir, &config.device);
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
    for name in &status.earlier_names {
        writeln!(
            out,
            "  records of its earlier name {name} wait for the lake, and are sent under that name"
        )?;
    }
    for (count, what) in [
        (status.evicted_records, "records evicted"),
        (status.damaged_records, "records damaged"),
        (status.refused_records, "records refused by the collector"),
        (status.failed_syncs, "failed syncs"),
    ] {
        if count > 0 {
            writeln!(out, "  {count} {what}")?;
        }
    }
    for node in &status.nodes {
        let Node {
            device,
            connected,
            backlog_records,
            backlog_bytes,
        } = node;
        let state = if *connected { "speaks" } else { "silent" };
        let kib = backlog_bytes / 1024;
        writeln!(
            out,
            "  node {device}: {state}, {backlog_records} records wait for the lake, {kib} KiB"
        )?;
    }
    for source in &status.sources {
        let (name, health) = (&source.name, &source.health);
        let for_s = (now.0 - health.since_us) / 1_000_000;
        match health.state {
            State::Failing => {
                let cause = health.last_error.as_deref().unwrap_or_default();
                writeln!(out, "  {name}: failing for {for_s} s: {cause}")?;
            }
            State::Ended => writeln!(out, "  {name}: its input ended {for_s} s ago")?,
            State::Starting | State::Up => {}
        }
        if health.waited > 0 {
            let waited = health.waited;
            writeln!(
                out,
                "  {name}: {waited} connections had to wait for a place"
            )?;
        }
        if let Some(last) = &source.last_refused {
            let count = source.refused;
            writeln!(out, "  {name}: {count} refused, the last {last}")?;
        }
    }
    Ok(out)
}

/// Checks every record of the spool; says whether all is sound, and what was found.
///
/// # Errors
/// If the folder cannot be read.
pub fn check_spool(config: &Config, json: bool) -> anyhow::Result<(bool, String)> {
    let dir = &home(&config.spool.dir, &config.device);
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

/// Hands lines in InfluxDB line protocol to the running agent, or stores them where none runs. The
/// good ones are handed over whatever the others are. Returns when they are durable.
///
/// # Errors
/// If a part of a line is refused, a row is not durable, or neither way works.
pub fn send(config: &Config, input: &mut dyn Read) -> anyhow::Result<u64> {
    let mut way = Way::open(config)?;
    let mut rows = RowReader::new(Format::Line);
    let mut records = Records::new(Format::Line, rows.splitter(), MAX_LINE_BYTES);
    let mut refused = Refused::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let len = match input.read(&mut chunk) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            read => read.context("cannot read the lines")?,
        };
        let mut stored = Ok(());
        let mut take = |line, record: Record<'_>| match record {
            Record::TooLong(bytes) => {
                let cause = TooLong(MAX_LINE_BYTES);
                refused.add(&format_args!("line {line}"), &cause, bytes);
            }
            Record::Whole(bytes) => rows.read(line, bytes, wall(), &mut |part| match part {
                rows::Read::Refused(place, cause, bytes) => refused.add(place, cause, bytes),
                rows::Read::Row(line, reading) if stored.is_ok() => {
                    stored = way.store(line, &reading, &mut refused);
                }
                rows::Read::Row(..) => {}
            }),
        };
        if len == 0 {
            records.end(&mut take);
        } else {
            records.push(&chunk[..len], &mut take);
        }
        stored?;
        way.pass_on(&chunk[..len])?;
        if len == 0 {
            break;
        }
    }
    let durable = way.close(&mut refused)?;
    match refused.first {
        None => Ok(durable),
        Some(first) => bail!(
            "{} refused, {durable} rows are durable; the first refused: {first}",
            refused.count
        ),
    }
}

/// The refused parts of what is sent.
#[derive(Debug, Default)]
struct Refused {
    count: u64,
    first: Option<String>,
}

impl Refused {
    fn add(&mut self, place: &dyn Display, cause: &dyn Display, bytes: &[u8]) {
        self.count += 1;
        let text = || format!("{place}: {cause}: {}", beginning(bytes));
        self.first.get_or_insert_with(text);
    }

    /// Adds values that the agent refused and this program would have taken.
    fn add_of_agent(&mut self, values: u64) {
        if values > 0 {
            self.count += values;
            let text =
                || "a value that the agent does not take; its status names the last".to_owned();
            self.first.get_or_insert_with(text);
        }
    }
}

/// Where `send` hands lines to.
enum Way {
    /// The running agent, which reads them itself.
    Agent(UnixStream),
    /// The spool of one that does not run.
    Spool {
        engine: Box<Engine<RealDisk>>,
        clock: Clock,
        source: usize,
        stored: u64,
    },
}

impl Way {
    fn open(config: &Config) -> anyhow::Result<Self> {
        if let Some(path) = &config.status.socket
            && let Ok(stream) = UnixStream::connect(path)
        {
            return Ok(Self::Agent(stream));
        }
        let clock = Clock::of_boot();
        Ok(Self::Spool {
            engine: Box::new(open_engine(config, clock)?),
            clock,
            source: config.sources.len(),
            stored: 0,
        })
    }

    /// Stores a row, if nobody else does.
    fn store(&mut self, line: u64, row: &Reading, refused: &mut Refused) -> anyhow::Result<()> {
        let Self::Spool {
            engine,
            clock,
            source,
            stored,
        } = self
        else {
            return Ok(());
        };
        let now = clock.now();
        match row.with_sample(|sample| engine.offer(*source, Lane::Normal, sample, None, now)) {
            Ok(Offered {
                refused: faults, ..
            }) => {
                *stored += 1;
                for (at, fault) in faults {
                    let name = row.columns.get(at).map_or("", |column| &column.name);
                    refused.add(&format_args!("line {line}, {name}"), &fault, b"");
                }
            }
            Err(OfferError::Busy) => bail!("the spool takes nothing: its disk is full or fails"),
            Err(OfferError::Lane(error)) => return Err(error.into()),
        }
        Ok(())
    }

    /// Hands the bytes on to a running agent.
    fn pass_on(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Agent(stream) => Ok(stream.write_all(bytes)?),
            Self::Spool { .. } => Ok(()),
        }
    }

    /// Returns how many rows are durable. Adds what a running agent refused.
    fn close(self, refused: &mut Refused) -> anyhow::Result<u64> {
        match self {
            Self::Agent(mut stream) => {
                stream.shutdown(std::net::Shutdown::Write)?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer)?;
                let Answer {
                    rows,
                    lost,
                    refused: values,
                } = Answer::parse(&answer).context(
                    "the agent stopped before it said that the lines are durable; send them again",
                )?;
                refused.add_of_agent(values);
                if lost > 0 {
                    let also = match refused.count {
                        0 => String::new(),
                        count => format!("{count} refused, and "),
                    };
                    bail!(
                        "{also}{lost} of {rows} rows are not durable: the agent's disk is full or fails; it \
                         holds them in memory, and they are lost if it stops before they are sent"
                    );
                }
                Ok(rows)
            }
            Self::Spool {
                mut engine,
                clock,
                source,
                stored,
            } => {
                engine.stop(clock.now());
                let mut settled = Settled::default();
                engine.tell_settled(source, &mut settled);
                let open = stored.saturating_sub(settled.durable);
                let lost = open + settled.missing(&(0..settled.durable));
                if lost > 0 {
                    bail!(
                        "{lost} of {stored} rows are not durable and are lost: the spool's disk is full \
                         or fails"
                    );
                }
                Ok(stored)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::{Desk, Inlet};
    use crate::source::lines::serve_send;
    use crate::source::refusals::Refusals;
    use crate::source::{Port, Stop};
    use crate::status::Waiting;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use tokio::sync::mpsc;

    fn config(folder: &tempfile::TempDir) -> Config {
        let path = |name: &str| folder.path().join(name);
        let text = format!(
            "device = \"d\"\n[spool]\ndir = {:?}\n[status]\nfile = {:?}\nsocket = \"\"",
            path("spool"),
            path("status.json")
        );
        Config::parse(&text, "host").unwrap()
    }

    #[test]
    fn lines_are_stored_where_no_agent_runs_whatever_the_others_are() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let lines = b"m v=1\nm s=\"two\nlines\"\n# nothing\n";
        assert_eq!(send(&config, &mut lines.as_slice()).unwrap(), 2);
        let error = send(&config, &mut b"m v=1\nm v=oops\nm v=3\n".as_slice()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 refused, 2 rows are durable; the first refused: line 2, column 3: not a number, a \
             truth value or a text in quotes: \"v=oops\""
        );
        let stored: u64 = {
            let engine = open_engine(&config, Clock::of_boot()).unwrap();
            engine.sender().backlog_records()
        };
        assert!(stored > 0, "rows wait in the spool");
    }

    /// `send` to an agent that answers so.
    fn send_to(answer: &'static str) -> anyhow::Result<u64> {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        let path = folder.path().join("send.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        config.status.socket = Some(path);
        let agent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = String::new();
            stream.read_to_string(&mut lines).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            lines
        });
        let sent = send(&config, &mut b"m v=1\nm v=2\n".as_slice());
        assert_eq!(agent.join().unwrap(), "m v=1\nm v=2\n");
        sent
    }

    #[test]
    fn send_fails_with_the_cause_where_a_row_is_not_durable() {
        assert_eq!(send_to("durable 2 lost 0 refused 0\n").unwrap(), 2);
        let told = send_to("durable 1 lost 1 refused 0\n")
            .unwrap_err()
            .to_string();
        assert!(
            told.starts_with("1 of 2 rows are not durable: the agent's disk is full or fails"),
            "{told}"
        );
        // It stopped before it knew.
        let told = send_to("").unwrap_err().to_string();
        assert!(told.contains("the agent stopped before"), "{told}");
    }

    #[test]
    fn send_to_a_running_agent_fails_where_the_agent_refuses_a_value() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        let path = folder.path().join("send.sock");
        config.status.socket = Some(path.clone());
        let (clock, stop) = (Clock::of_boot(), Stop::default());
        let wake = Arc::default();
        let (port, end) = Port::new("send", Arc::clone(&wake));
        let (up, _publishes) = mpsc::channel(1);
        let (_tell, events) = mpsc::channel(1);
        let refusals = Arc::new(Refusals::new("send", clock));
        let desk = Desk {
            ways: std::collections::BTreeMap::new(),
            engine: open_engine(&config, clock).unwrap(),
            inlets: vec![Inlet {
                source: 0,
                lane: Lane::Normal,
                resumes: false,
                end,
                waiting: VecDeque::new(),
                ended: false,
                awaited: false,
            }],
            refusals: vec![Arc::clone(&refusals)],
            up,
            events,
            wake,
            stop: Arc::default(),
            held: crate::source::held::HeldPlaces::default(),
            began: Vec::new(),
            behind: None,
            clock,
            status: None,
            earlier: Waiting::default(),
            until_drained: false,
        };
        let (told, stop_desk) = (stop.clone(), Arc::clone(&desk.stop));
        let socket = path.clone();
        let agent = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let serving = serve_send(&socket, port, told, refusals);
                let (served, _) = tokio::join!(serving, desk.run());
                served.unwrap();
            });
        });
        while UnixStream::connect(&path).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        // Who reads lines takes so many tags; the engine takes 32.
        let tags: String = (0..40).map(|k| format!(",t{k}=a")).collect();
        let lines = format!("m v=1\nm{tags} v=2,w=2\nm v=3\n");
        let sent = [
            send(&config, &mut lines.as_bytes()),
            send(&config, &mut b"m v=4\n".as_slice()),
        ];
        stop.stop();
        stop_desk.notify_one();
        agent.join().unwrap();
        let [refused, good] = sent;
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.starts_with("2 refused, 3 rows are durable"),
            "{refused}"
        );
        assert_eq!(good.unwrap(), 1);
    }

    #[test]
    fn the_status_shows_the_health_and_the_refused_parts_of_each_source() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        let clock = Clock::of_boot();
        let engine = open_engine(&config, clock).unwrap();
        let refusals = [Arc::new(Refusals::new("send", clock))];
        refusals[0].refuse(&"line 2, column 3", &"not a number", b"v=oops");
        let mut status = crate::status::of(&engine, &refusals, clock.now());
        let health = &mut status.sources[0].health;
        (health.state, health.since_us) = (State::Failing, wall().0 - 3_500_000);
        health.last_error = Some("cannot listen".into());
        health.waited = 2;
        let text = serde_json::to_string(&status).unwrap();
        std::fs::write(config.status.file.as_ref().unwrap(), text).unwrap();
        let (_, shown) = super::status(&config, false).unwrap();
        let line = "  send: 1 refused, the last line 2, column 3: not a number: \"v=oops\"";
        assert!(shown.lines().any(|known| known == line), "{shown}");
        let line = "  send: 2 connections had to wait for a place";
        assert!(shown.lines().any(|known| known == line), "{shown}");
        let line = "  send: failing for 3 s: cannot listen";
        assert!(shown.lines().any(|known| known == line), "{shown}");
    }

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
        let written = serde_json::to_string(&crate::status::of(&engine, &[], now)).unwrap();
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
