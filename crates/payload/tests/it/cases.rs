//! Cases from the field: the folder that `HEADWATER_CASES` names holds payloads as they were sent,
//! and the corpus of `influxdata/line-protocol-corpus`.

use std::path::PathBuf;

use headwater_payload::{Format, Rules, Tally, Unit};
use serde_json::Value as Json;

use crate::show;

/// The time of most cases in microseconds.
const AT: &str = "@1795946400000000";

#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HEADWATER_CASES").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: HEADWATER_CASES names no folder of cases");
    }
    folder
}

/// The file in the folder whose name begins with `name`.
fn file(folder: &str, name: &str) -> Option<Vec<u8>> {
    let folder = self::folder()?.join(folder);
    let entries = std::fs::read_dir(&folder).expect("the folder of cases can be read");
    let found = entries.map(|entry| entry.unwrap().path()).find(|path| {
        let file = path.file_name().unwrap().to_string_lossy();
        file.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('-'))
    });
    Some(std::fs::read(found.expect("the case is there")).unwrap())
}

fn tally(
    format: Format,
    rules: &Rules<'_>,
    kind: &str,
    name: &str,
) -> Option<(Vec<String>, Tally)> {
    Some(show::tally(format, rules, &file(kind, name)?))
}

#[track_caller]
fn assert_case(format: Format, kind: &str, name: &str, expected: &[&str], missing: u32) {
    let rules = Rules {
        metric: "temp",
        ..Rules::DEFAULT
    };
    if let Some((parts, tally)) = tally(format, &rules, kind, name) {
        assert_eq!(parts, expected, "{name}");
        assert_eq!(tally.missing, missing, "{name}");
    }
}

