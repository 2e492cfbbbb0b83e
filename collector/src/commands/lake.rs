//! `headwater-collector lake prune|verify` and `ddl`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use headwater_lake::ddl::{self, Dialect};
use headwater_lake::{guard, prune};
use headwater_program::clock::Clock;
use headwater_program::output::print;

use super::audit::open;

/// What can be done with a lake.
#[derive(Debug, clap::Subcommand)]
pub enum LakeCommand {
    /// Remove days of readings, first from the tables and then from the disk; gaps name them.
    Prune(PruneArgs),
    /// Check every byte: files and logs by their hashes, files by what readers rely on (encodings,
    /// columns, order, dates), and that owner, head and marks of the lake agree with its logs. Exit
    /// code 1: there is a fault.
    Verify(VerifyArgs),
}

/// What `lake prune` takes.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Folder of the lake.
    #[arg(long)]
    lake: PathBuf,
    /// Days that stay, today among them.
    #[arg(long)]
    keep_days: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `lake verify` takes.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Folder of the lake.
    #[arg(long)]
    lake: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `ddl` takes.
#[derive(Debug, clap::Args)]
pub struct DdlArgs {
    /// The engine: duckdb, athena, spark, redshift or trino.
    #[arg(long)]
    engine: String,
    /// Folder of the lake: its devices and metrics make the wide views.
    #[arg(long)]
    lake: PathBuf,
    /// Where the engine finds the lake, if elsewhere: for example s3://bucket/lake.
    #[arg(long)]
    location: Option<String>,
}

pub(super) fn run(command: &LakeCommand, clock: &Clock) -> Result<bool> {
    match command {
        LakeCommand::Prune(args) => {
            let pruned = prune::prune(&open(&args.lake)?, args.keep_days, clock.now().wall.0)?;
            print(&if args.json {
                format!("{}\n", serde_json::to_string(&pruned)?)
            } else {
                format!(
                    "{} files with {} rows, {} bytes, removed; {} is the first date that stays\n",
                    pruned.files, pruned.rows, pruned.bytes, pruned.kept_from
                )
            })?;
            Ok(true)
        }
        LakeCommand::Verify(args) => {
            let guarded = guard::guard(&open(&args.lake)?)?;
            let mut text = String::new();
            if args.json {
                text = format!("{}\n", serde_json::to_string(&guarded)?);
            } else {
                for fault in &guarded.faults {
                    let _ = writeln!(text, "{}: {}", fault.path, fault.what);
                }
                let more = guarded.fault_count - guarded.faults.len() as u64;
                if more > 0 {
                    let _ = writeln!(text, "and {more} more faults");
                }
                for orphan in &guarded.orphans {
                    let _ = writeln!(
                        text,
                        "{orphan}: published by an earlier collector and never committed; readers \
                         that list folders see its rows, and it may be moved away"
                    );
                }
                let _ = writeln!(
                    text,
                    "{} files checked, {} faults, {} orphans",
                    guarded.files, guarded.fault_count, guarded.orphan_count
                );
            }
            print(&text)?;
            Ok(guarded.fault_count == 0)
        }
    }
}

pub(super) fn ddl(args: &DdlArgs) -> Result<bool> {
    let dialect = Dialect::from_name(&args.engine).with_context(|| {
        format!(
            "unknown engine '{}': use duckdb, athena, spark, redshift or trino",
            args.engine
        )
    })?;
    let metrics = ddl::type_metrics(&open(&args.lake)?)?;
    let location = match &args.location {
        Some(location) => location.clone(),
        None => args.lake.canonicalize()?.display().to_string(),
    };
    print(&ddl::ddl(dialect, &location, &metrics))?;
    Ok(true)
}
