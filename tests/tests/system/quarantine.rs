//! Readings of a wrong clock are listed, put among the samples once and audited, by the real program.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::lake::{Audit, each_sample};
use headwater_tests::mqtt::Client;
use headwater_tests::process::program;
use headwater_tests::site::{Site, at_a_site};
use serde_json::Value as Json;

/// 2099-01-01, in seconds: whatever the clock of this machine says.
const FAR_S: i64 = 4_070_908_800;

/// 2025-01-01.
const TRUE_S: i64 = 1_735_689_600;

fn quarantine(site: &Site, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(program("headwater-collector")?)
        .arg("quarantine")
        .args(args)
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(
        !text.contains("panicked"),
        "{text}: {}",
        site.folder().display()
    );
    Ok((output.status.code(), text))
}

#[test]
fn readings_of_a_wrong_clock_are_listed_and_put_among_the_samples_once() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut client = Client::connect(site.mqtt(), "meter-1")?;
        for packet in 1..=3 {
            let time = FAR_S + i64::from(packet);
            let payload = format!("{{\"ts\": {time}, \"level\": {packet}.5, \"on\": true}}");
            client.publish("devices/meter-1", packet, payload.as_bytes())?;
            client.expect_puback(packet)?;
        }
        drop(client);
        let config = site.folder().join("collector.toml").display().to_string();
        let lake = site.lake().display().to_string();
        let shift = (TRUE_S - FAR_S).to_string();
        let replay = ["replay", "--config", &config, "--shift", &shift];
        let (code, told) = quarantine(site, &replay)?;
        ensure!(
            code == Some(2) && told.contains("stop the collector"),
            "{told}"
        );
        site.stop_collector()?;

        let (code, listed) = quarantine(site, &["list", "--lake", &lake, "--json"])?;
        let listed: Json = serde_json::from_str(&listed).context(listed)?;
        ensure!(
            code == Some(1) && listed["groups"][0]["samples"] == 6,
            "{listed}"
        );
        ensure!(
            listed["groups"][0]["first_us"] == (FAR_S + 1) * 1_000_000,
            "{listed}"
        );
        let (code, told) = quarantine(site, &["replay", "--config", &config])?;
        ensure!(
            code == Some(1) && told.contains("6 samples stay (ahead)"),
            "{told}"
        );
        let (code, told) = quarantine(site, &[&replay[..], &["--device", "nobody"]].concat())?;
        ensure!(
            code == Some(1) && told.contains("no such samples"),
            "{told}"
        );
        let (code, told) = quarantine(site, &[&replay[..], &["--dry-run"]].concat())?;
        ensure!(
            code == Some(0) && told.contains("6 samples would be replayed"),
            "{told}"
        );
        let (code, told) = quarantine(site, &replay)?;
        ensure!(
            code == Some(0) && told.contains("6 samples replayed, 0 were before"),
            "{told}"
        );
        let (code, told) = quarantine(site, &replay)?;
        ensure!(
            code == Some(0) && told.contains("0 samples replayed, 6 were before"),
            "{told}"
        );
        let (code, told) = quarantine(site, &["list", "--lake", &lake])?;
        ensure!(
            code == Some(0) && told.contains("0 samples in quarantine, 6 replayed"),
            "{told}"
        );

        let mut times = Vec::new();
        each_sample(&site.lake(), |sample| times.push(sample.time_us))?;
        times.sort_unstable();
        times.dedup();
        let expected = [1, 2, 3].map(|second| (TRUE_S + second) * 1_000_000);
        ensure!(times == expected, "{times:?}");
        let audit = Audit::of(&site.lake())?;
        ensure!(audit.total("samples")? == 6 && audit.total("quarantined")? == 0);
        audit.expect_good()?;
        // The collector goes on with such a lake.
        site.start_collector()?;
        site.stop_collector()?;
        Audit::of(&site.lake())?.expect_good()
    });
}
