//! The collector's program: one command, one exit code.

use std::process::ExitCode;

use clap::Parser;
use headwater_collector::commands::{self, Command};

/// Takes custody of readings and brings each into the lake once.
#[derive(Debug, Parser)]
#[command(name = "headwater-collector", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match commands::run(Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            commands::complain(&format!("headwater-collector: {error:#}"));
            // 1 is the answer "no" of a command that worked; 2 is a command that did not.
            ExitCode::from(2)
        }
    }
}