#[test]
fn json_over_mqtt() {
    let json = |name, expected: &[&str], missing| {
        assert_case(Format::Json, "mqtt", name, expected, missing);
    };
    let own = "@1795946400512000";
    json(
        "m01",
        &[
            &format!("0 temperature=22.5 {own}"),
            &format!("0 humidity=61.0 {own}"),
        ],
        0,
    );
    let at = "@1795939200000000";
    json(
        "m03",
        &[
            &format!("0 ENERGY.Total=1.185 {at}"),
            &format!("0 ENERGY.Power.0=17.0 {at}"),
            &format!("0 ENERGY.Power.1=3.0 {at}"),
            &format!("0 ENERGY.Voltage=236.0 {at}"),
            &format!("0 DS18B20.Id=\"0000AABBCCDD\" {at}"),
            &format!("0 DS18B20.Temperature=21.6 {at}"),
            &format!("0 TempUnit=\"C\" {at}"),
        ],
        0,
    );
    json(
        "m04",
        &[
            "0 Time=\"2018-10-23T22:19:48\"",
            "0 TempUnit=\"C\"",
            "0 ANALOG.A0=512.0",
        ],
        2,
    );
    json("m05", &["0 humidity=44.1", "0 rssi=-50.0"], 1);
    json("m06", &["0 t=21.5"], 0);
    json(
        "m09",
        &[
            r#"refused $["a.b"]: two values of one name: \"a.b\":1"#,
            r#"refused $.a.b: two values of one name: \"b\":2"#,
            "0 c=3.0",
        ],
        0,
    );
    json("m10", &[], 2);
    json("m11", &["0 t=1.0", "1 t=2.0"], 0);
    json("m12", &["0 t=1.0"], 0);
    let at = "@1795946400193000";
    json(
        "m13a",
        &[
            &format!("0 Line1.Temp{{q=true}}=7.0 {at}"),
            &format!("0 Line1.MSN{{q=true}}=\"A1\" {at}"),
        ],
        0,
    );
    json(
        "m21",
        &[
            "refused $.u: neither a double nor a signed 64-bit integer holds this number: \
           \\\"u\\\":18446744073709551615",
        ],
        0,
    );
    json(
        "m25",
        &[r#"refused line 1, column 10: not UTF-8: {\"ort\":\"K\xfcche\",\"t\":21.5}"#],
        0,
    );
}

#[test]
fn json_of_a_gateway_for_several_devices() {
    let rules = Rules {
        devices: true,
        ..Rules::DEFAULT
    };
    if let Some((parts, _)) = tally(Format::Json, &rules, "mqtt", "m14") {
        let expected = [
            format!("0 Device A: temperature=42.0 {AT}"),
            format!("1 Device B: temperature=50.0 {AT}"),
        ];
        assert_eq!(parts, expected);
    }
}

#[test]
fn single_values_over_mqtt() {
    let number = |name, expected: &[&str], missing| {
        assert_case(Format::Number, "mqtt", name, expected, missing);
    };
    number("m07", &["0 temp=21.5"], 0);
    number("m19", &["0 temp=9007199254740993i"], 0);
    number("m22", &[], 1);
    assert_case(
        Format::Detect,
        "mqtt",
        "m23",
        &["0 temperature=21.5", "0 ok=true"],
        0,
    );
}

#[test]
fn line_protocol() {
    let line = |name, expected: &[&str]| assert_case(Format::Line, "line", name, expected, 0);
    line(
        "l01",
        &[&format!("0 logs.message=\"Hey!\\nhow are you?\" {AT}")],
    );
    line("l03", &["0 screen.v{size=12\"}=1.0"]);
    line("l05", &[]);
    line("l06", &[&format!("0 weather.temp=1.0 {AT}")]);
    line(
        "l07",
        &[
            "0 m.v=1.0",
            "refused line 2, column 3: not a number, a truth value or a text in quotes: v=oops",
            "1 m.v=3.0",
        ],
    );
    line("l08", &["0 cpu=1.0"]);
    line(
        "l11",
        &[
            r#"refused line 1, column 24: text after the closing quote: cpu,host=a value=\"test\"\""#,
        ],
    );
    line(
        "l12",
        &["refused line 1, column 13: a time before 1970 is impossible: cpu value=1 -1"],
    );
}

#[test]
fn files_and_lines_of_an_agent() {
    let json = |name, expected: &[&str]| assert_case(Format::Json, "agent", name, expected, 0);
    json("a01", &["0 boiler=20.0", "1 boiler=20.5", "2 boiler=30.0"]);
    json(
        "a04",
        &["0 coretemp-isa-0000.Package id 0.temp1_input=48.0"],
    );
    let csv = |name, expected: &[&str]| assert_case(Format::Csv, "agent", name, expected, 0);
    csv(
        "a05",
        &[
            &format!("0 temp=21.5 {AT}"),
            &format!("0 name=\"Hall, north\" {AT}"),
            "1 temp=22.5 @1795946401000000",
            "1 name=\"plain\" @1795946401000000",
        ],
    );
    csv(
        "a06",
        &[
            &format!("0 temp=21.5 {AT}"),
            "refused line 3, column 2 (temp): not a number: n/a",
            "1 temp=23.0 @1795946402000000",
        ],
    );
}

#[test]
fn long_texts_are_whole() {
    let Some(text) = file("agent", "a02") else {
        return;
    };
    let parts = show::parts(Format::Json, &Rules::DEFAULT, &text);
    let lines = std::str::from_utf8(&text).unwrap().lines().enumerate();
    let expected: Vec<_> = lines
        .flat_map(|(row, line)| {
            let line: Json = serde_json::from_str(line).unwrap();
            let name = if row == 0 { "room" } else { "hall" };
            [
                format!("{row} {name}=19.5"),
                format!("{row} msg={}", line["msg"]),
            ]
        })
        .collect();
    assert_eq!(parts, expected);
}

/// Standard Base64.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => u32::from(byte - b'A'),
        b'a'..=b'z' => u32::from(byte - b'a') + 26,
        b'0'..=b'9' => u32::from(byte - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0, |bits, byte| bits << 6 | digit(*byte));
        let bits = bits << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

/// A point of the corpus in the words of these tests: its fields, or refusals where our rules are
/// stricter, which are times before 1970 and integers above an `i64`.
fn expected(point: &Json, row: usize) -> Vec<String> {
    let mut tags: Vec<_> = point["tags"].as_array().unwrap().iter().collect();
    tags.sort_by_key(|tag| tag["key"].as_str().unwrap());
    let tags: Vec<_> = tags
        .iter()
        .map(|tag| {
            format!(
                "{}={}",
                tag["key"].as_str().unwrap(),
                tag["value"].as_str().unwrap()
            )
        })
        .collect();
    let nanos = point["time"].as_i64().unwrap();
    if nanos < 0 {
        return vec!["refused".to_owned()];
    }
    let measurement = point["name"].as_str().unwrap();
    let fields = point["fields"].as_array().unwrap().iter().map(|field| {
        let (kind, value) = field["value"].as_object().unwrap().iter().next().unwrap();
        let value = match kind.as_str() {
            "float" => format!("{:?}", value.as_f64().unwrap()),
            "int" => format!("{value}i"),
            "uint" if value.as_i64().is_none() => return "refused".to_owned(),
            "uint" => format!("{value}i"),
            "bool" => value.to_string(),
            _ => format!("{:?}", value.as_str().unwrap()),
        };
        let name = match field["key"].as_str().unwrap() {
            "value" => measurement.to_owned(),
            key => format!("{measurement}.{key}"),
        };
        format!("{row} {name} {tags:?} {value} {}", nanos / 1000)
    });
    fields.collect()
}

/// The parts that are read, in the same words.
fn seen(text: &[u8], default_us: i64) -> Vec<String> {
    use headwater_payload::{Part, read};
    let rules = Rules {
        precision: Some(Unit::Nanos),
        ..Rules::DEFAULT
    };
    let mut seen = Vec::new();
    read(Format::Line, &rules, text, &mut |part| {
        let Part::Sample(sample) = part else {
            return seen.push("refused".to_owned());
        };
        let mut tags = sample.tags.to_vec();
        tags.sort_unstable();
        let tags: Vec<_> = tags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let time = sample.time.map_or(default_us, |time| time.0);
        let (row, metric, value) = (sample.row, sample.metric, show::value(sample.value));
        // The corpus does not keep the sign of a zero.
        let value = if value == "-0.0" {
            "0.0".to_owned()
        } else {
            value
        };
        seen.push(format!("{row} {metric} {tags:?} {value} {time}"));
    });
    seen
}

#[test]
fn the_corpus_of_line_protocol() {
    let Some(folder) = folder() else { return };
    let corpus = std::fs::read_to_string(folder.join("line/corpus.jsonl")).unwrap();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for line in corpus.lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let text = match case["text"].as_str() {
            Some(text) => text.as_bytes().to_vec(),
            None => decode(case["text"]["binary"].as_str().unwrap()),
        };
        let seen = seen(
            &text,
            case["default_time_ns"].as_i64().unwrap().div_euclid(1000),
        );
        let right = match case["points"].as_array() {
            None => seen.iter().any(|part| part == "refused"),
            Some(points) => {
                let rows = points.iter().enumerate();
                let expected: Vec<_> = rows.flat_map(|(row, point)| expected(point, row)).collect();
                seen == expected
            }
        };
        if !right {
            wrong.push(format!("{}\n  gives {seen:?}", line));
        }
        cases += 1;
    }
    assert!(cases > 400, "{cases} cases");
    assert!(
        wrong.is_empty(),
        "{} of {cases}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
