//! Core: what must hold of the lake after a run.

use std::collections::{BTreeMap, BTreeSet};

use headwater_collector::pipeline::dating::DATED_ERROR_MS;
use headwater_collector::pipeline::rules::TimeWindow;
use headwater_lake::{Fault, MemStore, audit};
use headwater_proto::ids::Stream;

use crate::node::METRIC as NODES;

use super::copy::Arrived;
use super::course::Faults;
use super::found::Found;
use super::generator::{Bits, Key, Made};
use super::given::{Given, Number};
use super::plan::{MAX_STEP_US, NARROW};
use super::stream::STREAM;

/// Rows that a device makes within one microsecond of its clock stand one after the other: how far the last of
/// them may be from there.
const CLOCK_ROWS_US: u64 = 2_000;

/// Holds what another sink has against the lake: it has each record as the lake has it, or the lake names it
/// as lacking, or the sink was told that it is one of `undecodable`, or it `refused` it. Of records that came after
/// it was taken out only those `until` then count. `comes_again`: the journal lost what it had once.
pub fn check_sink(
    found: &Found,
    name: &str,
    (given, undecodable, refused): (
        &BTreeMap<Number, Given>,
        &BTreeSet<Number>,
        &BTreeSet<Number>,
    ),
    (until, comes_again): (Option<&Arrived>, bool),
    faults: &mut Faults,
) {
    let lacks = found.lacks.get(name);
    for ((stream, seq), expected) in &found.numbers {
        let had_arrived = |until: &Arrived| until.get(stream).is_some_and(|all| all.contains(*seq));
        if until.is_some_and(|until| !had_arrived(until)) {
            continue;
        }
        let lacking = lacks.and_then(|lacks| lacks.numbers.get(stream));
        match given.get(&(stream.clone(), *seq)) {
            Some(given) if given == expected => {}
            // What went with the journal is received again, later and under the rules and clocks of that time:
            // the sink may have what the lake has not.
            Some(_) if comes_again => {}
            Some(given) => faults.push(format!(
                "record {seq} of {stream:?} is {given:?} in sink {name} and {expected:?} in the lake"
            )),
            None if lacking.is_some_and(|lacks| lacks.contains(*seq)) => {}
            None if undecodable.contains(&(stream.clone(), *seq)) => {}
            // Its sender named it too, after it was sent: where it rotted, that gap speaks for it.
            None if found.named.get(stream).is_some_and(|all| all.contains(*seq)) => {}
            // The record that named it may have rotted, or gone with its disk, before the lake had it.
            None if comes_again && refused.contains(&(stream.clone(), *seq)) => {}
            // What rots comes again after the sink was taken out, or its number is used once more by a plain device:
            // which of the two had arrived by then cannot be told by it.
            None if comes_again && until.is_some() => {}
            // It had no rows for anybody: nothing of it is named beyond the journal.
            None if comes_again && expected.is_undecodable() => {}
            None => faults.push(format!(
                "sink {name} lacks record {seq} of {stream:?}, and no gap names it: {expected:?}"
            )),
        }
    }
}

/// Holds the names of what the service refused against what it refused.
pub fn check_refused(found: &Found, refused: &BTreeSet<Number>, faults: &mut Faults) {
    let named = found.lacks.get(STREAM).map(|lacks| &lacks.refused);
    let wrong = named.into_iter().flatten();
    let wrong = wrong.filter(|number| !refused.contains(*number));
    faults.extend(wrong.map(|(stream, seq)| {
        format!("record {seq} of {stream:?} is named as refused by the service, and it never was")
    }));
}

