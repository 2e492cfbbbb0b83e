//! The lake is away when the collector is started: devices are served meanwhile, and everything is in it
//! once when it is back.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use headwater_proto::sample::Value;
use headwater_tests::lake::{each_sample, files};
use headwater_tests::mqtt::Client;
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, Site, at_a_site};

/// Rows of each agent's generator: enough to still run when the lake is back.
const ROWS: u64 = 6_000;
/// Readings that an agent makes while the lake is away.
const AWAY_SAMPLES: u64 = 1_000;

/// Puts a file in the place of the lake's folder: not even root can write below it.
fn hide_lake(site: &Site) -> Result<PathBuf> {
    let hidden = site.folder().join("lake-hidden");
    std::fs::rename(site.lake(), &hidden)?;
    std::fs::write(site.lake(), b"no folder")?;
    Ok(hidden)
}

fn bring_lake_back(site: &Site, hidden: PathBuf) -> Result<()> {
    std::fs::remove_file(site.lake())?;
    Ok(std::fs::rename(hidden, site.lake())?)
}

/// Waits until the collector says that it takes data and does not reach the lake, and why.
fn expect_not_ready(site: &mut Site) -> Result<()> {
    let told = wait_for("a collector that names the lake", || {
        let process = site.collector()?;
        ensure!(process.is_running()?, "it ended: {}", process.output()?);
        let answer = site.http("/readyz").ok();
        Ok(answer.filter(|(status, body)| *status != 200 && body.contains("lake")))
    })?;
    ensure!(
        told.1.contains("Not a directory") || told.1.contains("File exists"),
        "{} {}",
        told.0,
        told.1
    );
    ensure!(
        site.metric("headwater_sink_up")? == 1,
        "the hot store is up, the lake is not"
    );
    Ok(())
}

/// Publishes one plain message on a connection of its own and waits for its PUBACK.
fn publish(site: &Site, number: u16) -> Result<()> {
    let mut client = wait_for("the gate", || {
        Ok(Client::connect(site.mqtt(), "meter-1").ok())
    })?;
    let payload = format!("{{\"number\": {number}}}");
    client.publish("devices/meter-1", number, payload.as_bytes())?;
    client.expect_puback(number)
}

fn wait_for_more(agents: &mut [Agent]) -> Result<()> {
    for agent in agents {
        let before = agent.wait_status("a link", |status| status["connected"] == true)?;
        let count = |status: &serde_json::Value| status["samples_durable"].as_u64().unwrap_or(0);
        let until = count(&before) + AWAY_SAMPLES;
        agent.wait_status("readings that are with the collector", |status| {
            // Received: nothing is on its way any more, and nothing is committed.
            count(status) >= until && status["backlog_records"].as_u64() > Some(0)
        })?;
    }
    Ok(())
}

#[test]
fn devices_are_served_while_the_lake_is_away_at_the_start_and_all_is_in_it_once_afterwards() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals: Vec<_> = (1..=2)
            .map(|n| Signals::live(&format!("sensor-{n}"), ROWS, 5_000))
            .collect();
        let mut agents = Vec::new();
        for one in &signals {
            agents.push(site.generator(one)?);
        }
        publish(site, 1)?;
        for agent in &mut agents {
            agent.wait_until_durable(1_000)?;
        }
        wait_for("a first file of samples in the lake", || {
            Ok((!files(&site.lake(), "samples")?.is_empty()).then_some(()))
        })?;
        site.stop_collector()?;

        let hidden = hide_lake(site)?;
        for number in [2, 3] {
            // The second time it was stopped in order, and knows of the first.
            site.launch_collector(&[])?;
            expect_not_ready(site)?;
            publish(site, number)?;
            wait_for_more(&mut agents)?;
            wait_for("readings at the collector", || {
                Ok(
                    (site.metric("headwater_samples_received_total")? >= AWAY_SAMPLES)
                        .then_some(()),
                )
            })?;
            ensure!(
                site.metric("headwater_down_messages_total")? > 0,
                "no Ack left"
            );
            if number == 2 {
                site.stop_collector()?;
            }
        }
        bring_lake_back(site, hidden)?;
        wait_for("the collector to be ready again", || {
            let answer = site.http("/readyz")?;
            Ok((answer.0 == 200).then_some(()))
        })?;
        publish(site, 4)?;
        let audit = site.finish_complete(&mut agents, &signals)?;
        ensure!(audit.total("repeated")? == 0, "{}", audit.json["totals"]);
        let mut numbers = Vec::new();
        each_sample(&site.lake(), |sample| {
            if let Value::F64(value) = sample.value
                && sample.device == "meter-1"
            {
                numbers.push(value);
            }
        })?;
        numbers.sort_by(f64::total_cmp);
        ensure!(numbers == [1.0, 2.0, 3.0, 4.0], "{numbers:?}");
        Ok(())
    });
}

#[test]
fn a_collector_with_a_new_journal_says_why_it_serves_nobody_while_the_lake_is_away() {
    at_a_site(|site| {
        let hidden = hide_lake(site)?;
        site.launch_collector(&[])?;
        let status = site.collector()?.wait()?;
        let said = site.collector()?.output()?;
        ensure!(!status.success(), "it ran\n{said}");
        ensure!(
            said.contains("the journal is new") && said.contains("cannot use the lake"),
            "{said}"
        );
        bring_lake_back(site, hidden)
    });
}
