//! A device gets another name.

use anyhow::ensure;
use headwater_tests::lake::{Audit, gaps};
use headwater_tests::signals::Signals;
use headwater_tests::site::{AgentSettings, at_a_site};
use serde_json::json;

const HOST_SOURCE: &str = "[[host]]\ninterval_ms = 100";

#[test]
fn what_a_device_stored_under_an_earlier_name_is_in_the_lake_under_that_name_once() {
    at_a_site(|site| {
        let spool = site.folder().join("spool");
        let settings = AgentSettings {
            spool_dir: Some(spool.clone()),
            ..AgentSettings::default()
        };
        let signals = [Signals::past("old 1", 3_000), Signals::past("new-1", 2_000)];
        let mut old = site.agent("old 1", &signals[0].toml(), &settings)?;
        old.start()?;
        old.wait_until_made(signals[0].rows)?;
        old.stop()?;
        let mut new = site.agent("new-1", &signals[1].toml(), &settings)?;
        new.start()?;
        new.wait_status("what waits", |status| {
            status["earlier_names"] == json!(["old 1"]) && status["device"] == "new-1"
        })?;
        site.start_collector()?;
        new.wait_until_drained(signals[1].rows)?;
        new.wait_status("nothing to wait", |status| {
            status["earlier_names"] == json!([])
        })?;
        let audit = site.finish_complete(&mut [new], &signals)?;
        let expected: u64 = signals.iter().map(Signals::samples).sum();
        ensure!(audit.total("samples")? == expected);
        let homes = std::fs::read_dir(&spool)?.collect::<Result<Vec<_>, std::io::Error>>()?;
        let homes: Vec<_> = homes.iter().map(std::fs::DirEntry::file_name).collect();
        ensure!(homes == ["of-new-1"], "{homes:?}");
        Ok(())
    });
}

#[test]
fn what_a_killed_agent_may_have_lost_is_named_under_the_name_that_it_had() {
    at_a_site(|site| {
        site.start_collector()?;
        let settings = AgentSettings {
            spool_dir: Some(site.folder().join("spool")),
            ..AgentSettings::default()
        };
        let mut old = site.agent("old-2", HOST_SOURCE, &settings)?;
        old.start()?;
        old.wait_until_durable(1)?;
        old.kill()?;
        let signals = Signals::past("new-2", 500);
        let mut new = site.agent("new-2", &signals.toml(), &settings)?;
        new.start()?;
        new.wait_until_drained(signals.rows)?;
        new.wait_status("nothing to wait", |status| {
            status["earlier_names"] == json!([])
        })?;
        new.stop()?;
        site.stop_collector()?;
        Audit::of(&site.lake())?.expect_good()?;
        let gaps = gaps(&site.lake())?;
        let unclean = gaps.iter().filter(|gap| gap.reason == "unclean_stop");
        let unclean: Vec<_> = unclean.map(|gap| gap.device.as_str()).collect();
        ensure!(
            unclean.contains(&"old-2") && !unclean.contains(&"new-2"),
            "{unclean:?}"
        );
        Ok(())
    });
}

#[test]
fn a_file_that_was_read_under_an_earlier_name_is_not_read_again_under_any_other() {
    at_a_site(|site| {
        site.start_collector()?;
        let settings = AgentSettings {
            spool_dir: Some(site.folder().join("spool")),
            ..AgentSettings::default()
        };
        let table = site.folder().join("table.csv");
        let rows = |to: u64| (0..to).map(|n| format!("{},{n}\n", 1_700_000_000_000 + n));
        let write = |to| {
            std::fs::write(
                &table,
                "ts:ms,v:i64\n".to_owned() + &rows(to).collect::<String>(),
            )
        };
        // The source has another name too in the third life.
        for (to, name, source) in [
            (100, "old-3", "r"),
            (150, "new-3", "r"),
            (200, "old-3", "s"),
        ] {
            write(to)?;
            let toml = format!("[[replay]]\nname = {source:?}\npath = {table:?}");
            let mut agent = site.agent(name, &toml, &settings)?;
            agent.start()?;
            agent.wait_status("all to be in the lake", |status| {
                status["sources"][0]["health"]["state"] == "ended"
                    && status["backlog_records"] == 0
                    && status["earlier_names"] == json!([])
            })?;
            agent.stop()?;
        }
        site.stop_collector()?;
        let audit = Audit::of(&site.lake())?;
        audit.expect_good()?;
        ensure!(audit.total("samples")? == 200, "{}", audit.json["totals"]);
        Ok(())
    });
}
