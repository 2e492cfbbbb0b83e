//! What the program can be asked to do.

mod audit;
mod dictionary;
mod lake;
mod run;
mod status;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::clock::Clock;
use crate::config::Config;
use crate::demo::{self, DemoArgs};

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Run the collector.
    Run(run::RunArgs),
    /// Start agents and a collector on this machine, feed a lake, prove that nothing is missing.
    Demo(DemoArgs),
    /// Check from the lake alone that every reading is there once or named in a gap.
    ///
    /// Exit code 1: something is unexplained, repeated or conflicting.
    Audit(audit::AuditArgs),
    /// Ask a running collector how it is.
    ///
    /// Exit code 1: it is not ready.
    Status(status::StatusArgs),
    /// Look after a lake.
    #[command(subcommand)]
    Lake(lake::LakeCommand),
    /// Print table definitions for a query engine.
    Ddl(lake::DdlArgs),
    /// Train a dictionary for the log lines of a fleet from those in its lake.
    ///
    /// Copy the file to the agents and name it in their setting `text.dictionary`; the collector
    /// needs no copy.
    Dictionary(dictionary::DictionaryArgs),
}

/// Carries out `command`; `Ok(false)` is the answer "no".
///
/// # Errors
/// What went wrong, with what to do about it.
pub fn run(command: Command) -> Result<bool> {
    let clock = Clock::start();
    match command {
        Command::Run(args) => run::run(&args, clock),
        Command::Demo(args) => demo::run(&args, &clock),
        Command::Audit(args) => audit::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Lake(command) => lake::run(&command, &clock),
        Command::Ddl(args) => lake::ddl(&args),
        Command::Dictionary(args) => dictionary::run(&args),
    }
}

/// Writes to standard error, where complaints belong.
pub fn complain(text: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a result to standard output; a reader that closed its end is no fault of ours.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// The checked configuration of `path`; the defaults without one.
fn config(path: Option<&PathBuf>) -> Result<Config> {
    let text = match path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?,
    };
    let name = path.map_or_else(|| "the defaults".into(), |path| path.display().to_string());
    Config::parse(&text).with_context(|| format!("{name} must be changed before anything runs"))
}
