//! CSV.

use headwater_payload::csv::Table;
use headwater_payload::{Format, Rules, TimeFormat, TimeRule, Zone};

use crate::show;

fn parts(text: &str) -> Vec<String> {
    show::parts(Format::Csv, &Rules::DEFAULT, text.as_bytes())
}

#[test]
fn a_typed_header_gives_each_cell_its_type() {
    let text = "ts:ms,origin:tag,temp:f64,n:i64,on:bool,gust:f32,s:str\n5,EWR,39.02,,1,1.5,a b\r\n";
    assert_eq!(
        parts(text),
        [
            "0 temp{origin=EWR}=39.02 @5000",
            "0 on{origin=EWR}=true @5000",
            "0 gust{origin=EWR}=1.5f32 @5000",
            r#"0 s{origin=EWR}="a b" @5000"#,
        ]
    );
}

#[test]
fn a_header_without_types_finds_the_time_and_reads_cells_as_they_look() {
    let text = "time,t,mode,ok,big,none\n2026-11-29T08:20:00Z,21,auto,true,9007199254740993,\n";
    let (parts, tally) = show::tally(Format::Csv, &Rules::DEFAULT, text.as_bytes());
    assert_eq!(
        parts,
        [
            "0 t=21.0 @1795940400000000",
            r#"0 mode="auto" @1795940400000000"#,
            "0 ok=true @1795940400000000",
            "0 big=9007199254740993i @1795940400000000",
        ]
    );
    assert_eq!(tally.missing, 1);
}

#[test]
fn a_rule_gives_header_separator_prefix_and_time() {
    let rules = Rules {
        header: Some("when;t"),
        delimiter: b';',
        prefix: "mill",
        time: TimeRule::Key {
            name: "when",
            format: TimeFormat::Rfc3339,
            zone: Zone::parse("+01:00"),
        },
        ..Rules::DEFAULT
    };
    assert_eq!(
        show::parts(Format::Csv, &rules, b"2026-11-29 09:20:00;21,5\n"),
        [r#"0 mill.t="21,5" @1795940400000000"#]
    );
}

#[test]
fn quotes_hold_separators_line_feeds_and_quotes() {
    let text =
        "ts:ms,name:str,t:f64\n1,\"Hall, north\",21.5\n2,\"a \"\"b\"\"\nc\",\"22.5\"\n3,\"\",1\n";
    assert_eq!(
        parts(text),
        [
            r#"0 name="Hall, north" @1000"#,
            "0 t=21.5 @1000",
            r#"1 name="a \"b\"\nc" @2000"#,
            "1 t=22.5 @2000",
            r#"2 name="" @3000"#,
            "2 t=1.0 @3000",
        ]
    );
}

#[test]
fn a_cell_that_cannot_be_read_costs_itself_alone() {
    let text = "ts:ms,a:f64,b:bool,c:i64,d:f64,e:f64\n1,n/a,yes,1.5,9007199254740993,2\n";
    assert_eq!(
        parts(text),
        [
            "refused line 2, column 2 (a): not a number: n/a",
            "refused line 2, column 3 (b): not 0, 1, true or false: yes",
            "refused line 2, column 4 (c): not a whole number of 64 bits: 1.5",
            "refused line 2, column 5 (d): neither a double nor a signed 64-bit integer holds this \
             number: 9007199254740993",
            "0 e=2.0 @1000",
        ]
    );
}

#[test]
fn a_row_of_unsure_time_or_alignment_is_refused_as_a_whole_and_costs_no_other() {
    let text = "ts:ms,a:i64\nx,1\n-1,1\n,1\n2\n3,1,1\n4,\"1\"x\n5,\"1\n\n6,1\n";
    assert_eq!(
        parts(text),
        [
            "refused line 2, column 1 (ts): not a Unix time: x,1",
            "refused line 3, column 1 (ts): a time before 1970 is impossible: -1,1",
            "refused line 4, column 1 (ts): not a Unix time: ,1",
            "refused line 5, column 1: the row has 1 cells, the header 2 columns: 2",
            "refused line 6, column 1: the row has 3 cells, the header 2 columns: 3,1,1",
            r#"refused line 7, column 6: text after the closing quote: 4,\"1\"x"#,
            r#"refused line 8, column 3: the closing quote is missing: 5,\"1"#,
            "0 a=1i @6000",
        ]
    );
    let not_text = b"ts:ms,a:str\n1,\xff\n2,x\n";
    assert_eq!(
        show::parts(Format::Csv, &Rules::DEFAULT, not_text),
        [
            r"refused line 2, column 3: not UTF-8: 1,\xff",
            r#"0 a="x" @2000"#
        ]
    );
}

#[test]
fn a_header_that_makes_no_sense_is_refused_with_its_column() {
    for (header, fault) in [
        (
            "ts:ms,x:f16",
            "column 2 of the header: the header's column has an unknown type",
        ),
        (
            "ts:ms,",
            "column 2 of the header: the header's column has no name",
        ),
        (
            "ts:ms,a,t:us",
            "column 3 of the header: the header's column is a second time",
        ),
        (
            "a,b:str,a:f64",
            "column 3 of the header: the header's column repeats the name of another",
        ),
        (
            "a,\"b",
            "column 2 of the header: the closing quote is missing",
        ),
    ] {
        let error = Table::parse(header.as_bytes(), &Rules::DEFAULT).unwrap_err();
        assert_eq!(error.to_string(), fault);
    }
    assert_eq!(
        parts("a,a\n1,2\n"),
        [
            r"refused line 1, column 2 (header): the header's column repeats the name of another: a,a\n1,2"
        ]
    );
}

#[test]
fn rows_are_read_apart_from_their_header() {
    let table = Table::parse(b"ts:us,v:i64\n", &Rules::DEFAULT).unwrap();
    assert!(table.has_time());
    let mut seen = Vec::new();
    let tally = table.read(b"1,2\n3,x", 7, &mut |part| seen.push(show::part(&part)));
    assert_eq!(
        seen,
        [
            "0 v=2i @1",
            "refused line 8, column 2 (v): not a whole number of 64 bits: x"
        ]
    );
    assert_eq!((tally.samples, tally.refused, tally.rows), (1, 1, 1));
}
