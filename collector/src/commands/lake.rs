//! `headwater-collector lake prune|verify|repair` and `ddl`.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use headwater_lake::ddl::{self, Dialect};
use headwater_lake::repair::{self, Repaired};
use headwater_lake::{Claim, Settings, Table, guard, prune};
use headwater_program::clock::Clock;
use headwater_program::config;
use headwater_program::entropy::random;
use headwater_program::output::print;
use headwater_proto::ids::JournalId;

use super::audit::{open, open_with};
use crate::config::Config;
use crate::pipeline::custody::Past;
use crate::run::look_at_journal;
use crate::sink::lake::{LakePlace, LakeStore};

/// What can be done with a lake.
#[derive(Debug, clap::Subcommand)]
pub enum LakeCommand {
    /// Remove days of readings, first from the tables and then from the disk; gaps name them.
    Prune(PruneArgs),
    /// Check every byte: files and logs by their hashes, files by what readers rely on (encodings,
    /// columns, order, dates), and that owner, head and marks of the lake agree with its logs. Exit
    /// code 1: there is a fault.
    Verify(VerifyArgs),
    /// Make logs, head and marks anew from what is left of the lake: versions that are missing from the
    /// files that they named. The collector must not run. Files that nothing proves to be committed are
    /// left and named. Exit code 1: something is missing still.
    Repair(RepairArgs),
}

/// What `lake prune` takes.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
    /// Days that stay, today among them.
    #[arg(long)]
    keep_days: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `lake repair` takes.
#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
    /// Configuration of its collector: what the journal knows to be in the lake proves that the last files
    /// were committed, where nothing else is left that does.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Say what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Take files that a log names and that are gone out of it. The audit calls what they held
    /// unexplained.
    #[arg(long)]
    drop_missing: bool,
    /// Take the lake from a collector whose lease has not ended: after a crash it ends within a minute.
    #[arg(long)]
    take_over: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `lake verify` takes.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
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
    /// Folder of the lake, or s3://bucket/prefix: its devices and metrics make the wide views.
    #[arg(long)]
    lake: LakePlace,
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
        LakeCommand::Repair(args) => {
            let claim = Claim {
                take_over: args.take_over,
                ..Claim::new(JournalId(random()), clock.now().wall.0)
            };
            let config = args.config.as_deref();
            let config = config.map(|path| config::load(Some(path), Config::parse));
            let journal = config.transpose()?.map(|config| {
                ensure!(config.journal_dir.is_dir(), "there is no journal to ask");
                look_at_journal(&config)
            });
            // Held until the end: a collector that starts meanwhile would write the lake too.
            let journal = journal.transpose()?;
            let known = journal.as_ref().map(|(_, side)| side);
            let known = known.filter(|side| side.past != Past::Nothing);
            let options = repair::Options {
                settings: Settings::default(),
                claim,
                committed: known.map(|side| (side.journal, side.known)),
                drop_missing: args.drop_missing,
                dry_run: args.dry_run,
            };
            let repaired = repair::repair(open_any(&args.lake)?, &options)?;
            print(&if args.json {
                format!("{}\n", serde_json::to_string(&repaired)?)
            } else {
                told(&repaired, args.dry_run)
            })?;
            Ok(repaired.is_whole())
        }
    }
}

/// A place with tables, of which any log may be lost.
fn open_any(lake: &LakePlace) -> Result<LakeStore> {
    let tables: Vec<&str> = Table::ALL.into_iter().map(Table::name).collect();
    open_with(lake, &tables)
        .with_context(|| format!("cannot open the lake {lake}"))?
        .with_context(|| format!("{lake} is no lake: it has no table's folder"))
}

fn told(repaired: &Repaired, is_dry: bool) -> String {
    let mut text = String::new();
    for hole in &repaired.open_holes {
        let _ = writeln!(text, "{hole}");
    }
    for path in &repaired.versions {
        let _ = writeln!(text, "{path}: made anew");
    }
    for path in &repaired.set_aside {
        let _ = writeln!(
            text,
            "{path}: cannot be used, set aside in _headwater/orphans"
        );
    }
    for file in &repaired.missing {
        let what = if repaired.dropped {
            "gone, and dropped"
        } else {
            "gone"
        };
        let _ = writeln!(text, "{}: {what}; it had {} rows", file.path, file.rows);
    }
    for path in &repaired.left {
        let _ = writeln!(text, "{path}: left, for nothing says that it was committed");
    }
    if repaired.unknown > 0 {
        let _ = writeln!(
            text,
            "{} versions were lost together with their files, or were made by a prune: bring the files back from a \
             backup, or see with `audit` what is missing; the collector does not notice it",
            repaired.unknown
        );
    }
    if !repaired.open_holes.is_empty() {
        let _ = writeln!(
            text,
            "nothing was written: {} holes stay",
            repaired.open_holes.len()
        );
        return text;
    }
    let _ = writeln!(
        text,
        "{}{} versions made anew, which name {} files with {} rows; {} versions after them changed; {}; \
         {} files gone, {} left",
        if is_dry { "would be done: " } else { "" },
        repaired.version_count,
        repaired.files,
        repaired.rows,
        repaired.rechained,
        if repaired.head {
            "head and marks made anew"
        } else {
            "head and marks kept"
        },
        repaired.missing_count,
        repaired.left_count
    );
    text
}

pub(super) fn ddl(args: &DdlArgs) -> Result<bool> {
    let dialect = Dialect::from_name(&args.engine).with_context(|| {
        format!(
            "unknown engine '{}': use duckdb, athena, spark, redshift or trino",
            args.engine
        )
    })?;
    let metrics = ddl::type_metrics(&open(&args.lake)?)?;
    let location = match (&args.location, &args.lake) {
        (Some(location), _) => location.clone(),
        (None, LakePlace::Folder(folder)) => folder.canonicalize()?.display().to_string(),
        (None, bucket @ LakePlace::Bucket(_)) => bucket.to_string(),
    };
    print(&ddl::ddl(dialect, &location, &metrics))?;
    Ok(true)
}
