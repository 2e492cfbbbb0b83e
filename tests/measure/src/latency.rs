//! From a reading to its publish on the wire, and what that costs the disk: with the defaults, and with the
//! group of a second that was the default before.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use headwater_program::clock::{Clock, wall};
use headwater_proto::bundle::Bundle;
use headwater_proto::codec::{BatchHeader, Limits, RowVisitor, decode};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::mqtt::{self, Packet, Version};
use headwater_proto::sample::Value;
use headwater_proto::schema::Schema;
use headwater_proto::varint;
use headwater_tests::process::{free_port, wait_for};
use headwater_tests::site::{AgentSettings, Site};

use crate::Effort;
use crate::table::Figure;

/// A device with many metrics: so many values in a row,
const WIDE: u32 = 8;
/// and so many rows a second.
const WIDE_RATE: u32 = 125;
/// Before what is counted: connection, schema, first fit of the codec.
const WARM: Duration = Duration::from_secs(3);
const DAY_S: f64 = 86_400.0;
/// Most that a publish may have.
const MAX_PACKET_BYTES: usize = 512 * 1024;

/// Settings as a configuration has them, and what they are called.
const SETTINGS: [(&str, &str, &str); 2] = [
    ("defaults", "", ""),
    (
        "as before, 1 s and 1 s",
        "group_ms = 1000\n",
        "[batch]\nage_ms = 1000\n",
    ),
];

pub(crate) fn run(effort: Effort) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (name, spool_more, more) in SETTINGS {
        for (values, rate) in [(WIDE, WIDE_RATE), (1, 1)] {
            let taken = measure(values, rate, spool_more, more, effort.latency)?;
            let samples = values * rate;
            let goal = name == SETTINGS[0].0 && values == WIDE;
            let figure = |what: &str, value, unit| {
                Figure::new(format!("{samples} samples/s, {name}: {what}"), value, unit)
            };
            let p99 = figure("99 of 100", taken.percentile(99), "ms");
            figures.extend([
                figure("reading to sent, the middle", taken.percentile(50), "ms"),
                if goal { p99.at_most(300.0) } else { p99 },
                figure("written to disk", taken.written_per_day() / 1e6, "MB/day"),
                figure("on the wire", taken.bytes_per_sample(), "B/sample"),
            ]);
        }
    }
    Ok(figures)
}

/// One run.
struct Taken {
    /// Milliseconds from reading to sent, of every row, lowest first.
    waits_ms: Vec<f64>,
    /// Of the publishes.
    bytes: u64,
    samples: u64,
    written: u64,
    seconds: f64,
}

impl Taken {
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.waits_ms.len() * percent / 100).min(self.waits_ms.len() - 1);
        self.waits_ms[at]
    }

    fn written_per_day(&self) -> f64 {
        self.written as f64 / self.seconds * DAY_S
    }

    fn bytes_per_sample(&self) -> f64 {
        self.bytes as f64 / self.samples as f64
    }
}

fn measure(
    values: u32,
    rate: u32,
    spool_more: &'static str,
    more: &str,
    time: Duration,
) -> Result<Taken> {
    let mut site = Site::new()?;
    site.start_collector()?;
    let (tap, seen) = Tap::start(site.mqtt())?;
    let lines = free_port()?;
    let sources = format!("[[lines]]\nname = \"lines\"\nlisten = \"tcp://127.0.0.1:{lines}\"\n");
    let settings = AgentSettings {
        collector: Some(tap),
        spool_more,
        // The default: what it writes counts too.
        status_s: 60,
        more: more.to_owned(),
        ..AgentSettings::default()
    };
    let mut agent = site.agent("pump-1", &sources, &settings)?;
    agent.start()?;
    let mut to = wait_for("the agent to listen", || {
        Ok(TcpStream::connect(("127.0.0.1", lines)).ok())
    })?;
    to.set_nodelay(true)?;
    let step = Duration::from_secs(1) / rate;
    let mut row = 0;
    let mut give = |time: Duration| -> Result<f64> {
        let began = Clock::start();
        while began.elapsed() < time {
            to.write_all(line(values, row).as_bytes())?;
            row += 1;
            std::thread::sleep(step);
        }
        Ok(began.elapsed().as_secs_f64())
    };
    give(WARM)?;
    lock(&seen).reset();
    let before = agent.process()?.disk_written_bytes()?;
    let seconds = give(time)?;
    let written = agent.process()?.disk_written_bytes()? - before;
    let (mut waits_ms, bytes, samples, faults) = {
        let mut seen = lock(&seen);
        let waits = std::mem::take(&mut seen.waits_ms);
        (
            waits,
            seen.bytes,
            seen.samples,
            std::mem::take(&mut seen.faults),
        )
    };
    agent.stop()?;
    site.stop_collector()?;
    ensure!(faults.is_empty(), "the tap cannot read: {faults:?}");
    ensure!(!waits_ms.is_empty(), "nothing was sent");
    waits_ms.sort_by(f64::total_cmp);
    Ok(Taken {
        waits_ms,
        bytes,
        samples,
        written,
        seconds,
    })
}