/// What a run knows of one device.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// It was cloned or lost its disk: readings may be missing or there twice.
    pub disturbed: bool,
    /// One of its disks was thrown away, with what nobody was told of.
    pub forgotten: bool,
    /// A life of it died before its disk took that it had begun: nobody knows of what it lost.
    pub unmarked: bool,
    /// Its wall clock was set.
    pub stepped: bool,
    /// Its wall clock may have shown any year.
    pub is_wild: bool,
    /// Its time service once called a clock right that was not.
    pub lied: bool,
    /// Of records of it that are lost nobody may know the times: its clock stood in any year, or the lake was brought
    /// back older.
    pub has_loose: bool,
    /// It evicted records: readings may be missing, if a gap names them.
    pub evicted: bool,
    /// Custody ended at a disk that was lost: readings may be missing, and nobody knows of them.
    pub unnamed: bool,
}

impl Known {
    /// How far a span that names what is missing may be off the times of its readings.
    const fn slack_us(&self) -> i64 {
        match (self.is_wild, self.stepped) {
            // Half of all time: no sum of it with a time runs over.
            (true, _) => i64::MAX / 2,
            (false, true) => 2 * MAX_STEP_US,
            // A start within the millisecond of a reading: readings of one millisecond differ by a bit.
            (false, false) => 1_000,
        }
    }
}

/// The audit's word.
///
/// - `has_clones`: two devices may bear one name, so that one ends an epoch that the other goes on with; that this
///   is told as a conflict is right.
pub fn check_audit(store: &MemStore, has_clones: bool, faults: &mut Faults) {
    match audit::audit(store) {
        Ok(audit) if audit.totals.is_good() => {}
        Ok(audit) => {
            let bad = audit.streams.iter().filter(|stream| match stream.verdict {
                audit::Verdict::Unexplained | audit::Verdict::Repeated => true,
                audit::Verdict::Conflicting => !has_clones,
                audit::Verdict::Complete | audit::Verdict::Explained | audit::Verdict::Pending => {
                    false
                }
            });
            faults.extend(bad.map(|stream| format!("audit: {stream:?}")));
            // A disk that loses staged files in the midst of a commit leaves rows without their digests: what
            // the lake has of a record is not brought again.
            let is_lost =
                |fault: &Fault| fault.path == "digests" && fault.what.contains("has no digest");
            let told = audit.faults.iter().filter(|fault| !is_lost(fault));
            faults.extend(told.map(|fault| format!("audit: {fault:?}")));
        }
        Err(error) => faults.push(format!("the audit fails: {error}")),
    }
}

/// Every gap says when what it names was made, and how that is known.
pub fn check_spans(found: &Found, faults: &mut Faults) {
    let spanless = found.spanless.iter();
    faults.extend(spanless.map(|gap| format!("a gap has no time span: {gap}")));
}

/// Holds the rows of the lake against what the generator made.
///
/// - `was_lent`: whether a row may be missing, since a journal that was lost told its device that it is held.
pub fn check_rows(
    found: &Found,
    made: &Made,
    devices: &[Known],
    was_lent: impl Fn(&Key) -> bool,
    faults: &mut Faults,
) {
    let known = |name: &str| devices.iter().find(|known| known.name == name);
    for (key, values) in &found.readings {
        let Some(device) = known(&key.0) else {
            continue;
        };
        match made.readings().get(key) {
            None => faults.push(format!("{key:?} is in the lake and was never made")),
            Some(bits) if values.iter().any(|value| value != bits) => {
                faults.push(format!(
                    "{key:?} is {values:?} in the lake and was made as {bits:?}"
                ));
            }
            Some(_) if values.len() > 1 && !device.disturbed => {
                faults.push(format!("{key:?} is in the lake {} times", values.len()));
            }
            Some(_) => {}
        }
    }
    for key in made
        .readings()
        .keys()
        .filter(|key| !found.readings.contains_key(*key))
        // Their records are known by number: `check_node` judges them.
        .filter(|key| key.1 != NODES)
    {
        let Some(device) = known(&key.0).filter(|device| !device.unnamed) else {
            continue;
        };
        let waits = !key.1.starts_with("live");
        if waits && was_lent(key) {
            continue;
        }
        // The times of a source that waits are its own.
        let slack_us = if waits { 0 } else { device.slack_us() };
        if waits && !device.evicted {
            faults.push(format!(
                "{key:?} is missing, though its source waits and nothing gave way"
            ));
        } else if !(found.is_named(key, slack_us)
            || waits && device.has_loose && found.is_loose(key))
            && (waits || !(device.forgotten || device.unmarked))
        {
            faults.push(format!("{key:?} is missing, and no gap names it"));
        }
    }
}

