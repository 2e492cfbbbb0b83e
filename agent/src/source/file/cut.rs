//! Core: cuts the bytes of a log file into lines, and lines that are too long into parts.
//!
//! A part that goes on ends with [`CUT`], and the part that continues it begins with it: to have the
//! line back, join its parts and drop each `[headwater:cut][headwater:cut]` in between. Where a line
//! is cut depends on its bytes alone, not on when they were read: a restart cuts it at the same places.
//!
//! Zero bytes before a line are a hole: a program that writes on at its old place in a file that was cut
//! to nothing leaves one of any size. They are passed over.

use crate::source::MAX_LINE_BYTES;

/// Marks where a line was cut.
pub const CUT: &[u8] = b"[headwater:cut]";
/// Most bytes of a line in one part: two marks fit beside them.
pub const MAX_PART_BYTES: usize = MAX_LINE_BYTES - 2 * CUT.len();
/// So many bytes give a line, a part or a hole in any case: the longest line with its `\r\n`.
pub const ENOUGH_BYTES: usize = MAX_LINE_BYTES + 2;

/// The first thing in the bytes of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    /// A line or a part with its marks. Empty for a hole or an empty line: there is nothing to give.
    pub line: Vec<u8>,
    /// Bytes of the file that it takes.
    pub len: usize,
}

/// Whether what comes after this byte continues a line.
#[must_use]
pub const fn is_within_line(before: Option<u8>) -> bool {
    !matches!(before, None | Some(b'\n' | 0))
}

/// The first line, part or hole of `bytes`, if it is there as a whole.
///
/// - `continues`: as [`is_within_line`] says of the byte before.
/// - `is_last`: nothing comes after these bytes: the last line needs no newline.
#[must_use]
pub fn first(bytes: &[u8], continues: bool, is_last: bool) -> Option<Piece> {
    if !continues && bytes.first() == Some(&0) {
        let hole = bytes.iter().take_while(|byte| **byte == 0).count();
        // At the end it may be a place that is still to be written.
        let is_whole = hole < bytes.len() || is_last || hole >= ENOUGH_BYTES;
        return is_whole.then(|| Piece {
            line: Vec::new(),
            len: hole,
        });
    }
    let most = MAX_LINE_BYTES - if continues { CUT.len() } else { 0 };
    let looked_at = &bytes[..bytes.len().min(most + 2)];
    let (content, len) = match looked_at.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], end + 1),
        None if bytes.len() >= most + 2 => (bytes, bytes.len()),
        None if is_last && !bytes.is_empty() => (bytes, bytes.len()),
        None => return None,
    };
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    if content.len() > most {
        let len = part_of(content);
        return Some(Piece {
            line: marked(continues, &content[..len], true),
            len,
        });
    }
    Some(Piece {
        line: marked(continues, content, false),
        len,
    })
}

/// How much of a line that is too long its next part takes: no character is torn.
fn part_of(line: &[u8]) -> usize {
    let begins_character = |at: &usize| line[*at] & 0b1100_0000 != 0b1000_0000;
    let places = MAX_PART_BYTES - 3..=MAX_PART_BYTES;
    places
        .rev()
        .find(begins_character)
        // That is no UTF-8.
        .unwrap_or(MAX_PART_BYTES)
}

