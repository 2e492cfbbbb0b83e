//! Core: gathers readings of one lane into batches and numbers their schemas.
//!
//! A batch holds rows of one source, of one shape (names, units and types of the columns), and of
//! times that count from one base. A source that cannot resume may have several shapes open; one that
//! resumes has a single batch open at a time, so that the cursor in each record covers exactly the
//! rows up to it.

use std::sync::Arc;

use headwater_proto::bundle::Stamps;
use headwater_proto::refused::{self, Part};
use headwater_proto::time::{Base, Millis, UnixMicros};

use super::admit::{Fault, Sample};
use super::receipts::Owed;
use super::record::{Cursor, MAX_SNAPSHOT_SCHEMAS};
use super::text::TextBatch;
use super::timekeeper::{Dated, worse};

mod shape;

use shape::{BATCH_BYTES, Hashed, LEAST_ROWS, Shape};

/// Most shapes a lane remembers; beyond it the one that has rested longest is forgotten. As many may have
/// rows that wait; one more closes the oldest batch, or a source that names its columns anew with every
/// row would fill the memory with schemas.
pub const MAX_SHAPES: usize = MAX_SNAPSHOT_SCHEMAS / 4;

/// Most bytes of a schema, which fits into a publish of its own then: parameters that would make it larger
/// are not used, and a series that would begins another shape.
pub const MAX_SCHEMA_BYTES: usize = 124 * 1024;
/// Most bytes of the schemas that a lane remembers, or at least one: as [`MAX_SHAPES`].
pub const MAX_SHAPES_BYTES: usize = 512 * 1024;
/// Bytes of a refused part beside its texts.
const PART_OVERHEAD_BYTES: usize =
    refused::MAX_PART_BYTES - 2 * refused::MAX_WORDS_BYTES - refused::MAX_BYTES;

/// When a batch closes, whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes in memory, which the encoded batch does not pass.
    pub bytes: usize,
    /// Milliseconds since its first row.
    pub age_ms: u64,
}

/// A batch that is ready for its record.
#[derive(Debug)]
pub struct Closed {
    /// A schema that was numbered for this batch.
    pub new_schema: Option<(u32, Arc<[u8]>)>,
    /// The frame's payload.
    pub content: Content,
    /// Its samples: values that are not missing, lines, or parts.
    pub samples: u64,
    /// Base, stamps and span of its rows' times.
    pub times: Times,
    /// Where the source resumes after it.
    pub cursor: Option<Cursor>,
    /// The receipts that wait for it.
    pub owed: Owed,
}

/// Cursor, receipt and deadline that a source gives with an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// Where the source resumes after it.
    pub cursor: Option<Cursor>,
    /// The item's number among those of the source.
    pub receipt: u64,
    /// When it is to be durable, if the source says so.
    pub by: Option<Millis>,
}

/// What became of an item that was added to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// The batch begins with it.
    pub began: bool,
    /// The batch is full.
    pub full: bool,
}

/// The times of a batch's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Where they count from.
    pub base: Base,
    /// The worst that was known of the wall clock when they were taken.
    pub stamps: Stamps,
    /// The earliest, in microseconds.
    pub first_us: i64,
    /// The latest, in microseconds.
    pub last_us: i64,
}

impl Times {
    const fn of(dated: Dated) -> Self {
        let Dated { base, us, stamps } = dated;
        Self {
            base,
            stamps,
            first_us: us,
            last_us: us,
        }
    }

    fn add(&mut self, dated: Dated) {
        self.first_us = self.first_us.min(dated.us);
        self.last_us = self.last_us.max(dated.us);
        self.stamps = worse(self.stamps, dated.stamps);
    }

    /// The earliest and the latest as wall time, if they are.
    #[must_use]
    pub fn span(&self) -> Option<(UnixMicros, UnixMicros)> {
        let span = (UnixMicros(self.first_us), UnixMicros(self.last_us));
        (self.base == Base::Wall).then_some(span)
    }
}

