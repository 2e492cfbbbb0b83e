//! What the collector can lose: its index, and even its disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::lake::files;
use headwater_tests::process::{Process, free_port, program, wait_for};
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
        // Its journal is a new one, and the lease of the old one may still run.
        site.start_collector_with(&["--take-over"])?;
        let audit = site.finish(&mut agents, &signals)?;
        ensure!(audit.total("repeated")? == 0, "{}", audit.json["totals"]);
        signals
            .iter()
            .try_for_each(|one| audit.expect_complete(&one.device))
    });
}

#[test]
fn a_second_collector_beside_a_live_one_is_refused_and_takes_the_lake_when_told_to() {
    at_a_site(|site| {
        site.start_collector()?;
        let (mut agents, signals) = fleet(site)?;
        let first_file = || {
            let files = files(&site.lake(), "samples")?;
            Ok((!files.is_empty()).then_some(()))
        };
        wait_for("a first file of samples in the lake", first_file)?;
        let config = site.folder().join("second.toml");
        let text = format!(
            "data_dir = {:?}\n\n[gate]\nlisten = \"127.0.0.1:{}\"\n\n[http]\nlisten = \
             \"127.0.0.1:{}\"\n\n[[sink]]\nkind = \"lake\"\ndir = {:?}\n",
            site.folder().join("second"),
            free_port()?,
            free_port()?,
            site.lake()
        );
        std::fs::write(&config, text)?;
        let logs = site.folder().join("logs");
        let second = |name: &str, more: &[&str]| {
            let mut command = Command::new(program("headwater-collector")?);
            command.args(["run", "--config"]).arg(&config).args(more);
            Process::start(name, &logs, &mut command)
        };
        let mut refused = second("refused", &[])?;
        ensure!(!refused.wait()?.success(), "it ran");
        let said = refused.output()?;
        ensure!(
            said.contains("the lake is owned by journal") && said.contains("--take-over"),
            "{said}"
        );
        let mut took = second("took", &["--take-over"])?;
        // The first one ends by itself: what it took from now on, it could bring nowhere. Told to, it
        // goes on where it stood.
        wait_for("the end of the first collector", || {
            Ok((!site.collector()?.is_running()?).then_some(()))
        })?;
        let said = site.collector()?.output()?;
        ensure!(said.contains("taken over under term 2"), "{said}");
        ensure!(took.stop()?.success(), "{}", took.output()?);
        // It ended in order, so that nobody need be told to take over.
        site.start_collector()?;
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}
