//! `headwater-collector deadletters`: what sinks refused for good.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use headwater_lake::date::instant_text;
use headwater_program::clock::Clock;
use headwater_program::config;
use headwater_program::output::{complain, print};
use headwater_proto::ids::{SeqRange, Stream};
use headwater_spool::RealDisk;
use serde_json::{Value as Json, json};

use super::map::sample_json;
use crate::config::Config;
use crate::interpret::{Depth, Interpreted};
use crate::sink::kind::Replay;
use crate::sink::letters::{self, Around, LetterHead, Letters, Name};
use crate::sink::registry::Declared;

/// What can be done with dead letters.
#[derive(Debug, clap::Subcommand)]
pub enum DeadLettersCommand {
    /// List the records that sinks refused, and why. The collector may run.
    ///
    /// Exit code 1: there are some.
    List(ListArgs),
    /// Show what the refused records of a sink hold, a JSON object a line. The collector may run.
    Show(ShowArgs),
    /// Give a sink its refused records once more; those that it takes are no dead letters any more. The
    /// collector must not run.
    ///
    /// Exit code 1: some are refused again, or cannot be read.
    Replay(ReplayArgs),
}

/// What `list` takes.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Configuration file (TOML) of the collector. Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Of this sink alone.
    #[arg(long)]
    sink: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// What `show` takes.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Configuration file (TOML) of the collector. Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The sink.
    #[arg(long)]
    sink: String,
    /// The record with this position alone, as `list` shows it.
    #[arg(long)]
    position: Option<u64>,
}

/// What `replay` takes.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Configuration file (TOML) of the collector. Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The sink.
    #[arg(long)]
    sink: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &DeadLettersCommand, clock: &Clock) -> Result<bool> {
    match command {
        DeadLettersCommand::List(args) => list(args),
        DeadLettersCommand::Show(args) => show(args),
        DeadLettersCommand::Replay(args) => replay(args, clock),
    }
}

/// Folders of letters by sink; also of sinks that no configuration names any more.
fn folders(config: &Config) -> Result<BTreeMap<String, PathBuf>> {
    let mut folders = BTreeMap::new();
    let entries = match std::fs::read_dir(&config.dead_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folders),
        Err(error) => {
            let folder = config.dead_dir.display();
            return Err(error).with_context(|| format!("cannot look into {folder}"));
        }
    };
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string() {
            folders.insert(name, entry.path());
        }
    }
    Ok(folders)
}

/// The files of a folder.
fn files(folder: &Path) -> Result<(RealDisk, Vec<Name>)> {
    let cannot = || format!("cannot read the dead letters in {}", folder.display());
    let disk = RealDisk::peek(folder).with_context(cannot)?;
    let names = letters::list(&disk).with_context(cannot)?;
    Ok((disk, names.into_keys().collect()))
}

/// Hands over each letter of a folder; a line on standard error for a file that cannot be read.
fn each(
    folder: &Path,
    visit: &mut dyn FnMut(&Name, &LetterHead<'_>, Option<&Interpreted<'_>>),
) -> Result<()> {
    let (disk, names) = files(folder)?;
    for name in &names {
        let read = letters::read(&disk, name, Depth::Samples, &mut |head, item| {
            visit(name, head, item);
        });
        if let Err(error) = read {
            complain(&format!("{}/{name}: {error}", folder.display()));
        }
    }
    Ok(())
}

fn list(args: &ListArgs) -> Result<bool> {
    let config = config::load(args.config.as_deref(), Config::parse)?;
    let (mut text, mut count) = (String::new(), 0_u64);
    for (sink, folder) in folders(&config)? {
        if args.sink.as_ref().is_some_and(|wanted| *wanted != sink) {
            continue;
        }
        each(&folder, &mut |name, head, item| {
            count += 1;
            if args.json {
                let _ = writeln!(text, "{}", listed_json(&sink, name, head, item));
            } else {
                let (at, position, cause) = (instant_text(name.at.0), head.position, head.cause);
                let what = item.map_or_else(|| "of a kind unknown here".to_owned(), numbers_text);
                let _ = writeln!(text, "{at}  {sink}  {position}  {what}: {cause}");
            }
        })?;
    }
    if !args.json {
        let _ = writeln!(text, "{count} dead letters");
    }
    print(&text)?;
    Ok(count == 0)
}

