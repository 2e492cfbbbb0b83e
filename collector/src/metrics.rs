//! What the collector counts, and its rendering as Prometheus text.
//!
//! Counters live where they are counted; their owners post a copy here from time to time, so that
//! a reader never waits for custody.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_gate::{CloseReason, Metrics as GateMetrics};

use crate::pipeline::custody::Counters;
use crate::pipeline::snapshot::SinkCursor;
use crate::sink::rows::RowCounters;

/// Custody at one moment.
#[derive(Debug, Clone, Default)]
pub struct CustodyLook {
    /// What it counted.
    pub counters: Counters,
    /// Bytes of the journal's segments.
    pub journal_used_bytes: u64,
    /// Bytes that they may take.
    pub journal_quota_bytes: u64,
    /// The first position that is not durable.
    pub journal_durable: u64,
    /// How far each sink is.
    pub cursors: Vec<SinkCursor>,
    /// Streams known.
    pub streams: u64,
    /// Credit of each connection.
    pub credit_bytes: u64,
    /// Publishes wait for room in the journal.
    pub is_stalled: bool,
}

/// The lake sink at one moment.
#[derive(Debug, Clone, Default)]
pub struct LakeLook {
    /// What became of records.
    pub rows: RowCounters,
    /// Readings committed.
    pub samples_committed: u64,
    /// Files published.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Flushes committed.
    pub flushes: u64,
    /// Memory of waiting rows.
    pub waiting_bytes: u64,
    /// Failures since the start.
    pub failures: u64,
    /// Why the last flush failed; `None` when the last one worked.
    pub trouble: Option<String>,
}

/// The hot store at one moment.
#[derive(Debug, Clone, Default)]
pub struct HotLook {
    /// The next position it reads.
    pub position: u64,
    /// Records that it had no room for.
    pub skipped: u64,
    /// Failures since the start.
    pub failures: u64,
}

/// Where everybody posts and readers look.
#[derive(Debug, Default)]
pub struct Board {
    custody: Mutex<CustodyLook>,
    lake: Mutex<LakeLook>,
    hot: Mutex<HotLook>,
}

fn locked<T>(look: &Mutex<T>) -> MutexGuard<'_, T> {
    // A look is replaced as a whole.
    look.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// Posts custody's state.
    pub fn post_custody(&self, look: CustodyLook) {
        *locked(&self.custody) = look;
    }

    /// Custody's last state.
    #[must_use]
    pub fn custody(&self) -> CustodyLook {
        locked(&self.custody).clone()
    }

    /// Changes the lake sink's state.
    pub fn lake(&self, change: impl FnOnce(&mut LakeLook)) {
        change(&mut locked(&self.lake));
    }

    /// Changes the hot store's state.
    pub fn hot(&self, change: impl FnOnce(&mut HotLook)) {
        change(&mut locked(&self.hot));
    }

    /// Why no data is taken now; empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if locked(&self.custody).is_stalled {
            reasons.push("the journal is full: a required sink is behind".to_owned());
        }
        if let Some(trouble) = &locked(&self.lake).trouble {
            reasons.push(format!("the lake cannot be written: {trouble}"));
        }
        reasons
    }

    /// Everything as Prometheus text.
    #[must_use]
    pub fn render(&self, gate: &GateMetrics) -> String {
        let mut page = Page::default();
        let custody = self.custody();
        page.counter(
            "samples_received_total",
            custody.counters.samples_stored_total,
        );
        page.counter("bytes_received_total", gate.payload_bytes_total.get());
        for (name, value) in custody.counters.all() {
            page.counter(name, value);
        }
        page.gauge("journal_used_bytes", custody.journal_used_bytes);
        page.gauge("journal_quota_bytes", custody.journal_quota_bytes);
        page.gauge("journal_durable_position", custody.journal_durable);
        page.gauge("streams", custody.streams);
        page.gauge("credit_bytes", custody.credit_bytes);
        page.gauge("journal_stalled", u64::from(custody.is_stalled));
        page.head("sink_position", "gauge");
        for cursor in &custody.cursors {
            page.line(
                "sink_position",
                &format!("sink=\"{}\"", cursor.name),
                cursor.position,
            );
        }
        self.render_sinks(&mut page);
        render_gate(gate, &mut page);
        page.text
    }

    fn render_sinks(&self, page: &mut Page) {
        let lake = locked(&self.lake).clone();
        page.counter("lake_samples_total", lake.rows.samples);
        page.counter("lake_gaps_total", lake.rows.gaps);
        page.counter("lake_quarantined_total", lake.rows.quarantined);
        page.counter("lake_log_lines_total", lake.rows.log_lines);
        page.counter("lake_samples_committed_total", lake.samples_committed);
        page.counter("lake_files_total", lake.files);
        page.counter("lake_bytes_total", lake.bytes);
        page.counter("lake_flushes_total", lake.flushes);
        page.counter("lake_failures_total", lake.failures);
        page.gauge("lake_waiting_bytes", lake.waiting_bytes);
        let hot = locked(&self.hot).clone();
        page.gauge("hot_position", hot.position);
        page.counter("hot_skipped_total", hot.skipped);
        page.counter("hot_failures_total", hot.failures);
    }
}

fn render_gate(gate: &GateMetrics, page: &mut Page) {
    page.gauge("connections", gate.connections_now.get());
    page.counter("connections_accepted_total", gate.accepted_total.get());
    page.counter("clients_connected_total", gate.connected_total.get());
    page.counter("agent_messages_total", gate.agent_messages_total.get());
    page.counter("plain_messages_total", gate.plain_messages_total.get());
    page.counter("qos0_messages_total", gate.qos0_messages_total.get());
    page.counter("pubacks_total", gate.pubacks_total.get());
    page.counter("down_messages_total", gate.down_messages_total.get());
    page.head("connections_closed_total", "counter");
    for reason in CloseReason::ALL {
        let labels = format!("reason=\"{}\"", reason.name());
        page.line(
            "connections_closed_total",
            &labels,
            gate.closed(*reason).get(),
        );
    }
}

#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "# TYPE headwater_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.text, "headwater_{name}{{{labels}}} {value}");
    }

    fn counter(&mut self, name: &str, value: u64) {
        self.head(name, "counter");
        let _ = writeln!(self.text, "headwater_{name} {value}");
    }

    fn gauge(&mut self, name: &str, value: u64) {
        self.head(name, "gauge");
        let _ = writeln!(self.text, "headwater_{name} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_each_series_once_and_ends_in_a_line() {
        let page = Board::default().render(&GateMetrics::default());
        assert!(page.ends_with('\n'));
        let mut names: Vec<&str> = page
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(page.contains("headwater_samples_received_total 0\n"));
    }
}