/// Which batches have their turn: a lane that changes its base begins an epoch, so it does not do
/// that for every batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Base of the lane's epoch.
    pub base: Base,
    /// Batches of the other base do not close for their age before this.
    pub others_from: Millis,
}

impl Turn {
    /// When a batch closes whose time has come at `due`, at the latest `by`.
    fn due(self, base: Base, due: Millis, by: Option<Millis>) -> Millis {
        let turn = if base == self.base {
            due
        } else {
            due.max(self.others_from)
        };
        by.map_or(turn, |by| turn.min(by))
    }
}

/// Payload of the frame of a closed batch.
#[derive(Debug)]
pub enum Content {
    /// A batch of rows.
    Batch(Vec<u8>),
    /// Log lines.
    Text(Vec<u8>),
    /// Parts of inputs that could not be read.
    Refused(Vec<u8>),
}

/// What a source gives next.
#[derive(Debug, Clone, Copy)]
pub enum Next<'a, 's> {
    /// A row.
    Row(&'a Sample<'s>),
    /// A log line.
    Line,
    /// A part that could not be read.
    Refused,
}

/// The open batches and numbered schemas of one lane.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    tags: Vec<(String, String)>,
    shapes: Vec<Shape>,
    texts: Vec<Text>,
    refused: Vec<RefusedParts>,
    dictionary: Option<Dictionary>,
    next_number: u32,
    clock: u64,
}

/// What log lines are compressed with.
#[derive(Debug)]
struct Dictionary {
    bytes: Arc<[u8]>,
    /// The number under which it was announced.
    number: Option<u32>,
}

#[derive(Debug)]
struct Text {
    batch: TextBatch,
    times: Times,
    opened: Millis,
    cursor: Option<Cursor>,
    owed: Owed,
}

#[derive(Debug)]
struct RefusedParts {
    name: String,
    parts: Vec<OwnedPart>,
    /// Of all parts, as they will be written at most.
    bytes: usize,
    times: Times,
    opened: Millis,
    cursor: Option<Cursor>,
    owed: Owed,
}

#[derive(Debug)]
struct OwnedPart {
    at_us: i64,
    place: String,
    cause: String,
    bytes: Vec<u8>,
}

impl Batcher {
    /// No batch, no schema. `dictionary`: for log lines, one that zstd takes.
    #[must_use]
    pub fn new(
        limits: BatchLimits,
        tags: Vec<(String, String)>,
        dictionary: Option<Arc<[u8]>>,
    ) -> Self {
        let dictionary = dictionary.map(|bytes| Dictionary {
            bytes,
            number: None,
        });
        Self {
            limits,
            tags,
            shapes: Vec::new(),
            texts: Vec::new(),
            refused: Vec::new(),
            dictionary,
            next_number: 0,
            clock: 0,
        }
    }

    /// For a source that resumes: whether what it gives next must wait until its open batch is closed,
    /// because its cursor would otherwise pass what is not in a record yet. A few rows whose schema lacks the
    /// next one's series go on in a shape of their own.
    pub fn must_close_first(&mut self, source: usize, next: Next<'_, '_>, base: Base) -> bool {
        let is_open = |shape: &Shape| shape.owed.source == source && !shape.rows.is_empty();
        let rows = self.shapes.iter().position(is_open);
        let texts = self.texts.iter().filter(|text| !text.batch.is_empty());
        let mut texts = texts.filter(|text| text.owed.source == source);
        let mut refused = self
            .refused
            .iter()
            .filter(|open| open.owed.source == source);
        match next {
            Next::Row(sample) => {
                texts.next().is_some()
                    || refused.next().is_some()
                    || rows.is_some_and(|at| !self.goes_on(at, sample, base))
            }
            Next::Line => {
                texts.any(|text| text.times.base != base)
                    || rows.is_some()
                    || refused.next().is_some()
            }
            Next::Refused => {
                refused.any(|open| open.times.base != base)
                    || rows.is_some()
                    || texts.next().is_some()
            }
        }
    }

