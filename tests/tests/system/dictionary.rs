//! Log lines of a fleet: gathered, learnt from, and sent in fewer bytes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use headwater_tests::lake::{Audit, rows};
use headwater_tests::process::{program, wait_for};
use headwater_tests::site::{AgentSettings, Site, at_a_site};
use serde_json::Value as Json;

const LINES: u64 = 3_000;
/// What the machines say.
const KINDS: [&str; 6] = [
    "pressure above the limit, the valve opens",
    "no answer from the flow meter within the time set",
    "the motor's temperature is back in its normal range",
    "configuration taken over, nothing restarts",
    "connection to the controller lost, trying again",
    "self test passed without complaints",
];

fn write_log(path: &Path, from: u64) -> Result<()> {
    let mut text = String::new();
    for n in from..from + LINES {
        let dice = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let what = KINDS[usize::try_from(dice % 6)?];
        writeln!(text, "pump-{}: {what}", dice >> 8 & 0xff)?;
    }
    Ok(std::fs::write(path, text)?)
}

/// An agent sends the lines of a file in batches of ten; returns the bytes that took.
fn send(site: &Site, name: &str, more: &str, from: u64) -> Result<u64> {
    let log = site.folder().join(format!("{name}.log"));
    write_log(&log, from)?;
    let source = format!("[[file]]\nname = \"pumps\"\npath = {log:?}\nfrom = \"start\"\n");
    let settings = AgentSettings {
        more: format!("[batch]\nrows = 10\n{more}"),
        ..AgentSettings::default()
    };
    let before = site.metric("headwater_bytes_received_total")?;
    let mut agent = site.agent(name, &source, &settings)?;
    agent.start()?;
    agent.wait_status("all lines in the lake", |status| {
        status["sources"][0]["cursor"].as_u64()
            == Some(std::fs::metadata(&log).map_or(0, |m| m.len()))
            && status["backlog_records"] == 0
    })?;
    agent.stop()?;
    Ok(site.metric("headwater_bytes_received_total")? - before)
}

#[test]
fn a_dictionary_trained_from_the_lake_makes_the_lines_of_a_fleet_smaller() {
    at_a_site(|site| {
        site.start_collector()?;
        let plain = send(site, "pump-1", "", 0)?;
        wait_for("the lines in the lake", || {
            Ok((rows(&site.lake(), "logs")? == LINES).then_some(()))
        })?;

        let file = site.folder().join("pumps.dict");
        let trained = Command::new(program("headwater-collector")?)
            .args(["dictionary", "--kib", "4", "--json", "--lake"])
            .arg(site.lake())
            .arg("--out")
            .arg(&file)
            .output()?;
        ensure!(trained.status.success(), "{trained:?}");
        let told: Json = serde_json::from_slice(&trained.stdout)?;
        ensure!(
            told["held_out_bytes"].as_u64() < told["held_out_plain_bytes"].as_u64(),
            "{told}"
        );

        let more = format!("[text]\ndictionary = {file:?}\n");
        // The first device of the fleet is asked for the dictionary and sends again what came before.
        send(site, "pump-2", &more, LINES)?;
        let asked = site.metric("headwater_schema_requests_total")?;
        ensure!(asked > 0, "nobody was asked for the dictionary");
        let small = send(site, "pump-3", &more, 2 * LINES)?;
        ensure!(small * 4 < plain * 3, "{small} bytes, {plain} without");
        let again = site.metric("headwater_schema_requests_total")?;
        ensure!(asked == again, "asked {again} times, not {asked}");
        site.stop_collector()?;
        let lines = rows(&site.lake(), "logs")?;
        ensure!(lines == 3 * LINES, "{lines} lines");
        Audit::of(&site.lake())?.expect_good()
    });
}

#[test]
fn a_file_that_is_no_dictionary_is_named_and_keeps_no_line_back() {
    at_a_site(|site| {
        site.start_collector()?;
        let file = site.folder().join("no.dict");
        std::fs::write(&file, "nothing of the kind")?;
        send(
            site,
            "pump-3",
            &format!("[text]\ndictionary = {file:?}\n"),
            0,
        )?;
        let said = std::fs::read_to_string(site.folder().join("logs/pump-3.log"))?;
        ensure!(
            said.contains("text.dictionary") && said.contains("not a zstd dictionary"),
            "{said}"
        );
        site.stop_collector()?;
        let lines = rows(&site.lake(), "logs")?;
        ensure!(lines == LINES, "{lines} lines");
        Ok(())
    });
}
