//! Every bound is reached, and anything beyond it is refused.

use headwater_payload::csv::{MAX_COLUMNS, Table};
use headwater_payload::{
    Format, MAX_DEPTH, MAX_DEVICE_BYTES, MAX_KEPT_BYTES, MAX_METRIC_BYTES, MAX_PLACE_BYTES,
    MAX_TAG_BYTES, MAX_TAGS, MAX_VALUES, Reader, Rules,
};

use crate::show;

fn read(format: Format, text: &str) -> Vec<String> {
    show::parts(format, &Rules::DEFAULT, text.as_bytes())
}

/// `MAX_VALUES` samples and their last, and then a refusal of the row that begins with `rest`.
fn assert_cut(format: Format, text: &str, rest: &str) {
    let parts = read(format, text);
    let (last, samples) = parts.split_last().unwrap();
    assert_eq!(samples.len(), MAX_VALUES);
    assert!(samples.iter().all(|part| !part.starts_with("refused")));
    let begin = last.split_once("more than 16384 values: ").unwrap().1;
    assert!(begin.starts_with(rest), "{last:.100}");
}

#[test]
fn a_payload_gives_so_many_parts_and_the_rest_is_one_refusal() {
    let (lines, rows) = ("m v=1\n".repeat(MAX_VALUES), "1\n".repeat(MAX_VALUES));
    let messages = "{\"t\":1}\n".repeat(MAX_VALUES);
    assert_eq!(read(Format::Line, &lines).len(), MAX_VALUES);
    assert_eq!(read(Format::Json, &messages).len(), MAX_VALUES);
    assert_eq!(
        read(Format::Csv, &["v\n", &rows].concat()).len(),
        MAX_VALUES
    );
    assert_cut(
        Format::Line,
        &[&lines, "n v=2\nn v=3"].concat(),
        "n v=2\\nn v=3",
    );
    assert_cut(
        Format::Json,
        &[&messages, "{\"u\":2}\n{}"].concat(),
        r#"{\"u\":2}\n{}"#,
    );
    assert_cut(Format::Csv, &["v\n", &rows, "2\n3\n"].concat(), "2\\n3");
    let elements = vec!["{\"t\":1}"; MAX_VALUES + 1].join(",");
    assert_cut(Format::Json, &format!("[{elements}]"), r#"{\"t\":1}]"#);
}

#[test]
fn refusals_count_as_parts() {
    let parts = read(Format::Line, &"m v=x\n".repeat(MAX_VALUES + 2));
    assert_eq!(parts.len(), MAX_VALUES + 1);
    assert!(parts[MAX_VALUES].contains("more than 16384 values: m v=x\\nm v=x"));
    let parts = read(Format::Json, &"x\n".repeat(MAX_VALUES + 2));
    assert_eq!(parts.len(), MAX_VALUES + 1);
}

#[test]
fn a_row_of_more_values_is_refused_as_a_whole() {
    let fields = |count: usize| {
        let fields: Vec<_> = (0..count).map(|k| format!("f{k}=1")).collect();
        format!("m {}", fields.join(","))
    };
    assert_eq!(read(Format::Line, &fields(MAX_VALUES)).len(), MAX_VALUES);
    let parts = read(Format::Line, &fields(MAX_VALUES + 1));
    assert!(parts.len() == 1 && parts[0].contains("more than 16384 values"));
    // The object and the array are values, too.
    let array = |count: usize| format!("{{\"a\":[{}]}}\n{{\"b\":2}}", vec!["1"; count].join(","));
    assert_eq!(
        read(Format::Json, &array(MAX_VALUES - 2)).len(),
        MAX_VALUES - 1
    );
    let parts = read(Format::Json, &array(MAX_VALUES - 1));
    assert!(parts.len() == 2 && parts[0].contains("more than 16384 values"));
    assert_eq!(parts[1], "0 b=2.0");
}

#[test]
fn json_nests_so_deep_and_what_lies_deeper_is_refused_alone() {
    let nested = |depth: usize| {
        let (open, close) = ("{\"a\":".repeat(depth - 1), "}".repeat(depth - 1));
        format!("{{\"b\":2,\"a\":{}1{close}}}", &open)
    };
    let way = ["a"; MAX_DEPTH].join(".");
    assert_eq!(
        read(Format::Json, &nested(MAX_DEPTH)),
        ["0 b=2.0", &format!("0 {way}=1.0")]
    );
    assert_eq!(
        read(Format::Json, &nested(MAX_DEPTH + 1)),
        [
            "0 b=2.0".to_owned(),
            format!(
                "refused $.{way}: nested deeper than 8 objects and arrays: \\\"a\\\":{{\\\"a\\\":1}}"
            ),
        ]
    );
    let abyss = format!(
        "{{\"b\":2,\"a\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(read(Format::Json, &abyss).len(), 2);
    let endless = "[".repeat(100_000);
    assert_eq!(read(Format::Json, &endless).len(), 1);
}

#[test]
fn a_name_is_so_long_and_a_longer_one_refuses_its_value_alone() {
    let (most, more) = (
        "n".repeat(MAX_METRIC_BYTES),
        "n".repeat(MAX_METRIC_BYTES + 1),
    );
    let refusal = "a name of 256 bytes; 1 to 255 are taken";
    for (format, long, longer) in [
        (
            Format::Json,
            format!("{{\"{most}\":1,\"b\":2}}"),
            format!("{{\"{more}\":1,\"b\":2}}"),
        ),
        (
            Format::Json,
            format!("{{\"n\":{{\"{}\":1}},\"b\":2}}", &most[2..]),
            format!("{{\"n\":{{\"{}\":1}},\"b\":2}}", &most[1..]),
        ),
        (
            Format::Line,
            format!("m {}=1,b=2", &most[2..]),
            format!("m {}=1,b=2", &most[1..]),
        ),
    ] {
        assert!(
            read(format, &long)
                .iter()
                .all(|part| !part.contains("refused"))
        );
        let parts = read(format, &longer);
        assert!(parts.len() == 2 && parts[0].contains(refusal), "{parts:?}");
    }
    // An object with too long a name is refused once, not for each of its values.
    assert_eq!(
        read(Format::Json, &format!("{{\"{more}\":{{\"a\":1,\"b\":2}}}}")).len(),
        1
    );
    assert!(read(Format::Json, r#"{"":1}"#)[0].contains("a name of 0 bytes"));
    assert_eq!(read(Format::Line, &format!("{most} value=1")).len(), 1);
    assert!(read(Format::Line, &format!("{more} value=1"))[0].contains(refusal));
    assert!(Table::parse(most.as_bytes(), &Rules::DEFAULT).is_ok());
    assert!(Table::parse(more.as_bytes(), &Rules::DEFAULT).is_err());
    let named = |metric| {
        show::parts(
            Format::Number,
            &Rules {
                metric,
                ..Rules::DEFAULT
            },
            b"1",
        )
    };
    assert!(!named(&most)[0].contains("refused") && named(&more)[0].contains(refusal));
}

#[test]
fn a_tag_is_so_long_and_a_longer_one_refuses_its_row() {
    let (most, more) = ("t".repeat(MAX_TAG_BYTES), "t".repeat(MAX_TAG_BYTES + 1));
    let rules = Rules {
        tags: Some("tags"),
        ..Rules::DEFAULT
    };
    for (key, value, taken) in [
        (&most, &most, true),
        (&more, &most, false),
        (&most, &more, false),
    ] {
        let line = read(Format::Line, &format!("m,{key}={value} v=1"));
        assert_eq!(line[0].starts_with("0 m.v"), taken);
        let json = format!("{{\"tags\":{{\"{key}\":\"{value}\"}},\"v\":1}}");
        let json = show::parts(Format::Json, &rules, json.as_bytes());
        assert_eq!((json.len(), json[0].starts_with("0 v")), (1, taken));
    }
    assert!(read(Format::Csv, &format!("a:tag,v\n{most},1"))[0].starts_with("0 v"));
    assert!(
        read(Format::Csv, &format!("a:tag,v\n{more},1"))[0].contains("a tag of 1 and 256 bytes")
    );
    // A quality or a unit that is too long for its place stays a value.
    let long = read(
        Format::Json,
        &format!("[{{\"s\":[{{\"id\":\"a\",\"v\":1,\"q\":\"{more}\",\"u\":\"{more}\"}}]}}]"),
    );
    assert_eq!(long.len(), 3);
}

#[test]
fn a_row_has_so_many_tags_and_one_of_more_is_refused() {
    let rules = Rules {
        tags: Some("tags"),
        ..Rules::DEFAULT
    };
    for (count, taken) in [(MAX_TAGS, true), (MAX_TAGS + 1, false)] {
        let tags = |pair: fn(usize) -> String| (0..count).map(pair).collect::<Vec<_>>().join(",");
        let line = read(
            Format::Line,
            &format!("m,{} v=1", tags(|k| format!("t{k}=x"))),
        );
        assert_eq!(line[0].starts_with("0 m.v"), taken);
        let json = format!(
            "{{\"tags\":{{{}}},\"v\":1}}",
            tags(|k| format!("\"t{k}\":1"))
        );
        let json = show::parts(Format::Json, &rules, json.as_bytes());
        assert_eq!(json[0].starts_with("0 v"), taken);
        let header = format!("v,{}", tags(|k| format!("t{k}:tag")));
        assert_eq!(
            Table::parse(header.as_bytes(), &Rules::DEFAULT).is_ok(),
            taken
        );
    }
    let most: Vec<_> = (0..MAX_TAGS).map(|k| format!("\"t{k}\":1")).collect();
    let full = format!(
        "{{\"tags\":{{{}}},\"s\":[{{\"id\":\"a\",\"v\":1,\"q\":1}}]}}",
        most.join(",")
    );
    let parts = show::parts(Format::Json, &rules, full.as_bytes());
    assert!(
        parts.len() == 2 && parts[1].contains("s.a.q"),
        "no room for the quality as a tag"
    );
}

#[test]
fn a_table_has_so_many_columns() {
    let names = |count: usize| {
        (0..count)
            .map(|k| k.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let most = names(MAX_COLUMNS);
    assert_eq!(
        read(Format::Csv, &[&most, "\n", &most].concat()).len(),
        MAX_COLUMNS
    );
    let error = Table::parse(names(MAX_COLUMNS + 1).as_bytes(), &Rules::DEFAULT).unwrap_err();
    assert!(error.to_string().contains("is one too many"));
    let wide = read(Format::Csv, &["a\n", &",".repeat(100_000)].concat());
    assert!(wide[0].contains("the row has 100001 cells"));
}

#[test]
fn a_device_id_is_so_long() {
    let rules = Rules {
        devices: true,
        ..Rules::DEFAULT
    };
    for (len, taken) in [(MAX_DEVICE_BYTES, true), (MAX_DEVICE_BYTES + 1, false)] {
        let text = format!("{{\"{}\":{{\"t\":1}}}}", "d".repeat(len));
        let parts = show::parts(Format::Json, &rules, text.as_bytes());
        assert_eq!(parts[0].starts_with("0 d"), taken);
    }
    let parts = show::parts(Format::Json, &rules, br#"{"a\u0007":{"t":1}}"#);
    assert!(parts[0].contains("without control characters"));
}

#[test]
fn the_way_to_a_member_is_shown_so_far() {
    let place = |len: usize| {
        let parts = read(Format::Json, &format!("{{\"{}\":x}}", "ü".repeat(len)));
        let place = parts[0].split(':').next().unwrap();
        place.strip_prefix("refused ").unwrap().to_owned()
    };
    let fits = (MAX_PLACE_BYTES - 2) / 2;
    assert_eq!(place(fits).len(), MAX_PLACE_BYTES);
    let cut = place(fits + 1);
    assert!(cut.ends_with('…') && cut.len() <= MAX_PLACE_BYTES, "{cut}");
    assert_eq!(place(10_000), cut);
}

#[test]
fn lines_are_read_in_vain_only_so_far() {
    // Each line opens a text, ends within it, and takes one that is open for closed in between.
    let line = "m a=b\",c=d\"e,f=\"\n";
    let text = [&line.repeat(200), "m s=\"a\nb\"\n"].concat();
    let parts = read(Format::Line, &text);
    // The payload's own length was spent, so line feeds within texts are the ends of lines by now.
    let last = r#"refused line 201, column 5: the closing quote is missing: m s=\"a"#;
    assert_eq!(parts[parts.len() - 2], last);
    let few = read(Format::Line, &[line, "m s=\"a\nb\"\n"].concat());
    assert_eq!(few.last().unwrap(), r#"0 m.s="a\nb""#);
    let line = "a\",b\"c,\"\n";
    let csv = ["x,y,z\n", &line.repeat(200), "1,2,\"a\nb\"\n"].concat();
    let parts = read(Format::Csv, &csv);
    assert!(parts[parts.len() - 2].contains("the closing quote is missing: 1,2"));
}

#[test]
fn a_reader_keeps_so_much_memory_and_no_more() {
    for (format, some, more) in [
        (
            Format::Line,
            "m a=1".to_owned(),
            format!("m {}", ["a=1"; 4000].join(",")),
        ),
        (
            Format::Json,
            r#"{"a":1}"#.to_owned(),
            format!("{{\"a\":[{}]}}", ["1"; 4000].join(",")),
        ),
        (
            Format::Csv,
            "a\n1".to_owned(),
            format!("a\n{}", "x".repeat(MAX_KEPT_BYTES + 1)),
        ),
    ] {
        let mut reader = Reader::new(format, Rules::DEFAULT);
        reader.read(some.as_bytes(), &mut |_| {});
        assert!((1..=MAX_KEPT_BYTES).contains(&reader.kept_bytes()));
        reader.read(more.as_bytes(), &mut |_| {});
        assert_eq!(reader.kept_bytes(), 0, "{format:?}");
    }
}
