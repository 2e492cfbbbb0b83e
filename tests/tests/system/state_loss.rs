//! What the collector can lose: its index, and even its disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use headwater_tests::lake::files;
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, Site, at_a_site};

/// Rows of each device: enough to still run when the loss is over.
const ROWS: u64 = 2_000;

fn fleet(site: &Site) -> Result<(Vec<Agent>, Vec<Signals>)> {
    let signals: Vec<_> = (1..=3)
        .map(|n| Signals::live(&format!("sensor-{n}"), ROWS, 5_000))
        .collect();
    let mut agents = Vec::new();
    for one in &signals {
        agents.push(site.generator(one)?);
    }
    for agent in &mut agents {
        agent.wait_until_durable(1_500)?;
    }
    Ok((agents, signals))
}

#[test]
fn the_index_deleted_under_load_costs_a_rebuild_and_no_reading() {
    at_a_site(|site| {
        site.start_collector()?;
        let (mut agents, signals) = fleet(site)?;
        for _ in 0..2 {
            std::fs::remove_dir_all(sled_folder(&site.data())?)?;
            site.kill_collector()?;
            site.start_collector()?;
            wait_for("readings at the new process", || {
                Ok((site.metric("headwater_samples_received_total")? > 0).then_some(()))
            })?;
        }
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}

/// The folder in which sled keeps its `conf` and `db`.
fn sled_folder(data: &Path) -> Result<PathBuf> {
    let mut folders = vec![data.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if folder.join("conf").exists() && folder.join("db").exists() {
            return Ok(folder);
        }
        let below = std::fs::read_dir(&folder)?
            .flatten()
            .map(|entry| entry.path());
        folders.extend(below.filter(|path| path.is_dir()));
    }
    None.with_context(|| format!("no sled below {}", data.display()))
}

#[test]
fn a_collector_that_lost_its_disk_beside_its_lake_brings_nothing_double_and_misses_nothing() {
    at_a_site(|site| {
        site.start_collector()?;
        let (mut agents, signals) = fleet(site)?;
        // Something must be in the lake already, or the loss would prove nothing.
        wait_for("a first file of samples in the lake", || {
            let files = files(&site.lake(), "samples")?;
            Ok((!files.is_empty()).then_some(()))
        })?;
        site.kill_collector()?;
        std::fs::remove_dir_all(site.data())?;
        std::fs::create_dir(site.data())?;
        site.start_collector()?;
        let audit = site.finish(&mut agents, &signals)?;
        ensure!(audit.total("repeated")? == 0, "{}", audit.json["totals"]);
        signals
            .iter()
            .try_for_each(|one| audit.expect_complete(&one.device))
    });
}
