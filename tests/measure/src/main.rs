//! What the chain costs on this machine. Measures and reports, never asserts.
//!
//! ```text
//! cargo run --release -p headwater-measure -- [--json] [--quick] [NAME...]
//! ```
//! Names choose some of `chain`, `puback`, `required-sinks`, `agent-memory`, `idle-connections`, `latency`,
//! `backlog`; without any all run, in about five minutes after the build. `--quick` takes a quarter of the time and a
//! quarter of the backlog. The folder for temporary files must be on a disk if the syncs are to mean
//! anything. The programs are built in release first, unless `HEADWATER_BIN` names their folder (with
//! the gate's example `gate_load` in it). Both processes of the chain share the machine with whatever else runs on it.

mod backlog;
mod build;
mod chain;
mod latency;
mod memory;
mod puback;
mod required;
mod table;

use std::time::Duration;

use anyhow::{Result, bail};
use table::Figure;

/// How much of each measurement is made.
#[derive(Debug, Clone, Copy)]
struct Effort {
    /// Window of the end-to-end rate.
    chain: Duration,
    /// Each run of the load.
    puback: Duration,
    /// Each run of `latency`.
    latency: Duration,
    /// How long the agent runs before its memory is read.
    settle: Duration,
    /// Bytes of the backlog.
    backlog_bytes: u64,
}

const WHOLE: Effort = Effort {
    chain: Duration::from_secs(20),
    puback: Duration::from_secs(5),
    latency: Duration::from_secs(30),
    settle: Duration::from_secs(12),
    backlog_bytes: 2_000_000_000,
};
const QUICK: Effort = Effort {
    chain: Duration::from_secs(5),
    puback: Duration::from_secs(2),
    latency: Duration::from_secs(8),
    settle: Duration::from_secs(4),
    backlog_bytes: 500_000_000,
};

type Measure = fn(Effort) -> Result<Vec<Figure>>;

const MEASURES: [(&str, Measure); 7] = [
    ("chain", chain::run),
    ("puback", puback::run),
    ("required-sinks", required::run),
    ("agent-memory", memory::agent),
    ("idle-connections", memory::idle_connections),
    ("latency", latency::run),
    ("backlog", backlog::run),
];

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the result of a measuring program"
)]
fn main() -> Result<()> {
    let (mut json, mut effort, mut names) = (false, WHOLE, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--json" => json = true,
            "--quick" => effort = QUICK,
            name if MEASURES.iter().any(|(known, _)| *known == name) => names.push(argument),
            _ => {
                let known: Vec<_> = MEASURES.iter().map(|(name, _)| *name).collect();
                bail!(
                    "{argument} is unknown; there are --json, --quick and {}",
                    known.join(", ")
                )
            }
        }
    }
    // Programs that someone else built are taken as they are.
    if std::env::var_os("HEADWATER_BIN").is_none() {
        build::programs()?;
    }
    let mut figures = Vec::new();
    for (name, measure) in MEASURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("measuring {name}");
            figures.extend(measure(effort)?);
        }
    }
    println!(
        "{}",
        if json {
            table::json(&figures)
        } else {
            table::text(&figures)
        }
    );
    Ok(())
}
