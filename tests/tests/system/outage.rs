//! The collector is away; agents keep what they read, and bring it when it is back.

use anyhow::ensure;
use headwater_tests::signals::Signals;
use headwater_tests::site::{AgentSettings, at_a_site, disk_bytes};

/// Memory that an agent may gain while it buffers, in KiB.
const MAX_GROWTH_KIB: u64 = 10 * 1024;
/// What a generated row takes in the spool at least: most of it is the digits of `vibration`.
const ROW_BYTES: u64 = 10;
/// Disk that a drained spool may still hold: the segments in use, and spares for the next ones.
const DRAINED_BYTES: u64 = 24 << 20;

#[test]
fn what_an_agent_reads_during_an_outage_arrives_once_and_costs_disk_not_memory() {
    at_a_site(|site| {
        let buffered = super::setting("HEADWATER_OUTAGE_MB", 12) * 1_000_000;
        let settings = AgentSettings {
            spool_mib: 1024,
            ..AgentSettings::default()
        };
        let signals = Signals::past("logger-1", buffered / ROW_BYTES);
        let mut agent = site.agent("logger-1", &signals.toml(), &settings)?;
        // The agent has read a little and been idle with the collector before: its memory is what
        // it needs to work at all.
        agent.start()?;
        agent.wait_until_durable(1_000)?;
        let before = agent.process()?.resident_kib()?;

        agent.wait_until_made(signals.rows)?;
        let spooled = disk_bytes(agent.spool())?;
        ensure!(
            spooled >= buffered,
            "only {spooled} of {buffered} bytes were spooled"
        );
        let grown = agent.process()?.resident_kib()?.saturating_sub(before);
        ensure!(
            grown < MAX_GROWTH_KIB,
            "the agent's memory grew by {grown} KiB"
        );

        site.start_collector()?;
        agent.wait_until_drained(signals.rows)?;
        let grown = agent.process()?.resident_kib()?.saturating_sub(before);
        ensure!(
            grown < MAX_GROWTH_KIB,
            "the agent's memory grew by {grown} KiB in the drain"
        );
        let kept = disk_bytes(agent.spool())?;
        ensure!(
            kept < spooled.min(DRAINED_BYTES),
            "{kept} of {spooled} bytes stay on disk"
        );
        site.finish_complete(&mut [agent], &[signals])?;
        Ok(())
    });
}

#[test]
fn an_outage_in_the_middle_of_a_run_is_not_seen_in_the_lake() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals: Vec<_> = (1..=2)
            .map(|n| Signals::live(&format!("sensor-{n}"), 800, 5_000))
            .collect();
        let mut agents = Vec::new();
        for one in &signals {
            agents.push(site.generator(one)?);
        }
        for agent in &mut agents {
            agent.wait_until_durable(1_000)?;
        }
        site.stop_collector()?;
        for agent in &mut agents {
            agent.wait_status("it notices, and keeps reading", |status| {
                status["connected"] == false && status["samples_durable"].as_u64() > Some(3_000)
            })?;
        }
        site.start_collector()?;
        site.finish_complete(&mut agents, &signals)?;
        Ok(())
    });
}

#[test]
fn a_stop_does_not_wait_for_a_collector_that_is_silent() {
    at_a_site(|site| {
        site.start_collector()?;
        let signals = Signals::live("logger-3", 2_000, 10_000);
        let mut agent = site.generator(&signals)?;
        agent.wait_status("a link", |status| status["connected"] == true)?;
        site.collector()?.signal("STOP")?;
        agent.wait_until_made(signals.rows)?;
        // It ends in order, and what it could not send is there for the next start.
        agent.stop()?;
        site.collector()?.signal("CONT")?;
        agent.start()?;
        site.finish_complete(&mut [agent], &[signals])?;
        Ok(())
    });
}
