//! The embedded hot store: what it answers, what it drops, and how it comes back from nothing.

use headwater_collector::interpret::{Depth, Interpreter};
use headwater_collector::pipeline::envelope::{
    BatchHead, Clock, RawHead, Record, SchemaHead, Verdict,
};
use headwater_collector::pipeline::rules::{Decoder, PlainRule, RuleSet, RulesId, TimeWindow};
use headwater_collector::sink::hot::{
    Filled, HotRead, HotSettings, HotStore, Kept, Point, RefillError,
};
use headwater_lake::{
    Claim, Flush, Lake, LocalStore, Rows as LakeRows, SampleRow, Settings, TimeClass,
};
use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::sample::{OwnedValue, Value};
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};
use headwater_proto::time::UnixMicros;

const JOURNAL: JournalId = JournalId(77);
const START_US: i64 = 1_700_000_000_000_000;
const SETTINGS: HotSettings = HotSettings {
    keep_us: 3_600_000_000,
    max_bytes: 1 << 20,
    cache_bytes: 1 << 20,
};

struct Rig {
    folder: tempfile::TempDir,
    hot: HotStore,
    interpreter: Interpreter,
    rules: RulesId,
    position: u64,
}

fn stream() -> Stream {
    Stream {
        device: DeviceId::new("pump").expect("a device id"),
        lane: Lane::Normal,
        epoch: Epoch::new(9),
    }
}

fn schema() -> Schema {
    Schema::new(1_000, vec![Column::new("level", ColumnKind::F64)])
}

fn rig() -> Rig {
    let folder = tempfile::tempdir().expect("a folder");
    let (hot, _) = HotStore::open(folder.path(), SETTINGS).expect("a store");
    let plain = vec![PlainRule::new(Decoder::Json)];
    let rules = RuleSet::new(plain, TimeWindow::default()).encode();
    let mut rig = Rig {
        folder,
        hot,
        interpreter: Interpreter::new(Depth::Blocks),
        rules: RulesId::of(&rules),
        position: 0,
    };
    rig.apply(&Record::Rules(&rules));
    rig.tell(3, &schema());
    rig
}

impl Rig {
    fn apply(&mut self, record: &Record<'_>) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let kind = record.kind().to_u8();
        let read = self.interpreter.read(self.position, kind, &bytes);
        let kept = self.hot.take(&read.expect("known")).expect("taken");
        assert_eq!(kept, Kept::Stored);
        self.position += 1;
    }

    fn tell(&mut self, number: u32, schema: &Schema) {
        let mut bytes = Vec::new();
        schema.encode(&mut bytes).expect("a schema");
        let head = SchemaHead {
            origin: stream().device,
            epoch: stream().epoch,
            number,
        };
        self.apply(&Record::Schema(head, &bytes));
    }

    /// A batch of `count` rows, a second apart, from row `first` on; row k has the value k.
    fn batch(&mut self, seq: u64, first: i64, count: i64) {
        let schema = schema();
        let mut rows = Rows::new(&schema);
        for k in first..first + count {
            rows.push_row(START_US + k * 1_000_000, 0, &[Some(Value::F64(k as f64))])
                .expect("a row");
        }
        self.store(seq, 3, &schema, &rows);
    }

    fn store(&mut self, seq: u64, number: u32, schema: &Schema, rows: &Rows) {
        let mut payload = Vec::new();
        Encoder::new(schema)
            .encode(number, rows, &mut payload)
            .expect("a batch");
        let mut framed = Vec::new();
        frame::append(Kind::Batch, &payload, &mut framed).expect("a frame");
        let head = BatchHead {
            stream: stream(),
            seq,
            verdict: Verdict::Store,
            // Late for all rows, ahead of none by more than is believed.
            at: UnixMicros(START_US + 6_000_000_000),
            clock: Clock::SYNCED,
            via: None,
            rules: self.rules,
            around: None,
            evidence: None,
        };
        self.apply(&Record::Batch(head, &framed));
    }

