//! `headwater-collector quarantine`: what was taken and cannot be believed, listed and put among the samples.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use headwater_lake::date::{instant_of, instant_text};
use headwater_lake::replay::DEFAULT_MEMORY_BYTES;
use headwater_program::clock::Clock;
use headwater_program::config;
use headwater_program::output::{complain, print};
use headwater_spool::RealDisk;
use serde_json::json;

use super::audit::{CUT, open};
use crate::config::Config;
use crate::pipeline::envelope::Reason;
use crate::quarantine::{self, Done, Group, Listed, Order, Which};
use crate::sink::lake::LakePlace;

/// What can be done with a lake's quarantine.
#[derive(Debug, clap::Subcommand)]
pub enum QuarantineCommand {
    /// List what stands in quarantine by device, reason and date of receipt. The collector may run.
    ///
    /// Exit code 1: there is something.
    List(ListArgs),
    /// Put samples that were refused for their time into table `samples`, each once however often this is
    /// run. The collector must not run.
    ///
    /// Exit code 1: some stay, for their time is still not believed, or they cannot be read; or there are none of
    /// the device, reason and times that were asked for.
    Replay(ReplayArgs),
}

/// Which samples are meant.
#[derive(Debug, clap::Args)]
pub(super) struct WhichArgs {
    /// Of this device alone.
    #[arg(long)]
    device: Option<String>,
    /// Refused for this reason alone.
    #[arg(long)]
    reason: Option<String>,
    /// Of this time or later, as it was refused: RFC 3339 in UTC.
    #[arg(long, value_parser = instant)]
    from: Option<i64>,
    /// Before this time, as it was refused.
    #[arg(long, value_parser = instant)]
    to: Option<i64>,
}

/// What `list` takes.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
    #[command(flatten)]
    which: WhichArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `replay` takes.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Configuration file (TOML) of the collector. Without one, every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    which: WhichArgs,
    /// Seconds to add to each time; 0 to take them as they are. You answer for the times then: they have
    /// to lie before the present. Without it they are judged once more as at their receipt, by the
    /// settings in `[time]`. To date samples of a boot, give the Unix time of the boot.
    #[arg(long, value_parser = shift, allow_negative_numbers = true)]
    shift: Option<i64>,
    /// Tell what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn instant(text: &str) -> Result<i64, String> {
    instant_of(text).ok_or_else(|| "give an instant like 2026-11-22T08:00:00Z".to_owned())
}

/// Seconds with a fraction as microseconds.
fn shift(text: &str) -> Result<i64, String> {
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => (-1, number),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let read = || {
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return None;
        }
        let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
        let whole: i64 = whole.parse().ok()?;
        Some(sign * whole.checked_mul(1_000_000)?.checked_add(fraction)?)
    };
    read().ok_or_else(|| "give seconds, with six digits after the point at most".to_owned())
}

impl WhichArgs {
    fn read(&self) -> Which {
        Which {
            device: self.device.clone(),
            reason: self.reason.clone(),
            from_us: self.from,
            to_us: self.to,
        }
    }
}

pub(super) fn run(command: &QuarantineCommand, clock: &Clock) -> Result<bool> {
    match command {
        QuarantineCommand::List(args) => list(args),
        QuarantineCommand::Replay(args) => replay(args, clock),
    }
}

fn list(args: &ListArgs) -> Result<bool> {
    let listed = quarantine::list(&open(&args.lake)?, &args.which.read(), DEFAULT_MEMORY_BYTES)?;
    let is_empty = listed.groups.iter().all(|group| group.samples == 0);
    print(&if args.json {
        let Listed {
            groups,
            other_rows,
            is_replay_cut,
        } = listed;
        format!(
            "{}\n",
            json!({ "groups": groups, "other_rows": other_rows, "is_replay_cut": is_replay_cut })
        )
    } else {
        table(&listed)
    })?;
    Ok(is_empty)
}

