//! Core: InfluxDB line protocol.
//!
//! ```text
//! measurement[,tag=value...] field=value[,field=value...] [time]
//! ```
//!
//! A metric is called `measurement.field`, and `measurement` alone for a field called `value`. Types
//! are those of the protocol: `12i` and `12u` are integers, other numbers doubles, `t` and `false`
//! truth values, texts stand in quotes and may hold line feeds. `u` above an `i64` is refused. A
//! time without a rule tells its unit by its magnitude.
//!
//! A value that cannot be read costs its field. A line of which anything else is wrong is refused as a
//! whole, since its series or its time would be in doubt. Where a quote is not closed, its line alone
//! is refused and the next is read.
//!
//! # Source
//! InfluxDB documentation, "Line protocol reference", version 2; and the corpus of
//! `influxdata/line-protocol`.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use crate::out::{Full, Out};
use crate::part::{Cause, Sample};
use crate::split::Records;
use crate::text::{Places, Span, reserved};
use crate::{Format, MAX_METRIC_BYTES, MAX_TAG_BYTES, MAX_TAGS, MAX_VALUES, Rules, number, time};

/// Buffers that are kept between lines.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    /// Names and texts without their escapes.
    words: String,
    tags: Vec<(Span, Span)>,
    fields: Vec<Field>,
    /// Indices of fields, for a search of repeated ones.
    order: Vec<usize>,
    name: String,
}

impl Buffers {
    pub(crate) fn bytes(&self) -> usize {
        let Self {
            words,
            tags,
            fields,
            order,
            name,
        } = self;
        let vectors = reserved(tags) + reserved(fields) + reserved(order);
        words.capacity() + name.capacity() + vectors
    }
}

