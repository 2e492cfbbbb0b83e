//! Load from clients that behave like stock MQTT 3.1.1 clients: each keeps a window of QoS 1
//! publishes open. Works against any broker that listens in plain TCP.
//!
//! ```text
//! gate_load --port 1883 [--host 127.0.0.1] [--clients 100] [--window 50] [--payload 1024]
//!           [--seconds 5] [--topic sensors] [--json]
//! ```
//! Client n publishes on `<topic>/load-n/t`. Time counts from the moment when all are connected; a
//! message counts when its PUBACK is there.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use headwater_proto::mqtt::{
    Connect, Packet, Properties, Publish, Qos, Version, decode, encode, encoded_len,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

#[derive(Clone)]
struct Load {
    address: SocketAddr,
    clients: usize,
    window: u16,
    payload: usize,
    seconds: f64,
    topic: String,
    json: bool,
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    /// From the write to the PUBACK, in microseconds.
    latencies_us: Vec<u32>,
    /// Publishes still open at the end.
    open: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let load = arguments().await?;
    // Every client connects before the first one publishes.
    let mut connected = Vec::new();
    for n in 0..load.clients {
        connected.push((n, connect(&load, n).await?));
    }
    let start = now();
    let end = start + Duration::from_secs_f64(load.seconds);
    let mut tasks = JoinSet::new();
    for (n, stream) in connected {
        tasks.spawn(publish_until(end, load.clone(), n, stream));
    }
    let mut latencies = Vec::new();
    let mut open = 0;
    while let Some(seen) = tasks.join_next().await {
        let seen = seen??;
        latencies.extend(seen.latencies_us);
        open += seen.open;
    }
    let elapsed = start.elapsed().as_secs_f64();
    print(&load, &mut latencies, open, elapsed);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the result of a measuring program")]
fn print(load: &Load, latencies: &mut [u32], open: u64, elapsed: f64) {
    latencies.sort_unstable();
    let at = |share: usize| {
        let index = (latencies.len() * share / 1000).min(latencies.len().saturating_sub(1));
        f64::from(latencies.get(index).copied().unwrap_or(0)) / 1000.0
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate is shown to a few digits"
    )]
    let rate = latencies.len() as f64 / elapsed;
    if load.json {
        let value = serde_json::json!({
            "clients": load.clients, "window": load.window, "payload_bytes": load.payload,
            "seconds": elapsed, "acked": latencies.len(), "unacked_at_end": open,
            "messages_per_s": rate, "p50_ms": at(500), "p99_ms": at(990), "p999_ms": at(999),
        });
        println!("{value}");
    } else {
        println!("clients  window  payload  seconds     acked   msg/s  p50 ms  p99 ms  p99.9 ms");
        println!(
            "{:7}  {:6}  {:7}  {elapsed:7.2}  {:8}  {rate:6.0}  {:6.2}  {:6.2}  {:8.2}",
            load.clients,
            load.window,
            load.payload,
            latencies.len(),
            at(500),
            at(990),
            at(999)
        );
    }
}

async fn connect(load: &Load, n: usize) -> Result<TcpStream, Box<dyn Error>> {
    let mut stream = TcpStream::connect(load.address).await?;
    stream.set_nodelay(true)?;
    let client_id = format!("load-{n}");
    let connect = Packet::Connect(Connect {
        version: Version::V4,
        client_id: &client_id,
        clean_start: true,
        keep_alive_s: 60,
        user: None,
        password: None,
        will: None,
        properties: Properties::EMPTY,
    });
    stream.write_all(&bytes_of(&connect)?).await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    if answer[0] != 0x20 || answer[3] != 0 {
        return Err(format!("{client_id} is refused: {answer:02x?}").into());
    }
    Ok(stream)
}

async fn publish_until(
    end: Instant,
    load: Load,
    n: usize,
    mut stream: TcpStream,
) -> Result<Seen, String> {
    run(end, &load, n, &mut stream)
        .await
        .map_err(|error| format!("client {n}: {error}"))
}

async fn run(
    end: Instant,
    load: &Load,
    n: usize,
    stream: &mut TcpStream,
) -> Result<Seen, Box<dyn Error>> {
    let topic = format!("{}/load-{n}/t", load.topic);
    let payload = vec![b'x'; load.payload];
    // The packet id is the slot of the window, so one packet per slot serves for the whole run.
    let slot_bytes: Vec<Vec<u8>> = (1..=load.window)
        .map(|packet_id| {
            bytes_of(&Packet::Publish(Publish {
                dup: false,
                qos: Qos::AtLeastOnce,
                retain: false,
                topic: &topic,
                packet_id,
                properties: Properties::EMPTY,
                payload: &payload,
            }))
        })
        .collect::<Result<_, _>>()?;
    let mut sent_at: Vec<Instant> = vec![end; slot_bytes.len()];
    let mut free: Vec<usize> = (0..slot_bytes.len()).collect();
    let mut seen = Seen::default();
    let (mut out, mut input, mut filled) = (Vec::new(), vec![0; 16 * 1024], 0);
    loop {
        let at = now();
        if at >= end {
            break;
        }
        out.clear();
        for slot in free.drain(..) {
            out.extend_from_slice(&slot_bytes[slot]);
            sent_at[slot] = at;
        }
        stream.write_all(&out).await?;
        let left = tokio::time::timeout_at(end.into(), stream.read(&mut input[filled..])).await;
        let Ok(read) = left else { break };
        match read? {
            0 => return Err("the broker closed the connection".into()),
            read => filled += read,
        }
        let at = now();
        let mut used = 0;
        while let Some((packet, length)) = decode(&input[used..filled], Version::V4, 1024)? {
            used += length;
            if let Packet::PubAck(ack) = packet {
                let slot = usize::from(ack.packet_id) - 1;
                let waited = at.duration_since(sent_at[slot]).as_micros();
                seen.latencies_us
                    .push(u32::try_from(waited).unwrap_or(u32::MAX));
                free.push(slot);
            }
        }
        input.copy_within(used..filled, 0);
        filled -= used;
    }
    seen.open = (slot_bytes.len() - free.len()) as u64;
    Ok(seen)
}

fn bytes_of(packet: &Packet<'_>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = vec![0; encoded_len(packet, Version::V4)?];
    encode(packet, Version::V4, &mut bytes)?;
    Ok(bytes)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock"
)]
fn now() -> Instant {
    Instant::now()
}

async fn arguments() -> Result<Load, Box<dyn Error>> {
    let (mut host, mut port) = ("127.0.0.1".to_owned(), 1883_u16);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let (topic, json) = ("sensors".to_owned(), false);
    let mut load = Load {
        address,
        clients: 100,
        window: 50,
        payload: 1024,
        seconds: 5.0,
        topic,
        json,
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        if name == "--json" {
            load.json = true;
            continue;
        }
        let value = given
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--host" => host = value,
            "--port" => port = value.parse()?,
            "--clients" => load.clients = value.parse()?,
            "--window" => load.window = value.parse()?,
            "--payload" => load.payload = value.parse()?,
            "--seconds" => load.seconds = value.parse()?,
            "--topic" => load.topic = value,
            _ => return Err(format!("{name} is unknown; see the head of gate_load.rs").into()),
        }
    }
    load.address = lookup_host((host.as_str(), port))
        .await?
        .next()
        .ok_or("no such host")?;
    Ok(load)
}
