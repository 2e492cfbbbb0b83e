//! Single values, and payloads that may be one.

use headwater_payload::{Format, Rules};

use crate::show;

fn parts(payload: &[u8]) -> Vec<String> {
    let rules = Rules {
        metric: "temp",
        ..Rules::DEFAULT
    };
    show::parts(Format::Number, &rules, payload)
}

#[test]
fn a_payload_is_a_number_a_truth_value_or_a_text() {
    assert_eq!(parts(b" 21.5\r\n"), ["0 temp=21.5"]);
    assert_eq!(parts(b"21"), ["0 temp=21.0"]);
    assert_eq!(parts(b"+5"), ["0 temp=5.0"]);
    assert_eq!(parts(b"9007199254740993"), ["0 temp=9007199254740993i"]);
    assert_eq!(parts(b"false"), ["0 temp=false"]);
    assert_eq!(parts(b"on\nor off"), [r#"0 temp="on\nor off""#]);
}

#[test]
fn marks_and_zero_bytes_around_a_value_are_cut() {
    assert_eq!(parts(b"\xef\xbb\xbf21.5\0\0"), ["0 temp=21.5"]);
}

#[test]
fn a_value_that_is_missing_is_counted_and_no_text() {
    for payload in [
        "",
        " \n",
        "None",
        "null",
        "NaN",
        "-Infinity",
        "unavailable",
        "Unknown",
    ] {
        let (parts, tally) = show::tally(Format::Number, &Rules::DEFAULT, payload.as_bytes());
        assert_eq!((parts.len(), tally.missing), (0, 1), "{payload:?}");
    }
}

#[test]
fn a_number_that_nothing_holds_and_bytes_that_are_no_text_are_refused() {
    assert_eq!(
        parts(b"18446744073709551615"),
        [
            "refused the payload: neither a double nor a signed 64-bit integer holds this number: \
          18446744073709551615"
        ]
    );
    assert_eq!(
        parts(b"21\xb0"),
        [r"refused line 1, column 3: not UTF-8: 21\xb0"]
    );
}

#[test]
fn a_value_without_a_name_is_called_value() {
    assert_eq!(
        show::parts(Format::Number, &Rules::DEFAULT, b"1"),
        ["0 value=1.0"]
    );
}

#[test]
fn a_payload_that_begins_like_json_is_read_as_json_if_the_rule_leaves_it_open() {
    let detect = |payload: &[u8]| show::parts(Format::Detect, &Rules::DEFAULT, payload);
    assert_eq!(detect(b" {\"a\":1}"), ["0 a=1.0"]);
    assert_eq!(detect(b"[ {\"a\":1}]"), ["0 a=1.0"]);
    assert_eq!(detect(b"[offline]"), [r#"0 value="[offline]""#]);
    assert_eq!(detect(b"21.5"), ["0 value=21.5"]);
}
