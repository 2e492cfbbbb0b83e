//! Nodes over TCP → agent → collector → lake.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Result, ensure};
use headwater_program::clock::Clock;
use headwater_proto::sample::Value;
use headwater_proto::serial::{self, Decoder};
use headwater_tests::lake::{Audit, each_sample, gaps};
use headwater_tests::node::{METRIC, Node};
use headwater_tests::process::{free_port, wait_for};
use headwater_tests::site::{AgentSettings, at_a_site};

/// A node and its connection to an agent that comes and goes.
struct Wired {
    node: Node,
    clock: Clock,
    address: SocketAddr,
    stream: Option<(TcpStream, Decoder<Vec<u8>>)>,
}

impl Wired {
    fn new(name: &str, seed: u64, address: SocketAddr) -> Self {
        Self {
            node: Node::new(name, seed),
            clock: Clock::start(),
            address,
            stream: None,
        }
    }

    /// Says and hears what there is, and connects where it is not.
    fn turn(&mut self) -> Result<()> {
        let now = self.clock.now();
        if self.stream.is_none()
            && let Ok(stream) = TcpStream::connect(self.address)
        {
            stream.set_read_timeout(Some(Duration::from_millis(5)))?;
            self.stream = Some((stream, Decoder::new(vec![0; 4096])));
            self.node.connect(now.mono);
        }
        let Some((stream, decoder)) = &mut self.stream else {
            return Ok(());
        };
        let mut is_gone = false;
        while let Some(packet) = self.node.next_packet(now) {
            let mut line = Vec::new();
            serial::append(&packet, &mut line);
            is_gone |= stream.write_all(&line).is_err();
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => is_gone = true,
            Ok(len) => {
                for byte in &bytes[..len] {
                    if let serial::Read::Packet(packet) = decoder.push(*byte) {
                        self.node.take(packet, now.mono);
                    }
                }
            }
            Err(error) => {
                let waits = [ErrorKind::WouldBlock, ErrorKind::TimedOut];
                is_gone = !waits.contains(&error.kind());
            }
        }
        if is_gone {
            self.stream = None;
            self.node.disconnect(now.mono);
        }
        Ok(())
    }
}

#[test]
fn what_nodes_count_is_in_the_lake_once_though_their_agent_is_killed_in_between() {
    at_a_site(|site| {
        site.gate = "gateways = [{ client = \"gw\", devices = [\"node-*\"] }]".to_owned();
        site.start_collector()?;
        let port = free_port()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let source = format!(
            "[[nodes]]\nname = \"n\"\nlisten = \"tcp://{address}\"\ndevices = [\"node-*\"]\n"
        );
        let mut agent = site.agent("gw", &source, &AgentSettings::default())?;
        agent.start()?;
        let mut nodes = [1, 2].map(|n| Wired::new(&format!("node-{n}"), n, address));
        for step in 0..120 {
            for wired in &mut nodes {
                let now = wired.clock.now();
                wired.node.make(1 + step % 3, now);
                wired.turn()?;
            }
            match step {
                30 | 90 => {
                    agent.kill()?;
                    agent.start()?;
                }
                60 => nodes[1].node.restart(),
                _ => {}
            }
            if step == 60 {
                // It dies with its connection.
                nodes[1].stream = None;
            }
        }
        wait_for("the agent to have all records", || {
            for wired in &mut nodes {
                wired.turn()?;
            }
            let all = nodes.iter().all(|wired| wired.node.is_drained());
            Ok(all.then_some(()))
        })?;
        agent.wait_status("the collector to have all records", |status| {
            let nodes = status["nodes"].as_array();
            nodes.is_some_and(|nodes| {
                let all = nodes.iter().all(|node| node["backlog_bytes"] == 0);
                nodes.len() == 2 && all
            })
        })?;
        agent.stop()?;
        site.stop_collector()?;

        let mut found = [Vec::new(), Vec::new()];
        each_sample(&site.lake(), |sample| {
            let at = nodes
                .iter()
                .position(|wired| wired.node.id().as_str() == sample.device);
            if let (Some(at), Value::I64(count)) = (at, sample.value) {
                assert_eq!(sample.metric, METRIC);
                found[at].push(count);
            }
        })?;
        for (wired, mut counts) in nodes.iter().zip(found) {
            counts.sort_unstable();
            let made = i64::try_from(wired.node.made())?;
            ensure!(
                counts.iter().copied().eq(0..made),
                "{}: {} of {made} samples",
                wired.node.id(),
                counts.len()
            );
            ensure!(wired.node.refused() == 0);
        }
        let audit = Audit::of(&site.lake())?;
        audit.expect_good()?;
        let gaps = gaps(&site.lake())?;
        ensure!(gaps.is_empty(), "{gaps:#?}");
        Ok(())
    });
}
