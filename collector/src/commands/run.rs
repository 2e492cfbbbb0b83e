//! `headwater-collector run`.

use std::path::PathBuf;

use anyhow::Result;
use headwater_program::clock::Clock;
use headwater_program::faults::Faults;
use headwater_program::output::{complain, print};
use headwater_program::{config, log};

use crate::config::{Config, DEFAULTS};
use crate::run::Claims;

/// What `run` takes.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Configuration file (TOML). Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Check the configuration and what it names on this machine, name every fault, and start nothing.
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
    /// Begin a new lake where the journal has written to one that is not there any more. Without this,
    /// such a lake counts as away: its disk may not be mounted.
    #[arg(long)]
    new_lake: bool,
}

pub(super) fn run(args: &RunArgs, clock: Clock) -> Result<bool> {
    if args.print_config {
        print(DEFAULTS)?;
        return Ok(true);
    }
    let path = args.config.as_deref();
    if args.check {
        config::load(path, check)?;
        print("the configuration is valid\n")?;
        return Ok(true);
    }
    let config = config::load(path, Config::parse)?;
    log::start(&config.log)?;
    let claims = Claims {
        take_over: args.take_over,
        new_lake: args.new_lake,
    };
    crate::run::run(config, claims, clock)?;
    Ok(true)
}

/// Checks a configuration's text, and what it names on this machine. Warnings go to standard error.
fn check(text: &str) -> Result<(), Faults> {
    let found = Config::parse(text)?.examine();
    for warning in &found.warnings {
        complain(&format!("warning: {warning}"));
    }
    if found.faults.is_empty() {
        Ok(())
    } else {
        Err(Faults(found.faults))
    }
}
