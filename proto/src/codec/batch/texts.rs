//! Texts of a batch: a writer gives each a number, a reader collects the bytes of new ones.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::rows::Cells;
use crate::codec::DecodeError;
use crate::codec::bits::CodeError;
use crate::codec::model::{Class, Plan, Symbol};
use crate::codec::row::Texts;

/// The numbers that the texts of one column have within a batch.
#[derive(Debug, Clone)]
pub(super) struct TextNumbers {
    dictionary: BTreeMap<String, u32>,
    /// Number of the last text of the schema's dictionary.
    last: u32,
    added: u32,
    /// Per text of the rows' pool: its number, 0 while it has none.
    numbers: Vec<u32>,
}

impl TextNumbers {
    pub(super) fn new(dictionary: &[String]) -> Self {
        let mut numbers = BTreeMap::new();
        for (number, text) in (1u32..).zip(dictionary) {
            // Of equal entries the first counts.
            numbers.entry(text.clone()).or_insert(number);
        }
        Self {
            dictionary: numbers,
            last: u32::try_from(dictionary.len()).unwrap_or(u32::MAX),
            added: 0,
            numbers: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self, cells: &Cells) {
        self.added = 0;
        self.numbers.clear();
        self.numbers.resize(cells.pool.len(), 0);
    }

    /// The symbol of the text at `place` of the pool.
    pub(super) fn symbol(&mut self, last: i64, cells: &Cells, place: u64) -> Symbol {
        let Some(place) = usize::try_from(place)
            .ok()
            .filter(|&at| at < self.numbers.len())
        else {
            return Symbol::default();
        };
        let text = &cells.pool[place];
        if self.numbers[place] == 0 {
            self.numbers[place] = self.dictionary.get(text.as_str()).copied().unwrap_or(0);
        }
        match self.numbers[place] {
            0 => Symbol {
                class: Class::Raw,
                correction: 0,
                code: text.len() as u64,
            },
            number if i64::from(number) == last => Symbol::default(),
            number => Symbol {
                class: Class::Number,
                correction: 0,
                code: u64::from(number),
            },
        }
    }

    /// The number of the text at `place`, which was coded before.
    pub(super) fn number_of(&mut self, place: u64) -> i64 {
        let Some(number) = usize::try_from(place)
            .ok()
            .and_then(|at| self.numbers.get_mut(at))
        else {
            return 0;
        };
        if *number == 0 {
            self.added += 1;
            *number = self.last + self.added;
        }
        i64::from(*number)
    }
}

/// The new texts of one row.
pub(super) struct Source<'a> {
    pub(super) numbers: &'a [TextNumbers],
    pub(super) columns: &'a [Cells],
    pub(super) row: usize,
}

impl Texts for Source<'_> {
    fn byte(&mut self, column: usize, at: usize) -> u8 {
        let cells = &self.columns[column];
        usize::try_from(cells.bits[self.row])
            .ok()
            .and_then(|place| cells.pool.get(place))
            .and_then(|text| text.as_bytes().get(at))
            .copied()
            .unwrap_or(0)
    }

    fn take(&mut self, _: usize, _: u8) -> Result<(), CodeError> {
        Ok(())
    }

    fn added(&self, column: usize) -> u32 {
        self.numbers[column].added
    }
}

/// Texts that the batch brings, beside those of the schema's dictionaries.
pub(super) struct NewTexts {
    bytes: Vec<u8>,
    /// Per column: start and end of each of its texts in `bytes`.
    places: Vec<Vec<(u32, u32)>>,
    text_start: u32,
    count: u32,
    most: u32,
}

impl NewTexts {
    pub(super) fn new(columns: usize, most: u32) -> Self {
        Self {
            bytes: Vec::new(),
            places: alloc::vec![Vec::new(); columns],
            text_start: 0,
            count: 0,
            most,
        }
    }
}

impl NewTexts {
    /// The number of a text symbol; a new text gets the next one.
    pub(super) fn number(
        &mut self,
        column: usize,
        plan: &Plan,
        symbol: Symbol,
        last: i64,
    ) -> Result<u32, DecodeError> {
        if symbol.class == Class::Raw {
            // The length is bounded, and the bytes are in already.
            let end = self
                .text_start
                .saturating_add(u32::try_from(symbol.code).unwrap_or(u32::MAX));
            // A text of no bytes takes memory too.
            self.count += 1;
            if u64::from(end) + u64::from(self.count) > u64::from(self.most) {
                return Err(DecodeError::Limit("text"));
            }
            let places = &mut self.places[column];
            places.push((self.text_start, end));
            self.text_start = end;
            return u32::try_from(places.len())
                .ok()
                .and_then(|added| plan.texts.checked_add(added))
                .ok_or(DecodeError::Limit("texts"));
        }
        let number = if symbol.code == 0 {
            last.cast_unsigned()
        } else {
            symbol.code
        };
        u32::try_from(number)
            .ok()
            .filter(|&number| number > 0)
            .ok_or(DecodeError::Invalid("text number"))
    }

    /// The text of a number.
    pub(super) fn get<'a>(
        &'a self,
        column: usize,
        dictionary: &'a [alloc::string::String],
        number: u32,
    ) -> Result<&'a str, DecodeError> {
        let at = number as usize - 1;
        if let Some(text) = dictionary.get(at) {
            return Ok(text);
        }
        self.places[column]
            .get(at - dictionary.len())
            .and_then(|&(start, end)| self.bytes.get(start as usize..end as usize))
            .and_then(|bytes| core::str::from_utf8(bytes).ok())
            .ok_or(DecodeError::Invalid("text"))
    }
}

impl Texts for NewTexts {
    fn byte(&mut self, _: usize, _: usize) -> u8 {
        0
    }

    fn take(&mut self, _: usize, byte: u8) -> Result<(), CodeError> {
        if self.bytes.len() >= self.most as usize {
            return Err(DecodeError::Limit("text").into());
        }
        self.bytes.push(byte);
        Ok(())
    }

    fn added(&self, column: usize) -> u32 {
        u32::try_from(self.places[column].len()).unwrap_or(u32::MAX)
    }
}
