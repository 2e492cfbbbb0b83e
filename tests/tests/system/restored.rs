//! A device whose spool is gone, or is an old copy, or has nothing of a source yet: what its sources read before is
//! in the lake once, and what came since is missing nowhere.

use std::path::Path;

use anyhow::{Result, ensure};
use headwater_tests::lake::Audit;
use headwater_tests::site::{AgentSettings, Site, at_a_site};

/// Rows of a table, and lines of a log.
struct Inputs<'a> {
    table: &'a Path,
    log: &'a Path,
}

impl Inputs<'_> {
    /// Both grow to so many.
    fn grow(&self, to: u64) -> Result<()> {
        let rows = (0..to).map(|n| format!("{},{n}\n", 1_700_000_000_000 + n));
        std::fs::write(
            self.table,
            format!("ts:ms,v:i64\n{}", rows.collect::<String>()),
        )?;
        let lines = (0..to).map(|n| format!("line {n}\n"));
        std::fs::write(self.log, lines.collect::<String>())?;
        Ok(())
    }

    fn toml(&self) -> String {
        let Self { table, log } = self;
        format!(
            "[[replay]]\nname = \"r\"\npath = {table:?}\n\
             [[file]]\nname = \"f\"\npath = {log:?}\nfrom = \"start\"\nlane = \"bulk\""
        )
    }

    /// Reads both to their end in one life of the agent, until all of it is in the lake.
    fn read(&self, site: &Site, spool: &Path) -> Result<()> {
        let settings = AgentSettings {
            spool_dir: Some(spool.to_owned()),
            ..AgentSettings::default()
        };
        let mut agent = site.agent("device", &self.toml(), &settings)?;
        agent.start()?;
        let bytes = std::fs::metadata(self.log)?.len();
        agent.wait_status("all to be in the lake", |status| {
            let sources = &status["sources"];
            // Those of one kind stand together.
            sources[1]["health"]["state"] == "ended"
                && sources[0]["health"]["state"] == "up"
                && (sources[0]["cursor"] == bytes || status["readings"] == 0)
                && status["backlog_records"] == 0
                && status["connected"] == true
        })?;
        agent.stop()?;
        Ok(())
    }
}

/// The lake has exactly so many rows, and as many lines.
fn expect(site: &Site, count: u64) -> Result<()> {
    let audit = Audit::of(&site.lake())?;
    audit.expect_good()?;
    let both = (audit.total("samples")?, audit.total("log_lines")?);
    ensure!(both == (count, count), "{}", audit.json["totals"]);
    Ok(())
}

#[test]
fn a_device_without_its_spool_goes_on_behind_what_the_collector_holds() {
    at_a_site(|site| {
        let (table, log) = (site.folder().join("t.csv"), site.folder().join("a.log"));
        let inputs = Inputs {
            table: &table,
            log: &log,
        };
        site.start_collector()?;
        for life in 1..=3 {
            inputs.grow(life * 200)?;
            inputs.read(site, &site.folder().join(format!("spool-{life}")))?;
            // What it held is known to its next process too.
            site.kill_collector()?;
            site.start_collector()?;
        }
        // Nothing new: nothing is read.
        inputs.read(site, &site.folder().join("spool-4"))?;
        site.stop_collector()?;
        expect(site, 600)
    });
}

#[test]
fn a_device_that_is_brought_back_from_an_old_copy_goes_on_behind_what_the_collector_holds() {
    at_a_site(|site| {
        let (table, log) = (site.folder().join("t.csv"), site.folder().join("a.log"));
        let inputs = Inputs {
            table: &table,
            log: &log,
        };
        let (spool, copy) = (site.folder().join("spool"), site.folder().join("copy"));
        site.start_collector()?;
        inputs.grow(200)?;
        inputs.read(site, &spool)?;
        copy_folder(&spool, &copy)?;
        inputs.grow(400)?;
        inputs.read(site, &spool)?;
        inputs.grow(500)?;
        inputs.read(site, &copy)?;
        inputs.grow(600)?;
        inputs.read(site, &copy)?;
        site.stop_collector()?;
        expect(site, 600)
    });
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to)?;
        } else {
            std::fs::copy(from, to)?;
        }
    }
    Ok(())
}

#[test]
fn lines_that_come_before_a_log_from_the_end_ever_stored_one_are_not_missed() {
    at_a_site(|site| {
        let log = site.folder().join("a.log");
        std::fs::write(&log, "of before\n")?;
        let toml = format!("[[file]]\nname = \"f\"\npath = {log:?}\nlane = \"bulk\"");
        let mut agent = site.agent("device", &toml, &AgentSettings::default())?;
        let begun = |status: &serde_json::Value| status["sources"][0]["health"]["state"] == "up";
        site.start_collector()?;
        agent.start()?;
        agent.wait_status("the log to be read", begun)?;
        agent.kill()?;
        let lines = (0..100).map(|n| format!("line {n}\n"));
        std::fs::write(&log, format!("of before\n{}", lines.collect::<String>()))?;
        std::fs::rename(&log, site.folder().join("a.log.1"))?;
        std::fs::write(&log, "line 100\n")?;
        agent.start()?;
        agent.wait_status("all to be in the lake", |status| {
            status["readings"] == 101 && status["backlog_records"] == 0
        })?;
        agent.stop()?;
        site.stop_collector()?;
        let audit = Audit::of(&site.lake())?;
        audit.expect_good()?;
        ensure!(audit.total("log_lines")? == 101, "{}", audit.json["totals"]);
        Ok(())
    });
}
