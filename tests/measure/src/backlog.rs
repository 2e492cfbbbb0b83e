//! An agent starts with a large backlog: how long until it works, and what memory that takes.

use std::path::Path;

use anyhow::Result;
use headwater_agent::config::Config;
use headwater_agent::pipeline::engine::{Event, OfferError};
use headwater_agent::run::open_engine;
use headwater_program::clock::Clock;
use headwater_proto::ids::Lane;
use headwater_tests::dice::Dice;
use headwater_tests::site::{Agent, AgentSettings, Site, disk_bytes};

use crate::Effort;
use crate::table::Figure;

/// Log lines of this many characters fill the spool; drawn from 64, they do not compress below three
/// quarters.
const LINE_BYTES: usize = 8 * 1024;
/// A file that is watched: some source must be there, and this one has nothing to say.
const SOURCE: &str = "[[host]]\ninterval_ms = 3600000\n";

pub(crate) fn run(effort: Effort) -> Result<Vec<Figure>> {
    let site = Site::new()?;
    let spool_mib = u32::try_from(effort.backlog_bytes * 2 / (1 << 20))?;
    let settings = AgentSettings {
        spool_mib,
        ..AgentSettings::default()
    };
    let mut empty = site.agent("empty", SOURCE, &settings)?;
    let (empty_s, empty_kib) = start(&mut empty)?;
    let mut full = site.agent("full", SOURCE, &settings)?;
    fill(full.config(), full.spool(), effort.backlog_bytes)?;
    let backlog = disk_bytes(full.spool())?;
    let (full_s, full_kib) = start(&mut full)?;
    let mib = full_kib.saturating_sub(empty_kib) as f64 / 1024.0;
    Ok(vec![
        Figure::new("agent starts with an empty spool in", empty_s, "s"),
        Figure::new(
            format!("  with a backlog of {} MB", backlog / 1_000_000),
            full_s,
            "s",
        )
        .at_most(1.0),
        Figure::new("  and takes more memory by", mib, "MiB").at_most(10.0),
    ])
}

/// Seconds until the agent tells its status for the first time, and its memory then, in KiB.
fn start(agent: &mut Agent) -> Result<(f64, u64)> {
    let began = Clock::start();
    agent.start()?;
    agent.wait_status("a first status", |_| true)?;
    let seconds = began.elapsed().as_secs_f64();
    let kib = agent.process()?.resident_kib()?;
    agent.kill()?;
    Ok((seconds, kib))
}

/// Fills an agent's spool with its own engine until it takes `bytes`.
fn fill(config: &Path, spool: &Path, bytes: u64) -> Result<()> {
    let config = Config::parse(&std::fs::read_to_string(config)?, "measure")?;
    let clock = Clock::of_boot();
    let mut engine = open_engine(&config, clock)?;
    let mut dice = Dice::roll();
    let mut line = vec![0; LINE_BYTES];
    while disk_bytes(spool)? < bytes {
        for _ in 0..64 {
            for part in line.chunks_exact_mut(8) {
                part.copy_from_slice(&dice.below(u64::MAX).to_le_bytes());
                part.iter_mut().for_each(|byte| *byte = b'0' + (*byte & 63));
            }
            let now = clock.now();
            match engine.offer_line(0, Lane::Normal, now.wall, &line, None, now) {
                Ok(_) => {}
                Err(OfferError::Busy) => engine.handle(Event::Tick, now),
                Err(OfferError::Lane(error)) => return Err(error.into()),
            }
        }
        engine.handle(Event::Tick, clock.now());
        engine.flush(clock.now());
    }
    engine.stop(clock.now());
    Ok(())
}
