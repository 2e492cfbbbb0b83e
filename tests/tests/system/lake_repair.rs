//! A lake that lost a part of its logs, and one that was brought back older, beside the real programs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::lake::{Audit, files};
use headwater_tests::process::{program, wait_for};
use headwater_tests::signals::Signals;
use headwater_tests::site::{Site, at_a_site};

/// Rows of the device: enough to still run when the lake is back.
const ROWS: u64 = 4_000;

/// Exit code and output of `headwater-collector lake` on the site's lake.
fn lake(site: &Site, args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = Command::new(program("headwater-collector")?);
    let command = command
        .arg("lake")
        .args(args)
        .arg("--lake")
        .arg(site.lake());
    let output = command.output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.code(), text))
}

fn wait_for_flushes(site: &Site, count: usize) -> Result<()> {
    wait_for("flushes in the lake", || {
        let files = files(&site.lake(), "samples")?;
        Ok((files.len() >= count).then_some(()))
    })
}

#[test]
fn a_lake_with_holes_is_refused_until_it_is_repaired_and_then_goes_on() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals = [Signals::live("pump-1", ROWS, 5_000)];
        let mut agents = [site.generator(&signals[0])?];
        wait_for_flushes(site, 3)?;
        site.stop_collector()?;
        let before = Audit::of(&site.lake())?.json;
        let folder = site.lake();
        let logs = |table: &str| folder.join(table).join("_delta_log");
        std::fs::remove_file(logs("samples").join(format!("{:020}.json", 2)))?;
        std::fs::remove_dir_all(logs("epochs"))?;
        for lost in ["_headwater/head.json", "_headwater/marks", "catalog.json"] {
            let lost = site.lake().join(lost);
            if lost.exists() {
                std::fs::remove_file(lost)?;
            }
        }

        site.launch_collector(&[])?;
        let ended = site.collector()?.wait()?;
        let told = site.collector()?.output()?;
        ensure!(
            !ended.success() && told.contains("lake repair"),
            "{ended}: {told}"
        );
        let (code, told) = lake(site, &["verify"])?;
        ensure!(code == Some(1), "{told}");

        let (code, told) = lake(site, &["repair", "--dry-run"])?;
        ensure!(code == Some(0) && told.contains("would be done"), "{told}");
        ensure!(!logs("epochs").exists(), "a dry run wrote");
        let config = site.folder().join("collector.toml").display().to_string();
        let (code, told) = lake(site, &["repair", "--json", "--config", &config])?;
        ensure!(code == Some(0), "{told}");
        let (code, told) = lake(site, &["verify"])?;
        ensure!(code == Some(0), "{told}");
        let after = Audit::of(&site.lake())?.json;
        ensure!(after == before, "{after}\nbefore: {before}");

        site.start_collector()?;
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}

#[test]
fn a_backup_of_the_lake_that_is_brought_back_gets_what_the_journal_still_holds() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals = [Signals::live("pump-1", ROWS, 5_000)];
        let mut agents = [site.generator(&signals[0])?];
        wait_for_flushes(site, 2)?;
        site.stop_collector()?;
        let backup = site.folder().join("backup");
        copy(&site.lake(), &backup)?;

        site.start_collector()?;
        wait_for_flushes(site, 5)?;
        site.stop_collector()?;
        std::fs::remove_dir_all(site.lake())?;
        std::fs::rename(&backup, site.lake())?;

        site.start_collector()?;
        wait_for("the count of lakes that went back", || {
            let counted = site.metric("headwater_lake_went_back_total")?;
            Ok((counted == 1).then_some(()))
        })?;
        let told = site.collector()?.output()?;
        ensure!(
            told.contains("the lake is older than the journal"),
            "{told}"
        );
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("-a").args([from, to]).status();
    let done = done.context("cp")?;
    ensure!(done.success(), "cp: {done}");
    Ok(())
}
