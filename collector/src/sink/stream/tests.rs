//! A stream through partial failures, refusals, lost answers and crashes, in front of a service that keeps what it was
//! sent.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use headwater_proto::ids::{DeviceId, SeqRange, Stream};
use headwater_proto::time::UnixMicros;
use headwater_proto::topic::shard_of;
use serde_json::Value as Json;

use super::service::{Answer, CallLimits, Failure, Record as Sent};
use super::*;
use crate::interpret::Depth;
use crate::sink::publishes::Publishes;

const NOW: Now = Now {
    mono: Millis(5_000),
    wall: UnixMicros(1_700_000_000_000_000),
};
const EPOCH: u64 = 9_007_199_254_740_993;

type Calls = Arc<Mutex<Vec<Vec<Sent>>>>;
type Answers = Arc<Mutex<VecDeque<Answer>>>;

/// Answers as it is told, and then that all is well; refuses what its `poison` finds.
#[derive(Clone)]
struct Fake {
    calls: Calls,
    answers: Answers,
    poison: fn(&Json) -> bool,
    limits: CallLimits,
}

impl Service for Fake {
    fn put(&mut self, records: Vec<Sent>) -> impl Future<Output = Answer> + Send {
        let count = records.len();
        let is_poison = records
            .iter()
            .flat_map(lines)
            .any(|line| (self.poison)(&line));
        self.calls.lock().unwrap().push(records);
        let answer = if is_poison {
            Answer::Refused {
                cause: "ValidationException: no".to_owned(),
            }
        } else {
            let told = self.answers.lock().unwrap().pop_front();
            told.unwrap_or_else(|| Answer::Each(vec![Ok(()); count]))
        };
        std::future::ready(answer)
    }

    fn limits(&self) -> CallLimits {
        self.limits
    }
}

fn failure(is_throttled: bool) -> Failure {
    Failure {
        cause: "busy".to_owned(),
        is_throttled,
    }
}

fn lines(record: &Sent) -> Vec<Json> {
    let mut text = String::new();
    MultiGzDecoder::new(&*record.bytes)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

struct Rig {
    service: Fake,
    sink: StreamSink<Fake>,
    publishes: Publishes,
}

fn settings(key: Key) -> StreamSettings {
    StreamSettings {
        encoding: Encoding {
            key,
            record_bytes: RECORD_BYTES,
        },
        flush_ms: 1_000,
    }
}

fn take(sink: &mut StreamSink<Fake>, item: &Interpreted<'_>) {
    sink.take(item, NOW).unwrap();
    // As the worker asks, in the midst of what it reads at once.
    sink.due(NOW.mono);
    sink.passed(item.position + 1, NOW);
}

impl Rig {
    fn new(key: Key) -> Self {
        Self::with(key, None)
    }

    fn with(key: Key, cut: Option<Cut>) -> Self {
        let service = Fake {
            calls: Calls::default(),
            answers: Answers::default(),
            poison: |_| false,
            limits: CallLimits {
                records: 500,
                bytes: 4_000_000,
            },
        };
        let from = cut.map_or(0, |cut| cut.begin);
        let mut sink = StreamSink::new(service.clone(), settings(key), from, cut);
        let take = |item: &Interpreted<'_>| take(&mut sink, item);
        let (publishes, ()) = Publishes::new(Depth::Samples, EPOCH, NOW.wall, take);
        Self {
            service,
            sink,
            publishes,
        }
    }

    fn publish(&mut self, device: &str, seq: u64, body: &str) {
        let take = |item: &Interpreted<'_>| take(&mut self.sink, item);
        self.publishes.publish(device, seq, body, take);
    }

    fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.service.answers.lock().unwrap().extend(answers);
    }

    /// One step of the worker: a plan, and a delivery.
    fn deliver(&mut self) -> Result<Delivered, SinkError> {
        self.sink.plan(NOW).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(self.sink.deliver(NOW))
    }

    /// Deliveries until nothing is left, and what was refused on the way.
    fn settle(&mut self) -> Vec<(Stream, SeqRange)> {
        let mut refused = Vec::new();
        for _ in 0..100 {
            match self.deliver() {
                Ok(_) => return refused,
                Err(SinkError::Refused { items, .. }) => refused.extend(items),
                Err(_) => {}
            }
        }
        panic!("it never ends");
    }

    fn calls(&self) -> Vec<Vec<Sent>> {
        self.service.calls.lock().unwrap().clone()
    }

    /// How often each call brought each device's numbers.
    fn numbers(call: &[Sent]) -> Vec<(String, u64)> {
        let all = call.iter().flat_map(lines);
        all.map(|line| {
            let device = line["device"].as_str().unwrap().to_owned();
            (device, line["seq"].as_u64().unwrap())
        })
        .collect()
    }
}