    /// Whether the next row goes into the open batch at `at`, which may leave its shape for that.
    fn goes_on(&mut self, at: usize, sample: &Sample<'_>, base: Base) -> bool {
        let open = &self.shapes[at];
        if !open.is_like(sample, base) {
            return false;
        }
        let labels = &Hashed::of(sample);
        if open.knows(labels) {
            return true;
        }
        let is_short = open.rows.len() < LEAST_ROWS;
        if open.numbered.is_none() {
            let knows = |other: &Shape| open.is_beside(other) && other.knows(labels);
            return open.takes(labels) && (is_short || !self.shapes.iter().any(knows));
        }
        let next = is_short.then(|| open.copy_beside());
        let Some(next) = next.filter(|next| next.takes(labels)) else {
            return false;
        };
        self.shapes[at].rows.clear();
        self.shapes.push(next);
        true
    }

    /// Adds a row that was admitted and has a value.
    pub fn push(
        &mut self,
        source: usize,
        sample: &Sample<'_>,
        dated: Dated,
        given: Given,
        now: Millis,
    ) -> Pushed {
        self.clock += 1;
        let labels = Hashed::of(sample);
        let at = self.shape_for(source, sample, &labels, dated, given);
        let shape = &mut self.shapes[at];
        shape.used = self.clock;
        let series = shape.series_of(&labels);
        let values: Vec<_> = sample.fields.iter().map(|field| field.value).collect();
        shape
            .rows
            .push_row(dated.us, series, &values)
            .expect("an admitted row fits the shape that was made for it");
        let began = shape.rows.len() == 1;
        if began {
            shape.opened = now;
            shape.times = Times::of(dated);
            shape.owed = Owed::one(source, given.receipt, given.by);
        }
        shape.times.add(dated);
        shape.cursor = given.cursor.or(shape.cursor);
        shape.owed = shape.owed.and(given.receipt);
        let full = shape.is_full(self.limits) || self.is_crowded();
        Pushed { began, full }
    }

    /// The place of the shape that takes a row: of a source that resumes the one that has rows, if it can; else
    /// one that knows the series, or one that is not announced yet, or a new one.
    fn shape_for(
        &mut self,
        source: usize,
        sample: &Sample<'_>,
        labels: &Hashed<'_>,
        dated: Dated,
        given: Given,
    ) -> usize {
        let shapes = self.shapes.iter().enumerate();
        let like = shapes.filter(|(_, s)| s.owed.source == source && s.is_like(sample, dated.base));
        let resumes = given.cursor.is_some();
        let mut open = like.clone().filter(|(_, s)| resumes && !s.rows.is_empty());
        let mut knowing = like.clone().filter(|(_, s)| s.knows(labels));
        let known = || {
            if resumes {
                knowing.max_by_key(|(_, s)| s.schema.series.len())
            } else {
                knowing.next()
            }
        };
        let best = open.find(|(_, s)| s.takes(labels)).or_else(known);
        if let Some((at, _)) = best.or_else(|| like.clone().find(|(_, s)| s.takes(labels))) {
            return at;
        }
        let (times, owed) = (Times::of(dated), Owed::one(source, given.receipt, given.by));
        let largest = like.max_by_key(|(_, s)| s.series_bytes());
        let beside = largest.map(|(_, like)| like.beside(times, owed));
        let fitted = beside.filter(|shape| shape.takes(labels));
        let shape = fitted.unwrap_or_else(|| Shape::new(sample, times, &self.tags, owed));
        self.shapes.push(shape);
        self.shapes.len() - 1
    }

