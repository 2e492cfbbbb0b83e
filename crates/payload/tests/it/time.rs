//! Where the time of JSON stands.

use headwater_payload::{Format, Rules, TimeFormat, TimeRule, Unit, Zone};

use crate::show;

const AT: i64 = 1_795_946_400_512_000;

fn parts(time: TimeRule<'_>, text: &str) -> Vec<String> {
    let rules = Rules {
        time,
        ..Rules::DEFAULT
    };
    show::parts(Format::Json, &rules, text.as_bytes())
}

fn auto(text: &str) -> Vec<String> {
    parts(TimeRule::Auto, text)
}

const fn key(name: &str, format: TimeFormat) -> TimeRule<'_> {
    TimeRule::Key {
        name,
        format,
        zone: None,
    }
}

#[test]
fn a_member_that_is_called_and_reads_like_a_time_is_the_time_and_no_metric() {
    for member in [
        r#""ts":1795946400.512"#,
        r#""time":1795946400512"#,
        r#""timestamp":1795946400512000"#,
        r#""Time":"2026-11-29T11:00:00.512+01:00""#,
        r#""datetime":"1795946400512000000""#,
        r#""date_time":"2026-11-29T10:00:00.512Z""#,
        r#""ts_s":1795946400.512"#,
        r#""ts_ms":1795946400512"#,
        r#""timestamp_us":1795946400512000"#,
        r#""time_ns":1795946400512000000"#,
    ] {
        assert_eq!(
            auto(&format!("{{\"t\":1,{member}}}")),
            [format!("0 t=1.0 @{AT}")],
            "{member}"
        );
    }
}

#[test]
fn a_member_that_does_not_read_like_a_time_stays_a_value() {
    for (member, expected) in [
        (r#""ts":5"#, "0 ts=5.0"),
        (r#""ts_ms":1795946400"#, "0 ts_ms=1795946400.0"),
        (
            r#""time":"2026-11-29T10:00:00""#,
            r#"0 time="2026-11-29T10:00:00""#,
        ),
        (r#""times":1795946400"#, "0 times=1795946400.0"),
        (r#""t":1795946400"#, "0 t=1795946400.0"),
    ] {
        assert_eq!(auto(&format!("{{{member}}}")), [expected]);
    }
}

#[test]
fn the_first_of_several_times_counts_and_two_of_one_name_refuse_the_row() {
    assert_eq!(
        auto(r#"{"time":1795946401,"ts":1795946400.512,"t":1}"#),
        [
            format!("0 time=1795946401.0 @{AT}"),
            format!("0 t=1.0 @{AT}")
        ]
    );
    let twice = r#"{"ts":1795946400,"ts":1795946401}"#;
    assert_eq!(
        auto(twice),
        [format!(
            "refused $.ts: two values of one name: {}",
            twice.escape_default()
        )]
    );
}

#[test]
fn a_time_holds_for_the_object_it_stands_in() {
    // Beside `values`, also within another object; elsewhere a nested time is a value.
    assert_eq!(
        auto(r#"{"a":{"ts":1795946400.512,"values":{"t":1}},"b":{"ts":1795946400,"t":2},"c":3}"#),
        [
            format!("0 a.t=1.0 @{AT}"),
            "1 b.ts=1795946400.0".to_owned(),
            "1 b.t=2.0".to_owned(),
            "1 c=3.0".to_owned(),
        ]
    );
    // In each element of an array, which may lie in the message or be the message.
    assert_eq!(
        auto(r#"{"a":[{"ts":1795946400.512,"t":1},{"t":2}],"ts":1795946401}"#),
        [
            format!("0 a.0.t=1.0 @{AT}"),
            "1 a.1.t=2.0 @1795946401000000".to_owned(),
        ]
    );
    assert_eq!(
        auto(r#"[{"ts":1795946400.512,"t":1},{"t":2}]"#),
        [format!("0 t=1.0 @{AT}"), "1 t=2.0".to_owned()]
    );
}

#[test]
fn a_rule_names_the_time_and_its_format() {
    let millis = TimeFormat::Unix(Unit::Millis);
    assert_eq!(
        parts(key("when", millis), r#"{"when":"5","t":1}"#),
        ["0 t=1.0 @5000"]
    );
    assert_eq!(
        parts(key("sys.unix", millis), r#"{"sys":{"unix":5,"up":7}}"#),
        ["0 sys.up=7.0 @5000"]
    );
    // The rule stands for the automatic one, and a message without that member has no time.
    assert_eq!(
        parts(key("when", millis), r#"{"ts":1795946400,"when":null}"#),
        ["0 ts=1795946400.0"]
    );
    assert_eq!(
        parts(TimeRule::Ignore, r#"{"ts":1795946400}"#),
        ["0 ts=1795946400.0"]
    );
}

#[test]
fn a_time_that_a_rule_names_and_nobody_can_read_refuses_its_row() {
    let text = r#"[{"at":"noon","t":1},{"at":"2026-11-29T10:00:00.512Z","t":2},{"at":{},"t":3}]"#;
    assert_eq!(
        parts(key("at", TimeFormat::Rfc3339), text),
        [
            r#"refused $[0].at: not a time of RFC 3339 with its offset: {\"at\":\"noon\",\"t\":1}"#
                .to_owned(),
            format!("0 t=2.0 @{AT}"),
            r#"refused $[2].at: not a time: {\"at\":{},\"t\":3}"#.to_owned(),
        ]
    );
    assert_eq!(
        parts(key("at", TimeFormat::Auto), r#"{"at":-1}"#),
        [r#"refused $.at: a time before 1970 is impossible: {\"at\":-1}"#]
    );
}

#[test]
fn a_zone_dates_times_without_offset() {
    let rule = TimeRule::Key {
        name: "Time",
        format: TimeFormat::Auto,
        zone: Zone::parse("+01:00"),
    };
    assert_eq!(
        parts(rule, r#"{"Time":"2026-11-29T11:00:00.512","t":1}"#),
        [format!("0 t=1.0 @{AT}")]
    );
}
