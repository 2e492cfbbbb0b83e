//! What the program can be asked to do.

mod audit;
mod clock;
mod deadletters;
mod devices;
mod dictionary;
mod lake;
mod map;
mod quarantine;
mod run;
mod status;

use anyhow::Result;
use headwater_program::clock::Clock;

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
    /// Show what the collector would make of a publish of a plain device.
    ///
    /// Exit code 1: part of it is refused.
    Map(map::MapArgs),
    /// Look at what sinks refused for good, and give it to them once more.
    #[command(subcommand)]
    Deadletters(deadletters::DeadLettersCommand),
    /// Look at samples that were taken and cannot be believed, and put them among the others.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Decide about the clock of the collector's machine.
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    /// Decide about devices.
    #[command(subcommand)]
    Devices(devices::DevicesCommand),
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
    // Its monotonic time is the machine's uptime, by which a clock in doubt is told from one life to the next.
    let clock = Clock::of_boot();
    match command {
        Command::Run(args) => run::run(&args, clock),
        Command::Demo(args) => demo::run(&args, &clock),
        Command::Audit(args) => audit::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Deadletters(command) => deadletters::run(&command, &clock),
        Command::Quarantine(command) => quarantine::run(&command, &clock),
        Command::Clock(command) => clock::run(&command),
        Command::Devices(command) => devices::run(&command),
        Command::Map(args) => map::run(&args, &clock),
        Command::Lake(command) => lake::run(&command, &clock),
        Command::Ddl(args) => lake::ddl(&args),
        Command::Dictionary(args) => dictionary::run(&args),
    }
}
