//! `headwater-collector audit`: is every reading in the lake once, or named in a gap?

use std::fmt::Write as _;

use anyhow::{Context, Result};
use headwater_lake::audit::{self, Audit, Options, StreamAudit, Verdict};
use headwater_lake::{Store as _, StoreError};
use headwater_program::output::print;

use crate::sink::lake::{LakePlace, LakeStore};

/// Streams that the table shows when there are more; bad ones always come first.
const MAX_LINES: usize = 50;

/// What there is to say of a replay that was cut off.
pub(super) const CUT: &str = "a replay was cut off: its last samples stand among the others and in \
                              quarantine, until `headwater-collector quarantine replay` is run again";

/// What `audit` takes.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// Folder of the lake, or s3://bucket/prefix.
    #[arg(long)]
    lake: LakePlace,
    /// Print one JSON object with every stream.
    #[arg(long)]
    json: bool,
    /// Do not hold the files against their hashes, nor the rows of each batch against its digest: reads
    /// a part of their bytes alone, and takes what can be read for what was committed.
    #[arg(long)]
    quick: bool,
}

pub(super) fn run(args: &AuditArgs) -> Result<bool> {
    let options = Options {
        with_hashes: !args.quick,
        ..Options::default()
    };
    let audit = audit::audit_with(&open(&args.lake)?, &options)?;
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&audit)?)
    } else {
        table(&audit)
    };
    print(&text)?;
    Ok(audit.totals.is_good())
}

/// An existing lake; a typing error must not become an empty one that audits well.
pub(super) fn open(lake: &LakePlace) -> Result<LakeStore> {
    open_with(lake, &["samples/_delta_log"])
        .with_context(|| format!("cannot open the lake {lake}"))?
        .with_context(|| format!("{lake} is no lake: it has no samples/_delta_log"))
}

/// The objects at a place that has one of these folders; `None` if it has none. Nothing is made.
pub(super) fn open_with(
    lake: &LakePlace,
    folders: &[&str],
) -> Result<Option<LakeStore>, StoreError> {
    // The folder of a bucket's staged files says nothing of the lake.
    if matches!(lake, LakePlace::Folder(folder) if !folder.is_dir()) {
        return Ok(None);
    }
    let store = lake.open()?;
    for folder in folders {
        if !store.list_some(folder, 1)?.is_empty() {
            return Ok(Some(store));
        }
    }
    Ok(None)
}

fn table(audit: &Audit) -> String {
    let mut out = String::new();
    let mut streams: Vec<&StreamAudit> = audit.streams.iter().collect();
    streams.sort_by_key(|stream| std::cmp::Reverse(stream.verdict));
    let width = streams
        .iter()
        .take(MAX_LINES)
        .map(|s| s.device_id.len())
        .max()
        .unwrap_or(6)
        .max(6);
    let _ = writeln!(
        out,
        "{:<width$}  {:<6}  {:<16}  {:<11}  {:>9}  {:>12}  {:>9}  note",
        "device", "lane", "epoch", "verdict", "batches", "samples", "missing"
    );
    for stream in streams.iter().take(MAX_LINES) {
        let counts = &stream.counts;
        let _ = writeln!(
            out,
            "{:<width$}  {:<6}  {:016x}  {:<11}  {:>9}  {:>12}  {:>9}  {}",
            stream.device_id,
            stream.lane,
            stream.epoch,
            name(stream.verdict),
            counts.batches,
            counts.samples,
            counts.explained + counts.pending + counts.unexplained,
            note(stream)
        );
    }
    if streams.len() > MAX_LINES {
        let _ = writeln!(
            out,
            "and {} more streams; --json has them all",
            streams.len() - MAX_LINES
        );
    }
    let (totals, verdicts) = (&audit.totals, &audit.totals.verdicts);
    out.push_str(&faults(audit));
    let _ = writeln!(
        out,
        "\n{} samples and {} log lines in {} streams: {} complete, {} explained, {} pending, {} unexplained, {} \
         repeated, {} conflicting",
        totals.counts.samples,
        totals.counts.log_lines,
        totals.streams,
        verdicts.complete,
        verdicts.explained,
        verdicts.pending,
        verdicts.unexplained,
        verdicts.repeated,
        verdicts.conflicting
    );
    out.push_str(if totals.is_good() {
        "every reading is here once, named in a gap, or still on its way\n"
    } else if totals.faults > 0 {
        "THE PROMISE IS BROKEN: objects of the lake are at fault, and what they hold does not count\n"
    } else {
        "THE PROMISE IS BROKEN for the streams at the top\n"
    });
    out.push_str(&missing(audit));
    if totals.counts.quarantined > 0 {
        let _ = writeln!(
            out,
            "{} samples stand in table quarantine, with why, and not among the samples",
            totals.counts.quarantined
        );
    }
    if totals.counts.undigested > 0 {
        let _ = writeln!(
            out,
            "{} batches have no digest to hold their rows against",
            totals.counts.undigested
        );
    }
    if totals.is_replay_cut {
        let _ = writeln!(out, "{CUT}");
    }
    out
}

