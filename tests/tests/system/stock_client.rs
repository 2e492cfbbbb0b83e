//! A client that others wrote: its PUBACK means that the message is on disk.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_proto::sample::Value;
use headwater_tests::lake::{Audit, each_sample};
use headwater_tests::mqtt::Client;
use headwater_tests::process::wait_for;
use headwater_tests::site::{Site, at_a_site};
use headwater_tests::trace::{self, Call};

/// System calls that show custody: what was read, written, synced and answered.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,pwrite64,pwritev,sendto,\
                     sendmsg,fdatasync,fsync,sync_file_range";

/// Publishes with `mosquitto_pub -q 1`, which returns when its PUBACK is there.
fn publish(site: &Site, version: &str, topic: &str, payload: &str) -> Result<()> {
    let output = Command::new("mosquitto_pub")
        .args(["-V", version, "-q", "1", "-h", "127.0.0.1", "-p"])
        .arg(site.mqtt().port().to_string())
        .args(["-t", topic, "-m", payload])
        .output()
        .context("mosquitto_pub is in the package mosquitto-clients; tests/run installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "mosquitto_pub -V {version}: {} {said}",
        output.status
    );
    Ok(())
}

#[test]
fn what_mosquitto_pub_saw_acknowledged_survives_a_sigkill_right_after() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut expected = Vec::new();
        for (n, version) in ["311", "5", "311", "5"].into_iter().enumerate() {
            let (device, value) = (format!("plain-{n}"), 20.5 + n as f64);
            let topic = format!("devices/{device}");
            publish(
                site,
                &mqtt(version),
                &topic,
                &format!("{{\"temperature\": {value}}}"),
            )?;
            site.kill_collector()?;
            site.start_collector()?;
            expected.push((device, value));
        }
        wait_for("the messages in the lake", || {
            Ok((temperatures(site)?.len() >= expected.len()).then_some(()))
        })?;
        site.stop_collector()?;
        let mut found = temperatures(site)?;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        ensure!(found == expected, "in the lake: {found:?}");
        Audit::of(&site.lake())?.expect_good()
    });
}

/// Device and value of every row of metric `temperature`, which plain devices sent.
fn temperatures(site: &Site) -> Result<Vec<(String, f64)>> {
    let mut found = Vec::new();
    each_sample(&site.lake(), |sample| {
        if let Value::F64(value) = sample.value
            && sample.metric == "temperature"
            && sample.lane == "plain"
        {
            found.push((sample.device.to_owned(), value));
        }
    })?;
    Ok(found)
}

fn mqtt(version: &str) -> String {
    if version == "5" {
        "mqttv5".to_owned()
    } else {
        format!("mqttv{version}")
    }
}

#[test]
fn the_puback_leaves_only_after_the_fsync_of_what_it_acknowledges() {
    at_a_site(|site| {
        let trace = site.folder().join("trace");
        let path = trace.to_str().context("a path in UTF-8")?;
        // -D: the collector itself is our child, and strace watches from aside.
        site.wrapper = [
            "strace", "-D", "-f", "-y", "-xx", "-s", "8192", "-e", CALLS, "-o", path,
        ]
        .map(str::to_owned)
        .to_vec();
        site.start_collector()?;
        for (version, marker) in [("311", "drop-of-v311"), ("5", "drop-of-v5")] {
            let payload = format!("{{\"mark\": \"{marker}\"}}");
            publish(site, &mqtt(version), &format!("devices/{marker}"), &payload)?;
        }
        site.stop_collector()?;
        let calls = wait_for("strace to finish its file", || {
            let text = std::fs::read_to_string(&trace)?;
            let whole = text
                .lines()
                .last()
                .is_some_and(|line| line.contains("+++ exited"));
            Ok(whole.then(|| trace::read(&text)))
        })?;
        for marker in ["drop-of-v311", "drop-of-v5"] {
            expect_synced_before_puback(&calls, marker, &site.data().display().to_string())
                .with_context(|| format!("{marker}; the trace is {path}"))?;
        }
        Ok(())
    });
}