fn pairs(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected
        .iter()
        .map(|(device, seq)| ((*device).to_owned(), *seq))
        .collect()
}

#[test]
fn a_line_says_whose_it_is_and_holds_a_row() {
    let mut rig = Rig::new(Key::Nothing);
    rig.publish("pump/1", 7, r#"{"seq":1.5,"state":"ön","on":true}"#);
    rig.settle();
    let calls = rig.calls();
    let all: Vec<Json> = calls[0].iter().flat_map(lines).collect();
    assert_eq!(all.len(), 1);
    let line = &all[0];
    assert_eq!(line["kind"], "samples");
    assert_eq!(line["device"], "pump/1");
    assert_eq!(line["epoch"], EPOCH.to_string(), "no JSON number holds it");
    assert_eq!((&line["seq"], &line["row"]), (&7.into(), &0.into()));
    assert_eq!(line["batch_samples"], 3);
    let values = serde_json::json!({"seq": 1.5, "state": "ön", "on": true});
    assert_eq!(line["values"], values);
    assert!(line["ts"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[test]
fn of_a_partial_failure_the_failed_record_alone_comes_again() {
    let mut rig = Rig::new(Key::Device);
    for device in ["a", "b", "c"] {
        rig.publish(device, 1, "{\"v\":1}");
    }
    rig.answer([Answer::Each(vec![Ok(()), Err(failure(true)), Ok(())])]);
    let error = rig.deliver().unwrap_err();
    assert!(matches!(error, SinkError::Busy { .. }), "{error}");
    assert!(rig.sink.is_ahead(), "two were stored");
    assert!(!rig.sink.is_ahead());
    let delivered = rig.deliver().unwrap();
    assert_eq!(delivered.through, rig.publishes.position);
    assert_eq!(delivered.streams.len(), 3);
    let sent: Vec<_> = rig.calls().iter().map(|call| Rig::numbers(call)).collect();
    assert_eq!(
        sent,
        [pairs(&[("a", 1), ("b", 1), ("c", 1)]), pairs(&[("b", 1)])]
    );
}

#[test]
fn no_record_overtakes_an_older_one_of_its_key() {
    let mut rig = Rig::new(Key::Device);
    // Each line becomes a record.
    rig.sink.draft = Draft::new(
        0,
        Encoding {
            key: Key::Device,
            record_bytes: 10,
        },
    );
    for seq in 0..4 {
        rig.publish("a", seq, "{\"v\":1}");
        rig.publish("b", seq, "{\"v\":1}");
    }
    let fails_first = Answer::Each(vec![Err(failure(false)), Ok(())]);
    rig.answer([fails_first.clone(), fails_first]);
    rig.settle();
    let mut stored = BTreeMap::<String, Vec<u64>>::new();
    for call in rig.calls() {
        let numbers = Rig::numbers(&call);
        let devices: Vec<_> = numbers.iter().map(|(device, _)| device).collect();
        assert!(
            devices.len() <= 2 && devices.first() != devices.get(1),
            "{numbers:?}"
        );
        for (device, seq) in numbers {
            stored.entry(device).or_default().push(seq);
        }
    }
    assert_eq!(stored["b"], [0, 1, 2, 3]);
    assert_eq!(stored["a"], [0, 0, 0, 1, 2, 3]);
}

#[test]
fn an_answer_that_fits_not_or_never_comes_means_all_again() {
    let mut rig = Rig::new(Key::Device);
    rig.publish("a", 1, "{\"v\":1}");
    rig.publish("b", 1, "{\"v\":1}");
    let cause = "the connection broke".to_owned();
    rig.answer([
        Answer::Each(vec![Ok(())]),
        Answer::Unknown { cause },
        Answer::Failed(failure(true)),
    ]);
    for _ in 0..3 {
        let error = rig.deliver().unwrap_err();
        assert!(matches!(error, SinkError::Busy { .. }), "{error}");
        assert!(!rig.sink.is_ahead());
    }
    let counts = |rig: &Rig| rig.sink.counts().into_iter().collect::<BTreeMap<_, _>>();
    assert_eq!(
        counts(&rig)["stream_window_records"],
        1,
        "half of what was throttled"
    );
    assert_eq!(rig.settle(), []);
    let sent: Vec<_> = rig
        .calls()
        .iter()
        .map(|call| Rig::numbers(call).len())
        .collect();
    assert_eq!(
        sent,
        [2, 2, 1, 1, 1],
        "a call that timed out may be too large"
    );
    assert_eq!(counts(&rig)["stream_resent_records_total"], 5);
    assert_eq!(counts(&rig)["stream_throttled_total"], 1);
}

#[test]
fn who_may_not_says_what_to_do() {
    let mut rig = Rig::new(Key::Group);
    rig.publish("a", 1, "{\"v\":1}");
    rig.answer([Answer::Denied {
        cause: "AccessDeniedException: no".to_owned(),
        remedy: "let it".to_owned(),
    }]);
    let error = rig.deliver().unwrap_err();
    assert_eq!(error.to_string(), "AccessDeniedException: no; let it");
    assert_eq!(rig.settle(), []);
}

#[test]
fn a_line_that_the_service_never_takes_is_found_and_the_others_go() {
    for key in [Key::Nothing, Key::Group, Key::Device] {
        let mut rig = Rig::new(key);
        rig.sink.service.poison = |line| line["values"]["v"] == 13.0;
        for seq in 0..20 {
            for device in ["a", "b", "c"] {
                let value = if (device, seq) == ("b", 7) { 13 } else { 1 };
                rig.publish(device, seq, &format!("{{\"v\":{value}}}"));
            }
        }
        let refused = rig.settle();
        assert_eq!(refused.len(), 1, "{key:?}: {refused:?}");
        let (stream, range) = &refused[0];
        assert_eq!((stream.device.as_str(), *range), ("b", SeqRange::new(7, 8)));
        let mut stored = BTreeMap::<(String, u64), u64>::new();
        for call in rig.calls() {
            let is_poison = |line: &Json| line["values"]["v"] == 13.0;
            if !call.iter().flat_map(lines).any(|line| is_poison(&line)) {
                for number in Rig::numbers(&call) {
                    *stored.entry(number).or_default() += 1;
                }
            }
        }
        assert_eq!(stored.len(), 59, "{key:?}");
        assert!(
            stored.values().all(|times| *times == 1),
            "{key:?}: {stored:?}"
        );
    }
}

#[test]
fn a_batch_of_nothing_but_what_is_refused_ends_in_dead_letters() {
    let mut rig = Rig::new(Key::Device);
    rig.sink.service.poison = |_| true;
    rig.publish("a", 1, "{\"v\":1}");
    for _ in 0..3 {
        let error = rig.deliver().unwrap_err();
        assert!(matches!(error, SinkError::Broken { .. }), "{error}");
    }
    let error = rig.deliver().unwrap_err();
    assert!(matches!(error, SinkError::Refused { .. }), "{error}");
    // What comes behind it goes.
    rig.sink.service.poison = |_| false;
    rig.publish("a", 2, "{\"v\":1}");
    assert_eq!(rig.settle(), [], "the batch that is done");
    assert_eq!(rig.settle(), []);
    assert!(
        rig.calls()
            .iter()
            .any(|call| Rig::numbers(call).iter().any(|(_, seq)| *seq == 2))
    );
}

#[test]
fn a_service_that_refuses_all_from_the_start_is_not_in_order_and_is_given_time() {
    let mut rig = Rig::new(Key::Nothing);
    rig.sink.service.poison = |_| true;
    for seq in 0..100 {
        rig.publish("a", seq, "{\"v\":1}");
    }
    for _ in 0..3 {
        let error = rig.deliver().unwrap_err();
        assert!(matches!(error, SinkError::Broken { .. }), "{error}");
        assert!(error.to_string().contains("ValidationException"), "{error}");
    }
    let calls = rig.calls().len();
    assert!(calls < 120, "{calls} calls");
    // It was the wrong stream, and an operator mended that.
    rig.sink.service.poison = |line| line["seq"] == 50;
    let refused = rig.settle();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].1, SeqRange::new(50, 51));
    let mut stored: Vec<u64> = rig.calls()[calls..]
        .iter()
        .map(|call| Rig::numbers(call))
        .filter(|numbers| numbers.iter().all(|(_, seq)| *seq != 50))
        .flatten()
        .map(|(_, seq)| seq)
        .collect();
    stored.sort_unstable();
    assert_eq!(
        stored,
        (0..100).filter(|seq| *seq != 50).collect::<Vec<_>>()
    );
}

#[test]
fn after_a_crash_a_batch_is_made_again_as_it_was() {
    let publish = |rig: &mut Rig, devices: &[&str]| {
        for (seq, device) in devices.iter().enumerate() {
            rig.publish(device, seq as u64, "{\"v\":1,\"w\":\"x\"}");
        }
    };
    let mut rig = Rig::new(Key::Device);
    publish(&mut rig, &["a", "b", "a", "c"]);
    let plan = rig.sink.plan(NOW).unwrap().unwrap();
    rig.settle();
    let cut = Cut::decode(&plan.0).unwrap();
    assert_eq!((cut.begin, cut.end), (0, rig.publishes.position));

    // By then the settings are others, and more stands behind it.
    let mut again = Rig::with(Key::Group, Some(cut));
    publish(&mut again, &["a", "b", "a"]);
    assert_eq!(
        again.sink.due(NOW.mono),
        Due::Never,
        "its last record is to come"
    );
    publish(&mut again, &[]);
    again.publish("c", 3, "{\"v\":1,\"w\":\"x\"}");
    assert_eq!(again.sink.due(NOW.mono), Due::Full);
    let delivered = again.deliver().unwrap();
    assert_eq!(delivered.through, cut.end);
    assert_eq!(
        again.calls(),
        rig.calls(),
        "the same bytes in the same records"
    );
    again.publish("d", 4, "{\"v\":1}");
    assert_eq!(again.settle(), []);
    let group = format!("{:02x}", shard_of(&DeviceId::new("d").unwrap()));
    assert_eq!(*again.calls()[1][0].key, *group, "by the settings of now");

    // A record of it rotted meanwhile.
    let mut rotten = Rig::with(Key::Device, Some(cut));
    publish(&mut rotten, &["a", "b", "a"]);
    rotten.publishes.position += 1;
    rotten.sink.passed(rotten.publishes.position, NOW);
    let refused = rotten.settle();
    let numbers: u64 = refused.iter().map(|(_, range)| range.len()).sum();
    assert_eq!(numbers, 3, "{refused:?}");
    assert_eq!(
        rotten.calls(),
        [[]; 0],
        "another batch is not sent under its id"
    );
}

#[test]
fn a_batch_that_ends_at_records_which_rotted_takes_nothing_of_the_next() {
    let mut rig = Rig::new(Key::Device);
    rig.publish("a", 0, "{\"v\":1}");
    rig.publish("a", 1, "{\"v\":1}");
    let plan = rig.sink.plan(NOW).unwrap().unwrap();
    let cut = Cut::decode(&plan.0).unwrap();
    let mut again = Rig::with(Key::Device, Some(cut));
    again.publish("a", 0, "{\"v\":1}");
    again.publishes.position += 1;
    again.publish("b", 0, "{\"v\":1}");
    let refused = again.settle();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0.device.as_str(), "a");
    assert_eq!(again.settle(), []);
    let calls = again.calls();
    assert_eq!(calls.len(), 1);
    assert_eq!(Rig::numbers(&calls[0]), pairs(&[("b", 0)]));
}

#[test]
fn a_full_batch_must_go_before_more_is_taken() {
    let mut rig = Rig::new(Key::Group);
    let long = "x".repeat(60_000);
    let mut seq = 0;
    while rig.sink.due(NOW.mono) != Due::Full {
        rig.publish("a", seq, &format!("{{\"v\":\"{long}\"}}"));
        seq += 1;
        assert!(seq < 1_000, "it has a bound");
    }
    let bytes = seq * long.len() as u64;
    assert!(bytes < (draft::BATCH_BYTES + 2 * long.len()) as u64);
    assert_eq!(rig.settle(), []);
    let calls = rig.calls();
    assert!(
        calls
            .iter()
            .flatten()
            .all(|record| record.bytes.len() < 1_000_000)
    );
    let sent: usize = calls.iter().map(|call| Rig::numbers(call).len()).sum();
    assert_eq!(sent as u64, seq);
}
