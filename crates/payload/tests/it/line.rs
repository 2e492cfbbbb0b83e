//! Line protocol.

use headwater_payload::{Format, Rules, Unit};

use crate::show;

fn parts(text: &str) -> Vec<String> {
    let rules = Rules {
        precision: Some(Unit::Nanos),
        ..Rules::DEFAULT
    };
    show::parts(Format::Line, &rules, text.as_bytes())
}

#[test]
fn a_line_gives_its_fields_with_tags_types_and_time() {
    let line = r#"room,floor=2,name=a\ b t=21.5,n=3i,u=4u,on=T,s="x, \"y\"\\" 1700000000123456789"#;
    assert_eq!(
        parts(line),
        [
            "0 room.t{floor=2,name=a b}=21.5 @1700000000123456",
            "0 room.n{floor=2,name=a b}=3i @1700000000123456",
            "0 room.u{floor=2,name=a b}=4i @1700000000123456",
            "0 room.on{floor=2,name=a b}=true @1700000000123456",
            r#"0 room.s{floor=2,name=a b}="x, \"y\"\\" @1700000000123456"#,
        ]
    );
}

#[test]
fn a_field_called_value_has_the_name_of_its_measurement() {
    assert_eq!(parts("cpu value=1"), ["0 cpu=1.0"]);
}

#[test]
fn each_line_is_a_row_and_blank_lines_and_comments_are_nothing() {
    let (parts, tally) = show::tally(
        Format::Line,
        &Rules::DEFAULT,
        b"# x \"\n\n  m a=1,b=2\r\n\t \nm a=3\n#",
    );
    assert_eq!(parts, ["0 m.a=1.0", "0 m.b=2.0", "1 m.a=3.0"]);
    assert_eq!((tally.rows, tally.missing), (2, 0));
}