    /// Closes the batch of a shape. Series of the same columns that stand in other schemas come into one with
    /// its own where that pays; one of those others that has rows is closed in its place, so that it has none
    /// when this one is asked for again.
    fn close_rows(&mut self, mut at: usize) -> Closed {
        while let Some(other) = self.joining(at) {
            if !self.shapes[other].rows.is_empty() {
                at = other;
                break;
            }
            let (small, large) =
                if self.shapes[at].series_bytes() < self.shapes[other].series_bytes() {
                    (at, other)
                } else {
                    (other, at)
                };
            let taken = self.shapes.swap_remove(small);
            at = if large == self.shapes.len() {
                small
            } else {
                large
            };
            self.shapes[at].take_over(taken);
        }
        if let Some(largest) = self.largest_beside(at) {
            let resumes = self.shapes[at].cursor.is_some();
            let again = if resumes {
                self.shapes[at].new_bytes()
            } else {
                0
            };
            self.shapes[largest].note_spent(BATCH_BYTES + again);
        }
        let closed = self.shapes[at].close(&mut self.next_number);
        self.forget_shapes();
        closed
    }

    /// A shape of the same columns, if the series of both are to come into one schema: the smallest, so that
    /// what is announced again is as often half as much. Of a source that resumes the largest: nothing less than
    /// all its series spares it the next schema.
    fn joining(&self, at: usize) -> Option<usize> {
        let other = if self.shapes[at].cursor.is_some() {
            self.largest_beside(at)?
        } else {
            let smallest = self.beside(at).min_by_key(|(_, s)| s.series_bytes());
            smallest?.0
        };
        let joins = self.shapes[at].joins(&self.shapes[other]);
        joins.then_some(other)
    }

    fn largest_beside(&self, at: usize) -> Option<usize> {
        let largest = self.beside(at).max_by_key(|(_, s)| s.series_bytes());
        largest.map(|(other, _)| other)
    }

    /// The other shapes of the same source, columns and base.
    fn beside(&self, at: usize) -> impl Iterator<Item = (usize, &Shape)> {
        let shapes = self.shapes.iter().enumerate();
        shapes.filter(move |(other, s)| *other != at && s.is_beside(&self.shapes[at]))
    }

    /// Whether more shapes have rows than are remembered.
    fn is_crowded(&self) -> bool {
        self.has_too_many() && is_too_many(self.shapes.iter().filter(|s| !s.rows.is_empty()))
    }

    fn has_too_many(&self) -> bool {
        is_too_many(self.shapes.iter())
    }

    /// Adds a log line.
    ///
    /// # Errors
    /// [`Fault::Line`] if it is longer than a batch.
    pub fn push_line(
        &mut self,
        source: usize,
        name: &str,
        dated: Dated,
        line: &[u8],
        given: Given,
        now: Millis,
    ) -> Result<Pushed, Fault> {
        if line.len() > self.limits.bytes {
            return Err(Fault::Line(line.len(), self.limits.bytes));
        }
        let of_source = |text: &Text| text.owed.source == source && text.times.base == dated.base;
        let at = match self.texts.iter().position(of_source) {
            Some(at) => at,
            None => {
                let batch = TextBatch::new(name);
                self.texts.push(Text {
                    batch,
                    times: Times::of(dated),
                    opened: now,
                    cursor: None,
                    owed: Owed::one(source, given.receipt, given.by),
                });
                self.texts.len() - 1
            }
        };
        let text = &mut self.texts[at];
        let began = text.batch.is_empty();
        if began {
            text.opened = now;
            text.times = Times::of(dated);
            text.owed = Owed::one(source, given.receipt, given.by);
        }
        text.times.add(dated);
        text.batch.push(UnixMicros(dated.us), line);
        text.cursor = given.cursor.or(text.cursor);
        text.owed = text.owed.and(given.receipt);
        let full = text.is_full(self.limits);
        Ok(Pushed { began, full })
    }

