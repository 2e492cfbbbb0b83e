//! `headwater-collector run`.

use std::path::PathBuf;

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use super::{config, print};
use crate::clock::Clock;
use crate::config::{Config, DEFAULTS};

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Configuration file (TOML). Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Check the configuration, name every fault, and start nothing.
    #[arg(long)]
    check: bool,
    /// Print every setting with its default and what it means.
    #[arg(long)]
    print_config: bool,
    /// Take the lake from another collector that may still run: it can commit nothing more, and what
    /// only its journal holds stays there. Without this, a start waits for the end of the other
    /// one's lease, a minute after it was last renewed.
    #[arg(long)]
    take_over: bool,
}

pub(super) fn run(args: &RunArgs, clock: Clock) -> Result<bool> {
    if args.print_config {
        print(DEFAULTS)?;
        return Ok(true);
    }
    let mut config = config(args.config.as_ref())?;
    config.lake.take_over = args.take_over;
    if args.check {
        print("the configuration is valid\n")?;
        return Ok(true);
    }
    start_log(&config)?;
    crate::run::run(config, clock)?;
    Ok(true)
}

fn start_log(config: &Config) -> Result<()> {
    let filter = EnvFilter::try_new(&config.log_level)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    Ok(())
}
