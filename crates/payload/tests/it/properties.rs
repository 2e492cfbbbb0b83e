//! Properties of all payloads.

use headwater_payload::{End, Format, MAX_METRIC_BYTES, Part, Reader, Rules, Splitter, Unit, read};
use headwater_proto::sample::Value;
use proptest::prelude::*;

use crate::show;

const FORMATS: [Format; 5] = [
    Format::Line,
    Format::Json,
    Format::Number,
    Format::Csv,
    Format::Detect,
];

fn rules() -> Rules<'static> {
    Rules {
        tags: Some("tags"),
        ..Rules::DEFAULT
    }
}

/// Bytes of which grammars are made, so that more than the first of them is looked at.
fn grammar() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "=",
        " ",
        "\n",
        "\r",
        "#",
        "a",
        "b",
        "id",
        "v",
        "ts",
        "values",
        "tags",
        "q",
        "u",
        "1",
        "-",
        ".",
        "5",
        "e",
        "null",
        "nan",
        "true",
        "\\u00",
        "1795946400",
        "\"a\":",
        "\"b\":1",
        "\u{fc}",
        "\"id\":\"x\"",
        "\"v\":2",
        "m a=1",
        ";",
        "\"\"",
    ]);
    prop_oneof![
        prop::collection::vec(words, 0..60).prop_map(|words| words.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..60),
    ]
}