    /// Adds a part that could not be read, cut to its bounds.
    pub fn push_refused(
        &mut self,
        source: usize,
        name: &str,
        dated: Dated,
        part: &Part<'_>,
        given: Given,
        now: Millis,
    ) -> Pushed {
        let of_source =
            |open: &RefusedParts| open.owed.source == source && open.times.base == dated.base;
        let at = self.refused.iter().position(of_source).unwrap_or_else(|| {
            self.refused.push(RefusedParts {
                name: name.to_owned(),
                parts: Vec::new(),
                bytes: 0,
                times: Times::of(dated),
                opened: now,
                cursor: None,
                owed: Owed::one(source, given.receipt, given.by),
            });
            self.refused.len() - 1
        });
        let open = &mut self.refused[at];
        let began = open.parts.is_empty();
        let part = part.cut();
        open.bytes += part.place.len() + part.cause.len() + part.bytes.len() + PART_OVERHEAD_BYTES;
        open.parts.push(OwnedPart {
            at_us: dated.us,
            place: part.place.to_owned(),
            cause: part.cause.to_owned(),
            bytes: part.bytes.to_vec(),
        });
        open.times.add(dated);
        open.cursor = given.cursor.or(open.cursor);
        open.owed = open.owed.and(given.receipt);
        let full = open.is_full(self.limits);
        Pushed { began, full }
    }

    /// Closes a batch that `which` asks for, first those of the lane's base, then the oldest; `None` if
    /// there is none.
    pub fn close(&mut self, which: Which, turn: Turn, now: Millis) -> Option<Closed> {
        let limits = self.limits;
        let crowded = self.is_crowded();
        let wanted = |owed: Owed, base: Base, opened: Millis, full: bool| match which {
            Which::All => true,
            Which::Of(wanted) => wanted == owed.source,
            Which::Full => full,
            Which::Due => turn.due(base, opened.plus(limits.age_ms), owed.by) <= now,
        };
        let texts = self.texts.iter().enumerate().filter_map(|(at, text)| {
            let (base, full) = (text.times.base, text.is_full(limits));
            let asked = !text.batch.is_empty() && wanted(text.owed, base, text.opened, full);
            asked.then_some((base != turn.base, text.opened, Open::Text(at)))
        });
        let shapes = self.shapes.iter().enumerate().filter_map(|(at, shape)| {
            let (base, full) = (shape.times.base, crowded || shape.is_full(limits));
            let asked = !shape.rows.is_empty() && wanted(shape.owed, base, shape.opened, full);
            asked.then_some((base != turn.base, shape.opened, Open::Rows(at)))
        });
        let refused = self.refused.iter().enumerate().filter_map(|(at, open)| {
            let (base, full) = (open.times.base, open.is_full(limits));
            let asked = wanted(open.owed, base, open.opened, full);
            asked.then_some((base != turn.base, open.opened, Open::Refused(at)))
        });
        let all = texts.chain(shapes).chain(refused);
        let (_, _, open) = all.min_by_key(|(other, opened, _)| (*other, *opened))?;
        match open {
            Open::Text(at) => {
                let dictionary = self.dictionary.as_mut();
                Some(self.texts[at].close(dictionary, &mut self.next_number))
            }
            Open::Rows(at) => Some(self.close_rows(at)),
            Open::Refused(at) => Some(self.refused.swap_remove(at).close()),
        }
    }

    /// When the next batch is due.
    #[must_use]
    pub fn next_due(&self, turn: Turn) -> Option<Millis> {
        let rows = self
            .shapes
            .iter()
            .filter(|s| !s.rows.is_empty())
            .map(|s| (s.times.base, s.opened, s.owed.by));
        let texts = self
            .texts
            .iter()
            .filter(|t| !t.batch.is_empty())
            .map(|t| (t.times.base, t.opened, t.owed.by));
        let refused = self.refused.iter();
        let refused = refused.map(|r| (r.times.base, r.opened, r.owed.by));
        rows.chain(texts)
            .chain(refused)
            .map(|(base, opened, by)| turn.due(base, opened.plus(self.limits.age_ms), by))
            .min()
    }

    /// When the oldest open batch was begun.
    #[must_use]
    pub fn opened(&self) -> Option<Millis> {
        let shapes = self.shapes.iter().filter(|shape| !shape.rows.is_empty());
        let texts = self.texts.iter().filter(|text| !text.batch.is_empty());
        let rows = shapes.map(|shape| shape.opened);
        let lines = texts.map(|text| text.opened);
        let parts = self.refused.iter().map(|refused| refused.opened);
        rows.chain(lines).chain(parts).min()
    }

