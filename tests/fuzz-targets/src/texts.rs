//! What people and other programs write: lines, payloads, tables, configuration.

use std::cell::RefCell;
use std::io::Write as _;

use headwater_agent::config::Config as AgentConfig;
use headwater_agent::pipeline::record::Cursor;
use headwater_agent::source::MAX_LINE_BYTES;
use headwater_agent::source::file::tail::{Found, How, Tail};
use headwater_agent::source::records::{Record, Records};
use headwater_agent::source::rows::{RULES, Read, RowReader};
use headwater_collector::config::Config as CollectorConfig;
use headwater_collector::interpret::{Depth, Interpreter};
use headwater_collector::pipeline::envelope::{
    RawHead, Record as JournalRecord, RecordKind, Verdict,
};
use headwater_collector::pipeline::rules::{Decoder, PlainRule, RuleSet, RulesId, TimeWindow};
use headwater_payload::{
    Format, MAX_METRIC_BYTES, MAX_VALUES, Part, Rules, TimeFormat, TimeRule, Unit, Zone,
};
use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::sample::Value;
use headwater_proto::time::{Millis, UnixMicros};

use crate::heap::within;
use crate::seeds::{prefixed, texts};

const NOW: UnixMicros = UnixMicros(1_700_000_000_000_000);
/// Memory that reading a payload takes beyond twice its length.
const MOST_BYTES: usize = 16 << 20;

/// Memory that reading the lines of a stream takes.
const MOST_LINE_BYTES: usize = 8 << 20;

/// Rules that say everything the agent's leave open.
fn rules() -> Rules<'static> {
    Rules {
        metric: "m",
        prefix: "p",
        keep_values: true,
        time: TimeRule::Key {
            name: "time",
            format: TimeFormat::Auto,
            zone: Zone::parse("+01:00"),
        },
        precision: Some(Unit::Nanos),
        tags: Some("tags"),
        devices: true,
        delimiter: b';',
        header: Some("time;t;s:str;x:f32;on:bool;n:i64;host:tag"),
    }
}

/// Reads a payload under several rules: parts within their bounds, in rows without holes, and as many
/// as are counted.
fn read(format: Format, bytes: &[u8]) {
    for rules in [RULES, rules()] {
        let (mut samples, mut refused, mut rows) = (0, 0, 0);
        let mut visit = |part: Part<'_>| match part {
            Part::Sample(sample) => {
                samples += 1;
                assert!((1..=MAX_METRIC_BYTES).contains(&sample.metric.len()));
                assert!(sample.row + 1 == rows || sample.row == rows);
                rows = sample.row + 1;
                match sample.value {
                    Value::F64(value) => assert!(value.is_finite()),
                    Value::F32(value) => assert!(value.is_finite()),
                    Value::Str(text) => assert!(text.len() <= bytes.len()),
                    Value::Bool(_) | Value::I64(_) => {}
                }
            }
            Part::Refused(part) => {
                refused += 1;
                assert!(part.bytes.len() <= bytes.len());
            }
        };
        let tally = within(MOST_BYTES + 2 * bytes.len(), || {
            headwater_payload::read(format, &rules, bytes, &mut visit)
        });
        assert_eq!(
            (tally.samples, tally.refused, tally.rows),
            (samples, refused, rows)
        );
        assert!(samples + refused <= u32::try_from(MAX_VALUES + 1).unwrap_or(u32::MAX));
    }
}

/// Reads a stream as an agent does: readings with a value for each column.
fn stream(format: Format, bytes: &[u8]) {
    within(MOST_LINE_BYTES, || records(format, bytes));
}

fn records(format: Format, bytes: &[u8]) {
    let mut rows = RowReader::new(format);
    let mut records = Records::new(format, rows.splitter(), MAX_LINE_BYTES);
    let mut take = |line: u64, record: Record<'_>| {
        let Record::Whole(bytes) = record else { return };
        rows.read(line, bytes, NOW, &mut |read| {
            if let Read::Row(_, reading) = read {
                assert_eq!(reading.columns.len(), reading.values.len());
                assert!(reading.values.iter().any(Option::is_some));
            }
        });
    };
    records.push(bytes, &mut take);
    records.end(&mut take);
}

/// Line protocol, as a payload and as a stream.
pub fn influx(bytes: &[u8]) {
    read(Format::Line, bytes);
    stream(Format::Line, bytes);
}

