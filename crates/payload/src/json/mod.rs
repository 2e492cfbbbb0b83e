//! Core: JSON, as field devices send it.
//!
//! A payload is one message or several, one after another. A message is an object, which is a row,
//! or an array of objects, which are rows. Each number, truth value and text in a row is a sample:
//!
//! | in the payload | is |
//! |---|---|
//! | `{"a":{"b":1}}` | `a.b` |
//! | `{"a":[5,6]}` | `a.0` and `a.1` |
//! | `{"a":[{"id":"x","v":1,"u":"bar","q":true,"min":0}]}` | `a.x` in bar and `a.x.min`, both tagged `q` = `true` |
//! | `{"values":{"a":1}}` | `a`, unless a rule keeps `values.` |
//! | `null`, `NaN`, `nan`, `Infinity`, `-Infinity`, `inf` | missing |
//! | `"a.b":1` beside `"a":{"b":2}` | two refusals: both are called `a.b` |
//!
//! An element of an array carries a name under `n`, `id`, `name`, `tag` or `metric`, a value under `v`,
//! `value`, `vb` or `vs`, a unit under `u`, `unit` or `units` and a quality under `q` or `quality`; the
//! first of these that fits counts. Its time is found as [`TimeRule`](crate::TimeRule) says. Samples
//! of another time, device or tags than the one before them begin a row.
//!
//! A row is read to its end before its first sample is given, since its time may stand there. So a
//! message whose structure is broken is refused as a whole, from the element on that is broken if it
//! is an array; a value that cannot be read is refused alone.

use crate::out::{Full, Out};
use crate::part::Cause;
use crate::text::{self, Places};
use crate::{Format, Rules, Splitter};

mod rows;
mod tree;
mod walk;

use rows::Rows;
use tree::{Broken, Kind, blanks, skip};

pub(crate) use rows::Rows as Buffers;

/// Reads every message.
pub(crate) fn read(places: &mut Places<'_>, rules: &Rules<'_>, rows: &mut Rows, out: &mut Out<'_>) {
    let bytes = places.bytes();
    let mut messages = Messages {
        places,
        rules,
        rows,
        out,
        at: 0,
    };
    loop {
        messages.at = blanks(bytes, messages.at);
        if messages.at == bytes.len() {
            return;
        }
        if let Err(full) = messages.message() {
            return messages.places.refuse_rest(messages.at, full, messages.out);
        }
    }
}

struct Messages<'p, 'b, 'v> {
    places: &'p mut Places<'b>,
    rules: &'p Rules<'p>,
    rows: &'p mut Rows,
    out: &'p mut Out<'v>,
    /// Where the next row begins that nothing was given of.
    at: usize,
}

impl Messages<'_, '_, '_> {
    /// Reads the message at `self.at` and moves behind it.
    fn message(&mut self) -> Result<(), Full> {
        let bytes = self.places.bytes();
        let begin = self.at;
        let read = if bytes[begin] == b'[' {
            self.array()?
        } else {
            self.value()?
        };
        let Err(Broken { at, cause }) = read else {
            return Ok(());
        };
        let splitter = Splitter::new(Format::Json, self.rules);
        let end = begin + splitter.first_len(&bytes[begin..]);
        // An array may be broken behind the line on which it seems to end.
        let end = end.max(self.at);
        self.out.has_room(1)?;
        let place = self.places.place(at);
        let broken = text::without_line_end(&bytes[self.at..end]);
        self.out.refused(place, cause, broken);
        self.at = end;
        Ok(())
    }

    /// Reads one object, or a value that ought to be one.
    fn value(&mut self) -> Result<Result<(), Broken>, Full> {
        match self.rows.tree.read(self.places.bytes(), self.at, 0) {
            Ok(end) => {
                self.row(None)?;
                self.at = end;
                Ok(Ok(()))
            }
            Err(broken) => Ok(Err(broken)),
        }
    }

    /// Reads the elements of the array at `self.at` as rows. If it is broken, `self.at` is then where
    /// the first element stands that was not given.
    fn array(&mut self) -> Result<Result<(), Broken>, Full> {
        let bytes = self.places.bytes();
        let mut at = blanks(bytes, self.at + 1);
        if bytes.get(at) == Some(&b']') {
            self.at = at + 1;
            return Ok(Ok(()));
        }
        for index in 0.. {
            self.at = blanks(bytes, at);
            let end = match self.rows.tree.read(bytes, self.at, 1) {
                Ok(end) => {
                    self.row(Some(index))?;
                    end
                }
                Err(broken) => match self.skip(broken)? {
                    Some(end) => end,
                    None => return Ok(Err(broken)),
                },
            };
            self.at = blanks(bytes, end);
            match bytes.get(self.at) {
                Some(b',') => at = self.at + 1,
                Some(b']') => {
                    self.at += 1;
                    break;
                }
                _ => {
                    let (at, cause) = (self.at, Cause::Json("',' or ']'"));
                    return Ok(Err(Broken { at, cause }));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Refuses an element that cannot be read although its brackets can; says where it ends.
    fn skip(&mut self, broken: Broken) -> Result<Option<usize>, Full> {
        let bytes = self.places.bytes();
        if matches!(broken.cause, Cause::Json(_)) {
            return Ok(None);
        }
        let Some(end) = skip(bytes, self.at) else {
            return Ok(None);
        };
        self.out.has_room(1)?;
        let place = self.places.place(broken.at);
        self.out.refused(place, broken.cause, &bytes[self.at..end]);
        Ok(Some(end))
    }

    /// Gives the row that was just read: a message, or an element of an array.
    fn row(&mut self, element: Option<u32>) -> Result<(), Full> {
        let bytes = self.places.bytes();
        let root = self.rows.tree.node(0);
        let from = root.from as usize;
        match root.kind {
            Kind::Missing => self.out.missing(1),
            Kind::Object => {
                walk::collect(self.rows, bytes, self.rules, element.is_some());
                self.rows.give(element, self.places, self.out)?;
            }
            Kind::Bool(_)
            | Kind::Number(_)
            | Kind::Text(_)
            | Kind::Array
            | Kind::Refused(_)
            | Kind::Consumed => {
                self.out.has_room(1)?;
                let place = self.places.place(from);
                let value = &bytes[from..root.to as usize];
                self.out.refused(place, Cause::NotAnObject, value);
            }
        }
        Ok(())
    }
}
