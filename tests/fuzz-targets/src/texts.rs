//! What people and other programs write: lines, payloads, tables, configuration.

use std::cell::RefCell;
use std::io::Write as _;

use headwater_agent::config::{Config as AgentConfig, LineFormat};
use headwater_agent::pipeline::record::Cursor;
use headwater_agent::source::file::Tail;
use headwater_agent::source::{MAX_LINE_BYTES, Reading, lines, replay};
use headwater_collector::config::Config as CollectorConfig;
use headwater_collector::interpret::{Depth, Interpreter};
use headwater_collector::pipeline::envelope::{RawHead, Record, RecordKind, Verdict};
use headwater_collector::pipeline::rules::{Decoder, PlainRule, RuleSet, RulesId, TimeWindow};
use headwater_proto::ids::{DeviceId, JournalId};
use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use crate::seeds::{prefixed, texts};

const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);

fn judge(reading: &Reading, len: usize) {
    assert_eq!(reading.columns.len(), reading.values.len());
    assert!(reading.columns.len() + reading.labels.len() <= len);
    reading.with_sample(|sample| {
        assert_eq!(sample.fields.len(), reading.columns.len());
    });
}

fn line(format: LineFormat, bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(Some(reading)) = lines::parse(format, text, NOW) {
        judge(&reading, text.len());
    }
}

/// A line of the InfluxDB protocol: an error or a reading with a value for each column.
pub fn influx(bytes: &[u8]) {
    line(LineFormat::Influx, bytes);
}

/// A JSON line: an error or a reading with a value for each column.
pub fn json(bytes: &[u8]) {
    line(LineFormat::Json, bytes);
}

/// A table to replay: a header, then rows of as many cells as it names.
pub fn replay(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let Some(Ok(header)) = lines.next().map(replay::parse_header) else {
        return;
    };
    for line in lines {
        if let Ok(Some(reading)) = header.parse_row(line) {
            assert_eq!(reading.values.len(), header.columns.len());
            assert!(reading.values.iter().any(Option::is_some));
        }
    }
}

thread_local! {
    static FILE: RefCell<Option<tempfile::NamedTempFile>> = const { RefCell::new(None) };
}

/// A followed file and a cursor of any numbers (three times eight bytes), as an older life may have
/// left them: lines within the bound, cursors that only grow, and an end.
pub fn followed_file(input: &[u8]) {
    let Some((cursor, text)) = input.split_first_chunk::<24>() else {
        return;
    };
    let number = |at: usize| {
        cursor[at..at + 8]
            .iter()
            .fold(0, |n, b| n << 8 | u64::from(*b))
    };
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| {
            tempfile::NamedTempFile::new().expect("the temporary folder can be written")
        });
        let written = std::fs::File::create(file.path()).and_then(|mut to| to.write_all(text));
        written.expect("the temporary folder can be written");
        let start = Cursor {
            major: number(0),
            minor: number(8),
            tag: number(16),
        };
        let mut tail = Tail::new(file.path(), Some(start), true);
        let mut read = Vec::new();
        let mut reads = 0;
        while tail.read(&mut read).expect("the file is there") {
            reads += 1;
            assert!(reads <= text.len() + 1, "reading ends");
        }
        let mut before = start;
        for (line, cursor) in read {
            assert!(line.len() <= MAX_LINE_BYTES);
            assert!(cursor.covers(before));
            before = cursor;
        }
    });
}

const DECODERS: [Decoder; 5] = [
    Decoder::Json,
    Decoder::Number,
    Decoder::Line,
    Decoder::Csv,
    Decoder::Detect,
];