/// Holds the lake against what a node behind an agent made, by record: it keeps all that nobody acknowledged,
/// and in the end everything is acknowledged. What is missing is named by number.
pub fn check_node(
    found: &Found,
    records: &BTreeMap<Number, Vec<Key>>,
    node: &Known,
    faults: &mut Faults,
) {
    if node.forgotten || node.unnamed {
        return;
    }
    for ((stream, seq), keys) in records {
        let missing = keys.iter().filter(|key| !found.readings.contains_key(*key));
        let missing: Vec<&Key> = missing.collect();
        let slack_us = node.slack_us();
        let number = (stream.clone(), *seq);
        let elsewhere = |key: &&&Key| !found.is_named_at(&number, key.2, slack_us);
        if let Some(key) = missing.iter().find(elsewhere) {
            faults.push(format!(
                "{key:?} of record {seq} of {stream:?} is missing, and no gap with its number holds its time: {:?}",
                found.spans.get(stream)
            ));
        }
        let missing = missing.len();
        let named = found.named.get(stream);
        if missing > 0 && !named.is_some_and(|all| all.contains(*seq)) {
            let all = keys.len();
            faults.push(format!(
                "of record {seq} of {stream:?} {missing} of {all} samples are missing, and no gap names it"
            ));
        }
    }
}

/// Holds what the lake says of times against when readings were truly made, by a collector whose clock is
/// right and time services that do not err.
///
/// - `had_doubt`: the collector once doubted its clock.
pub fn check_times(
    found: &Found,
    made: &Made,
    (devices, had_doubt): (&[Known], bool),
    faults: &mut Faults,
) {
    let is_judged = |name: &str| {
        devices
            .iter()
            .any(|known| known.name == name && !known.lied)
    };
    for stated in found
        .stated
        .iter()
        .filter(|stated| is_judged(&stated.key.0))
    {
        let Some(truth) = made.truth(&stated.key.0, stated.key.2) else {
            continue;
        };
        let off_us = stated.ts_us.abs_diff(truth.0);
        let Some(error_ms) = stated.error_ms else {
            continue;
        };
        // A boot that is dated by receipts is taken for one whose way once took no longer than this: answers of a
        // collector that doubts its own clock carry no time to tell better by.
        if had_doubt && stated.class == "offset" && error_ms == DATED_ERROR_MS {
            continue;
        }
        if off_us > 1_000 * u64::from(error_ms) + CLOCK_ROWS_US {
            faults.push(format!(
                "the time of {:?} is off by {} ms, and the lake says by {error_ms} ms at most: {}",
                stated.key,
                off_us / 1_000,
                stated.class
            ));
        }
    }
}

/// Holds what was given up as abandoned against what came after all: while somebody holds records of an epoch,
/// nobody may give them up.
/// `is_right`: times of the lake show what came first, since the collector's clock was never set.
pub fn check_abandoned(found: &Found, devices: &[Known], is_right: bool, faults: &mut Faults) {
    let is_judged = |stream: &Stream| {
        let name = stream.device.as_str();
        devices.iter().any(|d| d.name == name && !d.disturbed)
    };
    for (stream, seq) in found.numbers.keys() {
        let abandoned = found.abandoned.get(stream);
        if abandoned.is_some_and(|all| all.contains(*seq)) && is_judged(stream) {
            faults.push(format!(
                "record {seq} of {stream:?} was given up as abandoned, and somebody still held it"
            ));
        }
    }
    for (stream, last_at) in &found.last_at {
        let given_up = found.given_up.get(stream);
        if is_right && given_up.is_some_and(|at| at < last_at) && is_judged(stream) {
            faults.push(format!(
                "{stream:?} was given up as abandoned, and records of it came later"
            ));
        }
    }
}

