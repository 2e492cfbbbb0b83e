//! What the collector counts, and its rendering as Prometheus text.
//!
//! Counters live where they are counted; their owners post a copy here from time to time, so that
//! a reader never waits for custody.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headwater_gate::{CloseReason, Metrics as GateMetrics};
use headwater_proto::time::UnixMicros;

use crate::pipeline::clock_doubt::{REMEDY, Why};
use crate::pipeline::custody::Counters;
use crate::pipeline::envelope::SinkCursor;

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
    /// Positions and bytes of the journal's segments, oldest first.
    pub segments: Vec<(Range<u64>, u64)>,
    /// Sinks that the journal waits for.
    pub required: Vec<String>,
    /// When it was posted.
    pub at: UnixMicros,
    /// How far each sink is.
    pub cursors: Vec<SinkCursor>,
    /// By required sink the ranges of numbers that it has and not all of them have.
    pub covered: Vec<(String, usize)>,
    /// Sinks that wait until their last report is taken in.
    pub held: Vec<String>,
    /// Streams known.
    pub streams: u64,
    /// Credit of each connection.
    pub credit_bytes: u64,
    /// Publishes wait for room in the journal.
    pub is_stalled: bool,
    /// Why the collector's own clock is in doubt, if it is.
    pub clock_doubt: Option<Why>,
}

impl CustodyLook {
    /// Bytes of the journal from a position on; of a segment that it cuts, the part by records.
    fn bytes_from(&self, position: u64) -> u64 {
        let of = |(positions, bytes): &(Range<u64>, u64)| {
            let all = positions.end - positions.start;
            let left = positions.end.saturating_sub(position.max(positions.start));
            u64::try_from(u128::from(*bytes) * u128::from(left) / u128::from(all.max(1)))
                .unwrap_or(u64::MAX)
        };
        self.segments.iter().map(of).sum()
    }
}

/// Whether a sink takes what it is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SinkState {
    /// It does.
    #[default]
    Up,
    /// Not now.
    Busy,
    /// It may not; an operator has to let it.
    Denied,
    /// It is not in order; an operator has to look.
    Broken,
}

impl SinkState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Busy => "busy",
            Self::Denied => "denied",
            Self::Broken => "broken",
        }
    }
}

/// The dead letters of a sink at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LetterLook {
    /// Letters in the folder.
    pub kept: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Letters that went for room since the folder was opened.
    pub dropped: u64,
    /// Refused numbers of which no copy could be kept.
    pub lost: u64,
}

/// A sink at one moment.
#[derive(Debug, Clone, Default)]
pub struct SinkLook {
    /// Whether it takes what it is given.
    pub state: SinkState,
    /// Why not.
    pub why: Option<String>,
    /// The first position that it does not have.
    pub cursor: u64,
    /// Receipt of the oldest record that waits for it.
    pub oldest: Option<UnixMicros>,
    /// Deliveries that came to rest.
    pub deliveries: u64,
    /// Deliveries that were tried.
    pub calls: u64,
    /// Failures by their code.
    pub failures: BTreeMap<&'static str, u64>,
    /// Numbers that it refused for good.
    pub refused: u64,
    /// Records that the journal could not give it.
    pub damaged: u64,
    /// Its dead letters.
    pub letters: LetterLook,
    /// Its own counters and gauges; a counter's name ends in `_total`.
    pub counts: Vec<(&'static str, u64)>,
}

impl SinkLook {
    /// Counts a failure.
    pub fn failed(&mut self, code: &'static str) {
        *self.failures.entry(code).or_default() += 1;
    }
}

/// Where everybody posts and readers look.
#[derive(Debug, Default)]
pub struct Board {
    custody: Mutex<CustodyLook>,
    sinks: Mutex<BTreeMap<Arc<str>, SinkLook>>,
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

