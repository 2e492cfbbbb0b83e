//! Core: the quarantine of a lake, listed and put among the samples.
//!
//! A sample that was refused for its time stands there with all that it had ([`told`]). When the time can be
//! told after all, because the clock of the device or of the collector is known to have been wrong, a
//! replay gives it a row of `samples` under the identity that it always had. [`headwater_lake::replay`]
//! keeps it from being put there twice.

use std::collections::BTreeMap;

use headwater_lake::date::{date_text, day_of};
use headwater_lake::replay::{MAX_RUN_SAMPLES, Refused, Replay, Taken, each_refused, is_cut};
use headwater_lake::{Encoding, LakeError, Rows, SampleRow, Store, TimeClass};
use headwater_proto::time::UnixMicros;
use serde::Serialize;

use crate::interpret::time::{Doubt, doubt};
use crate::interpret::told::{self, Told};
use crate::pipeline::envelope::Reason;
use crate::pipeline::rules::TimeWindow;

/// Groups that a list has at most, some 200 bytes each; rows of others are counted.
pub const MAX_GROUPS: usize = 100_000;

/// Memory of the rows of one run.
const RUN_BYTES: usize = 64 << 20;

/// Which samples are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Which {
    /// Of this device alone.
    pub device: Option<String>,
    /// Refused for this reason alone.
    pub reason: Option<String>,
    /// Whose time as it was refused is not before this one.
    pub from_us: Option<i64>,
    /// Whose time as it was refused is before this one.
    pub to_us: Option<i64>,
}

impl Which {
    fn has(&self, refused: &Refused<'_>) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        is(&self.device, refused.device_id) && is(&self.reason, refused.reason)
    }

    fn has_time(&self, ts_us: i64) -> bool {
        self.from_us.is_none_or(|from| ts_us >= from) && self.to_us.is_none_or(|to| ts_us < to)
    }

    fn has_times(&self) -> bool {
        self.from_us.is_some() || self.to_us.is_some()
    }
}

/// Whether samples with this reason were refused for their time.
#[must_use]
pub fn is_of_time(reason: &str) -> bool {
    [Reason::ImpossibleTime, Reason::Undated]
        .map(Reason::name)
        .contains(&reason)
}

/// Rows of one device, reason and date of receipt.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Group {
    /// The device.
    pub device: String,
    /// Why.
    pub reason: String,
    /// Date of receipt.
    pub day: String,
    /// Rows of table `quarantine`.
    pub rows: u64,
    /// Samples that stand there.
    pub samples: u64,
    /// Samples that a replay put among the others.
    pub replayed: u64,
    /// Earliest time of those that stand there, Unix microseconds; with the reason `undated`
    /// microseconds since the boot. Of samples that were refused for their time alone.
    pub first_us: Option<i64>,
    /// Latest one.
    pub last_us: Option<i64>,
}

/// What stands in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// By device, reason and day; the first [`MAX_GROUPS`] that were met.
    pub groups: Vec<Group>,
    /// Rows of other groups.
    pub other_rows: u64,
    /// The last replay was cut off: its samples are listed as well, until the next one.
    pub is_replay_cut: bool,
}

/// Lists what stands in quarantine. May be called while a collector runs.
///
/// # Errors
/// [`LakeError`] if it cannot be read.
pub fn list(store: &dyn Store, which: &Which, memory_bytes: u64) -> Result<Listed, LakeError> {
    let mut groups = BTreeMap::<(String, String, i64), Group>::new();
    let mut listed = Listed {
        is_replay_cut: is_cut(store)?,
        ..Listed::default()
    };
    each_refused::<LakeError>(store, memory_bytes, |refused, taken| {
        if !which.has(refused) {
            return Ok(());
        }
        let mut found = Group {
            rows: 1,
            ..Group::default()
        };
        match read(refused) {
            Some(read) => {
                for told in read
                    .samples
                    .iter()
                    .filter(|told| which.has_time(told.ts_us))
                {
                    count(&mut found, refused, told, taken);
                }
                if found.samples + found.replayed == 0 {
                    return Ok(());
                }
            }
            None if which.has_times() => return Ok(()),
            None => found.samples = refused.samples.into(),
        }
        let (device, reason) = (refused.device_id.to_owned(), refused.reason.to_owned());
        let key = (device, reason, day_of(refused.at_us));
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
            listed.other_rows += 1;
            return Ok(());
        }
        groups.entry(key).or_default().add(&found);
        Ok(())
    })?;
    let named = groups
        .into_iter()
        .map(|((device, reason, day), group)| Group {
            device,
            reason,
            day: date_text(day),
            ..group
        });
    listed.groups = named.collect();
    Ok(listed)
}