fn marked(continues: bool, content: &[u8], goes_on: bool) -> Vec<u8> {
    let mark = |is: bool| if is { CUT } else { b"" };
    [mark(continues), content, mark(goes_on)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All lines and parts of a file that is read `chunk` bytes at a time.
    fn cut(bytes: &[u8], chunk: usize) -> Vec<Vec<u8>> {
        let (mut at, mut lines) = (0_usize, Vec::new());
        let mut end = bytes.len().min(chunk);
        loop {
            let before = at.checked_sub(1).map(|at| bytes[at]);
            let is_last = end == bytes.len();
            let window = &bytes[at..end.min(at + ENOUGH_BYTES)];
            let is_last = is_last && window.len() < ENOUGH_BYTES;
            match first(window, is_within_line(before), is_last) {
                Some(piece) => {
                    assert!(piece.line.len() <= MAX_LINE_BYTES && piece.len > 0);
                    at += piece.len;
                    lines.extend(Some(piece.line).filter(|line| !line.is_empty()));
                }
                None if end == bytes.len() => return lines,
                None => end = bytes.len().min(end + chunk),
            }
        }
    }

    /// Lines as they were, out of lines and parts.
    fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
        let mut all = Vec::new();
        for part in parts {
            match part.strip_prefix(CUT) {
                Some(rest) => {
                    assert!(all.ends_with(CUT));
                    all.truncate(all.len() - CUT.len());
                    all.extend_from_slice(rest);
                }
                None => {
                    assert!(!all.ends_with(CUT));
                    all.push(b'\n');
                    all.extend_from_slice(part);
                }
            }
        }
        all
    }

    #[test]
    fn lines_end_with_a_newline_or_with_their_file() {
        assert_eq!(first(b"", false, true), None);
        assert_eq!(first(b"one", false, false), None);
        let piece = |line: &[u8], len| {
            Some(Piece {
                line: line.to_vec(),
                len,
            })
        };
        assert_eq!(first(b"one\ntwo", false, false), piece(b"one", 4));
        assert_eq!(first(b"one\r\ntwo", false, false), piece(b"one", 5));
        assert_eq!(first(b"one", false, true), piece(b"one", 3));
        assert_eq!(first(b"\none", false, false), piece(b"", 1));
    }

    #[test]
    fn a_line_is_whole_up_to_its_bound_and_in_parts_beyond_it() {
        for (bytes, parts) in [
            (MAX_LINE_BYTES, 1),
            (MAX_LINE_BYTES + 1, 2),
            (40 * 1024, 3),
            (MAX_PART_BYTES * 2, 2),
            (MAX_PART_BYTES * 64 + CUT.len(), 64),
            (MAX_PART_BYTES * 64 + CUT.len() + 1, 65),
        ] {
            for end in ["\n", "\r\n", ""] {
                let line = "x".repeat(bytes);
                let file = format!("{line}{end}");
                let found = cut(file.as_bytes(), 1000);
                assert_eq!(found.len(), parts, "{bytes} {end:?}");
                assert_eq!(joined(&found), format!("\n{line}").into_bytes());
            }
        }
    }

    #[test]
    fn no_character_is_torn() {
        for begin in ["", "a", "ab", "abc"] {
            let line = format!("{begin}{}", "🚰".repeat(MAX_LINE_BYTES / 2));
            let found = cut(format!("{line}\n").as_bytes(), ENOUGH_BYTES);
            assert!(found.len() > 2);
            assert!(found.iter().all(|part| std::str::from_utf8(part).is_ok()));
            assert_eq!(joined(&found), format!("\n{line}").into_bytes());
        }
        // What is no UTF-8 is cut all the same.
        let line = [0x80; 2 * MAX_LINE_BYTES];
        assert_eq!(
            first(&line, false, false).map(|part| part.len),
            Some(MAX_PART_BYTES)
        );
    }

    #[test]
    fn a_hole_is_passed_over_once_something_comes_behind_it() {
        let mut file = vec![0; 3 * ENOUGH_BYTES + 7];
        assert_eq!(first(&file[..9], false, false), None);
        file.extend_from_slice(b"after\n");
        assert_eq!(cut(&file, 1000), [b"after"]);
        // Zero bytes within a line are its own.
        assert_eq!(cut(b"a\0b\n", 9), [b"a\0b"]);
    }

    proptest! {
        #[test]
        fn where_a_line_is_cut_does_not_depend_on_how_it_is_read(
            lines in proptest::collection::vec(("[a-zß]{1,9}", 1..12_000_usize), 1..5),
            chunk in 1..2 * ENOUGH_BYTES,
        ) {
            let lines: Vec<_> = lines.into_iter().map(|(text, times)| text.repeat(times)).collect();
            let file: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let found = cut(file.as_bytes(), chunk);
            prop_assert_eq!(&found, &cut(file.as_bytes(), ENOUGH_BYTES));
            let all: String = lines.iter().map(|line| format!("\n{line}")).collect();
            prop_assert_eq!(joined(&found), all.into_bytes());
        }
    }
}
