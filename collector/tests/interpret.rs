//! The interpreter: one meaning for every sink, whenever and from wherever the journal is read.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use std::collections::BTreeMap;

use common::{
    CONN, Rig, START_US, batch, bundle_of, device, epoch_end, hello, listed, schema_frame,
    settings, split_batch,
};
use headwater_collector::interpret::{Depth, Feed, Taken};
use headwater_collector::pipeline::custody::{Event, Settings};
use headwater_collector::pipeline::envelope::Known;
use headwater_collector::pipeline::pattern::Pattern;
use headwater_collector::pipeline::rules::{Decoder, TimeWindow};
use headwater_collector::sink::hot::{HotRead, HotSettings, HotStore, Kept, MAX_PAGE};
use headwater_lake::scan;
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, JournalId, Lane, SeqRange};
use headwater_proto::message::{self, Gap, GapReason, Stage};
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;
use proptest::prelude::*;

const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;
/// 2099-01-01.
const FAR_US: i64 = 4_070_908_800_000_000;

/// A hot store that has followed the journal of `rig` to its end.
fn hot_of(rig: &Rig) -> (tempfile::TempDir, HotStore) {
    let folder = tempfile::tempdir().unwrap();
    let keeps_all = HotSettings {
        keep_us: i64::MAX,
        max_bytes: 64 << 20,
        cache_bytes: 1 << 20,
    };
    let (mut hot, _) = HotStore::open(folder.path(), keeps_all).unwrap();
    let mut feed = Feed::new(rig.custody.reader(), 0, Depth::Blocks);
    feed.read(usize::MAX, |item| {
        assert_eq!(hot.take(item).unwrap(), Kept::Stored);
        Taken::More
    })
    .unwrap();
    hot.commit(JournalId(1), feed.position()).unwrap();
    (folder, hot)
}

fn batch_at(times_us: &[i64], first: f64) -> Vec<u8> {
    let schema = common::schema();
    let mut rows = Rows::new(&schema);
    for (row, time_us) in (0i32..).zip(times_us) {
        let temp = Value::F64(first + f64::from(row));
        rows.push_row(*time_us, 0, &[Some(temp), None]).unwrap();
    }
    let mut out = Vec::new();
    Encoder::new(&schema).encode(0, &rows, &mut out).unwrap();
    out
}

fn greeted(settings: Settings) -> Rig {
    let (disk, store) = (
        headwater_spool::FakeDisk::new(),
        headwater_lake::MemStore::new(),
    );
    let mut rig = Rig::start(disk, store, settings, 0).unwrap();
    greet(&mut rig);
    rig
}

fn greet(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 1_000_000), listed(2, 0, 1)]), 0);
    assert!(rig.sync());
}

fn send(rig: &mut Rig, seq: u64, kind: Kind, payload: Vec<u8>) {
    let frames = [(Kind::Schema, schema_frame()), (kind, payload)];
    rig.up(bundle_of(&device(), 1, seq, &frames), seq);
    assert!(rig.sync());
}

#[test]
fn a_clock_in_2099_does_not_freeze_the_latest_value() {
    let mut rig = greeted(settings());
    let latest = |rig: &Rig| {
        let (_folder, hot) = hot_of(rig);
        let latest = hot.view().latest("dev", None, MAX_PAGE).unwrap().items;
        assert_eq!(latest.len(), 1);
        (latest[0].time_us, latest[0].value.clone())
    };
    send(&mut rig, 0, Kind::Batch, batch_at(&[START_US], 1.0));
    send(&mut rig, 1, Kind::Batch, batch_at(&[FAR_US], 2.0));
    // Half of a batch: its clock jumped while it was made.
    send(
        &mut rig,
        2,
        Kind::Batch,
        batch_at(&[START_US + 1, FAR_US], 3.0),
    );
    let (time_us, value) = latest(&rig);
    assert_eq!(time_us, START_US + 1);
    assert_eq!(value, Value::F64(3.0).into());
    send(&mut rig, 3, Kind::Batch, batch_at(&[START_US + 2], 5.0));
    assert_eq!(latest(&rig), (START_US + 2, Value::F64(5.0).into()));
    rig.flush().unwrap();
    let counts = rig.audit().totals.counts;
    assert_eq!((counts.samples, counts.quarantined), (3, 2));
}

