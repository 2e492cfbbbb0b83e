//! A generator as fast as can be, through agent and collector into the lake, every stage synced.

use anyhow::Result;
use headwater_program::clock::{Clock, wall};
use headwater_tests::lake::{Audit, files};
use headwater_tests::process::wait_for;
use headwater_tests::signals::Signals;
use headwater_tests::site::{Agent, Site};

use crate::Effort;
use crate::table::Figure;

/// Samples in the lake before the clock starts: the chain is warm, and nothing is empty.
const WARM_SAMPLES: u64 = 1_000_000;
/// Lakes are for the past: rows begin so long ago, and never reach the present.
const BEGIN_S: i64 = 20 * 24 * 3600;

/// Everything that is counted, at one moment.
struct Look {
    at: Clock,
    committed: u64,
    agent_cpu_s: f64,
    collector_cpu_s: f64,
}

pub(crate) fn run(effort: Effort) -> Result<Vec<Figure>> {
    let mut site = Site::new()?;
    site.start_collector()?;
    let signals = Signals {
        start_us: wall().0 - BEGIN_S * 1_000_000,
        rows: 0,
        ..Signals::past("generator-1", 1)
    };
    let mut agent = site.generator(&signals)?;
    let first = next_commit(&mut site, &mut agent, WARM_SAMPLES)?;
    let mut last = next_commit(&mut site, &mut agent, first.committed)?;
    while first.at.elapsed() < effort.chain {
        last = next_commit(&mut site, &mut agent, last.committed)?;
    }
    let seconds = first.at.elapsed().as_secs_f64() - last.at.elapsed().as_secs_f64();
    let samples = (last.committed - first.committed) as f64;
    let agent_s = last.agent_cpu_s - first.agent_cpu_s;
    let collector_s = last.collector_cpu_s - first.collector_cpu_s;

    let received = site.metric("headwater_bytes_received_total")? as f64;
    let agent_written = agent.process()?.disk_written_bytes()? as f64;
    let collector_written = site.collector()?.disk_written_bytes()? as f64;
    agent.stop()?;
    site.stop_collector()?;
    let in_lake = Audit::of(&site.lake())?.total("samples")? as f64;
    let mut lake_bytes = 0;
    for table in ["samples", "digests"] {
        for file in files(&site.lake(), table)? {
            lake_bytes += std::fs::metadata(file)?.len();
        }
    }
    let per_core = samples / (agent_s + collector_s);
    Ok(vec![
        Figure::new(
            "sensor to lake, all synced: per second and core",
            per_core,
            "samples/s",
        )
        .at_least(1e6),
        Figure::new("  on this machine", samples / seconds, "samples/s"),
        Figure::new(
            "  agent, per second of its processor time",
            samples / agent_s,
            "samples/s",
        ),
        Figure::new("  collector, the same", samples / collector_s, "samples/s"),
        Figure::new("on the wire", received / in_lake, "B/sample"),
        Figure::new(
            "agent: bytes to disk per payload byte",
            agent_written / received,
            "",
        ),
        Figure::new(
            "collector, lake included: the same",
            collector_written / received,
            "",
        ),
        Figure::new("in the lake", lake_bytes as f64 / in_lake, "B/sample").at_most(3.0),
    ])
}

/// Waits for the commit that brings the lake beyond `committed` samples. Commits come in steps, so
/// a rate is only right from one to another.
fn next_commit(site: &mut Site, agent: &mut Agent, committed: u64) -> Result<Look> {
    let committed = wait_for("the next commit", || {
        let now = site.metric("headwater_lake_samples_committed_total")?;
        Ok((now > committed).then_some(now))
    })?;
    Ok(Look {
        at: Clock::start(),
        committed,
        agent_cpu_s: agent.process()?.cpu_seconds()?,
        collector_cpu_s: site.collector()?.cpu_seconds()?,
    })
}
