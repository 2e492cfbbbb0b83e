//! The program behind the cargo aliases: builds headwater, then shows it at work.

mod demo;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "\
usage: cargo demo [-- [--seconds N] [--devices N] [--dir D] [--chaos] [--json]]

Builds the agent and the collector in release, then runs the whole chain on this machine:
sensors -> agents -> MQTT -> collector -> Parquet lake, and audits what arrived.";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            report(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        // `cargo demo -- --json` hands over one `--` more than `cargo demo --json` would.
        Some("demo") => demo::run(args.filter(|arg| arg != "--").collect()),
        Some("help" | "--help" | "-h") => {
            report(USAGE);
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => bail!("unknown command '{other}'\n\n{USAGE}"),
        None => bail!("a command is missing\n\n{USAGE}"),
    }
}

/// Standard error is where a build tool speaks; standard output belongs to the demo's result.
#[expect(
    clippy::print_stderr,
    reason = "the one place where this program speaks"
)]
fn report(text: &str) {
    eprintln!("{text}");
}
