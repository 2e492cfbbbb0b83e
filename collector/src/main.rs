//! The collector's program: one command, one exit code.

use std::process::ExitCode;

use clap::Parser;
use headwater_collector::commands::{self, Command};
use headwater_program::output::exit_code;

/// Takes custody of readings and brings each into the lake once.
#[derive(Debug, Parser)]
#[command(name = "headwater-collector", version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    exit_code("headwater-collector", commands::run(Args::parse().command))
}
