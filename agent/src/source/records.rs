//! Core: cuts a stream into records of a bounded length.
//!
//! A line of line protocol or a row of CSV goes on beyond a line feed while a quote is open, and a JSON
//! message while a bracket is. A quote or bracket that nobody closes must not hold back what follows:
//! a record that passes its bound, or waits for too long, is given as the lines that it is.

use headwater_payload::{End, Format, Splitter};

/// A piece of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record<'a> {
    /// One record, or the lines of one that was given up.
    Whole(&'a [u8]),
    /// The beginning of one that is too long; the rest of it is passed over.
    TooLong(&'a [u8]),
}

/// Whoever takes records, with the number of the line on which each begins.
pub type Take<'a> = dyn FnMut(u64, Record<'_>) + 'a;

/// The cutter.
#[derive(Debug)]
pub struct Records {
    format: Format,
    fresh: Splitter,
    splitter: Splitter,
    /// What has come of the present record.
    buffer: Vec<u8>,
    /// Longest record in bytes.
    most: usize,
    /// Number of the line on which the present record begins.
    line: u64,
    /// The present record is too long, and its rest is passed over.
    skipping: bool,
}

impl Records {
    /// A cutter at the start of a stream.
    ///
    /// - `fresh`: a splitter of its format at the start of a record.
    /// - `most`: longest record in bytes.
    #[must_use]
    pub fn new(format: Format, fresh: Splitter, most: usize) -> Self {
        Self {
            format,
            splitter: fresh.clone(),
            fresh,
            buffer: Vec::new(),
            most,
            line: 1,
            skipping: false,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8], take: &mut Take<'_>) {
        let mut start = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let end = if self.skips_line() {
                // In the midst of a line a quote means nothing.
                match byte {
                    b'\n' => at + 1,
                    _ => continue,
                }
            } else {
                match self.splitter.push(*byte) {
                    End::Open => continue,
                    End::After => at + 1,
                    End::Before => at,
                }
            };
            self.finish(&bytes[start..end], take);
            start = end;
        }
        if self.skipping {
            self.pass_over(&bytes[start..]);
            return;
        }
        self.buffer.extend_from_slice(&bytes[start..]);
        if self.buffer.len() > self.most {
            self.cut(take);
        }
    }

    /// The stream has ended: whatever is left of it is a record.
    pub fn end(&mut self, take: &mut Take<'_>) {
        if !self.buffer.is_empty() {
            self.finish(&[], take);
        }
        self.skipping = false;
        self.splitter = self.fresh.clone();
    }

    /// The line on which the present record begins, if it has passed the end of that line.
    #[must_use]
    pub fn spans_from(&self) -> Option<u64> {
        self.buffer.contains(&b'\n').then_some(self.line)
    }

    /// Gives the lines of the present record that have come, and goes on with the line behind them.
    pub fn give_up(&mut self, take: &mut Take<'_>) {
        let Some(feed) = self.buffer.iter().rposition(|byte| *byte == b'\n') else {
            return;
        };
        let buffer = std::mem::take(&mut self.buffer);
        let (lines, rest) = buffer.split_at(feed + 1);
        take(self.line, Record::Whole(lines));
        self.pass_over(lines);
        self.splitter = self.fresh.clone();
        self.push(rest, take);
    }

    /// The present record is longer than any may be.
    fn cut(&mut self, take: &mut Take<'_>) {
        if self.format != Format::Json && self.spans_from().is_some() {
            return self.give_up(take);
        }
        let buffer = std::mem::take(&mut self.buffer);
        take(self.line, Record::TooLong(&buffer));
        self.pass_over(&buffer);
        self.skipping = true;
    }

    fn skips_line(&self) -> bool {
        self.skipping && self.format != Format::Json
    }

    /// The present record ends with `last`.
    fn finish(&mut self, last: &[u8], take: &mut Take<'_>) {
        if std::mem::take(&mut self.skipping) {
            if self.format != Format::Json {
                self.splitter = self.fresh.clone();
            }
            return self.pass_over(last);
        }
        let joined;
        let record = if self.buffer.is_empty() {
            last
        } else {
            self.buffer.extend_from_slice(last);
            joined = std::mem::take(&mut self.buffer);
            &joined
        };
        if record.len() > self.most {
            take(self.line, Record::TooLong(record));
        } else {
            take(self.line, Record::Whole(record));
        }
        self.pass_over(record);
    }

    fn pass_over(&mut self, bytes: &[u8]) {
        let feeds = bytes.iter().filter(|byte| **byte == b'\n');
        self.line += feeds.count() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_payload::Rules;
    use proptest::prelude::*;

    const MOST: usize = 24;

    fn records(format: Format) -> Records {
        Records::new(format, Splitter::new(format, &Rules::DEFAULT), MOST)
    }

    /// The records of a stream that comes `step` bytes at a time.
    fn all(format: Format, text: &str, step: usize) -> Vec<String> {
        let mut records = records(format);
        let mut seen = Vec::new();
        let mut take = |line: u64, record: Record<'_>| {
            let (kind, bytes) = match record {
                Record::Whole(bytes) => ("", bytes),
                Record::TooLong(bytes) => ("too long: ", &bytes[..MOST]),
            };
            let text = String::from_utf8_lossy(bytes);
            seen.push(format!("{line} {kind}{text}"));
        };
        for chunk in text.as_bytes().chunks(step) {
            records.push(chunk, &mut take);
        }
        records.end(&mut take);
        seen
    }

    #[test]
    fn records_keep_their_lines_together_and_count_them() {
        let text = "m v=1\nm s=\"a\nb\"\nm v=2";
        for step in [1, 5, 100] {
            assert_eq!(
                all(Format::Line, text, step),
                ["1 m v=1\n", "2 m s=\"a\nb\"\n", "4 m v=2"]
            );
        }
    }

    #[test]
    fn a_broken_json_message_ends_where_the_next_begins() {
        let text = "{\"a\":1\n{\"a\":2}\n{\n\"a\":3\n}\n";
        for step in [1, 5, 100] {
            assert_eq!(
                all(Format::Json, text, step),
                ["1 {\"a\":1\n", "2 {\"a\":2}\n", "3 {\n\"a\":3\n}\n"]
            );
        }
    }

    #[test]
    fn a_record_beyond_its_bound_is_passed_over_to_its_end() {
        let long = format!("m v={}", "\"".repeat(3 * MOST));
        let text = format!("{long}\nm v=1\n");
        for step in [1, 5, 100] {
            let seen = all(Format::Line, &text, step);
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert!(
                seen[0].starts_with("1 too long: m v=\"") && seen[1] == "2 m v=1\n",
                "{seen:?}"
            );
        }
        let fits = format!("m v={}\n", "1".repeat(MOST - 5));
        assert_eq!(all(Format::Line, &fits, 5), [format!("1 {fits}")]);
        let document = format!("{{\n\"a\":[\n{}]\n}}\n{{\"b\":1}}\n", "1,\n".repeat(20));
        let seen = all(Format::Json, &document, 5);
        assert!(
            seen[0].starts_with("1 too long: {") && seen[1..] == ["25 {\"b\":1}\n"],
            "{seen:?}"
        );
    }

    #[test]
    fn lines_behind_a_quote_that_nobody_closes_come_through() {
        let text = "m s=\"a\nm v=1\nm v=2\nm v=3\nm v=4\n";
        assert_eq!(
            all(Format::Line, text, 5),
            ["1 m s=\"a\nm v=1\nm v=2\nm v=3\n", "5 m v=4\n"]
        );
    }

    #[test]
    fn a_record_that_waits_too_long_is_given_as_the_lines_that_it_is() {
        let mut records = records(Format::Line);
        let mut seen = Vec::new();
        let mut take = |line: u64, record: Record<'_>| seen.push(format!("{line} {record:?}"));
        records.push(b"m s=\"a\nm v=", &mut take);
        assert_eq!(records.spans_from(), Some(1));
        records.give_up(&mut take);
        assert_eq!(records.spans_from(), None);
        records.push(b"1\n", &mut take);
        let whole = |bytes: &[u8]| format!("{:?}", Record::Whole(bytes));
        assert_eq!(
            seen,
            [
                format!("1 {}", whole(b"m s=\"a\n")),
                format!("2 {}", whole(b"m v=1\n"))
            ]
        );
    }

    proptest! {
        #[test]
        fn no_byte_is_lost_within_the_bound_and_none_held_beyond_it(
            text in "[a\"{}\\[\\]:,= \n]{0,200}", step in 1usize..40,
        ) {
            for format in [Format::Line, Format::Json, Format::Csv] {
                let mut cutter = records(format);
                let (mut given, mut passed_over, mut lines) = (Vec::new(), false, 0);
                let mut take = |line: u64, record: Record<'_>| match record {
                    Record::Whole(bytes) => {
                        lines = line + bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                        given.extend_from_slice(bytes);
                    }
                    Record::TooLong(_) => passed_over = true,
                };
                for chunk in text.as_bytes().chunks(step) {
                    cutter.push(chunk, &mut take);
                    prop_assert!(cutter.buffer.len() <= MOST);
                }
                cutter.end(&mut take);
                if !passed_over {
                    prop_assert_eq!(&given, text.as_bytes());
                    if !text.is_empty() {
                        prop_assert_eq!(lines, 1 + text.matches('\n').count() as u64);
                    }
                }
            }
        }
    }
}