fn table(listed: &Listed) -> String {
    let mut out = String::new();
    for group in &listed.groups {
        let Group {
            device,
            reason,
            day,
            rows,
            samples,
            replayed,
            ..
        } = group;
        let _ = write!(
            out,
            "{day}  {device}  {reason}  {samples} samples in {rows} rows"
        );
        if *replayed > 0 {
            let _ = write!(out, ", {replayed} replayed");
        }
        if let Some((first, last)) = group.first_us.zip(group.last_us) {
            let time = |us: i64| match reason == Reason::Undated.name() {
                true => format!("{} s after its boot", us / 1_000_000),
                false => instant_text(us),
            };
            let _ = write!(out, ", times {} to {}", time(first), time(last));
        }
        out.push('\n');
    }
    let sum = |of: fn(&Group) -> u64| listed.groups.iter().map(of).sum::<u64>();
    let (samples, replayed) = (sum(|group| group.samples), sum(|group| group.replayed));
    if listed.other_rows > 0 {
        let _ = writeln!(
            out,
            "and {} rows of other groups; give --device or --reason to see them",
            listed.other_rows
        );
    }
    let _ = writeln!(out, "{samples} samples in quarantine, {replayed} replayed");
    if listed.is_replay_cut {
        let _ = writeln!(out, "{CUT}");
    }
    out
}

fn replay(args: &ReplayArgs, clock: &Clock) -> Result<bool> {
    if let Some(reason) = args
        .which
        .reason
        .as_ref()
        .filter(|r| !quarantine::is_of_time(r))
    {
        bail!(
            "samples with the reason {reason} were not refused for their time: {} and {} can be replayed",
            Reason::ImpossibleTime.name(),
            Reason::Undated.name()
        );
    }
    let config = config::load(args.config.as_deref(), Config::parse)?;
    let lake = config.lake().context("the configuration has no lake")?;
    let store = open(&lake.place).with_context(|| match &args.config {
        Some(path) => format!("cannot use the lake of {}", path.display()),
        None => "cannot use the lake of the default settings; --config names others".to_owned(),
    })?;
    // The journal's lock is held as long as a collector runs, and keeps one from starting meanwhile.
    let _journal = RealDisk::open(&config.journal_dir).with_context(|| {
        let folder = config.journal_dir.display();
        format!("cannot use {folder}: stop the collector for a replay")
    })?;
    let order = Order {
        which: args.which.read(),
        shift_us: args.shift,
        window: config.custody.window,
        now_us: clock.now().wall.0,
        is_dry: args.dry_run,
        encoding: lake.settings.lake.encoding,
        memory_bytes: DEFAULT_MEMORY_BYTES,
    };
    let done = quarantine::replay(&store, &order, &mut |done| {
        complain(&format!("{} samples replayed", done.replayed));
    })?;
    print(&if args.json {
        format!("{}\n", serde_json::to_string(&done)?)
    } else {
        said(&done)
    })?;
    let is_missed = done.is_empty() && order.which != Which::default();
    Ok(done.stay.is_empty() && !is_missed)
}

fn said(done: &Done) -> String {
    let mut out = String::new();
    if done.is_empty() {
        let _ = writeln!(
            out,
            "no such samples were refused for their time: `headwater-collector quarantine list` shows what there is"
        );
    }
    for (why, stay) in &done.stay {
        let _ = writeln!(
            out,
            "{} samples stay ({why}); the first: {}",
            stay.samples, stay.first
        );
    }
    if done.stay.contains_key("late") {
        let _ = writeln!(out, "time.max_late_days = 0 takes times of any age");
    }
    if done.finished > 0 {
        let _ = writeln!(
            out,
            "a replay of {} samples that was cut off is finished",
            done.finished
        );
    }
    let did = if done.is_dry {
        "would be replayed"
    } else {
        "replayed"
    };
    let _ = writeln!(
        out,
        "{} samples {did}, {} were before",
        done.replayed, done.before
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_read_to_the_microsecond() {
        for (text, us) in [
            ("-3600", -3_600_000_000),
            ("0", 0),
            ("+1.5", 1_500_000),
            ("1760000000.000001", 1_760_000_000_000_001),
            ("-0.25", -250_000),
        ] {
            assert_eq!(shift(text), Ok(us), "{text}");
        }
        for text in [
            "",
            "-",
            ".5",
            "1h",
            "1.0000001",
            "9223372036854775807",
            "--1",
            "NaN",
        ] {
            assert!(shift(text).is_err(), "{text}");
        }
    }
}
