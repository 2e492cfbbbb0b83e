//! The agent's program: reads its arguments, hands over to the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use headwater_agent::config::{Config, DEFAULTS};
use headwater_agent::{command, run};

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
    /// Show how a running agent is doing.
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
    match work(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("headwater-agent: {error:#}\n").as_bytes(),
            );
            ExitCode::from(2)
        }
    }
}

fn work(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let out = &mut std::io::stdout().lock();
    if arguments.print_config {
        std::io::Write::write_all(out, DEFAULTS.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = run::read_config(arguments.config.as_deref())?;
    if arguments.check {
        std::io::Write::write_all(out, b"the configuration is valid\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.command.unwrap_or(Command::Run {
        until_drained: false,
    }) {
        Command::Run { until_drained } => {
            start_log(&config)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(run::run(config, run::Options { until_drained }))?;
        }
        Command::Status { json } => command::status(&config, json, out)?,
        Command::Fsck { json } => {
            if !command::check_spool(&config, json, out)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Send { lines } if lines.is_empty() => {
            command::send(&config, &mut std::io::stdin())?;
        }
        Command::Send { lines } => {
            command::send(&config, &mut (lines.join("\n") + "\n").as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter: tracing_subscriber::EnvFilter = config.log.level.parse()?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if config.log.json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    Ok(())
}