/// A publish of a plain device; the first byte chooses the decoder. Whatever it holds is stored,
/// refused, missing or nothing; no name is too long.
pub fn plain_payload(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    let plain = DECODERS.map(PlainRule::new).to_vec();
    let rules = RuleSet::new(plain, TimeWindow::default()).encode();
    let mut interpreter = Interpreter::new(Depth::Samples);
    interpreter.learn_rules(&rules);
    let head = RawHead {
        device: DeviceId::new("d").expect("an id"),
        journal: JournalId(7),
        seq: 3,
        verdict: Verdict::Store,
        at: NOW,
        rules: RulesId::of(&rules),
        rule: u16::from(*choice) % 5,
        metric: "metric",
        topic: "a/d",
        client: "c",
        packet_id: 0,
        hash: 0,
    };
    let mut record = Vec::new();
    Record::Raw(head, bytes).encode(&mut record);
    let item = interpreter.read(0, RecordKind::Raw.to_u8(), &record);
    let item = item.expect("what was written");
    for sample in item.samples.iter() {
        assert!(!sample.metric.is_empty() && sample.metric.len() <= 256);
        assert!(!matches!(sample.value, Value::F64(value) if !value.is_finite()));
    }
    let refused: u32 = item.refused().map(|refused| refused.samples).sum();
    assert_eq!(item.samples.len() + refused, item.batch_samples());
    assert_eq!(item.batch_samples() == 0, item.gaps.len() == 1);
}

/// An agent's configuration: valid, or refused with at least one line that says why.
pub fn agent_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(faults) = AgentConfig::parse(text, "host") {
        assert!(!faults.to_string().is_empty());
    }
}

/// A collector's configuration: valid, or refused with at least one line that says why.
pub fn collector_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Err(faults) = CollectorConfig::parse(text) {
        assert!(!faults.to_string().is_empty());
    }
}

/// Measurements with tags, escapes, every type, and a time.
#[must_use]
pub fn influx_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "weather,room=a\\ b,floor=2 t=21.5,n=3i,u=4u,on=true,s=\"a \\\"b\\\"\" 1700000000000000000",
        "cpu value=1e-3",
        "# a comment",
    ])
}

/// Objects with tags, every type, and a time.
#[must_use]
pub fn json_seeds() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"ts_ms":1700000000123,"tags":{"floor":"2"},"t":21.5,"n":3,"on":true,"s":"x","z":null}"#,
        r#"{"ts_us":1,"a":-9223372036854775808,"b":18446744073709551615,"c":1e400}"#,
    ])
}

/// A table of every type.
#[must_use]
pub fn replay_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "ts:ms,host:tag,on:bool,n:i64,x:f32,y:f64,s:str\n1700000000000,a,1,-5,1.5,2.5,text\n2,b,,,,,\n",
        "ts:us,v:f64\n1,nan\n2,-0\n",
    ])
}

/// Lines behind a cursor at the start, in the middle and beyond the end.
#[must_use]
pub fn followed_file_seeds() -> Vec<Vec<u8>> {
    let cursor = |minor: u64| [[0; 8], minor.to_be_bytes(), [0; 8]].concat();
    [0, 4, u64::MAX]
        .into_iter()
        .map(|at| prefixed(&cursor(at), b"one\ntwo\nthree"))
        .collect()
}

/// One payload for each decoder.
#[must_use]
pub fn plain_payload_seeds() -> Vec<Vec<u8>> {
    vec![
        prefixed(
            &[0],
            br#"[{"t":21.5,"in":{"n":3,"s":"x"}},{"on":true,"z":null}]"#,
        ),
        prefixed(&[1], b"-21.5"),
        prefixed(
            &[2],
            b"cpu,host=a used=1.5,n=3i,s=\"x\" 1700000000000000000\ncpu used=2",
        ),
        prefixed(&[3], b"time,name,t\n1700000000,x,21.5\n,y,null"),
        prefixed(&[4], b"{\"t\":1,\"a.b\":1,\"a\":{\"b\":2}}"),
    ]
}

/// Nothing, and every default.
#[must_use]
pub fn agent_config_seeds() -> Vec<Vec<u8>> {
    texts(&["", headwater_agent::config::DEFAULTS])
}

/// Nothing, and every default.
#[must_use]
pub fn collector_config_seeds() -> Vec<Vec<u8>> {
    texts(&["", headwater_collector::config::DEFAULTS])
}