impl Group {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.samples += other.samples;
        self.replayed += other.replayed;
        let known = |time: Option<i64>, new: Option<i64>, which: fn(i64, i64) -> i64| {
            time.zip(new).map(|(a, b)| which(a, b)).or(time).or(new)
        };
        self.first_us = known(self.first_us, other.first_us, i64::min);
        self.last_us = known(self.last_us, other.last_us, i64::max);
    }
}

fn count(found: &mut Group, refused: &Refused<'_>, told: &Told, taken: &Taken) {
    if taken.has(refused, told.row, &told.series.metric) {
        found.replayed += 1;
        return;
    }
    found.add(&Group {
        samples: 1,
        first_us: Some(told.ts_us),
        last_us: Some(told.ts_us),
        ..Group::default()
    });
}

/// The samples of a row that was refused for its time, if they can be read.
fn read(refused: &Refused<'_>) -> Option<told::Read> {
    let read = is_of_time(refused.reason).then(|| told::read(refused.payload))?;
    read.filter(|read| read.samples.len() as u64 == u64::from(refused.samples))
}

/// What an operator wants to have replayed.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which samples.
    pub which: Which,
    /// Added to their times, microseconds. The operator answers for the times then: they have to lie
    /// before the present. `None`: as they were told, and judged as at their receipt.
    pub shift_us: Option<i64>,
    /// Times that are believed.
    pub window: TimeWindow,
    /// The present.
    pub now_us: i64,
    /// Whether to change nothing.
    pub is_dry: bool,
    /// How files of the lake are laid out.
    pub encoding: Encoding,
    /// Memory for what was replayed before.
    pub memory_bytes: u64,
}

/// Samples that stay in quarantine for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Stay {
    /// How many.
    pub samples: u64,
    /// The first of them, and why in words.
    pub first: String,
}

/// What a replay did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Done {
    /// Samples that stand in table `samples` now.
    pub replayed: u64,
    /// Samples of an earlier replay that was cut off and is finished now.
    pub finished: u64,
    /// Samples that were replayed before.
    pub before: u64,
    /// Samples that stay, by why: `ahead`, `late`, `no_date`, `undated`, `unreadable`.
    pub stay: BTreeMap<&'static str, Stay>,
    /// Whether nothing was changed.
    pub is_dry: bool,
}

impl Done {
    /// Whether there was none of the samples that were meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stay.is_empty() && self.replayed + self.before + self.finished == 0
    }

    fn stays(&mut self, why: &'static str, samples: u64, words: impl FnOnce() -> String) {
        let stay = self.stay.entry(why).or_insert_with(|| Stay {
            samples: 0,
            first: words(),
        });
        stay.samples += samples;
    }
}

/// Puts samples whose time was refused into table `samples`, with the identity that they have, each once
/// however often it is called or cut off. Others stay.
///
/// - `progress`: told after each commit.
///
/// # Errors
/// [`LakeError`]; what was committed before stays, and the next call goes on.
pub fn replay(
    store: &dyn Store,
    order: &Order,
    progress: &mut dyn FnMut(&Done),
) -> Result<Done, LakeError> {
    let mut done = Done {
        is_dry: order.is_dry,
        ..Done::default()
    };
    let mut writer = None;
    if !order.is_dry {
        let (begun, finished) = Replay::begin(store, order.encoding, order.now_us)?;
        writer = Some(begun);
        done.finished = finished;
    }
    let mut rows = Rows::new();
    let mut flush = |rows: &mut Rows, done: &mut Done| -> Result<(), LakeError> {
        if let Some(writer) = writer.as_mut().filter(|_| !rows.is_empty()) {
            let samples = rows.samples() as u64;
            writer.commit(rows)?;
            done.replayed += samples;
            progress(done);
        }
        rows.clear();
        Ok(())
    };
    each_refused::<LakeError>(store, order.memory_bytes, |refused, taken| {
        if !is_of_time(refused.reason) || !order.which.has(refused) {
            return Ok(());
        }
        let Some(read) = read(refused) else {
            if !order.which.has_times() {
                done.stays("unreadable", refused.samples.into(), || {
                    format!("{}: its payload cannot be read", name(refused, None))
                });
            }
            return Ok(());
        };
        if rows.samples() + read.samples.len() > MAX_RUN_SAMPLES || rows.bytes() > RUN_BYTES {
            flush(&mut rows, &mut done)?;
        }
        for told in read
            .samples
            .iter()
            .filter(|told| order.which.has_time(told.ts_us))
        {
            place(order, refused, (&read, told), taken, (&mut rows, &mut done));
        }
        Ok(())
    })?;
    flush(&mut rows, &mut done)?;
    Ok(done)
}

