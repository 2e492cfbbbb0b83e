//! Resident memory: of an agent at a usual pace, and of a collector with many who say nothing.

use anyhow::Result;
use headwater_program::clock::Clock;
use headwater_tests::mqtt::Client;
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::Site;

use crate::Effort;
use crate::table::Figure;

/// 125 rows of 8 metrics a second: 1,000 samples a second.
const PERIOD_US: u32 = 8_000;
const IDLE: usize = 1_000;

/// The agent's memory at 1,000 samples a second, connected.
pub(crate) fn agent(effort: Effort) -> Result<Vec<Figure>> {
    let mut site = Site::new()?;
    site.start_collector()?;
    let signals = Signals::live("pump-1", 0, PERIOD_US);
    let mut agent = site.generator(&signals)?;
    let began = Clock::start();
    // The most it ever takes counts, looked at all the while.
    let mut most_kib = 0;
    wait_for("the agent to settle", || {
        most_kib = most_kib.max(agent.process()?.resident_kib()?);
        Ok((began.elapsed() > effort.settle).then_some(()))
    })?;
    agent.stop()?;
    let mib = most_kib as f64 / 1024.0;
    Ok(vec![
        Figure::new("agent at 1,000 samples/s: resident memory", mib, "MiB").at_most(8.0),
    ])
}

/// What 1,000 connected clients that say nothing add to the collector.
pub(crate) fn idle_connections(_: Effort) -> Result<Vec<Figure>> {
    let mut site = Site::new()?;
    site.start_collector()?;
    // The first connection pays for what all share.
    let first = Client::connect(site.mqtt(), "first")?;
    let before_kib = site.collector()?.resident_kib()?;
    let mut idle = vec![first];
    for n in 0..IDLE {
        idle.push(Client::connect(site.mqtt(), &format!("idle-{n}"))?);
    }
    let after_kib = site.collector()?.resident_kib()?;
    let mib = after_kib.saturating_sub(before_kib) as f64 / 1024.0;
    Ok(vec![
        Figure::new("collector: 1,000 idle connections add", mib, "MiB").at_most(10.0),
    ])
}