#[derive(Debug)]
struct Field {
    key: Span,
    value: Read,
    /// Where it stands in the record.
    from: usize,
    to: usize,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Value(Value<'static>),
    Text(Span),
    Missing,
    Refused(Cause),
}

/// Why a line is refused as a whole, and where.
#[derive(Debug, Clone, Copy)]
struct Fault {
    at: usize,
    cause: Cause,
}

/// Reads every line.
pub(crate) fn read(
    places: &mut Places<'_>,
    rules: &Rules<'_>,
    buffers: &mut Buffers,
    out: &mut Out<'_>,
) {
    let bytes = places.bytes();
    let mut records = Records::new(Format::Line, rules, bytes);
    let mut at = 0;
    while at < bytes.len() {
        let range = records.next(at);
        match record(places, range.clone(), rules, buffers, out) {
            Ok(next) => at = records.done(range, next),
            Err(full) => return places.refuse_rest(at, full, out),
        }
    }
}

/// Reads one record; says where the next begins.
fn record(
    places: &mut Places<'_>,
    range: Range<usize>,
    rules: &Rules<'_>,
    buffers: &mut Buffers,
    out: &mut Out<'_>,
) -> Result<usize, Full> {
    let from = range.start;
    let whole = &places.bytes()[range.clone()];
    let bytes = without_blanks(whole);
    let begin = bytes
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    let begin = begin.unwrap_or(bytes.len());
    if matches!(bytes.get(begin), None | Some(b'#')) {
        return Ok(range.end);
    }
    let fault = match core::str::from_utf8(bytes) {
        Ok(text) => match Parser::read(text, begin, rules, buffers) {
            Ok(time) => {
                give(places, range.clone(), time, buffers, out)?;
                return Ok(range.end);
            }
            Err(fault) => fault,
        },
        Err(error) => Fault {
            at: error.valid_up_to(),
            cause: Cause::NotUtf8,
        },
    };
    out.has_room(1)?;
    let feed = whole.iter().position(|byte| *byte == b'\n');
    let used = feed.map_or(whole.len(), |feed| feed + 1);
    let place = places.place(from + fault.at.min(used));
    out.refused(place, fault.cause, without_blanks(&whole[begin..used]));
    Ok(from + used)
}

/// A line without the white space at its end.
fn without_blanks(line: &[u8]) -> &[u8] {
    let last = line
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    &line[..last.map_or(0, |last| last + 1)]
}

/// Hands a line over that could be read.
fn give(
    places: &mut Places<'_>,
    range: Range<usize>,
    time: Option<UnixMicros>,
    buffers: &mut Buffers,
    out: &mut Out<'_>,
) -> Result<(), Full> {
    let Buffers {
        words,
        tags,
        fields,
        order,
        name,
    } = buffers;
    out.has_room(fields.len())?;
    refuse_repeated(words, fields, order);
    let tags: Vec<(&str, &str)> = tags
        .iter()
        .map(|(key, value)| (key.of(words), value.of(words)))
        .collect();
    let measurement = name.len();
    let line = places.line(range.start);
    let mut row = None;
    for field in &*fields {
        let value = match field.value {
            Read::Value(value) => value,
            Read::Text(span) => Value::Str(span.of(words)),
            Read::Missing => {
                out.missing(1);
                continue;
            }
            Read::Refused(cause) => {
                let (from, to) = (range.start + field.from, range.start + field.to);
                let place = places.place(from);
                out.refused(place, cause, &places.bytes()[from..to]);
                continue;
            }
        };
        name.truncate(measurement);
        match field.key.of(words) {
            "value" => {}
            key => {
                name.push('.');
                name.push_str(key);
            }
        }
        let row = *row.get_or_insert_with(|| out.begin_row());
        out.sample(Sample {
            row,
            line,
            device: None,
            time,
            tags: &tags,
            metric: name,
            value,
            unit: None,
        });
    }
    Ok(())
}

/// Two values of one field refuse each other.
fn refuse_repeated(words: &str, fields: &mut [Field], order: &mut Vec<usize>) {
    order.clear();
    order.extend(
        (0..fields.len()).filter(|at| matches!(fields[*at].value, Read::Value(_) | Read::Text(_))),
    );
    order.sort_unstable_by_key(|at| fields[*at].key.of(words));
    for pair in order.windows(2) {
        if fields[pair[0]].key.of(words) == fields[pair[1]].key.of(words) {
            for at in pair {
                fields[*at].value = Read::Refused(Cause::TwoOfOneName);
            }
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    /// The first quote whose text spans lines.
    spans: Option<usize>,
}

impl<'t> Parser<'t> {
    /// Reads the line that begins at byte `at` of `text` into the buffers; its time is the result.
    /// `buffers.name` is then the measurement.
    fn read(
        text: &'t str,
        at: usize,
        rules: &Rules<'_>,
        buffers: &mut Buffers,
    ) -> Result<Option<UnixMicros>, Fault> {
        buffers.words.clear();
        buffers.tags.clear();
        buffers.fields.clear();
        let mut parser = Self {
            text,
            at,
            spans: None,
        };
        parser.line(rules, buffers).map_err(|fault| {
            match (text.find('\n'), parser.spans) {
                // The fault lies beyond the first line, behind a text that its quote has swallowed.
                (Some(feed), Some(quote)) if fault.at > feed => Fault {
                    at: quote,
                    cause: Cause::Missing("the closing quote"),
                },
                _ => fault,
            }
        })
    }

    fn line(
        &mut self,
        rules: &Rules<'_>,
        buffers: &mut Buffers,
    ) -> Result<Option<UnixMicros>, Fault> {
        let measurement = self.name(b", ", "the measurement", &mut buffers.words)?;
        buffers.name.clear();
        buffers.name.push_str(measurement.of(&buffers.words));
        if buffers.name.len() > MAX_METRIC_BYTES {
            return self.fault(Cause::Name(buffers.name.len()));
        }
        self.tags(buffers)?;
        if !self.take(b' ') {
            return self.fault(Cause::Missing("the field"));
        }
        self.blanks();
        loop {
            self.field(buffers)?;
            if !self.take(b',') {
                break;
            }
        }
        self.time(rules)
    }

    fn tags(&mut self, buffers: &mut Buffers) -> Result<(), Fault> {
        while self.take(b',') {
            let from = self.at;
            let key = self.name(b"=, ", "the tag's key", &mut buffers.words)?;
            if !self.take(b'=') {
                return self.fault(Cause::Missing("the tag's value"));
            }
            let value = self.name(b", ", "the tag's value", &mut buffers.words)?;
            let (key_len, value_len) =
                (key.of(&buffers.words).len(), value.of(&buffers.words).len());
            let cause = if key_len > MAX_TAG_BYTES || value_len > MAX_TAG_BYTES {
                Some(Cause::Tag {
                    key: key_len,
                    value: value_len,
                })
            } else if buffers.tags.len() == MAX_TAGS {
                Some(Cause::Tags)
            } else {
                let repeats =
                    |tag: &(Span, Span)| tag.0.of(&buffers.words) == key.of(&buffers.words);
                buffers.tags.iter().any(repeats).then_some(Cause::TwoTags)
            };
            if let Some(cause) = cause {
                return Err(Fault { at: from, cause });
            }
            buffers.tags.push((key, value));
        }
        Ok(())
    }

    fn field(&mut self, buffers: &mut Buffers) -> Result<(), Fault> {
        let from = self.at;
        if buffers.fields.len() == MAX_VALUES {
            return self.fault(Cause::Values);
        }
        let key = self.name(b"=, ", "the field's name", &mut buffers.words)?;
        if !self.take(b'=') {
            return self.fault(Cause::Missing("the field's value"));
        }
        let mut value = self.value(&mut buffers.words)?;
        let own = key.of(&buffers.words);
        let name_len = match own {
            "value" => buffers.name.len(),
            own => buffers.name.len() + 1 + own.len(),
        };
        if name_len > MAX_METRIC_BYTES {
            value = Read::Refused(Cause::Name(name_len));
        }
        buffers.fields.push(Field {
            key,
            value,
            from,
            to: self.at,
        });
        Ok(())
    }

    fn value(&mut self, words: &mut String) -> Result<Read, Fault> {
        if self.take(b'"') {
            return self.quoted(words);
        }
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| matches!(byte, b',' | b' '));
        let word = &rest[..end.unwrap_or(rest.len())];
        self.at += word.len();
        Ok(bare(word))
    }

    /// A text in quotes, behind its first one.
    fn quoted(&mut self, words: &mut String) -> Result<Read, Fault> {
        let start = words.len();
        let quote = self.at - 1;
        loop {
            let rest = &self.text[self.at..];
            let Some(len) = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\')) else {
                return Err(Fault {
                    at: quote,
                    cause: Cause::Missing("the closing quote"),
                });
            };
            words.push_str(&rest[..len]);
            self.at += len;
            match rest.as_bytes()[len..] {
                [b'\\', escaped @ (b'"' | b'\\'), ..] => {
                    words.push(char::from(escaped));
                    self.at += 2;
                }
                [b'\\', ..] => {
                    words.push('\\');
                    self.at += 1;
                }
                _ => {
                    self.at += 1;
                    break;
                }
            }
        }
        if self.spans.is_none() && self.text[quote..self.at].contains('\n') {
            self.spans = Some(quote);
        }
        if !matches!(self.text.as_bytes().get(self.at), None | Some(b',' | b' ')) {
            return self.fault(Cause::AfterQuote);
        }
        Ok(Read::Text(Span::new(start, words.len())))
    }

    fn time(&mut self, rules: &Rules<'_>) -> Result<Option<UnixMicros>, Fault> {
        self.blanks();
        let word = &self.text[self.at..];
        if word.is_empty() {
            return Ok(None);
        }
        let digits = word.strip_prefix('-').unwrap_or(word);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.fault(Cause::Not("a time in whole units since 1970"));
        }
        match rules.precision {
            Some(unit) => time::unix(word, unit),
            None => time::by_magnitude(word),
        }
        .map_or_else(|cause| self.fault(cause), |time| Ok(Some(time)))
    }