    fn values(&self, from_s: i64, to_s: i64, limit: usize) -> (Vec<f64>, bool) {
        let (from, to) = (START_US + from_s * 1_000_000, START_US + to_s * 1_000_000);
        let series = self
            .hot
            .view()
            .series("pump", "level", from..to, None, limit)
            .expect("a series");

        (
            series
                .items
                .iter()
                .map(|point| as_f64(&point.value))
                .collect(),
            series.next.is_some(),
        )
    }
}

fn latest(hot: &HotStore, device: &str) -> Vec<Point> {
    hot.view()
        .latest(device, None, 1_000)
        .expect("latest")
        .items
}

fn as_f64(value: &OwnedValue) -> f64 {
    let OwnedValue::F64(value) = value else {
        panic!("{value:?}")
    };
    *value
}

#[test]
fn a_series_has_the_rows_of_its_span_even_from_the_middle_of_a_batch() {
    let mut rig = rig();
    rig.batch(0, 0, 10);
    rig.batch(1, 10, 10);
    rig.hot.commit(JOURNAL, 2).expect("committed");
    assert_eq!(
        rig.values(7, 12, 100),
        (vec![7.0, 8.0, 9.0, 10.0, 11.0], false)
    );
    assert_eq!(
        rig.values(0, 20, 3),
        (vec![17.0, 18.0, 19.0], true),
        "the newest when cut"
    );
    assert!(
        rig.hot
            .view()
            .series("pump", "other", 0..i64::MAX, None, 9)
            .expect("none")
            .items
            .is_empty()
    );
}

#[test]
fn a_batch_that_is_applied_again_changes_nothing() {
    let mut rig = rig();
    rig.batch(0, 0, 10);
    rig.batch(0, 0, 10);
    rig.hot.commit(JOURNAL, 1).expect("committed");
    assert_eq!(rig.values(0, 100, 100).0.len(), 10);
    let info = rig.hot.view().device("pump").expect("read").expect("known");
    assert_eq!((info.records, info.samples), (1, 10));
}

#[test]
fn the_latest_value_is_the_newest_by_time_whichever_came_last() {
    let mut rig = rig();
    rig.batch(1, 10, 10);
    rig.hot.commit(JOURNAL, 1).expect("committed");
    rig.batch(0, 0, 10);
    rig.hot.commit(JOURNAL, 2).expect("committed");
    let latest = latest(&rig.hot, "pump");
    assert_eq!(latest.len(), 1);
    assert_eq!(latest[0].value, OwnedValue::F64(19.0));
    assert_eq!(latest[0].time_us, START_US + 19_000_000);
}

/// One generated batch: when it begins, its rows' values (a of every row, b of some), its series.
type Generated = (u8, Vec<(u8, Option<u8>)>, bool);