#[test]
fn what_is_refused_says_why_in_words() {
    let mut lines = settings();
    lines.patterns = vec![Pattern::new("plain/{device}/{metric}", Decoder::Line).unwrap()];
    lines.window.max_late_us = Some(30 * DAY_US);
    let mut rig = greeted(lines);
    for (seq, (kind, payload)) in (0..).zip([
        (Kind::Batch, batch_at(&[START_US - 40 * DAY_US], 1.0)),
        (Kind::Batch, {
            let mut cut = batch_at(&[START_US], 1.0);
            cut.pop();
            cut
        }),
        (Kind::Blob, b"chunk".to_vec()),
    ]) {
        send(&mut rig, seq, kind, payload);
    }
    rig.plain("plain/m1/x", "m v=1\nm v=\nm v=3", 1, false, 90);
    rig.plain("elsewhere", "1", 2, false, 91);
    rig.sync();
    let mut found = Vec::new();
    let mut feed = Feed::new(rig.custody.reader(), 0, Depth::Samples);
    feed.read(usize::MAX, |item| {
        for refused in item.refused() {
            let reason = refused.reason.name();
            found.push(format!("{reason}: {}", refused.cause));
        }
        Taken::More
    })
    .unwrap();
    assert_eq!(
        found,
        [
            "impossible_time: time 2025-08-30T08:53:20.000000Z lies 40 d before its receipt",
            "undecodable: the batch ends too early",
            "unknown_kind: frames of kind Blob are not stored",
            "bad_payload: line 2, column 3: the field's value is missing",
            "unknown_topic: ",
        ]
    );
}

/// What one publish gave: samples, refusals with payload, missing values, gaps.
fn publish(rig: &mut Rig, payload: &str) -> (Vec<String>, Vec<String>, u32, Vec<GapReason>) {
    let from = rig.custody.log().next();
    rig.ms += 1;
    let token = rig.ms;
    rig.plain(
        "plain/m1/x",
        payload,
        u16::try_from(token).unwrap(),
        false,
        token,
    );
    assert!(rig.sync());
    let mut found = (Vec::new(), Vec::new(), 0, Vec::new());
    let mut feed = Feed::new(rig.custody.reader(), from, Depth::Samples);
    feed.read(usize::MAX, |item| {
        let samples = item.samples.iter();
        found
            .0
            .extend(samples.map(|s| format!("{} {} {:?}", s.row, s.metric, s.value)));
        let refused = item.refused();
        found
            .1
            .extend(refused.map(|r| String::from_utf8(r.payload.into_owned()).unwrap()));
        found.2 += item.missing;
        found.3.extend(item.gaps.iter().map(|gap| gap.reason));
        Taken::More
    })
    .unwrap();
    found
}

#[test]
fn good_parts_of_a_publish_are_kept_and_bad_ones_go_to_quarantine_each() {
    let mut json = settings();
    json.patterns = vec![Pattern::new("plain/{device}/x", Decoder::Json).unwrap()];
    let mut rig = greeted(json);
    let mixed = "{\"c\": 3, \"a.b\": 1, \"a\": {\"b\": 2}, \"n\": null}";
    let (samples, refused, missing, gaps) = publish(&mut rig, mixed);
    assert_eq!(samples, ["0 c F64(3.0)"]);
    assert_eq!((refused.len(), missing, gaps.len()), (2, 1, 0));
    rig.flush().unwrap();
    let audit = rig.audit();
    assert!(audit.totals.is_good());
    let counts = audit.totals.counts;
    assert_eq!(
        (counts.samples, counts.quarantined, counts.batches),
        (1, 2, 1)
    );
}

#[test]
fn publishes_that_hold_nothing_are_there_and_leave_one_gap_for_a_stretch() {
    let mut json = settings();
    json.patterns = vec![Pattern::new("plain/{device}/x", Decoder::Json).unwrap()];
    let mut rig = greeted(json);
    publish(&mut rig, "{\"t\": 1}");
    for nothing in ["{}", "[]", "{\"t\": null}", "null"] {
        let (samples, refused, _, gaps) = publish(&mut rig, nothing);
        assert!(samples.is_empty() && refused.is_empty(), "{nothing}");
        assert_eq!(gaps, [GapReason::Empty]);
    }
    publish(&mut rig, "{\"t\": 2}");
    rig.flush().unwrap();
    let mut losses = Vec::new();
    scan::gaps(&rig.store, |loss| {
        losses.push((loss.reason.to_owned(), loss.seqs, loss.samples));
    })
    .unwrap();
    assert_eq!(losses, [("empty".to_owned(), Some((1, 4)), Some(0))]);
    assert!(rig.audit().totals.is_good());
    assert_eq!(rig.audit().totals.counts.explained, 0);
}