    /// A name up to one of `ends`; a backslash takes the meaning from `,`, `=` and blank.
    fn name(&mut self, ends: &[u8], what: &'static str, words: &mut String) -> Result<Span, Fault> {
        let start = words.len();
        let begin = self.at;
        loop {
            let rest = &self.text[self.at..];
            let stop = |byte: u8| byte == b'\\' || ends.contains(&byte);
            let len = rest.bytes().position(stop).unwrap_or(rest.len());
            words.push_str(&rest[..len]);
            self.at += len;
            match rest.as_bytes()[len..] {
                [b'\\', escaped @ (b',' | b'=' | b' '), ..] => {
                    words.push(char::from(escaped));
                    self.at += 2;
                }
                [b'\\', ..] => {
                    words.push('\\');
                    self.at += 1;
                }
                _ => break,
            }
        }
        let name = &words[start..];
        let cause = if name.is_empty() {
            Some(Cause::Missing(what))
        } else {
            let has_control = name.bytes().any(|byte| byte.is_ascii_control());
            has_control.then_some(Cause::Control)
        };
        if let Some(cause) = cause {
            return Err(Fault { at: begin, cause });
        }
        Ok(Span::new(start, words.len()))
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.text.as_bytes().get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while self.take(b' ') {}
    }

    const fn fault<T>(&self, cause: Cause) -> Result<T, Fault> {
        Err(Fault { at: self.at, cause })
    }
}

/// A value without quotes.
fn bare(word: &str) -> Read {
    let read = match word {
        "" => Err(Cause::Missing("the field's value")),
        "t" | "T" | "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
        "f" | "F" | "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
        _ if number::is_missing(word) => return Read::Missing,
        _ => match word.strip_suffix(['i', 'u']) {
            Some(digits) => whole(digits),
            None => number::double(word)
                .unwrap_or(Err(NO_VALUE))
                .map(Value::F64),
        },
    };
    read.map_or_else(Read::Refused, Read::Value)
}

const NO_VALUE: Cause = Cause::Not("a number, a truth value or a text in quotes");

fn whole(digits: &str) -> Result<Value<'static>, Cause> {
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NO_VALUE);
    }
    digits.parse().map(Value::I64).map_err(|_| Cause::Number)
}