/// As bytes that come through the splitter, record by record.
fn split(format: Format, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut splitter = Splitter::new(format, &rules());
    let mut records = vec![Vec::new()];
    for byte in bytes {
        let end = splitter.push(*byte);
        if end == End::Before {
            records.push(Vec::new());
        }
        records.last_mut().unwrap().push(*byte);
        if end == End::After {
            records.push(Vec::new());
        }
    }
    records
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_give_rows_in_order_and_values_in_bounds(bytes in grammar()) {
        for format in FORMATS {
            let mut last: Option<(u32, String)> = None;
            let mut samples = 0;
            let tally = read(format, &rules(), &bytes, &mut |part| match part {
                Part::Sample(sample) => {
                    samples += 1;
                    assert!((1..=MAX_METRIC_BYTES).contains(&sample.metric.len()));
                    if let Value::F64(value) = sample.value {
                        assert!(value.is_finite());
                    }
                    let row = format!("{:?} {:?} {:?}", sample.device, sample.time, sample.tags);
                    match &last {
                        Some((number, same)) if *number == sample.row => assert_eq!(*same, row),
                        Some((number, _)) => assert_eq!(number + 1, sample.row),
                        None => assert_eq!(sample.row, 0),
                    }
                    last = Some((sample.row, row));
                }
                Part::Refused(refused) => {
                    assert!(!refused.place.to_string().is_empty());
                    let from = refused.bytes.as_ptr() as usize;
                    let whole = bytes.as_ptr_range();
                    let within = (whole.start as usize..=whole.end as usize).contains(&from);
                    assert!(within || refused.bytes.is_empty());
                }
            });
            prop_assert_eq!(tally.samples, samples);
            prop_assert_eq!(tally.rows, last.map_or(0, |(row, _)| row + 1));
        }
    }

    #[test]
    fn a_reader_that_is_used_again_reads_the_same(first in grammar(), second in grammar()) {
        for format in FORMATS {
            let mut reader = Reader::new(format, rules());
            reader.read(&first, &mut |_| {});
            let mut parts = Vec::new();
            reader.read(&second, &mut |part| parts.push(show::part(&part)));
            prop_assert_eq!(parts, show::parts(format, &rules(), &second));
        }
    }

    #[test]
    fn records_of_a_stream_give_what_they_give_together(bytes in grammar()) {
        // A mark before a payload and zero bytes behind it are cut off, and those of each record would be.
        let bytes: Vec<u8> = bytes.into_iter().filter(|byte| !matches!(byte, 0 | 0xef)).collect();
        for format in [Format::Line, Format::Json] {
            let mut apart = Vec::new();
            for record in split(format, &bytes) {
                let parts = show::parts(format, &rules(), &record);
                apart.extend(parts.into_iter().map(|part| without_numbers(&part)));
            }
            let together = show::parts(format, &rules(), &bytes);
            let together: Vec<_> = together.iter().map(|part| without_numbers(part)).collect();
            prop_assert_eq!(apart, together, "{:?}", format);
        }
    }

    #[test]
    fn lines_that_are_written_by_the_rules_are_read_back(
        measurement in "[a-z][a-z ,=]{0,8}[a-z]", key in "[a-z ,=]{1,8}[a-z]",
        tag in "[a-z ,=\"]{1,8}[a-z]", field in "[a-z\"]{1,8}", number in proptest::num::f64::NORMAL,
        whole: i64, text in "[a-z\" ,\n\\\\]{0,12}", second in 946_684_800i64..4_102_444_800,
    ) {
        prop_assume!(!["value", "i", "s"].contains(&&*field));
        let escape = |text: &str, special: &[char]| -> String {
            let escaped = text.chars().flat_map(|c| {
                special.contains(&c).then_some('\\').into_iter().chain([c])
            });
            escaped.collect()
        };
        let names = [',', '=', ' '];
        let line = format!(
            "{},{}={} {}={number:?},i={whole}i,s=\"{}\" {second}",
            escape(&measurement, &[',', ' ']), escape(&key, &names), escape(&tag, &names),
            escape(&field, &names), escape(&text, &['"', '\\']),
        );
        let at = second * 1_000_000;
        let name = |field: &str| format!("0 {measurement}.{field}{{{key}={tag}}}");
        prop_assert_eq!(
            show::parts(Format::Line, &Rules::DEFAULT, line.as_bytes()),
            [
                format!("{}={number:?} @{at}", name(&field)),
                format!("{}={whole}i @{at}", name("i")),
                format!("{}={text:?} @{at}", name("s")),
            ]
        );
        let rules = Rules { precision: Some(Unit::Seconds), ..Rules::DEFAULT };
        prop_assert_eq!(show::parts(Format::Line, &rules, line.as_bytes()).len(), 3);
    }

    #[test]
    fn json_that_another_writer_wrote_is_read_back(
        numbers in prop::collection::btree_map("[a-z]{1,3}[0-9]", proptest::num::f64::NORMAL, 0..8),
        text: String, whole: i64,
    ) {
        let mut object = serde_json::Map::new();
        for (name, number) in &numbers {
            object.insert(name.clone(), (*number).into());
        }
        object.insert("text".into(), text.clone().into());
        object.insert("whole".into(), whole.into());
        let written = serde_json::to_string_pretty(&object).unwrap();
        let mut seen = Vec::new();
        read(Format::Json, &Rules::DEFAULT, written.as_bytes(), &mut |part| {
            let Part::Sample(sample) = part else { panic!("{}", show::part(&part)) };
            seen.push((sample.metric.to_owned(), show::value(sample.value)));
        });
        let double = whole as f64;
        let exact = if format!("{double:.0}") == whole.to_string() {
            show::value(Value::F64(double))
        } else {
            show::value(Value::I64(whole))
        };
        let mut expected: Vec<_> = numbers
            .iter()
            .map(|(name, number)| (name.clone(), show::value(Value::F64(*number))))
            .collect();
        expected.push(("text".into(), show::value(Value::Str(&text))));
        expected.push(("whole".into(), exact));
        expected.sort();
        seen.sort();
        prop_assert_eq!(seen, expected);
    }
}

/// A part without its row and its place, which count anew in each record, and without the blanks at
/// its end, which are cut off from the last record of a payload alone.
fn without_numbers(part: &str) -> String {
    match part.strip_prefix("refused ") {
        Some(refused) => {
            let mut text = refused.split_once(": ").unwrap().1;
            while let Some(rest) = [" ", "\\n", "\\r", "\\t"]
                .iter()
                .find_map(|b| text.strip_suffix(b))
            {
                text = rest;
            }
            text.to_owned()
        }
        None => part.split_once(' ').unwrap().1.to_owned(),
    }
}