/// Which records a letter stands for, in words.
fn numbers_text(item: &Interpreted<'_>) -> String {
    let one = |(stream, range): &(Stream, SeqRange)| {
        let (device, lane, epoch) = (&stream.device, stream.lane.name(), stream.epoch);
        format!("{device} {lane} {epoch} {}..{}", range.first, range.next)
    };
    let covers: Vec<String> = item.covers.iter().map(one).collect();
    format!("{}, {} samples", covers.join(", "), item.batch_samples())
}

fn listed_json(
    sink: &str,
    name: &Name,
    head: &LetterHead<'_>,
    item: Option<&Interpreted<'_>>,
) -> Json {
    let covers = item.map_or(&[][..], |item| item.covers);
    let covers = covers.iter().map(|(stream, range)| {
        json!({
            "device": stream.device.as_str(),
            "lane": stream.lane.name(),
            "epoch": stream.epoch.to_string(),
            "first": range.first,
            "next": range.next,
        })
    });
    json!({
        "sink": sink,
        "refused_at": instant_text(name.at.0),
        "journal": name.journal.to_string(),
        "position": head.position,
        "cause": head.cause,
        "samples": item.map(Interpreted::batch_samples),
        "records": covers.collect::<Vec<_>>(),
    })
}

fn show(args: &ShowArgs) -> Result<bool> {
    let config = config::load(args.config.as_deref(), Config::parse)?;
    let folder = config.dead_dir.join(&args.sink);
    if !folder.is_dir() {
        bail!("sink {} has no dead letters", args.sink);
    }
    let (mut text, mut shown) = (String::new(), 0_u64);
    each(&folder, &mut |name, head, item| {
        if args.position.is_some_and(|wanted| wanted != head.position) {
            return;
        }
        shown += 1;
        let mut letter = listed_json(&args.sink, name, head, item);
        if let Some(item) = item {
            let refused = item
                .refused()
                .map(|refused| json!({ "reason": refused.reason.name(), "cause": refused.cause }));
            letter["rows"] = item.samples.iter().map(sample_json).collect();
            letter["quarantined"] = refused.collect();
            letter["lines"] = item
                .lines
                .iter()
                .map(|line| json!({ "ts": instant_text(line.ts_us), "source": line.source, "text": line.message }))
                .collect();
            letter["gaps"] = item.gaps.len().into();
        }
        let _ = writeln!(text, "{letter}");
    })?;
    print(&text)?;
    if shown == 0 {
        bail!("sink {} has no such dead letter", args.sink);
    }
    Ok(true)
}

fn replay(args: &ReplayArgs, clock: &Clock) -> Result<bool> {
    let config = config::load(args.config.as_deref(), Config::parse)?;
    let declared = config.sinks.iter().find(|sink| *sink.name == *args.sink);
    let Some(Declared { kind, .. }) = declared else {
        bail!("the configuration has no sink {:?}", args.sink);
    };
    let folder = config.dead_dir.join(&args.sink);
    if !folder.is_dir() {
        bail!("sink {} has no dead letters", args.sink);
    }
    // The journal's lock is held as long as a collector runs, and keeps one from starting meanwhile.
    let cannot = |folder: &Path| {
        format!(
            "cannot use {}: stop the collector for a replay",
            folder.display()
        )
    };
    let _journal =
        RealDisk::open(&config.journal_dir).with_context(|| cannot(&config.journal_dir))?;
    let disk = RealDisk::open(&folder).with_context(|| cannot(&folder))?;
    let mut letters = Letters::open(disk)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let replay = Replay {
        state_dir: &config.state_dir,
        letters: &mut letters,
        around: Around {
            runtime: &runtime,
            clock: &|| clock.now(),
            pause: &std::thread::sleep,
            progress: &|_, sum| {
                complain(&format!(
                    "{} letters taken, {} refused again",
                    sum.taken, sum.refused
                ));
            },
        },
    };
    let done = kind.clone().replay(replay)?;
    print(&if args.json {
        format!("{}\n", serde_json::to_string(&done)?)
    } else {
        let letters::Replayed {
            taken,
            refused,
            unreadable,
        } = done;
        format!(
            "{taken} taken, {refused} refused again, {unreadable} in files that cannot be read\n"
        )
    })?;
    Ok(done.refused + done.unreadable == 0)
}