#[test]
fn a_batch_of_impossible_times_is_refused_in_bounded_pieces_and_none_is_lost() {
    let mut rig = greeted(settings());
    let times: Vec<i64> = (0..3_000).map(|row| FAR_US + row).collect();
    send(&mut rig, 0, Kind::Batch, batch_at(&times, 0.0));
    let mut pieces = Vec::new();
    let mut feed = Feed::new(rig.custody.reader(), 0, Depth::Samples);
    feed.read(usize::MAX, |item| {
        pieces.extend(item.refused().map(|r| (r.samples, r.payload.len())));
        Taken::More
    })
    .unwrap();
    assert_eq!(pieces.len(), 1_001);
    let (rest, bytes) = pieces[1_000];
    assert_eq!(rest, 2_000);
    assert!(bytes > 3_000 && pieces[..1_000].iter().all(|(samples, _)| *samples == 1));
    rig.flush().unwrap();
    assert_eq!(rig.audit().totals.counts.quarantined, 3_000);
    assert!(rig.audit().totals.is_good());
}

/// Reason of each gap that the journal names, and the seconds since [`START_US`] between which it lies; `None`: its
/// start is not known, or its end is when it was named.
fn spans(rig: &Rig) -> Vec<(GapReason, Option<i64>, Option<i64>, Known)> {
    let mut all = Vec::new();
    let mut feed = Feed::new(rig.custody.reader(), 0, Depth::Samples);
    feed.read(usize::MAX, |item| {
        all.extend(item.gaps.iter().map(|gap| {
            let seconds = |time: UnixMicros| (time.0 - START_US).div_euclid(1_000_000);
            let first = (gap.span.first.0 > 0).then(|| seconds(gap.span.first));
            let last = (gap.span.last != item.at).then(|| seconds(gap.span.last));
            (gap.reason, first, last, gap.span.known)
        }));
        Taken::More
    })
    .unwrap();
    all
}

#[test]
fn every_gap_says_when_what_is_missing_was_made_and_how_that_is_known() {
    let mut rig = greeted(settings());
    let batch = |s: i64| batch_at(&[START_US + s * 1_000_000], 1.0);
    for (seq, s) in [(0, 10), (1, 20), (4, 50)] {
        send(&mut rig, seq, Kind::Batch, batch(s));
    }
    // A start knows from its snapshot and the records after it what it knew before.
    let (disk, store) = (rig.disk.process_killed(), rig.store.clone());
    let mut rig = Rig::start(disk, store, settings(), 90_000).unwrap();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 4, 1_000_000), listed(2, 0, 1)]), 0);
    assert!(rig.sync());
    send(&mut rig, 5, Kind::Batch, b"\x01nonsense".to_vec());
    // Its header can be read.
    let mut cut = batch(60);
    cut.truncate(cut.len() - 3);
    send(&mut rig, 6, Kind::Batch, cut);
    // Of a sender that does not know: epoch 2 was opened before anything came of the lane, epoch 3 after that.
    send(&mut rig, 7, Kind::Gap, gap(0));
    let streams = [listed(1, 4, 1_000_000), listed(2, 0, 1), listed(3, 0, 5)];
    rig.up(hello(&streams), 1);
    assert!(rig.sync());
    let of_3: Gap = Gap {
        epoch: Epoch::new(3),
        t_last: Some(UnixMicros(START_US + 70_000_000)),
        ..message::decode::<Gap>(&gap(0)).unwrap()
    };
    send(&mut rig, 8, Kind::Gap, message::to_vec(&of_3));
    let told: Gap = Gap {
        t_first: Some(UnixMicros(START_US + 1_000_000)),
        ..of_3.clone()
    };
    send(&mut rig, 9, Kind::Gap, message::to_vec(&told));
    let stopped: Gap = Gap {
        reason: GapReason::UncleanStop,
        ..told.clone()
    };
    send(&mut rig, 10, Kind::Gap, message::to_vec(&stopped));
    assert_eq!(
        spans(&rig),
        [
            (
                GapReason::MissingAtSource,
                Some(18),
                Some(52),
                Known::Neighbours
            ),
            (GapReason::Undecodable, Some(48), None, Known::Bounds),
            (GapReason::Undecodable, Some(60), Some(60), Known::Exact),
            (GapReason::Evicted, None, None, Known::Bounds),
            (GapReason::Evicted, Some(58), Some(70), Known::Bounds),
            (GapReason::Evicted, Some(1), Some(70), Known::Exact),
            (GapReason::UncleanStop, Some(1), Some(70), Known::Bounds),
        ]
    );
    rig.flush().unwrap();
    let missing = rig.audit().totals.missing;
    assert!(missing.values().all(|missing| missing.without_span == 0));
    let at_source = missing["missing_at_source"];
    assert_eq!((at_source.gaps, at_source.time_ms), (1, 34_000));
    assert_eq!(missing["evicted"].open, 1);
}