proptest::proptest! {
    /// Whatever order batches come in, whichever columns and series they fill, and wherever commits
    /// fall: the latest value of each is the one of its newest time.
    #[test]
    fn the_latest_values_are_those_of_a_search_through_all_rows(
        labelled: bool,
        batches in proptest::collection::vec(
            (
                proptest::num::u8::ANY,
                proptest::collection::vec(proptest::arbitrary::any::<(u8, Option<u8>)>(), 1..5),
                proptest::bool::ANY,
            ),
            1..12,
        ),
        commits: u16,
    ) {
        let found = latest_of(labelled, &batches, commits);
        let mut expected = std::collections::BTreeMap::new();
        for (first, rows, second) in &batches {
            let series = if labelled && *second { r#"{"side":"right"}"# } else { "" };
            for (row, (a, b)) in (0i64..).zip(rows) {
                let time = START_US + (i64::from(*first) * 8 + row) * 1_000_000;
                for (metric, value) in [("a", Some(*a)), ("b", *b)] {
                    let Some(value) = value else { continue };
                    let newest = expected
                        .entry((metric.to_owned(), series.to_owned()))
                        .or_insert((time, Vec::new()));
                    if time > newest.0 {
                        *newest = (time, Vec::new());
                    }
                    if time == newest.0 {
                        newest.1.push(f64::from(value));
                    }
                }
            }
        }
        proptest::prop_assert_eq!(found.len(), expected.len());
        for (key, (time, values)) in expected {
            let (at, value) = &found[&key];
            proptest::prop_assert_eq!(*at, time);
            proptest::prop_assert!(values.contains(value), "{:?}: {} of {:?}", key, value, values);
        }
    }
}

fn latest_of(
    labelled: bool,
    batches: &[Generated],
    commits: u16,
) -> std::collections::BTreeMap<(String, String), (i64, f64)> {
    let mut rig = rig();
    let mut b = Column::new("b", ColumnKind::F64);
    b.nullable = true;
    let mut schema = Schema::new(1_000, vec![Column::new("a", ColumnKind::F64), b]);
    if labelled {
        schema.series.push(Series {
            labels: vec![("side".to_owned(), "right".to_owned())],
        });
    }
    rig.tell(4, &schema);
    for (seq, (first, values, second)) in (0u64..).zip(batches) {
        let mut rows = Rows::new(&schema);
        for (row, (a, b)) in (0i64..).zip(values) {
            let cells = [Some(*a), *b].map(|cell| cell.map(|v| Value::F64(f64::from(v))));
            let time = START_US + (i64::from(*first) * 8 + row) * 1_000_000;
            rows.push_row(time, u32::from(labelled && *second), &cells)
                .expect("a row");
        }
        rig.store(seq, 4, &schema, &rows);
        if commits >> seq & 1 == 1 {
            rig.hot.commit(JOURNAL, seq + 1).expect("committed");
        }
    }
    rig.hot.commit(JOURNAL, 100).expect("committed");
    let latest = latest(&rig.hot, "pump");
    latest
        .into_iter()
        .map(|point| {
            let value = as_f64(&point.value);
            ((point.metric, point.labels), (point.time_us, value))
        })
        .collect()
}

#[test]
fn a_plain_devices_payload_is_there_too() {
    let mut rig = rig();
    let head = RawHead {
        device: DeviceId::new("plain").expect("a device id"),
        epoch: Epoch::new(JOURNAL.0),
        seq: 0,
        verdict: Verdict::Store,
        at: UnixMicros(START_US),
        rules: rig.rules,
        rule: 0,
        metric: "",
        topic: "devices/plain",
        client: "client",
        packet_id: 1,
        hash: 1,
    };
    rig.apply(&Record::Raw(head, br#"{"a": 1.5, "b": "on"}"#));
    rig.hot.commit(JOURNAL, 1).expect("committed");
    let latest = latest(&rig.hot, "plain");
    let names: Vec<&str> = latest.iter().map(|point| point.metric.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn what_is_too_old_or_too_much_goes_and_the_oldest_goes_first() {
    let mut rig = rig();
    rig.batch(0, 0, 10);
    rig.batch(1, 5_000, 10);
    rig.hot.commit(JOURNAL, 2).expect("committed");
    // An hour is kept: the first batch is 5,000 s older than the second.
    rig.hot
        .expire(UnixMicros(START_US + 5_010 * 1_000_000))
        .expect("expired");
    assert_eq!(rig.values(0, 6_000, 100).0.len(), 10);
    assert_eq!(rig.values(0, 6_000, 1).0, [5_009.0]);
    let info = rig.hot.view().device("pump").expect("read").expect("known");
    assert!(
        info.bytes > 0 && info.oldest_us == START_US + 5_000 * 1_000_000,
        "{info:?}"
    );
}

#[test]
fn the_cursor_holds_for_its_journal_alone() {
    let mut rig = rig();
    assert_eq!(rig.hot.cursor(JOURNAL).expect("read"), None);
    rig.hot.commit(JOURNAL, 42).expect("committed");
    assert_eq!(rig.hot.cursor(JOURNAL).expect("read"), Some(42));
    assert_eq!(rig.hot.cursor(JournalId(1)).expect("read"), None);
}

#[test]
fn an_empty_store_is_filled_from_the_lake_with_what_it_would_keep() {
    let mut rig = rig();
    let store = LocalStore::new(&rig.folder.path().join("lake")).expect("a lake");
    let mut lake =
        Lake::open(store, Settings::default(), &Claim::new(JOURNAL, START_US)).expect("a lake");
    let mut rows = LakeRows::new();
    for k in 0..1_500u32 {
        let row = SampleRow {
            device_id: "from-lake",
            metric: "level",
            ts_us: START_US + i64::from(k) * 1_000_000,
            value: Value::I64(k.into()),
            site: None,
            device_type: None,
            tags: None,
            ingest_us: START_US,
            lane: Lane::Normal,
            epoch: Epoch::new(1),
            seq: 0,
            row: k,
            batch_samples: 1_500,
            via: None,
            time_err_ms: None,
            time_class: TimeClass::Synced,
        };
        rows.push_sample(&row).expect("a row");
    }
    let flush = Flush {
        journal: JOURNAL,
        first_pos: 0,
        last_pos: 1,
        rows: &rows,
        at_us: START_US,
        sinks: &[],
    };
    let plan = lake.stage(&flush).expect("staged");
    lake.publish(&plan).expect("published");
    lake.commit(&plan).expect("committed");

    let lake = LocalStore::new(&rig.folder.path().join("lake")).expect("a lake");
    let since = UnixMicros(START_US + 1_000 * 1_000_000);
    let stopped = rig.hot.refill(&lake, since, since, &|| true);
    assert!(matches!(stopped, Err(RefillError::Stopped)), "{stopped:?}");
    let taken = rig
        .hot
        .refill(&lake, since, since, &|| false)
        .expect("filled");
    rig.hot.commit(JOURNAL, 1).expect("committed");
    let all = Filled {
        samples: 500,
        left_out: 0,
    };
    assert_eq!(taken, all);
    let view = rig.hot.view();
    let series = view
        .series("from-lake", "level", 0..i64::MAX, None, 9_999)
        .expect("a series");
    assert_eq!(series.items.len(), 500);
    assert_eq!(
        latest(&rig.hot, "from-lake")[0].value,
        OwnedValue::I64(1_499)
    );
}

#[test]
fn devices_and_newest_values_come_in_pages() {
    let mut rig = rig();
    for (number, device) in ["a", "ab", "b"].into_iter().enumerate() {
        let body = br#"{"x":1,"y":2,"z":3}"#;
        let head = RawHead {
            device: DeviceId::new(device).expect("a device id"),
            epoch: Epoch::new(JOURNAL.0),
            seq: 0,
            verdict: Verdict::Store,
            at: UnixMicros(START_US),
            rules: rig.rules,
            rule: 0,
            metric: "",
            topic: "t",
            client: "c",
            packet_id: 1,
            hash: number as u64,
        };
        rig.apply(&Record::Raw(head, body));
    }
    rig.hot.commit(JOURNAL, 9).expect("committed");
    let view = rig.hot.view();
    let (mut devices, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = view.devices(after.as_ref(), 2).expect("a page");
        devices.extend(page.items.into_iter().map(|(name, _)| name));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        (devices, pages),
        (vec!["a".into(), "ab".into(), "b".into()], 2)
    );
    let page = view.latest("a", None, 2).expect("a page");
    let names = |points: &[Point]| points.iter().map(|p| p.metric.clone()).collect::<Vec<_>>();
    assert_eq!(names(&page.items), ["x", "y"]);
    let rest = view.latest("a", page.next.as_ref(), 2).expect("a page");
    assert_eq!((names(&rest.items), rest.next), (vec!["z".into()], None));
}
