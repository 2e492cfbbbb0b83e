//! Core: finds where the records of a text end, one byte at a time, so that a stream is scanned once.
//!
//! A record of line protocol ends with its line, unless a line feed stands in a text in quotes. A
//! message of JSON may span lines: it ends with the line on which its last bracket closes, and a
//! broken one ends where the next can only be a new one: at a line feed within a text, or before a
//! line that begins with a bracket where none may stand. A row of CSV ends with its line, unless a
//! line feed stands in a cell in quotes. Single values are not split.

use core::ops::Range;

use crate::{Format, Rules};

/// Where a record ends, as seen from one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Open,
    /// It ends with this byte.
    After,
    /// It ended before this byte, which begins the next.
    Before,
}

/// Finds the ends of records.
#[derive(Debug, Clone)]
pub struct Splitter {
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Whole,
    Line(Line),
    Json(Json),
    Csv(Csv),
}

impl Splitter {
    /// A splitter at the start of a record.
    #[must_use]
    pub const fn new(format: Format, rules: &Rules<'_>) -> Self {
        let state = match format {
            Format::Line => State::Line(Line::BEGIN),
            Format::Json => State::Json(Json::BEGIN),
            Format::Csv => State::Csv(Csv {
                delimiter: rules.delimiter,
                cell: Cell::Begin,
            }),
            Format::Number | Format::Detect => State::Whole,
        };
        Self { state }
    }

    /// Takes the next byte.
    pub fn push(&mut self, byte: u8) -> End {
        match &mut self.state {
            State::Whole => End::Open,
            State::Line(line) => line.push(byte),
            State::Json(json) => json.push(byte),
            State::Csv(csv) => csv.push(byte),
        }
    }

    /// Length of the first record in `bytes`, its line feed included; all of them if none ends.
    pub(crate) fn first_len(mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            match self.push(*byte) {
                End::Open => {}
                End::After => return at + 1,
                End::Before => return at,
            }
        }
        bytes.len()
    }
}

/// The records of a payload whose lines may be joined by quotes: line protocol and CSV.
///
/// Of a record that spans lines and is broken, only the first line is refused: a quote that was never
/// closed would otherwise swallow the good lines behind it. They are read again, and some bytes could
/// be read again and again: each line might open a text that ends far away. The bytes that are read in
/// vain are therefore bounded by the length of the payload; from then on each line is a record.
pub(crate) struct Records<'b> {
    splitter: Splitter,
    bytes: &'b [u8],
    /// Bytes that may yet be read in vain.
    patience: usize,
}

impl<'b> Records<'b> {
    pub(crate) const fn new(format: Format, rules: &Rules<'_>, bytes: &'b [u8]) -> Self {
        Self {
            splitter: Splitter::new(format, rules),
            bytes,
            patience: bytes.len(),
        }
    }

    /// The record that begins at `at`, its line feed included.
    pub(crate) fn next(&self, at: usize) -> Range<usize> {
        let rest = &self.bytes[at..];
        let feed = rest.iter().position(|byte| *byte == b'\n');
        let line = feed.map_or(rest.len(), |feed| feed + 1);
        if self.patience == 0 || !rest[..line].contains(&b'"') {
            return at..at + line;
        }
        at..at + self.splitter.clone().first_len(rest)
    }

    /// Takes note that `record` was read up to `next`, where the next one begins.
    pub(crate) fn done(&mut self, record: Range<usize>, next: usize) -> usize {
        self.patience = self.patience.saturating_sub(record.end - next);
        next
    }
}

/// The grammar of line protocol as far as it tells which quotes open a text.
#[derive(Debug, Clone, Copy)]
struct Line {
    at: LinePart,
    /// A backslash stands before the next byte.
    escaped: bool,
    /// Nothing of the present name has come yet.
    empty: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinePart {
    Begin,
    Measurement,
    TagKey,
    TagValue,
    Fields,
    FieldKey,
    ValueBegin,
    Value,
    Text,
    AfterText,
    /// A comment, a time, or a line that is broken: no quote matters.
    Rest,
}

impl LinePart {
    const fn is_name(self) -> bool {
        matches!(
            self,
            Self::Measurement | Self::TagKey | Self::TagValue | Self::FieldKey
        )
    }
}

impl Line {
    const BEGIN: Self = Self {
        at: LinePart::Begin,
        escaped: false,
        empty: true,
    };

