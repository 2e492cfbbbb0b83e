//! The end of the demo: audit, comparison with the generator, and what to do with the lake.

use std::fmt::Write as _;

use anyhow::{Context, Result};
use headwater_lake::audit::{self, Audit};
use headwater_lake::{LocalStore, scan};
use headwater_proto::time::UnixMicros;
use serde::Serialize;

use super::check::{Comparison, Found};
use super::fleet::{self, Fleet, HOST};
use super::view::bytes;
use super::watch::{self, Watch};

/// A gap of this machine's agent that a hard stop left.
const UNCLEAN_STOP: &str = "unclean_stop";
/// A kill may lie this much outside its gap: its time is taken just before the signal.
const KILL_SLACK_US: i64 = 1_000;

/// The result, as `--json` prints it. Sample counts are of the generated devices.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    devices: usize,
    seconds_start_us: i64,
    samples_generated: u64,
    samples_in_lake: u64,
    samples_in_gaps: u64,
    rows_wrong: u64,
    duplicates: u64,
    unexplained: u64,
    pending: u64,
    conflicting: u64,
    /// Objects of the lake that cannot be read or are not what was committed.
    faults: u64,
    /// Samples of all devices, this machine's too.
    samples_in_lake_all: u64,
    bytes_on_wire: u64,
    bytes_per_sample: f64,
    lake_bytes: u64,
    lake_bytes_per_sample: f64,
    lake_files: u64,
    kills: u32,
    host_kills: usize,
    /// Kills of this machine's agent that no gap names.
    host_kills_unnamed: usize,
    lake_dir: String,
}

impl Report {
    /// Reads the lake and nothing else, apart from the counters of the wire.
    pub(super) fn make(fleet: &Fleet, watch: &Watch, start: UnixMicros, rows: u64) -> Result<Self> {
        let dir = fleet.lake();
        let store = LocalStore::new(&dir).context("the lake cannot be opened")?;
        let audit = audit::audit(&store).context("the lake cannot be audited")?;
        let mut comparison = Comparison::default();
        for agent in &fleet.agents[1..] {
            comparison.expect(&agent.name, fleet::SEED, start, fleet::PERIOD_US, rows);
        }
        let mut all = 0;
        scan::samples(&store, |row| {
            all += 1;
            comparison.see(row.device_id, row.metric, UnixMicros(row.ts_us), row.value);
        })
        .context("the lake cannot be read")?;
        let mut stops = Vec::new();
        scan::gaps(&store, |loss| {
            if loss.device_id == HOST && loss.reason == UNCLEAN_STOP {
                stops.push((
                    loss.t_first_us.unwrap_or(i64::MIN),
                    loss.t_last_us.unwrap_or(i64::MAX),
                ));
            }
        })
        .context("the gaps cannot be read")?;
        let unnamed = |kill: &&UnixMicros| {
            !stops.iter().any(|(first, last)| {
                first.saturating_sub(KILL_SLACK_US) <= kill.0
                    && kill.0 <= last.saturating_add(KILL_SLACK_US)
            })
        };
        let (lake_files, lake_bytes) = watch::parquet_files(&dir.join("samples"));
        let found = comparison.found();
        let counts = audit.totals.counts;
        Ok(Self {
            devices: fleet.agents.len(),
            seconds_start_us: start.0,
            samples_generated: found.generated,
            samples_in_lake: found.in_lake,
            samples_in_gaps: samples_in_gaps(&audit, found),
            rows_wrong: found.wrong,
            duplicates: found.duplicates + counts.repeated,
            unexplained: counts.unexplained,
            pending: counts.pending,
            conflicting: counts.conflicting,
            faults: audit.totals.faults,
            samples_in_lake_all: all,
            bytes_on_wire: watch.bytes_on_wire(),
            bytes_per_sample: ratio(watch.bytes_on_wire(), all),
            lake_bytes,
            lake_bytes_per_sample: ratio(lake_bytes, all),
            lake_files,
            kills: fleet.kills(),
            host_kills: watch.host_kills().len(),
            host_kills_unnamed: watch.host_kills().iter().filter(unnamed).count(),
            lake_dir: dir.display().to_string(),
        })
    }

    /// Whether the promise was kept.
    pub(super) fn is_proven(&self) -> bool {
        self.samples_in_lake == self.samples_generated
            && self.samples_in_gaps == 0
            && self.rows_wrong == 0
            && self.duplicates == 0
            && self.unexplained == 0
            && self.pending == 0
            && self.conflicting == 0
            && self.faults == 0
            && self.host_kills_unnamed == 0
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and texts are JSON")
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let verdict = if self.is_proven() {
            "proven: every generated reading is in the lake once, with the right time and bits"
        } else {
            "NOT PROVEN: the promise was broken; keep the folder, it is evidence"
        };
        let _ = writeln!(out, "{verdict}\n");
        let _ = writeln!(
            out,
            "  generated   {:>12} samples of {} devices, {} processes killed",
            self.samples_generated,
            self.devices - 1,
            self.kills
        );
        let _ = writeln!(
            out,
            "  in the lake {:>12}, wrong {}, twice {}, in gaps {}, unexplained {}",
            self.samples_in_lake,
            self.rows_wrong,
            self.duplicates,
            self.samples_in_gaps,
            self.unexplained
        );
        if self.host_kills > 0 {
            let _ = writeln!(
                out,
                "  this machine's agent was killed {} times; {} of these lie in a gap",
                self.host_kills,
                self.host_kills - self.host_kills_unnamed
            );
        }
        let _ = writeln!(
            out,
            "  wire        {:>12}, {:.2} B/sample\n  lake        {:>12}, {:.2} B/sample, {} files\n",
            bytes(self.bytes_on_wire),
            self.bytes_per_sample,
            bytes(self.lake_bytes),
            self.lake_bytes_per_sample,
            self.lake_files
        );
        let lake = &self.lake_dir;
        // As it was started: the program need not be in the path.
        let program = std::env::current_exe().unwrap_or_else(|_| "headwater-collector".into());
        let program = program.display();
        let _ = writeln!(out, "Read it:\n\n  {program} audit --lake {lake}");
        let _ = writeln!(
            out,
            "  duckdb -c \"select device_id, metric, count(*), avg(value_f64) from \
             read_parquet('{lake}/samples/hot/dt=*/*.parquet') group by all order by all\""
        );
        let _ = writeln!(
            out,
            "  python3 -c \"import pandas; print(pandas.read_parquet('{lake}/samples/hot', \
             dtype_backend='pyarrow').describe())\""
        );
        out
    }
}

/// What gaps count of the generated devices, as far as it is not there.
fn samples_in_gaps(audit: &Audit, found: Found) -> u64 {
    let counted: u64 = audit
        .streams
        .iter()
        .filter(|stream| stream.device_id != HOST)
        .map(|stream| stream.counts.gap_samples)
        .sum();
    // A gap of unknown size must not look like none.
    let missing = found.generated.saturating_sub(found.in_lake);
    if counted == 0
        && audit
            .streams
            .iter()
            .any(|s| s.device_id != HOST && s.counts.explained > 0)
    {
        return missing;
    }
    counted
}

fn ratio(bytes: u64, samples: u64) -> f64 {
    if samples == 0 {
        0.0
    } else {
        bytes as f64 / samples as f64
    }
}