/// What gaps name, a reason on a line, and how many do not say when it was made.
fn missing(audit: &Audit) -> String {
    let mut out = String::new();
    let mut without_span = 0;
    for (reason, missing) in &audit.totals.missing {
        let seconds = missing.time_ms.div_ceil(1_000);
        let _ = write!(
            out,
            "missing, {reason}: {} gaps, {} samples counted, {seconds} s",
            missing.gaps, missing.samples
        );
        if missing.open > 0 {
            let _ = write!(out, " without {} gaps of unknown start", missing.open);
        }
        out.push('\n');
        without_span += missing.without_span;
    }
    if without_span > 0 {
        let _ = writeln!(
            out,
            "{without_span} gaps have no time span: a version before the column `span` wrote them"
        );
    }
    out
}

/// Every fault on a line.
fn faults(audit: &Audit) -> String {
    let mut out = String::new();
    if audit.totals.faults > 0 {
        let _ = writeln!(out, "\n{} faults:", audit.totals.faults);
    }
    for fault in &audit.faults {
        let _ = writeln!(out, "{}: {}", fault.path, fault.what);
    }
    let more = audit.totals.faults - audit.faults.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "and {more} more faults");
    }
    out
}

fn note(stream: &StreamAudit) -> String {
    let counts = &stream.counts;
    let mut notes = Vec::new();
    if let Some((first, next)) = stream.unexplained_ranges.first() {
        notes.push(format!("first unexplained: {first} to {}", next - 1));
    }
    let facts = [
        (counts.gap_samples, "samples in gaps"),
        (counts.gaps_uncounted, "gaps known by time alone"),
        (counts.quarantined, "samples in quarantine"),
        (counts.unnamed_stops, "unclean ends without their gap"),
        (counts.unmarked, "samples replayed and in quarantine"),
        (counts.filled, "gaps filled later"),
        (counts.repeated, "rows twice"),
        (counts.conflicting, "contradictions"),
        (counts.uncompared, "batches twice and not compared"),
    ];
    notes.extend(
        facts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{n} {what}")),
    );
    notes.join("; ")
}

const fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Explained => "explained",
        Verdict::Pending => "pending",
        Verdict::Unexplained => "UNEXPLAINED",
        Verdict::Repeated => "REPEATED",
        Verdict::Conflicting => "CONFLICTING",
    }
}

#[cfg(test)]
mod tests {
    use headwater_lake::Fault;
    use headwater_lake::audit::Totals;

    use super::*;

    #[test]
    fn every_fault_is_told_and_never_beside_a_good_word() {
        let fault = Fault {
            path: "samples/hot/x".into(),
            what: "is missing".into(),
        };
        let mut audit = Audit {
            streams: vec![],
            totals: Totals::default(),
            faults: vec![],
        };
        assert!(table(&audit).contains("every reading is here once"));
        audit.totals.faults = 3;
        audit.faults = vec![fault];
        let text = table(&audit);
        for part in ["3 faults", "samples/hot/x: is missing", "2 more", "BROKEN"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("every reading"), "{text}");
        assert!(!text.contains("time span"), "{text}");
        let missing = audit::Missing {
            gaps: 5,
            samples: 70,
            time_ms: 1_500,
            open: 1,
            without_span: 2,
        };
        audit.totals.missing.insert("damaged".into(), missing);
        let text = table(&audit);
        for part in [
            "missing, damaged: 5 gaps, 70 samples counted, 2 s without 1 gaps of unknown start",
            "2 gaps have no time span",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!audit.totals.is_good());
    }
}