/// JSON, as a payload and as a stream.
pub fn json(bytes: &[u8]) {
    read(Format::Json, bytes);
    stream(Format::Json, bytes);
}

/// A single value, or JSON where it looks like it.
pub fn single(bytes: &[u8]) {
    read(Format::Number, bytes);
    read(Format::Detect, bytes);
}

/// A table, with its header and with one that a rule gives.
pub fn replay(bytes: &[u8]) {
    read(Format::Csv, bytes);
}

thread_local! {
    // A folder of its own: files beside the log may be earlier ones.
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
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
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| {
            tempfile::tempdir().expect("the temporary folder can be written")
        });
        let path = folder.path().join("log");
        let written = std::fs::File::create(&path).and_then(|mut to| to.write_all(text));
        written.expect("the temporary folder can be written");
        let start = Cursor {
            major: number(0),
            // No file is longer.
            minor: number(8) >> 1,
            tag: number(16),
        };
        let how = How {
            from_start: true,
            rotate_wait_ms: 0,
        };
        let mut tail = Tail::new(&path, Some(start), how);
        let mut read = Vec::new();
        let mut reads = 0;
        while tail.read(Millis(0), &mut read).expect("the file is there") {
            reads += 1;
            assert!(reads <= text.len() + 2, "reading ends");
        }
        let mut before = start;
        for found in read {
            let cursor = match found {
                Found::Line(line, cursor) => {
                    assert!(line.len() <= MAX_LINE_BYTES);
                    cursor
                }
                Found::Gone(_, cursor) => Some(cursor),
            };
            if let Some(cursor) = cursor {
                assert!(cursor.covers(before));
                before = cursor;
            }
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
        epoch: Epoch::new(7),
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
    JournalRecord::Raw(head, bytes).encode(&mut record);
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
        r#"{"values":[{"id":"a","t":1795946400193,"v":NaN,"q":true},{"n":"b","u":"Cel","v":[1]}]}"#,
        r#"{"A":[{"ts":1795946400000,"values":{"t":"\u00e4\ud83d\ude00"}}],"a.b":1,"a":{"b":2}}"#,
        "[{\"time\":\"2026-11-29T09:00:00+01:00\"},\n{\"t\":oops}]\n{\"t\":1\n",
    ])
}

/// One value of each kind.
#[must_use]
pub fn single_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "-21.5e3",
        "9007199254740993\0",
        "true",
        "unavailable",
        "on",
        r#"{"t":1}"#,
    ])
}

/// A table of every type.
#[must_use]
pub fn replay_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "ts:ms,host:tag,on:bool,n:i64,x:f32,y:f64,s:str\n1700000000000,a,1,-5,1.5,2.5,text\n2,b,,,,,\n",
        "ts:us,v:f64\n1,nan\n2,-0\n",
        "time;t;s;x;on;n;host\n2026-11-29 09:00:00;1;\"a \"\"b\"\"\n\";2;true;3;h\n",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_line_of_a_stream_stays_within_its_memory() {
        let name = "n".repeat(MAX_METRIC_BYTES - 6);
        let most = (MAX_LINE_BYTES - 300) / 2;
        stream(
            Format::Json,
            format!("{{\"{name}\":[{}1]}}\n", "1,".repeat(most)).as_bytes(),
        );
        stream(
            Format::Line,
            format!("{name} {}b=1\n", "a=1,".repeat(most / 2)).as_bytes(),
        );
    }

    #[test]
    fn the_largest_payloads_stay_within_their_memory() {
        let name = "n".repeat(MAX_METRIC_BYTES - 6);
        let most = 256 * 1024;
        let fill = |piece: &str| piece.repeat(most / piece.len());
        json(format!("{{\"{name}\":[{}1]}}", "1,".repeat(MAX_VALUES - 3)).as_bytes());
        json(fill("{\"a\":[{\"id\":\"a\",\"v\":1,\"q\":1}]}").as_bytes());
        json(format!("{{\"a\":[{}1]}}", fill("{},")).as_bytes());
        influx(format!("{name} {}b=1", fill("aaa=1,")).as_bytes());
        influx(fill("m a=\"\n").as_bytes());
        replay(format!("a\n{}", fill(",")).as_bytes());
        single(fill("9").as_bytes());
    }
}
