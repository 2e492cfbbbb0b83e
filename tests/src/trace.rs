//! What a process asked of the system, in order: the output of `strace -f -y -xx`, where all texts
//! are in hex, names of files too.
//!
//! Each system call has a beginning and an end, for with several threads others come in between.
//! strace writes `PID call(args <unfinished ...>` and later `PID <... call resumed>rest) = result`,
//! or the whole on one line.

use std::collections::HashMap;

/// One system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// What stands in its parentheses, without its texts but with the names of its files.
    pub args: String,
    /// The bytes of the texts in it, one after another.
    pub data: Vec<u8>,
    /// Its result, if it is a number.
    pub result: Option<i64>,
    /// Line on which it began.
    pub began: usize,
    /// Line on which it ended.
    pub ended: usize,
}

/// Reads a trace; calls are in order of their ends. Lines that are no calls are left out.
#[must_use]
pub fn read(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(beginning) = rest.strip_suffix("<unfinished ...>") {
            open.insert(pid, (number, beginning.trim_end().to_owned()));
            continue;
        }
        let (began, whole) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((_, end)) = resumed.split_once(" resumed>") else {
                continue;
            };
            let Some((began, mut beginning)) = open.remove(pid) else {
                continue;
            };
            beginning.push_str(end);
            (began, beginning)
        } else {
            (number, rest.to_owned())
        };
        calls.extend(call_of(&whole, began, number));
    }
    calls
}

fn call_of(whole: &str, began: usize, ended: usize) -> Option<Call> {
    let (head, result) = whole.rsplit_once(" = ")?;
    let (name, args) = head.split_once('(')?;
    let args = args.trim_end().trim_end_matches(')');
    let result = result
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok());
    Some(Call {
        name: name.to_owned(),
        args: String::from_utf8_lossy(&unescaped(args.split('"').step_by(2))).into_owned(),
        data: hex_bytes(args.split('"').skip(1).step_by(2)),
        result,
        began,
        ended,
    })
}

/// The bytes of `\x41\x42`, and nothing else.
fn hex_bytes<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let pairs = texts.flat_map(|text| text.split("\\x").skip(1));
    pairs
        .filter_map(|pair| u8::from_str_radix(pair.get(..2)?, 16).ok())
        .collect()
}

/// Texts with the bytes that `\x41` stands for in its place.
fn unescaped<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        let mut parts = text.split("\\x");
        bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            bytes.extend(
                part.get(..2)
                    .and_then(|pair| u8::from_str_radix(pair, 16).ok()),
            );
            bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
        }
    }
    bytes
}

impl Call {
    /// Its first argument: for reads, writes and syncs the descriptor with its name.
    #[must_use]
    pub fn file(&self) -> &str {
        self.args.split(',').next().unwrap_or_default()
    }

    /// Whether `needle` is in its data.
    #[must_use]
    pub fn holds(&self, needle: &[u8]) -> bool {
        self.data
            .windows(needle.len())
            .any(|window| window == needle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"
10 pwrite64(7<\x2f\x64\x2f\x31>, "\x68\x69"..., 2, 4096) = 2
10 fdatasync(7<\x2f\x64\x2f\x31> <unfinished ...>
11 read(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "\x30", 64) = 1
10 <... fdatasync resumed>)            = 0
11 write(9<TCP:[127.0.0.1:1->127.0.0.1:2]>, "\x40\x02\x00\x01", 4) = 4
10 fsync(8</d>) = -1 EIO (Input/output error)
10 +++ exited with 0 +++
"#;

    #[test]
    fn a_call_that_another_thread_interrupts_is_put_together() {
        let calls = read(TRACE);
        let sync = calls.iter().find(|call| call.name == "fdatasync").unwrap();
        assert_eq!((sync.began, sync.ended, sync.result), (2, 4, Some(0)));
        assert!(sync.args.starts_with("7</d/1>"), "{}", sync.args);
        assert_eq!(calls.len(), 5);
    }

    #[test]
    fn data_and_errors_are_read() {
        let calls = read(TRACE);
        assert!(calls[0].holds(b"hi"));
        assert_eq!(calls[3].data, [0x40, 2, 0, 1]);
        assert_eq!(calls[4].result, Some(-1));
    }
}