/// Row `row` of a machine that drifts, read now.
fn line(values: u32, row: u32) -> String {
    let slow = f64::from(row) / 97.0;
    let fields: Vec<_> = (0..values)
        .map(|at| {
            let value = 20.0 + 5.0 * (slow + f64::from(at)).sin() + f64::from(row * 7 % 5) / 10.0;
            format!("m{at}={value:.2}")
        })
        .collect();
    format!("pump {} {}\n", fields.join(","), wall().0)
}

/// What passed the tap.
#[derive(Default)]
struct Seen {
    schemas: HashMap<(Lane, Epoch, u32), Schema>,
    waits_ms: Vec<f64>,
    bytes: u64,
    samples: u64,
    faults: Vec<String>,
}

impl Seen {
    fn reset(&mut self) {
        self.waits_ms.clear();
        (self.bytes, self.samples) = (0, 0);
    }

    /// Takes the publishes at the start of `bytes`; how many bytes that were.
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut at = 0;
        while let Some((packet, len)) = mqtt::decode(&bytes[at..], Version::V4, MAX_PACKET_BYTES)? {
            if let Packet::Publish(publish) = packet
                && Bundle::is_bundle(publish.payload)
            {
                self.bytes += len as u64;
                let mut rest = publish.payload;
                while !rest.is_empty() {
                    let (bundle, next) = Bundle::first(rest)?;
                    self.bundle(&bundle)?;
                    rest = next;
                }
            }
            at += len;
        }
        Ok(at)
    }

    fn bundle(&mut self, bundle: &Bundle<'_>) -> Result<()> {
        let sent = wall().0;
        let (lane, epoch) = (bundle.head.lane, bundle.head.epoch);
        for record in bundle.records() {
            let payload = record.frame.payload;
            if record.frame.kind == Kind::Schema {
                let mut at = 0;
                let number = varint::get(payload, &mut at).context("a schema has a number")?;
                let schema = Schema::decode(&payload[at..], &Limits::DEFAULT)?;
                let number = u32::try_from(number)?;
                self.schemas.insert((lane, epoch, number), schema);
            } else if record.frame.kind == Kind::Batch {
                let header = BatchHeader::peek(payload)?;
                let schema = self.schemas.get(&(lane, epoch, header.schema_no));
                let mut times = Times(Vec::new());
                let schema = schema.context("a batch of a schema that was not sent")?;
                decode(payload, schema, &Limits::DEFAULT, &mut times)?;
                self.samples += u64::from(header.samples);
                let waits = times.0.iter().map(|time| (sent - time) as f64 / 1e3);
                self.waits_ms.extend(waits);
            }
        }
        Ok(())
    }
}

/// The times of a batch's rows.
struct Times(Vec<i64>);

impl RowVisitor for Times {
    fn row(&mut self, _: u32, time: i64, _: u32) {
        self.0.push(time);
    }
    fn value(&mut self, _: usize, _: Value<'_>) {}
}

/// Stands between agent and collector and looks at what passes.
struct Tap;

impl Tap {
    fn start(collector: SocketAddr) -> Result<(SocketAddr, Arc<Mutex<Seen>>)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, seen) = (listener.local_addr()?, Arc::<Mutex<Seen>>::default());
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            while let Ok((agent, _)) = listener.accept() {
                let Ok(gate) = TcpStream::connect(collector) else {
                    continue;
                };
                let clones = (agent.try_clone(), gate.try_clone());
                let (Ok(agent_back), Ok(gate_back)) = clones else {
                    continue;
                };
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut held = Vec::new();
                    pass(agent, gate, |bytes| {
                        held.extend_from_slice(bytes);
                        let mut seen = lock(&seen);
                        match seen.take(&held) {
                            Ok(taken) => drop(held.drain(..taken)),
                            Err(error) => {
                                seen.faults.push(format!("{error:#}"));
                                held.clear();
                            }
                        }
                    });
                });
                std::thread::spawn(move || pass(gate_back, agent_back, |_| {}));
            }
        });
        Ok((address, seen))
    }
}

/// Hands bytes on until either side ends, and shows them to `look`.
fn pass(mut from: TcpStream, mut to: TcpStream, mut look: impl FnMut(&[u8])) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len) = from.read(&mut buffer) {
        look(&buffer[..len]);
        if len == 0 || to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