/// Gives one sample its row, or says why it stays.
fn place(
    order: &Order,
    refused: &Refused<'_>,
    (read, told): (&told::Read, &Told),
    taken: &mut Taken,
    (rows, done): (&mut Rows, &mut Done),
) {
    let metric = &*told.series.metric;
    if taken.has(refused, told.row, metric) {
        done.before += 1;
        return;
    }
    let ts_us = match dated(order, refused, told.ts_us) {
        Ok(ts_us) => ts_us,
        Err(doubt) => {
            done.stays(kind_of(doubt), 1, || {
                format!("{}: {doubt}", name(refused, Some(told)))
            });
            return;
        }
    };
    let pushed = refused
        .stream()
        .zip(refused.batch_samples)
        .map(|(stream, batch_samples)| {
            rows.push_sample(&SampleRow {
                device_id: refused.device_id,
                metric,
                ts_us,
                value: told.value.borrowed(),
                site: read.site.as_deref(),
                device_type: read.device_type.as_deref(),
                tags: told.series.tags.as_deref(),
                ingest_us: refused.at_us,
                lane: stream.lane,
                epoch: stream.epoch,
                seq: refused.seq,
                row: told.row,
                batch_samples,
                via: read.via.as_deref(),
                time_err_ms: read.error_ms,
                time_class: TimeClass::Replayed,
            })
        });
    match pushed {
        Some(Ok(())) => {
            taken.take(refused, told.row, metric);
            done.replayed += u64::from(order.is_dry);
        }
        Some(Err(_)) | None => done.stays("unreadable", 1, || {
            format!(
                "{}: it has no place among the samples",
                name(refused, Some(told))
            )
        }),
    }
}

/// The time of a sample with the shift, if it is believed.
fn dated(order: &Order, refused: &Refused<'_>, ts_us: i64) -> Result<i64, Doubt> {
    let Order {
        window,
        shift_us,
        now_us,
        ..
    } = *order;
    let at = UnixMicros(refused.at_us);
    let Some(shift_us) = shift_us else {
        if refused.reason == Reason::Undated.name() {
            return Err(Doubt::Undated { uptime_us: ts_us });
        }
        return doubt(&window, ts_us, at).map_or(Ok(ts_us), Err);
    };
    let ts_us = ts_us.saturating_add(shift_us);
    let ahead = TimeWindow {
        max_late_us: None,
        ..window
    };
    let late = TimeWindow {
        max_ahead_us: i64::MAX,
        ..window
    };
    // The clock by which it was received may be the one that was wrong.
    let received = UnixMicros(at.0.min(now_us));
    let found = doubt(&ahead, ts_us, UnixMicros(now_us)).or_else(|| doubt(&late, ts_us, received));
    found.map_or(Ok(ts_us), Err)
}

const fn kind_of(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::NoDate { .. } => "no_date",
        Doubt::Late { .. } => "late",
        Doubt::Ahead { .. } => "ahead",
        Doubt::Undated { .. } => "undated",
    }
}

fn name(refused: &Refused<'_>, told: Option<&Told>) -> String {
    let Refused {
        device_id,
        lane,
        epoch,
        seq,
        ..
    } = refused;
    let record = format!("{device_id} {lane} {epoch:016x} {seq}");
    match told {
        Some(told) => format!("{record} row {} {}", told.row, told.series.metric),
        None => record,
    }
}
