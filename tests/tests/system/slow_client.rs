//! Clients that stop reading, or never speak, cost only themselves.

use anyhow::{Result, ensure};
use headwater_tests::mqtt::Client;
use headwater_tests::signals::Signals;
use headwater_tests::site::at_a_site;

/// What a client that reads no answers tries to send.
const FLOOD_BYTES: usize = 64 << 20;
/// Connections on which nothing is said.
const SILENT: usize = 50;

#[test]
fn a_client_that_reads_no_acknowledgements_stalls_nobody_else() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut deaf = Client::connect(site.mqtt(), "deaf-1")?;
        let payload = format!("{{\"text\": \"{}\"}}", "x".repeat(1_000));
        let sent = deaf.flood("devices/deaf-1", payload.as_bytes(), FLOOD_BYTES)?;
        // Still connected or closed by now, it must not matter to these two.
        let mut stock = Client::connect(site.mqtt(), "stock-1")?;
        stock.publish("devices/stock-1", 1, b"{\"level\": 3}")?;
        stock.expect_puback(1)?;
        let signals = Signals::past("pump-1", 3_000);
        let agent = site.generator(&signals)?;
        site.finish_complete(&mut [agent], &[signals])?;
        ensure!(sent > 0, "the flood never began");
        Ok(())
    });
}

#[test]
fn connections_that_never_say_anything_stall_nobody() {
    at_a_site(|site| {
        site.start_collector()?;
        let silent: Vec<_> = (0..SILENT)
            .map(|_| Client::silent(site.mqtt()))
            .collect::<Result<_>>()?;
        let signals = Signals::past("pump-1", 3_000);
        let mut agent = site.generator(&signals)?;
        agent.wait_until_drained(signals.rows)?;
        ensure!(site.http("/readyz")?.0 == 200);
        site.finish_complete(&mut [agent], &[signals])?;
        drop(silent);
        Ok(())
    });
}

#[test]
fn an_agent_that_is_stopped_in_mid_stream_delays_only_itself() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals = [
            Signals::live("sleeper", 600, 5_000),
            Signals::live("awake", 600, 5_000),
        ];
        let mut sleeper = site.generator(&signals[0])?;
        let mut awake = site.generator(&signals[1])?;
        sleeper.wait_until_durable(1_000)?;
        sleeper.process()?.signal("STOP")?;
        awake.wait_until_drained(signals[1].rows)?;
        sleeper.process()?.signal("CONT")?;
        site.finish_complete(&mut [sleeper, awake], &signals)?;
        Ok(())
    });
}
