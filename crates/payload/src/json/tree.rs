//! Core: one JSON value as a tree, read from bytes.
//!
//! Field devices send almost-JSON, and a general parser is too kind and too strict for it at once:
//! it takes the last of two equal names, rounds numbers, and refuses a message for one `NaN`. This
//! one keeps every member, keeps numbers as they are written, and refuses a value that it cannot
//! read without the rest of the message.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use headwater_proto::sample::Value;

use crate::part::Cause;
use crate::text::{Span, short};
use crate::{MAX_DEPTH, MAX_VALUES, number};

/// No node: the end of a list of members, or the parent of the root.
pub(super) const NONE: u32 = u32::MAX;

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// `null`, `NaN` and their like.
    Missing,
    Bool(bool),
    Number(Value<'static>),
    Text(Span),
    Object,
    Array,
    /// It cannot be read, or lies too deep.
    Refused(Cause),
    /// Was a time, a name, a unit or tags: no value of its own.
    Consumed,
}

/// A value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Its name, if it is a member of an object.
    pub(super) key: Span,
    /// Its place among its siblings.
    pub(super) index: u32,
    /// Where the member begins, name included; where the value begins; where both end.
    pub(super) from: u32,
    pub(super) value: u32,
    pub(super) to: u32,
    pub(super) parent: u32,
    /// The next of its siblings.
    pub(super) next: u32,
    /// The first of its members or elements.
    pub(super) first: u32,
}

/// Why bytes are no value, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broken {
    pub(super) at: usize,
    pub(super) cause: Cause,
}

/// A value and everything in it.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    /// Names and texts without their escapes.
    pub(super) words: String,
}

impl Tree {
    /// Reads the value at `at`, which is in `depth` arrays; says where it ends. The root is node 0.
    ///
    /// # Errors
    /// [`Broken`]: the structure cannot be followed, or the value passes a bound.
    pub(super) fn read(&mut self, bytes: &[u8], at: usize, depth: usize) -> Result<usize, Broken> {
        self.nodes.clear();
        self.words.clear();
        let mut parser = Parser {
            bytes,
            at,
            tree: self,
        };
        let seat = Seat {
            key: Span::default(),
            index: 0,
            from: at,
            parent: NONE,
        };
        parser.value(seat, depth)?;
        Ok(parser.at)
    }

    pub(super) fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    /// The members or elements of a node.
    pub(super) fn children(&self, at: u32) -> Children<'_> {
        Children {
            tree: self,
            next: self.node(at).first,
        }
    }

    /// Adds a word to those of the value.
    pub(super) fn add_word(&mut self, word: fmt::Arguments<'_>) -> Span {
        let start = self.words.len();
        // Writing to a String cannot fail.
        let _ = self.words.write_fmt(word);
        Span::new(start, self.words.len())
    }

    pub(super) fn key(&self, at: u32) -> &str {
        self.node(at).key.of(&self.words)
    }
}

/// The members or elements of a node, in order.
pub(super) struct Children<'t> {
    tree: &'t Tree,
    next: u32,
}

impl Iterator for Children<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let at = self.next;
        self.next = self.tree.nodes.get(at as usize)?.next;
        Some(at)
    }
}

/// Where a value belongs.
struct Seat {
    key: Span,
    index: u32,
    from: usize,
    parent: u32,
}

struct Parser<'b, 't> {
    bytes: &'b [u8],
    at: usize,
    tree: &'t mut Tree,
}

impl Parser<'_, '_> {
    /// Reads a value that lies in `depth` objects and arrays.
    fn value(&mut self, seat: Seat, depth: usize) -> Result<u32, Broken> {
        let begin = self.at;
        if self.tree.nodes.len() == MAX_VALUES {
            return self.broken(Cause::Values);
        }
        let node = short(self.tree.nodes.len());
        self.tree.nodes.push(Node {
            kind: Kind::Missing,
            key: seat.key,
            index: seat.index,
            from: short(seat.from),
            value: short(begin),
            to: 0,
            parent: seat.parent,
            next: NONE,
            first: NONE,
        });
        let kind = match self.peek() {
            Some(b'{' | b'[') if depth == MAX_DEPTH => {
                self.at = skip(self.bytes, begin).ok_or(Broken {
                    at: self.bytes.len(),
                    cause: Cause::Json("a closing bracket"),
                })?;
                Kind::Refused(Cause::Depth)
            }
            Some(b'{') => self.object(node, depth + 1)?,
            Some(b'[') => self.array(node, depth + 1)?,
            Some(b'"') => self.text()?.map_or_else(Kind::Refused, Kind::Text),
            _ => self.word()?,
        };
        let written = &mut self.tree.nodes[node as usize];
        written.kind = kind;
        written.to = short(self.at);
        Ok(node)
    }