/// Holds what was refused for its time, and what was not, against the windows that collectors of the run
/// may have had.
pub fn check_verdicts(found: &Found, devices: &[Known], rules_change: bool, faults: &mut Faults) {
    let default = TimeWindow::default();
    let strict = if rules_change { NARROW } else { default };
    for untimely in &found.untimely {
        let at = untimely.at_us;
        let mut devices = devices.iter();
        let is_wild = devices.any(|known| known.name == untimely.key.0 && known.is_wild);
        let is_right = match untimely.reason.as_str() {
            "undated" => is_wild,
            _ => lies_outside(&strict, untimely.us, at),
        };
        if !is_right {
            faults.push(format!("{untimely:?} is in quarantine without need"));
        }
    }
    for stated in &found.stated {
        // The lake keeps whole milliseconds of a receipt.
        let mut ats = [stated.at_us, stated.at_us + 999].into_iter();
        if ats.all(|at| lies_outside(&default, stated.ts_us, at)) {
            faults.push(format!("{stated:?} is believed, and cannot be"));
        }
    }
}

/// Whether a window does not hold a time that was received at `at_us`. The collector's own word for it is not
/// asked: a deliberate bug may live there.
fn lies_outside(window: &TimeWindow, ts_us: i64, at_us: i64) -> bool {
    let late_us = at_us.saturating_sub(ts_us);
    window.max_late_us.is_some_and(|most| late_us > most) || late_us < -window.max_ahead_us
}

/// Holds the lake against what sources were told is durable. Readings of a source that can begin again
/// are read again where they are not; of one that cannot they are there, or gave way later.
pub fn check_durable<'a>(
    found: &Found,
    durable: impl Iterator<Item = &'a Key>,
    device: &Known,
    faults: &mut Faults,
) {
    if device.disturbed || device.unnamed {
        return;
    }
    let slack_us = device.slack_us();
    for key in durable.filter(|key| !found.readings.contains_key(*key)) {
        if !(device.evicted && found.is_named(key, slack_us)) {
            faults.push(format!(
                "{key:?} was called durable and is missing, and did not give way"
            ));
        }
    }
}

/// Holds the lake against what plain devices were told, since the collector's disk was lost for the last
/// time. With the disk went its memory of what is a repeat; what rots may be lost.
pub fn check_plain(
    found: &Found,
    name: &str,
    made: u64,
    acknowledged: &[u64],
    (lost_disk, rotten): (bool, bool),
    faults: &mut Faults,
) {
    let mut times = BTreeMap::new();
    let first = (name.to_owned(), String::new(), i64::MIN);
    for (key, values) in found
        .readings
        .range(first..)
        .take_while(|(key, _)| key.0 == name)
    {
        for value in values {
            // A number of JSON is a float.
            match value {
                Bits::F64(bits) => *times.entry(*bits).or_insert(0u64) += 1,
                Bits::I64(_) | Bits::Line(_) => {
                    faults.push(format!("{key:?} of a plain device is no float"))
                }
            }
        }
    }
    for (bits, times) in &times {
        let number = f64::from_bits(*bits);
        if !numbers(made).any(|(_, sent)| sent == *bits) {
            faults.push(format!("{name} never sent message {number}"));
        }
        if *times > 1 && !lost_disk && !rotten {
            faults.push(format!(
                "message {number} of {name} is in the lake {times} times"
            ));
        }
    }
    for (number, bits) in numbers(made).filter(|(number, _)| acknowledged.contains(number)) {
        if !times.contains_key(&bits) && !rotten {
            faults.push(format!(
                "message {number} of {name} had its PUBACK and is not in the lake"
            ));
        }
    }
}

/// The messages of a plain device and the bits of their floats.
fn numbers(made: u64) -> impl Iterator<Item = (u64, u64)> {
    (0u32..)
        .map(|number| (u64::from(number), f64::from(number).to_bits()))
        .take_while(move |n| n.0 < made)
}
