//! A gate whose owner appends every payload to one file and syncs it before each group of PUBACKs:
//! the least that a durable PUBACK costs. For measuring the gate without a collector.
//!
//! ```text
//! gate_file --port 1884 --file /var/tmp/gate.log [--no-sync]
//! ```
//! The file is overwritten from its start every 256 MiB. Ends at the end of standard input.

use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use headwater_gate::acl::{Acl, TopicPattern};
use headwater_gate::clock::Clock;
use headwater_gate::identity::Loopback;
use headwater_gate::ingest::Waited;
use headwater_gate::store::MemoryStore;
use headwater_gate::{Arrivals, Gate, GateEvent, GateHandle, Limits, Settings};
use tokio_util::sync::CancellationToken;

const FILE_BYTES: u64 = 256 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut port, mut path, mut sync) = (1884, "gate.log".to_owned(), true);
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        match name.as_str() {
            "--port" => port = given.next().ok_or("--port needs a number")?.parse()?,
            "--file" => path = given.next().ok_or("--file needs a path")?,
            "--no-sync" => sync = false,
            _ => return Err(format!("{name} is unknown").into()),
        }
    }
    let file = File::create(path)?;
    file.set_len(FILE_BYTES)?;
    let (gate, arrivals) = Gate::new(Settings {
        limits: Limits::default(),
        queue_bytes: Settings::QUEUE_BYTES,
        acl: Acl {
            plain: vec![TopicPattern::parse("sensors/{device}/#")?],
            ..Acl::default()
        },
        identity: Box::new(Loopback),
        store: Arc::new(MemoryStore::default()),
        clock: Clock::start(),
    });
    let handle = gate.handle();
    let owner = std::thread::spawn(move || own(arrivals, &handle, file, sync));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let stop = CancellationToken::new();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let listener = runtime.block_on(tokio::net::TcpListener::bind(address))?;
    let serving = runtime.spawn(gate.serve(listener, stop.clone()));
    std::io::stdin().read_to_end(&mut Vec::new())?;
    stop.cancel();
    runtime.block_on(serving)?;
    drop(runtime);
    owner.join().map_err(|_| "the owner panicked")??;
    Ok(())
}

fn own(
    mut arrivals: Arrivals,
    handle: &GateHandle,
    mut file: File,
    sync: bool,
) -> std::io::Result<()> {
    let (mut events, mut bytes, mut acks) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while arrivals.take(&mut events, Duration::from_millis(500)) != Waited::Closed {
        bytes.clear();
        acks.clear();
        for event in &events {
            if let GateEvent::Arrival(arrival) = event {
                bytes.extend_from_slice(arrival.body.payload());
                acks.extend(arrival.token.map(|token| (arrival.conn, token)));
            }
        }
        if at + bytes.len() as u64 > FILE_BYTES {
            at = file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&bytes)?;
        at += bytes.len() as u64;
        if sync && !bytes.is_empty() {
            file.sync_data()?;
        }
        handle.pubacks(acks.iter().copied());
    }
    Ok(())
}
