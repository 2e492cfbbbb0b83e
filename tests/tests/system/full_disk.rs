//! The agent's disk fills up, and gets room again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, AgentSettings, Site, at_a_site};

/// Size of the file system that holds nothing but the spool.
const DISK: &str = "24m";
/// What something else has written there.
const FILLER_BYTES: u64 = 12 << 20;
/// Rows that do not fit beside it.
const ROWS: u64 = 1_200_000;
/// The smallest spool,
const QUOTA_MIB: u32 = 16;
/// with the smallest room for other lanes,
const QUOTA_SHARES: &str = "segment_mib = 1\nalarm_percent = 20\nbulk_percent = 20\n";
/// and rows that do not fit into the rest.
const QUOTA_ROWS: u64 = 1_700_000;

#[test]
fn an_agent_whose_disk_is_full_says_so_and_works_on_when_there_is_room_again() {
    at_a_site(|site| match small_disk(site)? {
        Some(wrapper) => on_a_full_disk(site, wrapper),
        None => within_a_quota(site),
    });
}

/// Command prefix that runs a program in a mount namespace of its own, where `spool` is a file
/// system of [`DISK`]; `None` where this user may not make one.
fn small_disk(site: &Site) -> Result<Option<Vec<String>>> {
    let spool = spool(site);
    std::fs::create_dir_all(&spool)?;
    let mount = format!("mount -t tmpfs -o size={DISK} none {spool:?} && exec \"$@\"");
    for options in ["-m", "-Urm"] {
        let words = ["unshare", options, "sh", "-c", &mount, "sh"];
        let trial = Command::new(words[0])
            .args(&words[1..])
            .arg("true")
            .output()?;
        if trial.status.success() {
            return Ok(Some(words.map(str::to_owned).to_vec()));
        }
    }
    Ok(None)
}

fn spool(site: &Site) -> PathBuf {
    site.folder().join("spool")
}

fn on_a_full_disk(site: &mut Site, wrapper: Vec<String>) -> Result<()> {
    let signals = Signals::past("logger-1", ROWS);
    let spool = spool(site);
    let settings = AgentSettings {
        spool_dir: Some(spool.clone()),
        wrapper,
        ..AgentSettings::default()
    };
    let mut agent = site.agent("logger-1", &signals.toml(), &settings)?;
    agent.start()?;
    let id = agent.process()?.id();
    // The test sees the agent's file system through the agent's own root.
    let filler = Path::new("/proc").join(id.to_string()).join("root");
    let filler = filler.join(spool.strip_prefix("/")?).join("filler");
    agent.wait_status("its first readings on disk", |status| {
        status["samples_durable"].as_u64() > Some(0)
    })?;
    fill(&filler)?;

    agent.wait_status("that its disk takes nothing", |status| {
        let lanes = status["lanes"].as_array();
        lanes.is_some_and(|lanes| lanes.iter().any(|lane| lane["in_ram"] == true))
    })?;
    let log = agent.process()?.output()?;
    ensure!(
        log.contains("disk takes nothing: it is full"),
        "the log does not say it: {log}"
    );
    // Its memory takes the row, which is no promise.
    let (sent, told) = send(&agent)?;
    ensure!(
        !sent && told.contains("1 of 1 rows are not durable"),
        "`send` says {told:?}"
    );
    std::fs::remove_file(&filler).context("the filler is gone")?;
    site.start_collector()?;
    agent.wait_until_drained(signals.rows)?;
    ensure!(
        agent.process()?.id() == id && agent.process()?.is_running()?,
        "another process"
    );
    agent.wait_status("that its disk takes records again", |status| {
        let lanes = status["lanes"].as_array();
        lanes.is_some_and(|lanes| lanes.iter().all(|lane| lane["in_ram"] == false))
    })?;
    let (sent, told) = send(&agent)?;
    ensure!(sent, "`send` fails: {told:?}");
    finish_explained(site, agent, &signals, 2)?;
    Ok(())
}

/// Hands a row to the agent: whether it says that it is durable, and what else it says.
fn send(agent: &Agent) -> Result<(bool, String)> {
    let mut command = Command::new(headwater_tests::process::program("headwater-agent")?);
    let command = command
        .args(["send", "door open=1", "--config"])
        .arg(agent.config());
    let output = command.output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success(), told))
}

/// Stops both: every reading is there, with `others` beside the signals, or counted in a gap; gives how
/// many are in gaps.
fn finish_explained(
    site: &mut Site,
    mut agent: Agent,
    signals: &Signals,
    others: u64,
) -> Result<u64> {
    agent.stop()?;
    site.stop_collector()?;
    let audit = headwater_tests::lake::Audit::of(&site.lake())?;
    audit.expect_good()?;
    let (there, named) = (audit.total("samples")?, audit.total("gap_samples")?);
    ensure!(
        there + named == signals.samples() + others,
        "{there} there, {named} in gaps"
    );
    Ok(named)
}

/// Takes up to [`FILLER_BYTES`], as far as there is room.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let block = vec![0x55; 64 << 10];
    for _ in 0..FILLER_BYTES / block.len() as u64 {
        if file.write_all(&block).is_err() {
            break;
        }
    }
    Ok(())
}

/// Where no file system can be made, the quota stands in: what does not fit is named in gaps.
fn within_a_quota(site: &mut Site) -> Result<()> {
    let signals = Signals::past("logger-1", QUOTA_ROWS);
    let settings = AgentSettings {
        spool_mib: QUOTA_MIB,
        spool_more: QUOTA_SHARES,
        ..AgentSettings::default()
    };
    let mut agent = site.agent("logger-1", &signals.toml(), &settings)?;
    agent.start()?;
    agent.wait_status("all rows made", |status| {
        status["sources"][0]["cursor"].as_u64() == Some(signals.rows)
    })?;
    site.start_collector()?;
    agent.wait_until_drained(signals.rows)?;
    let named = finish_explained(site, agent, &signals, 0)?;
    ensure!(named > 0, "nothing was evicted: the quota was not reached");
    Ok(())
}

#[test]
fn a_spool_at_its_quota_gives_up_the_oldest_and_names_every_reading_that_is_gone() {
    at_a_site(within_a_quota);
}