/// Choices from a seed.
struct Dice(u64);

impl Dice {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()]
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

fn text() -> Vec<u8> {
    use headwater_proto::text::{MAX_HEADER_BYTES, TextHeader, write_line};
    let mut body = vec![0; 256];
    let len = write_line(START_US, START_US, b"a line", &mut body).unwrap();
    body.truncate(len);
    let header = TextHeader {
        dictionary: None,
        lines: 1,
        first_time_us: START_US,
        last_time_us: START_US,
        name: "log",
        body_bytes: body.len(),
    };
    let mut out = vec![0; MAX_HEADER_BYTES];
    let len = header.write(&mut out).unwrap();
    out.truncate(len);
    out.extend(zstd::bulk::compress(&body, 3).unwrap());
    out
}

fn gap(first: u64) -> Vec<u8> {
    message::to_vec(&Gap {
        origin: device(),
        lane: Lane::Normal,
        epoch: Epoch::new(2),
        seqs: Some(SeqRange::new(first, first + 3)),
        samples: Some(9),
        t_first: None,
        t_last: None,
        reason: GapReason::Evicted,
        stage: Stage::Agent,
        part: None,
        at: UnixMicros(START_US),
    })
}

/// A configuration that reads the same records in other ways.
fn other_settings(dice: &mut Dice) -> Settings {
    let decoder = dice.pick(&[Decoder::Number, Decoder::Json, Decoder::Line]);
    Settings {
        patterns: vec![Pattern::new("plain/{device}/{metric}", decoder).unwrap()],
        window: TimeWindow {
            max_late_us: dice.pick(&[None, Some(HOUR_US), Some(30 * DAY_US)]),
            max_ahead_us: dice.pick(&[1_000_000, HOUR_US]),
        },
        ..settings()
    }
}

fn a_time(dice: &mut Dice, now_us: i64) -> i64 {
    let off = [
        0,
        1,
        -1_000_000,
        -29 * DAY_US,
        -31 * DAY_US,
        HOUR_US / 2,
        61 * 60_000_000,
        FAR_US - now_us,
        -now_us - 5,
    ];
    now_us + dice.pick(&off) + i64::try_from(dice.below(1_000)).unwrap()
}

