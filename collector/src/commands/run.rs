//! `headwater-collector run`.

use std::path::PathBuf;

use anyhow::Result;
use headwater_program::clock::Clock;
use headwater_program::output::print;
use headwater_program::{config, log};

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
    let mut config = config::load(args.config.as_deref(), Config::parse)?;
    config.lake.take_over = args.take_over;
    if args.check {
        print("the configuration is valid\n")?;
        return Ok(true);
    }
    log::start(&config.log)?;
    crate::run::run(config, clock)?;
    Ok(true)
}
