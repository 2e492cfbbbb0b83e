//! Core: the bytes of a payload: its trimmed ends, its lines, and places in it.

use alloc::vec::Vec;

use crate::out::{Full, Out};
use crate::part::{Cause, Place};

/// A range of bytes in a buffer of at most 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self {
            start: short(start),
            end: short(end),
        }
    }

    pub(crate) fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// Bytes that a buffer has reserved.
pub(crate) const fn reserved<T>(buffer: &Vec<T>) -> usize {
    buffer.capacity() * size_of::<T>()
}

/// An index into a payload. Payloads are below 4 GiB: whoever hands one over holds it in memory and
/// bounds it far lower.
pub(crate) fn short(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// The payload without a byte order mark, white space and zero bytes around it, and how many line
/// feeds stood before it. With `keep_blanks` spaces and tabs stay: the outer cells of CSV may be blank.
pub(crate) fn trim(bytes: &[u8], keep_blanks: bool) -> (&[u8], u64) {
    let is_outside = |byte: &u8| match byte {
        b'\n' | b'\r' | 0 => true,
        b' ' | b'\t' => !keep_blanks,
        _ => false,
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let end = bytes.iter().rposition(|byte| !is_outside(byte));
    let bytes = end.map_or(&bytes[..0], |end| &bytes[..=end]);
    // Zero bytes come behind a text, from a C string or a buffer sent whole, never before it.
    let start = bytes
        .iter()
        .position(|byte| *byte == 0 || !is_outside(byte))
        .unwrap_or(bytes.len());
    (&bytes[start..], lines(&bytes[..start]))
}

/// Line feeds in `bytes`.
pub(crate) fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// A record without the end of its line.
pub(crate) fn without_line_end(record: &[u8]) -> &[u8] {
    let record = record.strip_suffix(b"\n").unwrap_or(record);
    record.strip_suffix(b"\r").unwrap_or(record)
}

/// Places in a payload. Asked for in rising order, they take one pass over it together.
#[derive(Debug, Clone)]
pub(crate) struct Places<'b> {
    bytes: &'b [u8],
    /// A byte, and its line and column.
    at: usize,
    line: u64,
    column: u64,
    first_line: u64,
    /// A byte and the number of its line, for rows, which need no column.
    row: (usize, u64),
}

impl<'b> Places<'b> {
    /// - `first_line`: number of the line on which `bytes` begin.
    pub(crate) const fn new(bytes: &'b [u8], first_line: u64) -> Self {
        Self {
            bytes,
            at: 0,
            line: first_line,
            column: 1,
            first_line,
            row: (0, first_line),
        }
    }

    pub(crate) const fn bytes(&self) -> &'b [u8] {
        self.bytes
    }

    /// The place of byte `at`.
    pub(crate) fn place(&mut self, at: usize) -> Place<'static> {
        let at = at.min(self.bytes.len());
        if at < self.at {
            (self.at, self.line, self.column) = (0, self.first_line, 1);
        }
        for byte in &self.bytes[self.at..at] {
            if *byte == b'\n' {
                self.line += 1;
                self.column = 1;
            } else if byte & 0xc0 != 0x80 {
                // Bytes that continue a character of UTF-8 add no column.
                self.column += 1;
            }
        }
        self.at = at;
        Place::At {
            line: self.line,
            column: self.column,
        }
    }

    /// The number of the line of byte `at`, where a row begins.
    pub(crate) fn line(&mut self, at: usize) -> u64 {
        let (from, line) = match self.row {
            (from, line) if from <= at => (from, line),
            _ => (0, self.first_line),
        };
        self.row = (at, line + lines(&self.bytes[from..at]));
        self.row.1
    }

    /// Refuses everything from byte `at` on, since the rows before it have taken all the room.
    pub(crate) fn refuse_rest(&mut self, at: usize, Full: Full, out: &mut Out<'_>) {
        let place = self.place(at);
        out.refused(place, Cause::Values, &self.bytes[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn marks_blanks_and_trailing_zeros_are_cut_off() {
        assert_eq!(trim(b"\xef\xbb\xbf \r\n{}\n\0\0", false), (&b"{}"[..], 1));
        assert_eq!(trim(b"\0x\0", false), (&b"\0x"[..], 0));
        assert_eq!(trim(b" \n\0", false), (&b""[..], 0));
        assert_eq!(trim(b"\n\ta\t\n", true), (&b"\ta\t"[..], 1));
    }

    #[test]
    fn a_place_counts_characters_and_lines_from_one() {
        let text = "ä=1\nöü=x".as_bytes();
        let mut places = Places::new(text, 1);
        assert_eq!(places.place(0).to_string(), "line 1, column 1");
        assert_eq!(places.place(text.len() - 1).to_string(), "line 2, column 4");
        assert_eq!((places.line(5), places.line(0)), (2, 1));
        assert_eq!(places.place(2).to_string(), "line 1, column 2");
        assert_eq!(
            Places::new(text, 7).place(99).to_string(),
            "line 8, column 5"
        );
    }
}