/// A journal of all kinds of records, with restarts under other configurations.
fn journal(seed: u64, records: u64) -> Rig {
    let mut dice = Dice(seed);
    let mut rig = greeted(other_settings(&mut dice));
    for seq in 0..records {
        rig.ms += 700;
        let now_us = rig.now().wall.0;
        match dice.below(14) {
            0..=6 => {
                let times: Vec<i64> = (0..=dice.below(6))
                    .map(|_| a_time(&mut dice, now_us))
                    .collect();
                send(
                    &mut rig,
                    seq,
                    Kind::Batch,
                    batch_at(&times, seq as f64 * 10.0),
                );
            }
            7 => send(&mut rig, seq, Kind::Batch, b"\x01nonsense".to_vec()),
            8 => send(&mut rig, seq, Kind::Text, text()),
            9 => send(&mut rig, seq, Kind::Gap, gap(seq * 4)),
            10 => send(&mut rig, seq, Kind::EpochEnd, epoch_end(2, seq)),
            11 => {
                let payloads = [
                    "21.5",
                    "{\"t\": 20, \"u\": null}",
                    "{\"t\": 1, \"a.b\": 1, \"a\": {\"b\": 2}}",
                    "[{\"t\": 1, \"time\": 4070908800}, {\"t\": 2}, 3]",
                    "on",
                    "",
                    "null",
                    "m v=1,w=2\nm v=\nm v=3 4070908800",
                ];
                let payload = dice.pick(&payloads);
                let token = 1_000_000 + seq;
                rig.plain(
                    &format!("plain/m{}/temp", dice.below(2)),
                    payload,
                    u16::try_from(seq).unwrap(),
                    false,
                    token,
                );
                assert!(rig.sync());
            }
            12 => {
                let conflict = [(Kind::Schema, schema_frame()), (Kind::Batch, batch(seq))];
                rig.up(
                    bundle_of(&device(), 1, seq.saturating_sub(1), &conflict),
                    seq,
                );
                assert!(rig.sync());
            }
            _ => {
                let (disk, store) = (rig.disk.process_killed(), rig.store.clone());
                let ms = rig.ms;
                rig = Rig::start(disk, store, other_settings(&mut dice), ms).unwrap();
                greet(&mut rig);
            }
        }
    }
    rig.handle(Event::Disconnected {
        conn: CONN,
        client: "dev".into(),
        orderly: true,
    });
    rig
}

/// What each record from `from` on means, as it is handed out in reads of `most` bytes.
fn meanings(rig: &Rig, from: u64, most: usize, depth: Depth) -> Vec<String> {
    let mut feed = Feed::new(rig.custody.reader(), from, depth);
    let mut all = Vec::new();
    let mut refuse = false;
    loop {
        let chunk = feed
            .read(most, |item| {
                refuse = !refuse && item.position % 5 == 3;
                if refuse {
                    // A sink that could not take it gets it again.
                    return Taken::Not;
                }
                all.push((item.position, format!("{item:?}")));
                Taken::More
            })
            .unwrap();
        if chunk.next >= feed.durable() {
            break;
        }
    }
    assert!(all.iter().all(|(position, _)| *position >= from));
    all.into_iter().map(|(_, meaning)| meaning).collect()
}

/// Rows by device, metric, labels and time.
type Found = BTreeMap<(String, String, String, i64), Vec<String>>;

fn rows_in_lake(rig: &mut Rig) -> Found {
    rig.flush().unwrap();
    let mut found = Found::new();
    scan::samples(&rig.store, |row| {
        let labels = row.tags.unwrap_or_default().to_owned();
        let key = (
            row.device_id.to_owned(),
            row.metric.to_owned(),
            labels,
            row.ts_us,
        );
        found
            .entry(key)
            .or_default()
            .push(format!("{:?}", row.value));
    })
    .unwrap();
    found.values_mut().for_each(|values| values.sort());
    found
}

fn rows_in_hot(hot: &HotStore, lake: &Found) -> Found {
    let mut found = Found::new();
    let view = hot.view();
    let mut asked: Vec<(String, String)> = Vec::new();
    for (device, _) in view.devices(None, MAX_PAGE).unwrap().items {
        for metric in ["temp", "n", "temp.t", "temp.a.b", "m.v", "m.w"] {
            asked.push((device.clone(), metric.to_owned()));
        }
    }
    asked.extend(lake.keys().map(|key| (key.0.clone(), key.1.clone())));
    asked.sort();
    asked.dedup();
    for (device, metric) in asked {
        let series = view
            .series(&device, &metric, i64::MIN..i64::MAX, None, MAX_PAGE)
            .unwrap();
        assert_eq!(series.next, None);
        for point in series.items {
            let key = (device.clone(), point.metric, point.labels, point.time_us);
            found
                .entry(key)
                .or_default()
                .push(format!("{:?}", point.value.borrowed()));
        }
    }
    found.values_mut().for_each(|values| values.sort());
    found
}

/// Deliberate bugs are seen by what the properties below compare.
#[cfg(feature = "sabotage")]
mod bugs {
    use super::*;
    use headwater_proto::sabotage::{self, Bug};

    /// Whether the hot store shows other rows than the lake has.
    fn sinks_disagree(seed: u64) -> bool {
        let mut rig = journal(seed, 60);
        let (_folder, hot) = hot_of(&rig);
        let lake = rows_in_lake(&mut rig);
        rows_in_hot(&hot, &lake) != lake
    }