    /// A sink runs no more, and why, as a name and in words.
    pub fn sink_ended(&self, name: &str, code: &'static str, why: &str) {
        let mut sinks = locked(&self.sinks);
        let look = sinks.entry(name.into()).or_default();
        (look.state, look.why) = (SinkState::Broken, Some(why.to_owned()));
        look.failed(code);
    }

    /// Posts a sink's state.
    pub fn post_sink(&self, name: &str, look: SinkLook) {
        let mut sinks = locked(&self.sinks);
        match sinks.get_mut(name) {
            Some(known) => *known = look,
            None => drop(sinks.insert(name.into(), look)),
        }
    }

    /// Why no data is taken now; empty when it is.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.custody().is_stalled {
            reasons.push("the journal is full: a required sink is behind".to_owned());
        }
        reasons.extend(self.troubles(true));
        reasons
    }

    /// What is wrong with sinks that the journal does not wait for, and which sinks wait: data is taken
    /// all the same.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let custody = self.custody();
        let clock = custody.clock_doubt;
        let clock = clock.map(|why| format!("the collector's clock is in doubt: {why}; {REMEDY}"));
        let held = custody.held.into_iter();
        let held = held.map(|sink| {
            format!(
                "sink {sink} waits: its last report is taken when the other required sinks come closer, or \
                 the journal has room"
            )
        });
        clock
            .into_iter()
            .chain(held)
            .chain(self.troubles(false))
            .chain(self.letters())
            .collect()
    }

    fn letters(&self) -> Vec<String> {
        let sinks = locked(&self.sinks);
        let refused = sinks.iter().filter(|(_, look)| look.letters.kept > 0);
        let line = |(name, look): (&Arc<str>, &SinkLook)| {
            let letters = look.letters.kept;
            format!(
                "sink {name} refused {letters} records for good: `headwater-collector deadletters list` shows them"
            )
        };
        refused.map(line).collect()
    }

    fn troubles(&self, required: bool) -> Vec<String> {
        let custody = self.custody();
        let is_required = |name: &str| custody.required.iter().any(|required| required == name);
        let sinks = locked(&self.sinks);
        let troubled = sinks
            .iter()
            .filter(|(name, _)| is_required(name) == required);
        let line = |(name, look): (&Arc<str>, &SinkLook)| {
            let (why, state) = (look.why.as_ref()?, look.state.name());
            let lag = custody.journal_durable.saturating_sub(look.cursor);
            Some(format!(
                "sink {name} is {state}, {lag} records behind: {why}"
            ))
        };
        troubled.filter_map(line).collect()
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
        page.gauge("clock_in_doubt", u64::from(custody.clock_doubt.is_some()));
        page.head("sink_position", "gauge");
        for cursor in &custody.cursors {
            page.line(
                "sink_position",
                &format!("sink=\"{}\"", cursor.name),
                cursor.position,
            );
        }
        page.head("sink_covered_ranges", "gauge");
        for (sink, ranges) in &custody.covered {
            let labels = format!("sink=\"{sink}\"");
            page.line("sink_covered_ranges", &labels, *ranges as u64);
        }
        page.head("sink_held", "gauge");
        for cursor in &custody.cursors {
            let labels = format!("sink=\"{}\"", cursor.name);
            let is_held = custody.held.contains(&cursor.name);
            page.line("sink_held", &labels, u64::from(is_held));
        }
        self.render_sinks(&custody, &mut page);
        render_gate(gate, &mut page);
        page.text
    }

    fn render_sinks(&self, custody: &CustodyLook, page: &mut Page) {
        let sinks = locked(&self.sinks).clone();
        let figures: [Figure; 12] = [
            ("sink_up", "gauge", |_, look| {
                u64::from(look.state == SinkState::Up)
            }),
            ("sink_lag_records", "gauge", |custody, look| {
                custody.journal_durable.saturating_sub(look.cursor)
            }),
            ("sink_lag_bytes", "gauge", |custody, look| {
                custody.bytes_from(look.cursor)
            }),
            ("sink_lag_seconds", "gauge", |custody, look| {
                let waited_us = look.oldest.map_or(0, |oldest| custody.at.0 - oldest.0);
                waited_us.max(0).cast_unsigned() / 1_000_000
            }),
            ("sink_deliveries_total", "counter", |_, look| {
                look.deliveries
            }),
            ("sink_calls_total", "counter", |_, look| look.calls),
            ("sink_refused_total", "counter", |_, look| look.refused),
            ("sink_damaged_total", "counter", |_, look| look.damaged),
            ("sink_dead_letters", "gauge", |_, look| look.letters.kept),
            ("sink_dead_letters_bytes", "gauge", |_, look| {
                look.letters.bytes
            }),
            ("sink_dead_letters_dropped_total", "counter", |_, look| {
                look.letters.dropped
            }),
            ("sink_dead_letters_lost_total", "counter", |_, look| {
                look.letters.lost
            }),
        ];
        for (name, kind, of) in figures {
            page.head(name, kind);
            for (sink, look) in &sinks {
                page.line(name, &format!("sink=\"{sink}\""), of(custody, look));
            }
        }
        page.head("sink_failures_total", "counter");
        for (sink, look) in &sinks {
            for (code, times) in &look.failures {
                let labels = format!("sink=\"{sink}\",code=\"{code}\"");
                page.line("sink_failures_total", &labels, *times);
            }
        }
        let mut own: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
        for (sink, look) in &sinks {
            for (name, value) in &look.counts {
                own.entry(name).or_default().push((sink, *value));
            }
        }
        for (name, values) in own {
            let is_counter = name.ends_with("_total");
            page.head(name, if is_counter { "counter" } else { "gauge" });
            for (sink, value) in values {
                page.line(name, &format!("sink=\"{sink}\""), value);
            }
        }
    }
}

