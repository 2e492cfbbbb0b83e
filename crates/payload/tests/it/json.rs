//! JSON.

use headwater_payload::{Format, Rules};

use crate::show;

fn parts(text: &str) -> Vec<String> {
    show::parts(Format::Json, &Rules::DEFAULT, text.as_bytes())
}

#[test]
fn each_value_of_an_object_is_a_sample_named_by_its_way() {
    let text = r#"{"t":21,"ok":true,"mode":"auto","in":{"hum":40.5,"max":[1,[2]]},"e":{},"f":[]}"#;
    assert_eq!(
        parts(text),
        [
            "0 t=21.0",
            "0 ok=true",
            r#"0 mode="auto""#,
            "0 in.hum=40.5",
            "0 in.max.0=1.0",
            "0 in.max.1.0=2.0",
        ]
    );
}

#[test]
fn a_prefix_stands_before_each_name() {
    let rules = Rules {
        prefix: "mill",
        ..Rules::DEFAULT
    };
    assert_eq!(
        show::parts(Format::Json, &rules, br#"{"a":{"b":1}}"#),
        ["0 mill.a.b=1.0"]
    );
}

#[test]
fn missing_values_are_counted_and_cost_no_other() {
    let text = r#"{"a":null,"b":NaN,"c":nan,"d":Infinity,"e":-Infinity,"f":-inf,"g":1,"h":[null]}"#;
    let (parts, tally) = show::tally(Format::Json, &Rules::DEFAULT, text.as_bytes());
    assert_eq!(parts, ["0 g=1.0"]);
    assert_eq!((tally.missing, tally.rows), (7, 1));
}

#[test]
fn messages_that_hold_nothing_are_nothing() {
    for text in ["", " \n", "{}", "[]", "{}\n[ ]\n", "[{}]", "{\"a\":{}}"] {
        let (parts, tally) = show::tally(Format::Json, &Rules::DEFAULT, text.as_bytes());
        assert_eq!(
            (parts.len(), tally.missing, tally.rows),
            (0, 0, 0),
            "{text}"
        );
    }
    let (parts, tally) = show::tally(Format::Json, &Rules::DEFAULT, b"null\n[null]");
    assert_eq!((parts.len(), tally.missing), (0, 2));
}

#[test]
fn several_messages_are_several_rows_and_so_are_the_elements_of_an_array() {
    assert_eq!(
        parts("{\"t\":1}\n{\"t\":2} {\"t\":3}\r\n\n[{\"t\":4},{\"t\":5}]\n"),
        ["0 t=1.0", "1 t=2.0", "2 t=3.0", "3 t=4.0", "4 t=5.0"]
    );
}

#[test]
fn a_message_may_span_lines() {
    assert_eq!(
        parts("{\n  \"a\": {\n    \"b\": 48.000\n  }\n}\n"),
        ["0 a.b=48.0"]
    );
}

#[test]
fn a_value_that_cannot_be_read_is_refused_alone() {
    assert_eq!(
        parts(r#"{"a":oops,"b":01,"c":18446744073709551615,"d":"\q","e":"\ud83d","f":"x"}"#),
        [
            r#"refused $.a: not a JSON value: \"a\":oops"#,
            r#"refused $.b: not a JSON value: \"b\":01"#,
            "refused $.c: neither a double nor a signed 64-bit integer holds this number: \
             \\\"c\\\":18446744073709551615",
            r#"refused $.d: not a valid JSON text: \"d\":\"\\q\""#,
            r#"refused $.e: not a valid JSON text: \"e\":\"\\ud83d\""#,
            r#"0 f="x""#,
        ]
    );
}

#[test]
fn escapes_in_texts_and_names_are_read() {
    assert_eq!(
        parts(r#"{"\u00e4\n":"\"\\\/\b\f\r\t\ud83d\ude00 ü"}"#),
        ["0 ä\n=\"\\\"\\\\/\\u{8}\\u{c}\\r\\t😀 ü\""]
    );
}

#[test]
fn a_nested_name_and_a_dotted_one_that_meet_refuse_each_other_and_not_the_message() {
    assert_eq!(
        parts(r#"{"a.b":1,"a":{"b":2},"c":3,"d":[4],"d.0":5,"e":6,"e":7,"f":null,"f":8}"#),
        [
            r#"refused $["a.b"]: two values of one name: \"a.b\":1"#,
            r#"refused $.a.b: two values of one name: \"b\":2"#,
            "0 c=3.0",
            "refused $.d[0]: two values of one name: 4",
            r#"refused $["d.0"]: two values of one name: \"d.0\":5"#,
            r#"refused $.e: two values of one name: \"e\":6"#,
            r#"refused $.e: two values of one name: \"e\":7"#,
            "0 f=8.0",
        ]
    );
}

#[test]
fn a_message_whose_structure_is_broken_is_refused_as_a_whole_and_costs_no_other() {
    for (broken, fault) in [
        (
            r#"{"t":21.5"#,
            "column 10: not JSON: ',' or '}' is expected",
        ),
        (
            r#"{"t":21.5,"hum"#,
            "column 15: not JSON: a closing quote is expected",
        ),
        (r#"{"t" 1}"#, "column 6: not JSON: ':' is expected"),
        (
            r#"{"t":1 "u":2}"#,
            "column 8: not JSON: ',' or '}' is expected",
        ),
        (r#"{"t":}"#, "column 6: not JSON: a value is expected"),
        (
            r#"{"t":1,}"#,
            "column 8: not JSON: a name in quotes is expected",
        ),
        (
            r#"{t:1}"#,
            "column 2: not JSON: a name in quotes is expected",
        ),
        (r#"{"t":[1}"#, "column 8: not JSON: ',' or ']' is expected"),
        (r#"}"#, "column 1: not JSON: a value is expected"),
        (
            r#"oops"#,
            "column 1: neither a JSON object nor an array of objects",
        ),
        (
            r#"3"#,
            "column 1: neither a JSON object nor an array of objects",
        ),
    ] {
        let text = format!("{{\"t\":1}}\n{broken}\n{{\"t\":2}}\n");
        let expected = [
            "0 t=1.0".to_owned(),
            format!("refused line 2, {fault}: {}", broken.escape_default()),
            "1 t=2.0".to_owned(),
        ];
        let seen = parts(&text);
        // A message that is cut off is noticed at the next one.
        let place = |part: &String| part.replace("line 3, column 1:", "line 2, column 10:");
        assert_eq!(
            seen.iter().map(place).collect::<Vec<_>>(),
            expected,
            "{broken}"
        );
    }
}

#[test]
fn of_a_broken_array_the_elements_before_the_break_are_kept() {
    assert_eq!(
        parts("[{\"t\":1},{\"t\":2,{\"t\":3}]\n{\"t\":4}"),
        [
            "0 t=1.0",
            r#"refused line 1, column 17: not JSON: a name in quotes is expected: {\"t\":2,{\"t\":3}]"#,
            "1 t=4.0",
        ]
    );
    assert_eq!(
        parts("[{\"t\":1}"),
        [
            "0 t=1.0",
            "refused line 1, column 9: not JSON: ',' or ']' is expected: "
        ]
    );
    assert_eq!(
        parts("[{\"t\":1},[2],3,null,{\"t\":4}]"),
        [
            "0 t=1.0",
            "refused line 1, column 10: neither a JSON object nor an array of objects: [2]",
            "refused line 1, column 14: neither a JSON object nor an array of objects: 3",
            "1 t=4.0",
        ]
    );
}

#[test]
fn bytes_that_are_not_utf_8_refuse_their_row_alone() {
    let text = b"{\"t\":1}\n{\"ort\":\"K\xfcche\",\"t\":21.5}\n[{\"t\":2},{\"\xfc\":1},{\"t\":3}]";
    assert_eq!(
        show::parts(Format::Json, &Rules::DEFAULT, text),
        [
            "0 t=1.0",
            r#"refused line 2, column 10: not UTF-8: {\"ort\":\"K\xfcche\",\"t\":21.5}"#,
            "1 t=2.0",
            r#"refused line 3, column 12: not UTF-8: {\"\xfc\":1}"#,
            "2 t=3.0",
        ]
    );
}

#[test]
fn elements_that_carry_a_name_and_a_value_are_named_by_it_and_never_by_position() {
    let one =
        r#"{"values":[{"id":"a","t":1795946400193,"v":7,"q":true},{"id":"b","v":"x","q":true}]}"#;
    let other =
        r#"{"values":[{"q":true,"v":"x","id":"b"},{"v":7,"q":true,"t":1795946400193,"id":"a"}]}"#;
    let mut expected = ["0 a{q=true}=7.0 @1795946400193000", r#"1 b{q=true}="x""#];
    assert_eq!(parts(one), expected);
    expected = [r#"0 b{q=true}="x""#, "1 a{q=true}=7.0 @1795946400193000"];
    assert_eq!(parts(other), expected);
    assert_eq!(
        parts(
            r#"{"s":[{"n":"t","u":"Cel","v":1,"min":0},{"name":"p","value":2},{"tag":3,"vb":true}]}"#
        ),
        [
            "0 s.t=1.0 [Cel]",
            "0 s.t.min=0.0",
            "0 s.p=2.0",
            "0 s.3=true"
        ]
    );
    assert_eq!(
        parts(r#"[{"metric":"cpu","timestamp":1795946400,"value":18},{"metric":"mem","x":4}]"#),
        [
            "0 cpu=18.0 @1795946400000000",
            r#"1 metric="mem""#,
            "1 x=4.0"
        ]
    );
    // An object that stands alone has no position that its name would replace.
    assert_eq!(
        parts(r#"{"name":"t","value":1}"#),
        [r#"0 name="t""#, "0 value=1.0"]
    );
}

#[test]
fn an_element_without_its_value_is_missing_and_others_go_by_index() {
    let text = r#"{"s":[{"id":"a","v":1},{"id":"b"},{"x":2},3],"u":[{"id":"a"}]}"#;
    let (parts, tally) = show::tally(Format::Json, &Rules::DEFAULT, text.as_bytes());
    assert_eq!(
        parts,
        ["0 s.a=1.0", "0 s.2.x=2.0", "0 s.3=3.0", r#"0 u.0.id="a""#]
    );
    assert_eq!(tally.missing, 1);
}

#[test]
fn two_elements_of_one_name_are_two_samples_if_time_or_tags_differ() {
    let text = r#"{"s":[{"id":"a","v":1,"t":1795946400},{"id":"a","v":2,"t":1795946401},
        {"id":"b","v":3,"q":1},{"id":"b","v":4,"q":2},{"id":"c","v":5},{"id":"c","v":6},
        {"id":"d","v":7,"v":8}]}"#;
    assert_eq!(
        parts(text),
        [
            "0 s.a=1.0 @1795946400000000",
            "1 s.a=2.0 @1795946401000000",
            "2 s.b{q=1}=3.0",
            "3 s.b{q=2}=4.0",
            r#"refused $.s[4].v: two values of one name: \"v\":5"#,
            r#"refused $.s[5].v: two values of one name: \"v\":6"#,
            r#"refused $.s[6].v: two values of one name: \"v\":7"#,
            r#"refused $.s[6].v: two values of one name: \"v\":8"#,
        ]
    );
}

#[test]
fn values_adds_nothing_to_names_unless_a_rule_keeps_it() {
    let text = br#"{"values":{"t":1},"x":{"values":{"u":2}},"y":{"values":3},"z":{"values":[4]}}"#;
    assert_eq!(
        show::parts(Format::Json, &Rules::DEFAULT, text),
        ["0 t=1.0", "0 x.u=2.0", "0 y.values=3.0", "0 z.values.0=4.0"]
    );
    let rules = Rules {
        keep_values: true,
        ..Rules::DEFAULT
    };
    assert_eq!(
        show::parts(Format::Json, &rules, text),
        [
            "0 values.t=1.0",
            "0 x.values.u=2.0",
            "0 y.values=3.0",
            "0 z.values.0=4.0"
        ]
    );
}

#[test]
fn tags_beside_values_become_tags_where_a_rule_names_them() {
    let rules = Rules {
        tags: Some("tags"),
        ..Rules::DEFAULT
    };
    let read = |text: &str| show::parts(Format::Json, &rules, text.as_bytes());
    assert_eq!(
        read(r#"{"tags":{"floor":2,"ok":true,"gone":null,"a":"b"},"t":1}"#),
        ["0 t{floor=2,ok=true,a=b}=1.0"]
    );
    // Those of an inner object come on top of the outer ones.
    assert_eq!(
        read(r#"{"tags":{"a":"1","b":"2"},"s":[{"id":"x","v":1,"tags":{"a":"3"}}],"t":4}"#),
        ["0 s.x{a=3,b=2}=1.0", "1 t{a=1,b=2}=4.0"]
    );
    assert_eq!(
        read(r#"{"tags":{"a":[1]},"t":1}"#),
        [
            r#"refused $.tags.a: not a text, a number or a truth value: {\"tags\":{\"a\":[1]},\"t\":1}"#
        ]
    );
    assert_eq!(
        read(r#"{"tags":{"a":1,"a":2},"t":1}"#),
        [r#"refused $.tags.a: two tags of one key: {\"tags\":{\"a\":1,\"a\":2},\"t\":1}"#]
    );
    assert_eq!(read(r#"{"tags":"x","t":1}"#), [r#"0 tags="x""#, "0 t=1.0"]);
    let without = show::parts(Format::Json, &Rules::DEFAULT, br#"{"tags":{"a":1}}"#);
    assert_eq!(without, ["0 tags.a=1.0"]);
}

#[test]
fn the_members_of_a_message_by_devices_are_devices() {
    let rules = Rules {
        devices: true,
        ..Rules::DEFAULT
    };
    let text =
        r#"{"Device A":[{"ts":1795946400000,"values":{"t":42}},{"t":1}],"B":{"t":50},"C":5,"":{}}"#;
    assert_eq!(
        show::parts(Format::Json, &rules, text.as_bytes()),
        [
            "0 Device A: t=42.0 @1795946400000000",
            "1 Device A: t=1.0",
            "2 B: t=50.0",
            r#"refused $.C: neither a JSON object nor an array of objects: \"C\":5"#,
            "refused $[\"\"]: a device id has 1 to 128 bytes without control characters: \\\"\\\":{}",
        ]
    );
}