    #[test]
    fn two_verdicts_of_two_sinks_are_noticed() {
        sabotage::set(Some(Bug::TwoVerdicts));
        let noticed = (0..20).any(sinks_disagree);
        sabotage::set(None);
        assert!(noticed && !(0..20).any(sinks_disagree));
    }

    #[test]
    fn an_interpretation_by_the_present_time_is_noticed() {
        let later = |seed| {
            sabotage::set_present_us(START_US);
            let rig = journal(seed, 60);
            let first = meanings(&rig, 0, usize::MAX, Depth::Samples);
            sabotage::set_present_us(START_US + 90 * DAY_US);
            meanings(&rig, 0, usize::MAX, Depth::Samples) != first
        };
        sabotage::set(Some(Bug::InterpretedByPresent));
        let noticed = (0..20).any(later);
        sabotage::set(None);
        assert!(noticed && !(0..20).any(later));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever devices send: the hot store has the rows that the lake has, at the same times, and the
    /// latest value of each metric is the newest of them.
    #[test]
    fn hot_store_and_lake_have_the_same_rows(seed: u64) {
        let mut rig = journal(seed, 60);
        let (_folder, hot) = hot_of(&rig);
        let lake = rows_in_lake(&mut rig);
        prop_assert_eq!(&rows_in_hot(&hot, &lake), &lake);
        let mut newest: BTreeMap<(String, String, String), (i64, Vec<String>)> = BTreeMap::new();
        for ((device, metric, labels, time), values) in lake {
            // In order of time.
            newest.insert((device, metric, labels), (time, values));
        }
        for (device, _) in hot.view().devices(None, MAX_PAGE).unwrap().items {
            for point in hot.view().latest(&device, None, MAX_PAGE).unwrap().items {
                let value = format!("{:?}", point.value.borrowed());
                let key = (device.clone(), point.metric, point.labels);
                let (time, values) = newest.remove(&key).expect("a row of the lake");
                prop_assert_eq!(point.time_us, time);
                prop_assert!(values.contains(&value));
            }
        }
        prop_assert!(newest.is_empty());
        prop_assert!(rig.audit().totals.is_good());
    }

    /// The same journal means the same: from whichever record on, in whichever portions, and whatever
    /// the configuration has become since.
    #[test]
    fn a_record_means_the_same_from_wherever_it_is_read(seed: u64, from in 0usize..100, most in 1usize..9_000) {
        let rig = journal(seed, 60);
        for depth in [Depth::Samples, Depth::Blocks] {
            let all = meanings(&rig, 0, usize::MAX, depth);
            let from = from.min(all.len());
            let later = meanings(&rig, from as u64, most, depth);
            prop_assert_eq!(&all[from..], &later[..]);
        }
        let before = meanings(&rig, 0, usize::MAX, Depth::Samples);
        let (disk, store) = (rig.disk.process_killed(), rig.store.clone());
        let other = Rig::start(disk, store, other_settings(&mut Dice(seed ^ 1)), rig.ms + 900_000_000).unwrap();
        let after = meanings(&other, 0, usize::MAX, Depth::Samples);
        prop_assert_eq!(&after[..before.len()], &before[..]);
    }
}

#[test]
fn a_rule_set_whose_record_rots_is_found_in_the_segments_snapshot() {
    let mut rig = greeted(settings());
    let before = rig.custody.log().next();
    let frames = split_batch();
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    assert!(rig.sync());
    let whole = meanings(&rig, before, usize::MAX, Depth::Samples);
    // The second record of the first segment.
    let mut places = Vec::new();
    let mut reader = rig.custody.reader();
    reader
        .read(0, usize::MAX, |_, _, payload| {
            places.push(payload.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let name = &common::segments(&rig.disk)[0];
    let file = headwater_spool::Disk::open(&rig.disk, name).unwrap();
    let mut bytes = vec![0; 8192];
    headwater_spool::DiskFile::read_at(&file, &mut bytes, 0).unwrap();
    let rules = &places[1];
    let at = bytes
        .windows(rules.len())
        .rposition(|window| window == rules)
        .unwrap();
    assert!(rig.disk.rot(name, at as u64 + 1, 1));
    assert_eq!(meanings(&rig, before, usize::MAX, Depth::Samples), whole);
}