    fn object(&mut self, node: u32, depth: usize) -> Result<Kind, Broken> {
        self.at += 1;
        self.blanks();
        if self.take(b'}') {
            return Ok(Kind::Object);
        }
        let mut last = NONE;
        for index in 0.. {
            self.blanks();
            let from = self.at;
            if self.peek() != Some(b'"') {
                return self.broken(Cause::Json("a name in quotes"));
            }
            let key = match self.text()? {
                Ok(key) => key,
                // Without its name a member cannot even be refused alone.
                Err(cause) => return Err(Broken { at: from, cause }),
            };
            self.blanks();
            if !self.take(b':') {
                return self.broken(Cause::Json("':'"));
            }
            self.blanks();
            let seat = Seat {
                key,
                index,
                from,
                parent: node,
            };
            last = self.child(seat, depth, last)?;
            self.blanks();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return self.broken(Cause::Json("',' or '}'"));
            }
        }
        Ok(Kind::Object)
    }

    fn array(&mut self, node: u32, depth: usize) -> Result<Kind, Broken> {
        self.at += 1;
        self.blanks();
        if self.take(b']') {
            return Ok(Kind::Array);
        }
        let mut last = NONE;
        for index in 0.. {
            self.blanks();
            let seat = Seat {
                key: Span::default(),
                index,
                from: self.at,
                parent: node,
            };
            last = self.child(seat, depth, last)?;
            self.blanks();
            if self.take(b']') {
                break;
            }
            if !self.take(b',') {
                return self.broken(Cause::Json("',' or ']'"));
            }
        }
        Ok(Kind::Array)
    }

    /// Reads a value and hangs it behind its sibling `last`.
    fn child(&mut self, seat: Seat, depth: usize, last: u32) -> Result<u32, Broken> {
        let parent = seat.parent;
        let child = self.value(seat, depth)?;
        let nodes = &mut self.tree.nodes;
        match nodes.get_mut(last as usize) {
            Some(sibling) => sibling.next = child,
            None => nodes[parent as usize].first = child,
        }
        Ok(child)
    }

    /// `true`, `null`, a number, or a word that stands for none of them.
    fn word(&mut self) -> Result<Kind, Broken> {
        let rest = &self.bytes[self.at..];
        let ends = |byte: &u8| {
            !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_'))
        };
        let len = rest.iter().position(ends).unwrap_or(rest.len());
        // Letters, digits and signs are text.
        let word = core::str::from_utf8(&rest[..len]).unwrap_or_default();
        if word.is_empty() {
            return self.broken(Cause::Json("a value"));
        }
        self.at += len;
        Ok(match word {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ if number::is_missing(word) => Kind::Missing,
            _ => match number::json(word) {
                Some(Ok(value)) => Kind::Number(value),
                Some(Err(cause)) => Kind::Refused(cause),
                None => Kind::Refused(Cause::Not("a JSON value")),
            },
        })
    }

    /// A text in quotes, without its escapes. The inner error is a text that cannot be read and yet
    /// has an end.
    fn text(&mut self) -> Result<Result<Span, Cause>, Broken> {
        let start = self.tree.words.len();
        let mut valid = true;
        self.at += 1;
        loop {
            let rest = &self.bytes[self.at..];
            let stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
            let len = rest.iter().position(stop).unwrap_or(rest.len());
            match core::str::from_utf8(&rest[..len]) {
                Ok(run) => self.tree.words.push_str(run),
                Err(error) => {
                    self.at += error.valid_up_to();
                    return self.broken(Cause::NotUtf8);
                }
            }
            self.at += len;
            let Some(byte) = rest.get(len) else {
                return self.broken(Cause::Json("a closing quote"));
            };
            match byte {
                b'"' => {
                    self.at += 1;
                    break;
                }
                b'\\' => match self.escape() {
                    Some(c) => self.tree.words.push(c),
                    None => valid = false,
                },
                b'\n' => return self.broken(Cause::Json("a closing quote")),
                _ => {
                    self.at += 1;
                    valid = false;
                }
            }
        }
        if valid {
            return Ok(Ok(Span::new(start, self.tree.words.len())));
        }
        self.tree.words.truncate(start);
        Ok(Err(Cause::JsonText))
    }

    /// The character of an escape, at its backslash; `None` if there is no such escape. Moves behind
    /// it, at least behind the backslash.
    fn escape(&mut self) -> Option<char> {
        let rest = &self.bytes[self.at..];
        let Some(letter) = rest.get(1) else {
            self.at += 1;
            return None;
        };
        let c = match letter {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => {
                self.at += 1;
                return None;
            }
        };
        self.at += 2;
        Some(c)
    }

    /// `\u0041`, or two of them that form a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let rest = &self.bytes[self.at..];
        let Some(first) = rest.get(2..6).and_then(hex) else {
            self.at += 2;
            return None;
        };
        self.at += 6;
        if let Some(c) = char::from_u32(first) {
            return Some(c);
        }
        let second = match rest.get(6..8) {
            Some(b"\\u") => rest.get(8..12).and_then(hex)?,
            _ => return None,
        };
        if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
            return None;
        }
        self.at += 6;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        self.at = blanks(self.bytes, self.at);
    }

    const fn broken<T>(&self, cause: Cause) -> Result<T, Broken> {
        Err(Broken { at: self.at, cause })
    }
}

fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, byte| {
        Some(number << 4 | char::from(*byte).to_digit(16)?)
    })
}

/// Where the blanks at `at` end.
pub(super) fn blanks(bytes: &[u8], at: usize) -> usize {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    at + bytes[at..].iter().take_while(|byte| blank(byte)).count()
}

/// Where the object or array at `at` ends, whatever is in it; `None` if it does not.
pub(super) fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (offset, byte) in bytes[at..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + offset + 1);
                }
            }
            _ => {}
        }
    }
    None
}
