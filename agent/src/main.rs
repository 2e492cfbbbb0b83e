//! The agent's program: reads its arguments, hands over to the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headwater_agent::config::{Config, DEFAULTS};
use headwater_agent::{command, doctor, run};
use headwater_program::{config, log, output};

/// Reads sensors, keeps their samples on disk, and sends them until they are in the lake.
#[derive(Debug, Parser)]
#[command(name = "headwater-agent", version)]
struct Arguments {
    /// The configuration, a TOML file; without one, every setting has its default.
    #[arg(long, short, global = true)]
    config: Option<PathBuf>,
    /// Check the configuration, tell every fault, and do nothing else.
    #[arg(long, global = true)]
    check: bool,
    /// Print every setting with its default and what it means.
    #[arg(long, global = true)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (this is also the default).
    Run {
        /// End when every source has ended and all is committed.
        #[arg(long)]
        until_drained: bool,
    },
    /// Show how the agent is doing.
    ///
    /// Exit code 1: it does not run.
    Status {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Check every record of the spool.
    Fsck {
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Hand over lines in InfluxDB line protocol; returns when they are durable.
    Send {
        /// The lines; without any, standard input is read.
        lines: Vec<String>,
    },
}

fn main() -> ExitCode {
    output::exit_code("headwater-agent", work(Arguments::parse()))
}

/// `Ok(false)` is the answer "no" of a command that worked.
fn work(arguments: Arguments) -> anyhow::Result<bool> {
    if arguments.print_config {
        output::print(DEFAULTS)?;
        return Ok(true);
    }
    let (path, host) = (arguments.config.as_deref(), run::host_name());
    if arguments.check {
        config::load(path, |text| doctor::check(text, &host))?;
        output::print("the configuration is valid\n")?;
        return Ok(true);
    }
    let config = config::load(path, |text| Config::parse(text, &host))?;
    match arguments.command.unwrap_or(Command::Run {
        until_drained: false,
    }) {
        Command::Run { until_drained } => {
            log::start(&config.log)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(run::run(config, run::Options { until_drained }))?;
            Ok(true)
        }
        Command::Status { json } => {
            let (runs, text) = command::status(&config, json)?;
            output::print(&text)?;
            Ok(runs)
        }
        Command::Fsck { json } => {
            let (sound, text) = command::check_spool(&config, json)?;
            output::print(&text)?;
            Ok(sound)
        }
        Command::Send { lines } => {
            if lines.is_empty() {
                command::send(&config, &mut std::io::stdin())?;
            } else {
                command::send(&config, &mut (lines.join("\n") + "\n").as_bytes())?;
            }
            Ok(true)
        }
    }
}