/// Received, written to the journal, synced without an error, and only then acknowledged.
fn expect_synced_before_puback(calls: &[Call], marker: &str, data: &str) -> Result<()> {
    let marker = marker.as_bytes();
    let received = calls
        .iter()
        .find(|call| call.args.contains("<socket:") && call.holds(marker))
        .context("the publish was never read from a socket")?;
    let socket = received.file();
    let written = calls
        .iter()
        .find(|call| call.name == "pwrite64" && call.file().contains(data) && call.holds(marker))
        .context("the publish was never written below the data folder")?;
    let file = written.file();
    let synced = calls
        .iter()
        .find(|call| {
            matches!(&*call.name, "fdatasync" | "fsync")
                && call.file() == file
                && call.began > written.ended
        })
        .with_context(|| format!("{file} was never synced after the write"))?;
    ensure!(synced.result == Some(0), "the sync failed: {synced:?}");
    let acked = calls
        .iter()
        .filter(|call| call.began > received.ended && call.file() == socket)
        .find(|call| call.data.first() == Some(&0x40))
        .with_context(|| format!("no PUBACK on {socket}"))?;
    ensure!(received.ended < written.began, "written before it was read");
    ensure!(
        synced.ended < acked.began,
        "the PUBACK left before its sync: {synced:?} {acked:?}"
    );
    Ok(())
}

#[test]
fn a_puback_that_leaves_before_its_sync_would_be_noticed() {
    let sync = "2 fdatasync(7<\\x2f\\x64\\x2f\\x31>) = 0";
    let puback = "1 sendto(9<\\x73\\x6f\\x63\\x6b\\x65\\x74\\x3a\\x5b\\x31\\x5d>, \"\\x40\\x02\\x00\\x01\", 4) = 4";
    let received = puback
        .replace("sendto", "recvfrom")
        .replace("\\x40\\x02\\x00\\x01", "\\x6d\\x31");
    let written = "2 pwrite64(7<\\x2f\\x64\\x2f\\x31>, \"\\x6d\\x31\", 2, 0) = 2";
    let judge =
        |lines: [&str; 4]| expect_synced_before_puback(&trace::read(&lines.join("\n")), "m1", "/d");
    judge([&received, written, sync, puback]).unwrap();
    judge([&received, written, puback, sync]).unwrap_err();
    judge([&received, sync, written, puback]).unwrap_err();
    judge([&received, written, &sync.replace("= 0", "= -1 EIO"), puback]).unwrap_err();
}

#[test]
fn a_refused_publish_is_told_with_who_and_what() {
    at_a_site(|site| {
        site.start_collector()?;
        let mut client = Client::connect(site.mqtt(), "meter-9")?;
        client.publish("nobody/asked/for/this", 1, b"21.5")?;
        wait_for("the line that says so", || {
            let told = site.collector()?.output()?;
            let line = told
                .lines()
                .find(|line| line.contains("a client was refused"));
            let parts = [
                "WARN",
                "meter-9",
                "forbidden",
                "nobody/asked/for/this",
                "127.0.0.1",
            ];
            Ok(line
                .filter(|line| parts.iter().all(|part| line.contains(part)))
                .map(drop))
        })
    });
}

#[test]
fn two_clients_of_one_name_are_told_of() {
    at_a_site(|site| {
        site.start_collector()?;
        // Each takes the name from the other.
        let mut twins = Vec::new();
        for _ in 0..8 {
            twins.push(Client::connect(site.mqtt(), "twin")?);
        }
        wait_for("the line that says so", || {
            let told = site.collector()?.output()?;
            let mut lines = told.lines();
            let is_told = |line: &str| line.contains("two have this name") && line.contains("twin");
            Ok(lines.any(is_told).then_some(()))
        })
    });
}