    /// Bytes of the open batches, in memory.
    #[must_use]
    pub fn open_bytes(&self) -> usize {
        let rows: usize = self
            .shapes
            .iter()
            .map(|shape| shape.rows.approx_bytes())
            .sum();
        let texts = self.texts.iter().map(|text| text.batch.bytes());
        let refused = self.refused.iter().map(|open| open.bytes);
        rows + texts.chain(refused).sum::<usize>()
    }

    /// Whether any row or line waits for its record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shapes.iter().all(|shape| shape.rows.is_empty())
            && self.texts.iter().all(|text| text.batch.is_empty())
            && self.refused.is_empty()
    }

    /// The schemas in use, by number.
    pub fn schemas(&self) -> impl Iterator<Item = (u32, &Arc<[u8]>)> + Clone {
        let dictionary = self.dictionary.as_ref();
        let dictionary = dictionary.and_then(|known| Some((known.number?, &known.bytes)));
        let shapes = self.shapes.iter().filter_map(|shape| {
            let (number, bytes) = shape.numbered.as_ref()?;
            Some((*number, bytes))
        });
        dictionary.into_iter().chain(shapes)
    }

    /// Forgets shapes beyond the bounds, those first that have rested longest.
    fn forget_shapes(&mut self) {
        while self.has_too_many() {
            let resting = self
                .shapes
                .iter()
                .enumerate()
                .filter(|(_, s)| s.rows.is_empty());
            let Some((at, _)) = resting.min_by_key(|(_, shape)| shape.used) else {
                return;
            };
            self.shapes.swap_remove(at);
        }
    }
}

/// Whether shapes are more than a lane remembers.
fn is_too_many<'a>(shapes: impl Iterator<Item = &'a Shape>) -> bool {
    let (mut count, mut bytes) = (0, 0);
    for shape in shapes {
        (count, bytes) = (count + 1, bytes + shape.schema_bytes);
    }
    count > MAX_SHAPES || (count > 1 && bytes > MAX_SHAPES_BYTES)
}

/// The place of an open batch.
#[derive(Debug, Clone, Copy)]
enum Open {
    Text(usize),
    Rows(usize),
    Refused(usize),
}

/// Which batches to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Every one.
    All,
    /// Those of a source.
    Of(usize),
    /// Those at their limit of rows or bytes.
    Full,
    /// Those whose time has come.
    Due,
}

impl RefusedParts {
    const fn is_full(&self, limits: BatchLimits) -> bool {
        self.parts.len() >= refused::MAX_PARTS || self.bytes >= limits.bytes
    }

    fn close(self) -> Closed {
        let samples = self.parts.len() as u64;
        let parts: Vec<Part<'_>> = self
            .parts
            .iter()
            .map(|part| Part {
                at_us: part.at_us,
                place: &part.place,
                cause: &part.cause,
                bytes: &part.bytes,
            })
            .collect();
        Closed {
            new_schema: None,
            content: Content::Refused(
                refused::to_vec(&self.name, &parts).expect("the parts were counted and cut"),
            ),
            samples,
            times: self.times,
            cursor: self.cursor,
            owed: self.owed,
        }
    }
}

impl Text {
    fn is_full(&self, limits: BatchLimits) -> bool {
        self.batch.lines() >= limits.rows || self.batch.bytes() >= limits.bytes
    }

    fn close(&mut self, dictionary: Option<&mut Dictionary>, next_number: &mut u32) -> Closed {
        let mut new_schema = None;
        let dictionary = dictionary.map(|known| {
            let number = *known.number.get_or_insert_with(|| {
                let number = *next_number;
                *next_number += 1;
                new_schema = Some((number, Arc::clone(&known.bytes)));
                number
            });
            (number, &*known.bytes)
        });
        let samples = self.batch.lines() as u64;
        Closed {
            content: Content::Text(self.batch.close(dictionary)),
            samples,
            new_schema,
            times: self.times,
            cursor: self.cursor.take(),
            owed: self.owed,
        }
    }
}

#[cfg(test)]
mod tests;
