//! A collector whose clock was wrong, or is: it takes data, dates nothing, and goes on when the operator rules.

use anyhow::{Result, ensure};
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Site, at_a_site};

/// Rows of the device: enough to still run while the clock is in doubt.
const ROWS: u64 = 3_000;

/// Programs whose clock is two days ahead. Time passes in them as it does.
fn two_days_ahead() -> Vec<String> {
    let words = [
        "env",
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1",
        "FAKETIME=+2d",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ];
    words.map(str::to_owned).to_vec()
}

/// Waits until the collector says that its clock is in doubt; it takes data nevertheless.
fn expect_doubt(site: &Site) -> Result<()> {
    wait_for("a collector that doubts its clock", || {
        let answer = site.http("/readyz").ok();
        Ok(answer
            .filter(|(_, said)| said.contains("clock is in doubt"))
            .map(drop))
    })
}

#[test]
fn a_collector_whose_clock_is_in_doubt_takes_data_and_goes_on_when_the_operator_rules() {
    at_a_site(|site| {
        site.wrapper = two_days_ahead();
        site.start_collector()?;
        let signals = [Signals::live("pump-1", ROWS, 5_000)];
        let mut agents = [site.generator(&signals[0])?];
        agents[0].wait_until_durable(500)?;
        wait_for("readings in the lake", || {
            Ok((site.metric("headwater_samples_received_total")? > 0).then_some(()))
        })?;
        site.stop_collector()?;

        site.wrapper = Vec::new();
        site.launch_collector(&[])?;
        expect_doubt(site)?;
        let (code, _) = site.ask(&["devices", "forget", "nobody"])?;
        ensure!(
            code != Some(0),
            "a device was forgotten by a clock in doubt"
        );
        agents[0].wait_for_new_readings()?;
        agents[0].wait_status("readings that are with the collector", |status| {
            status["connected"] == true && status["backlog_records"].as_u64() > Some(10)
        })?;
        // A kill does not end it.
        site.kill_collector()?;
        site.launch_collector(&[])?;
        expect_doubt(site)?;

        let (code, told) = site.ask(&["clock", "trust"])?;
        ensure!(
            code == Some(0) && told.contains("believed"),
            "{code:?} {told}"
        );
        let (code, told) = site.ask(&["clock", "trust"])?;
        ensure!(
            code == Some(1) && told.contains("not in doubt"),
            "{code:?} {told}"
        );
        wait_for("a collector that believes its clock", || {
            let (code, said) = site.http("/readyz")?;
            Ok((code == 200 && !said.contains("clock")).then_some(()))
        })?;
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}