    fn push(&mut self, byte: u8) -> End {
        if self.at == LinePart::Text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.at = LinePart::AfterText,
                _ => {}
            }
            return End::Open;
        }
        if byte == b'\n' {
            *self = Self::BEGIN;
            return End::After;
        }
        if core::mem::take(&mut self.escaped) && matches!(byte, b',' | b'=' | b' ') {
            return End::Open;
        }
        let next = match self.next(byte) {
            // A line with a control character in a name is broken.
            next if next.is_name() && byte.is_ascii_control() => LinePart::Rest,
            next => next,
        };
        let moved = next != self.at;
        if moved {
            self.empty = true;
            self.at = next;
        }
        let separates = moved && matches!(byte, b',' | b'=' | b' ');
        if next.is_name() && !separates {
            self.empty = false;
            self.escaped = byte == b'\\';
        }
        End::Open
    }

    fn next(&self, byte: u8) -> LinePart {
        use LinePart as P;
        match (self.at, byte) {
            (P::Begin, b' ' | b'\t' | b'\r') => P::Begin,
            (P::Begin, b'#' | b',') => P::Rest,
            (P::Begin, _) => P::Measurement,
            (P::Measurement, b',') => P::TagKey,
            (P::TagValue, b',') if !self.empty => P::TagKey,
            (P::Measurement, b' ') => P::Fields,
            (P::TagValue, b' ') if !self.empty => P::Fields,
            (P::TagKey, b'=') if !self.empty => P::TagValue,
            (P::Fields, b' ') => P::Fields,
            (P::FieldKey, b'=') if !self.empty => P::ValueBegin,
            (P::TagKey | P::Fields | P::FieldKey, b',' | b'=' | b' ') => P::Rest,
            (P::TagValue, b',' | b' ') => P::Rest,
            (P::Fields, _) => P::FieldKey,
            (P::ValueBegin, b'"') => P::Text,
            (P::ValueBegin | P::Value | P::AfterText, b',') => P::FieldKey,
            (P::ValueBegin | P::Value | P::AfterText, b' ') => P::Rest,
            (P::ValueBegin, _) => P::Value,
            (P::AfterText, _) => P::Rest,
            (same, _) => same,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Json {
    depth: u32,
    /// The innermost 64 brackets, the last in the lowest bit: 1 is an object.
    objects: u64,
    in_text: bool,
    escaped: bool,
    line_begins: bool,
    /// The last byte outside texts that is not blank.
    last: u8,
}

impl Json {
    const BEGIN: Self = Self {
        depth: 0,
        objects: 0,
        in_text: false,
        escaped: false,
        line_begins: true,
        last: 0,
    };

    fn push(&mut self, byte: u8) -> End {
        let line_begins = core::mem::replace(&mut self.line_begins, byte == b'\n');
        if byte == b'\n' && (self.in_text || self.depth == 0) {
            *self = Self::BEGIN;
            return End::After;
        }
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return End::Open;
        }
        let mut end = End::Open;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return End::Open,
            b'"' => self.in_text = true,
            b'{' | b'[' => {
                if line_begins && self.depth > 0 && !self.may_open() {
                    *self = Self::BEGIN;
                    self.line_begins = false;
                    end = End::Before;
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u64::from(byte == b'{');
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.objects >>= 1;
            }
            _ => {}
        }
        self.last = byte;
        end
    }

    /// Whether a bracket may open after what came last.
    const fn may_open(&self) -> bool {
        match self.last {
            b':' | b'[' => true,
            b',' => self.objects & 1 == 0,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Csv {
    delimiter: u8,
    cell: Cell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    Begin,
    Bare,
    Quoted,
    /// After a quote within quotes: the end, or the first half of two.
    Quote,
    /// Something follows a closing quote: the row is broken, and no quote matters.
    Broken,
}

impl Csv {
    fn push(&mut self, byte: u8) -> End {
        self.cell = match (self.cell, byte) {
            (Cell::Quoted, b'"') => Cell::Quote,
            (Cell::Quoted, _) => Cell::Quoted,
            (Cell::Begin | Cell::Quote, b'"') => Cell::Quoted,
            (_, b'\n') => {
                self.cell = Cell::Begin;
                return End::After;
            }
            (Cell::Broken, _) => Cell::Broken,
            (_, byte) if byte == self.delimiter => Cell::Begin,
            (Cell::Quote, b'\r') => Cell::Quote,
            (Cell::Quote, _) => Cell::Broken,
            _ => Cell::Bare,
        };
        End::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn records(format: Format, text: &str) -> Vec<&str> {
        let mut splitter = Splitter::new(format, &Rules::DEFAULT);
        let mut records = Vec::new();
        let mut start = 0;
        for (at, byte) in text.bytes().enumerate() {
            let end = match splitter.push(byte) {
                End::Open => continue,
                End::After => at + 1,
                End::Before => at,
            };
            records.push(&text[start..end]);
            start = end;
        }
        if start < text.len() {
            records.push(&text[start..]);
        }
        records
    }

    #[test]
    fn a_line_feed_in_quotes_ends_no_record_of_line_protocol() {
        let text = "a s=\"x\ny\",t=\"\\\"\n\" 1\nb v=2\n";
        assert_eq!(records(Format::Line, text), [&text[..20], "b v=2\n"]);
    }

    #[test]
    fn quotes_that_open_no_text_hold_no_line_back() {
        for line in [
            "a,size=12\" v=1\n",
            "\"a v=1\n",
            "a \"k=1\n",
            "a v=1\"\n",
            "a v=\"x\"y\"\n",
            "a v=1 \"\n",
            "# say \"x\n",
            "a, b=\"\n",
            "a,b= v=\"\n",
            "a,=c v=\"\n",
            "a ,v=\"\n",
            "a =\"\n",
            "a\\ b=\"\n",
            "a\tb c=\"\n",
        ] {
            let text = [line, "b v=2\n"].concat();
            assert_eq!(records(Format::Line, &text), [line, "b v=2\n"], "{line}");
        }
    }

    #[test]
    fn a_json_message_spans_lines_until_its_brackets_close() {
        let text = "{\n  \"a\": [\n{\"b\":\n{\"c\":\"}\\\"\"}},\n[1]\n]\n}\n{\"t\":1}\n\n[1,\n{\"t\":2}]\n";
        let end = text.find("{\"t\":1}").unwrap();
        assert_eq!(
            records(Format::Json, text),
            [&text[..end], "{\"t\":1}\n", "\n", "[1,\n{\"t\":2}]\n"]
        );
    }

    #[test]
    fn a_broken_json_message_ends_where_the_next_begins() {
        for broken in [
            "{\"t\":1\n",
            "{\"t\":1,\n",
            "{\"t\n",
            "[{\"t\":1}\n",
            "{\"t\":{\"u\":[1\n",
        ] {
            let text = [broken, "{\"t\":2}\n", "{\"t\":3}\n"].concat();
            assert_eq!(
                records(Format::Json, &text),
                [broken, "{\"t\":2}\n", "{\"t\":3}\n"]
            );
        }
    }

    #[test]
    fn a_line_feed_in_a_quoted_cell_ends_no_row() {
        let text = "1,\"a\nb\"\"\n\",2\n3,a\"b\n4,\"x\"\n";
        let end = text.find('3').unwrap();
        assert_eq!(
            records(Format::Csv, text),
            [&text[..end], "3,a\"b\n", "4,\"x\"\n"]
        );
    }

    proptest! {
        #[test]
        fn the_records_of_a_text_are_the_text(text in "[a{}\\[\\]\":,\\\\ \n=]{0,60}") {
            for format in [Format::Line, Format::Json, Format::Csv] {
                prop_assert_eq!(records(format, &text).concat(), text.clone());
            }
            let whole: String = records(Format::Number, &text).concat();
            prop_assert_eq!(whole, text);
        }
    }
}