/// A series that every sink has: its name, kind and value.
type Figure = (
    &'static str,
    &'static str,
    fn(&CustodyLook, &SinkLook) -> u64,
);

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

    #[test]
    fn a_sink_that_is_behind_shows_its_lag_and_why() {
        let board = Board::default();
        board.post_custody(CustodyLook {
            journal_durable: 30,
            segments: vec![(0..10, 4_000), (10..30, 8_000)],
            required: vec!["lake".to_owned()],
            at: UnixMicros(9_000_000),
            cursors: vec![SinkCursor {
                name: "lake".to_owned(),
                position: 5,
            }],
            covered: vec![("lake".to_owned(), 7)],
            held: vec!["lake".to_owned()],
            ..CustodyLook::default()
        });
        let mut look = SinkLook {
            state: SinkState::Denied,
            why: Some("the folder is not writable".to_owned()),
            cursor: 5,
            oldest: Some(UnixMicros(2_000_000)),
            counts: vec![("lake_files_total", 3)],
            ..SinkLook::default()
        };
        look.failed("denied");
        board.post_sink("hot", look.clone());
        board.post_sink("lake", look);
        let page = board.render(&GateMetrics::default());
        for line in [
            "headwater_sink_up{sink=\"lake\"} 0\n",
            "headwater_sink_lag_records{sink=\"lake\"} 25\n",
            "headwater_sink_lag_bytes{sink=\"lake\"} 10000\n",
            "headwater_sink_lag_seconds{sink=\"lake\"} 7\n",
            "headwater_sink_covered_ranges{sink=\"lake\"} 7\n",
            "headwater_sink_held{sink=\"lake\"} 1\n",
            "headwater_sink_failures_total{sink=\"lake\",code=\"denied\"} 1\n",
            "headwater_lake_files_total{sink=\"lake\"} 3\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
        // The journal does not wait for the hot store.
        let why = "is denied, 25 records behind: the folder is not writable";
        assert_eq!(board.not_ready(), [format!("sink lake {why}")]);
        let notes = board.notes();
        assert!(notes[0].starts_with("sink lake waits: "), "{notes:?}");
        assert_eq!(notes[1..], [format!("sink hot {why}")]);
    }
}