#[test]
fn a_line_feed_within_quotes_is_part_of_the_text() {
    assert_eq!(
        parts("logs m=\"a\nb\"\nlogs m=\"c\""),
        [r#"0 logs.m="a\nb""#, r#"1 logs.m="c""#]
    );
}

#[test]
fn a_quote_within_a_tag_is_a_character() {
    assert_eq!(parts("screen,size=12\" v=1"), ["0 screen.v{size=12\"}=1.0"]);
}

#[test]
fn a_value_that_cannot_be_read_costs_its_field_alone() {
    assert_eq!(
        parts("m a=1,b=oops,c=,d=9223372036854775808u,e=1.5i,f=1e999,g=2"),
        [
            "0 m.a=1.0",
            "refused line 1, column 7: not a number, a truth value or a text in quotes: b=oops",
            "refused line 1, column 14: the field's value is missing: c=",
            "refused line 1, column 17: neither a double nor a signed 64-bit integer holds this \
             number: d=9223372036854775808u",
            "refused line 1, column 40: not a number, a truth value or a text in quotes: e=1.5i",
            "refused line 1, column 47: neither a double nor a signed 64-bit integer holds this \
             number: f=1e999",
            "0 m.g=2.0",
        ]
    );
}

#[test]
fn a_line_whose_series_or_time_is_in_doubt_is_refused_as_a_whole() {
    for (line, fault) in [
        ("m", "column 2: the field is missing"),
        (",a=1 f=1", "column 1: the measurement is missing"),
        ("m,a f=1", "column 4: the tag's value is missing"),
        ("m,a= f=1", "column 5: the tag's value is missing"),
        ("m,=1 f=1", "column 3: the tag's key is missing"),
        ("m,a=1,a=2 f=1", "column 7: two tags of one key"),
        (
            "m,a=\t f=1",
            "column 5: a control character in a name or tag",
        ),
        ("m f", "column 4: the field's value is missing"),
        ("m =1", "column 3: the field's name is missing"),
        ("m f=1,", "column 7: the field's name is missing"),
        ("m f=\"x", "column 5: the closing quote is missing"),
        ("m f=\"x\"\"", "column 8: text after the closing quote"),
        ("m f=1 x", "column 7: not a time in whole units since 1970"),
        (
            "m f=1 1.5",
            "column 7: not a time in whole units since 1970",
        ),
        (
            "m f=1 1 1",
            "column 7: not a time in whole units since 1970",
        ),
        ("m f=1 -1", "column 7: a time before 1970 is impossible"),
    ] {
        assert_eq!(
            parts(line),
            [format!(
                "refused line 1, {fault}: {}",
                line.escape_default()
            )]
        );
    }
}

#[test]
fn a_bad_line_costs_no_other() {
    assert_eq!(
        parts("m v=1\nm v\nm v=3"),
        [
            "0 m.v=1.0",
            "refused line 2, column 4: the field's value is missing: m v",
            "1 m.v=3.0"
        ]
    );
    let not_text = b"m v=1\nm v=\xff\nm v=3";
    assert_eq!(
        show::parts(Format::Line, &Rules::DEFAULT, not_text),
        [
            "0 m.v=1.0",
            r"refused line 2, column 5: not UTF-8: m v=\xff",
            "1 m.v=3.0"
        ]
    );
}

#[test]
fn a_quote_that_is_not_closed_costs_its_line_alone() {
    assert_eq!(
        parts("m s=\"a\nm v=1\nm v=2\n"),
        [
            r#"refused line 1, column 5: the closing quote is missing: m s=\"a"#,
            "0 m.v=1.0",
            "1 m.v=2.0"
        ]
    );
    // The next quote closes it, and nothing sensible follows.
    assert_eq!(
        parts("m s=\"a\nm v=1\nm s=\"b\"\n"),
        [
            r#"refused line 1, column 5: the closing quote is missing: m s=\"a"#,
            "0 m.v=1.0",
            r#"1 m.s="b""#
        ]
    );
}

#[test]
fn two_values_of_one_field_refuse_each_other() {
    assert_eq!(
        parts("m a=1,b=2,a=3"),
        [
            "refused line 1, column 3: two values of one name: a=1",
            "0 m.b=2.0",
            "refused line 1, column 11: two values of one name: a=3",
        ]
    );
}

#[test]
fn numbers_that_are_missing_are_counted_and_no_samples() {
    let (parts, tally) = show::tally(Format::Line, &Rules::DEFAULT, b"m a=NaN,b=-inf,c=null,d=1");
    assert_eq!(parts, ["0 m.d=1.0"]);
    assert_eq!(tally.missing, 3);
}

#[test]
fn a_time_without_a_rule_tells_its_unit_by_its_magnitude() {
    let read = |line: &str| show::parts(Format::Line, &Rules::DEFAULT, line.as_bytes());
    for time in [
        "1795946400",
        "1795946400000",
        "1795946400000000",
        "1795946400000000000",
    ] {
        assert_eq!(
            read(&format!("m v=1 {time}")),
            ["0 m.v=1.0 @1795946400000000"]
        );
    }
    assert_eq!(
        read("m v=1 5"),
        [
            "refused line 1, column 7: not a time between 2000 and 2100, in seconds, milliseconds, \
          microseconds or nanoseconds: m v=1 5"
        ]
    );
}

#[test]
fn a_rule_gives_the_unit_of_times() {
    for (unit, expected) in [
        (Unit::Seconds, 5_000_000),
        (Unit::Millis, 5000),
        (Unit::Micros, 5),
        (Unit::Nanos, 0),
    ] {
        let rules = Rules {
            precision: Some(unit),
            ..Rules::DEFAULT
        };
        let parts = show::parts(Format::Line, &rules, b"m v=1 5");
        assert_eq!(parts, [format!("0 m.v=1.0 @{expected}")]);
    }
}

#[test]
fn each_sample_knows_the_line_on_which_its_row_begins() {
    use headwater_payload::{Part, Reader};
    for (format, text, expected) in [
        (
            Format::Line,
            "\n# x\nm s=\"a\nb\"\nm v=1,u=x\n",
            vec![9, 11],
        ),
        (
            Format::Json,
            "\n{\"a\":1}\n\n{\"a\":\n2,\"b\":x}[{\"a\":1},\n{\"a\":2}]",
            vec![8, 10, 11, 12],
        ),
        (Format::Csv, "a,b\n1,\"x\ny\"\n\n2,z\n", vec![8, 8, 11, 11]),
        (Format::Number, "\n\n5", vec![9]),
    ] {
        let mut lines = Vec::new();
        Reader::new(format, Rules::DEFAULT).read_from(7, text.as_bytes(), &mut |part| {
            if let Part::Sample(sample) = part {
                lines.push(sample.line);
            }
        });
        assert_eq!(lines, expected, "{format:?}");
    }
}
