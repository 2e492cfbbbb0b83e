//! A record that a sink refuses for good is kept as a dead letter, listed, shown and given to it again.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::lake::{Audit, each_sample};
use headwater_tests::mqtt::Client;
use headwater_tests::process::{program, wait_for};
use headwater_tests::site::{Site, at_a_site};
use serde_json::Value as Json;

/// Fields of a publish that is more than the hot store holds of one record: each brings a long name.
const FIELDS: usize = 14_000;

fn publish(site: &Site, packet: u16, payload: &str) -> Result<()> {
    let mut client = Client::connect(site.mqtt(), "meter-1")?;
    client.publish("devices/meter-1", packet, payload.as_bytes())?;
    client.expect_puback(packet)
}

fn wide() -> String {
    let fields: Vec<String> = (0..FIELDS).map(|n| format!("\"{n}\":{n}")).collect();
    format!("{{\"{}\":{{{}}}}}", "x".repeat(80), fields.join(","))
}

/// Exit code and output of `headwater-collector deadletters`.
fn deadletters(site: &Site, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(program("headwater-collector")?)
        .arg("deadletters")
        .args(args)
        .arg("--config")
        .arg(site.folder().join("collector.toml"))
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

#[test]
fn what_a_required_sink_refuses_is_listed_shown_and_given_to_it_once_more() {
    at_a_site(|site| {
        // It goes on the hot store, which the configuration ends with.
        site.settings = "required = true\n".to_owned();
        site.start_collector()?;
        publish(site, 1, "{\"level\": 1}")?;
        publish(site, 2, &wide())?;
        publish(site, 3, "{\"level\": 3}")?;
        wait_for("a dead letter", || {
            Ok((site.metric("headwater_sink_dead_letters")? == 1).then_some(()))
        })?;
        let (_, ready) = site.http("/readyz")?;
        ensure!(ready.contains("sink hot refused 1 records"), "{ready}");

        let (code, listed) = deadletters(site, &["list", "--json"])?;
        let listed: Json = serde_json::from_str(&listed).context(listed)?;
        ensure!(code == Some(1), "{code:?}");
        ensure!(listed["records"][0]["device"] == "meter-1", "{listed}");
        ensure!(listed["samples"] == FIELDS, "{listed}");
        let (code, shown) = deadletters(site, &["show", "--sink", "hot"])?;
        ensure!(code == Some(0), "{shown}");
        let shown: Json = serde_json::from_str(&shown)?;
        let rows = shown["rows"].as_array().context("no rows")?;
        ensure!(rows.len() == FIELDS, "{} rows", rows.len());
        ensure!(rows[7]["value"] == 7.0, "{}", rows[7]);

        let (code, told) = deadletters(site, &["replay", "--sink", "hot"])?;
        ensure!(
            code == Some(2) && told.contains("stop the collector"),
            "{told}"
        );
        site.stop_collector()?;
        let (code, told) = deadletters(site, &["replay", "--sink", "hot"])?;
        let same = "0 taken, 1 refused again, 0 in files that cannot be read";
        ensure!(code == Some(1) && told.contains(same), "{told}");
        ensure!(deadletters(site, &["list"])?.1.contains("1 dead letters"));
        let (code, told) = deadletters(site, &["replay", "--sink", "lake"])?;
        ensure!(
            code == Some(2) && told.contains("no dead letters"),
            "{told}"
        );

        // The lake has all of it, and names what the other sink refused.
        let mut samples = 0;
        each_sample(&site.lake(), |_| samples += 1)?;
        ensure!(samples == FIELDS + 2, "{samples} samples");
        Audit::of(&site.lake())?.expect_good()
    });
}
