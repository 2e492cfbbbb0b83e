//! Core: what a hot store answers, whatever holds it, a page at a time.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::chunk::Point;
use super::maps::DeviceInfo;

/// Most items of a page.
pub const MAX_PAGE: usize = 100_000;
/// Most bytes of a cursor: a metric's name and its tags.
const MAX_CURSOR_BYTES: usize = 64 << 10;

/// Where the next page of an answer begins. Its bytes mean something to the store alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) Vec<u8>);

/// A text that is no cursor, or one of another query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no cursor of such an answer; take it from the field \"next\" of the page before")]
pub struct NoCursor;

/// Part of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Cursor>,
}

/// Why a hot store gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum HotError {
    /// The page that was asked for does not exist.
    #[error(transparent)]
    Cursor(#[from] NoCursor),
    /// The store cannot be read now.
    #[error("the hot store cannot be read: {0}")]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

/// A hot store, to be read. Calls may block.
///
/// `most` is taken as at least 1 and at most [`MAX_PAGE`]. What arrives between two pages may be in
/// neither.
pub trait HotRead: Send + Sync {
    /// What is known about one device.
    ///
    /// # Errors
    /// [`HotError`].
    fn device(&self, device: &str) -> Result<Option<DeviceInfo>, HotError>;

    /// The devices with what is known about each, by name.
    ///
    /// # Errors
    /// [`HotError`].
    fn devices(
        &self,
        after: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<(String, DeviceInfo)>, HotError>;

    /// The newest value of each metric of `device`, by metric and tags.
    ///
    /// # Errors
    /// [`HotError`].
    fn latest(
        &self,
        device: &str,
        after: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<Point>, HotError>;

    /// Samples of `metric` of `device` with times in `span`, in Unix microseconds. The first page
    /// holds the newest, and each next one those before; within a page they stand by time.
    ///
    /// # Errors
    /// [`HotError`].
    fn series(
        &self,
        device: &str,
        metric: &str,
        span: Range<i64>,
        after: Option<&Cursor>,
        most: usize,
    ) -> Result<Page<Point>, HotError>;
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let whole = text.len().is_multiple_of(2) && text.len() <= 2 * MAX_CURSOR_BYTES;
        if !whole || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoCursor);
        }
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| NoCursor);
        (0..text.len())
            .step_by(2)
            .map(byte)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Where a series goes on: at samples of a time, the last ones of which were told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) time_us: i64,
    /// Samples of exactly that time that were told.
    pub(super) told: usize,
}

impl Before {
    pub(super) fn cursor(self) -> Cursor {
        let told = u32::try_from(self.told).unwrap_or(u32::MAX);
        let mut bytes = self.time_us.to_be_bytes().to_vec();
        bytes.extend_from_slice(&told.to_be_bytes());
        Cursor(bytes)
    }

    pub(super) fn of(cursor: &Cursor) -> Result<Self, NoCursor> {
        let (time, told) = cursor.0.split_first_chunk::<8>().ok_or(NoCursor)?;
        let told: [u8; 4] = told.try_into().map_err(|_| NoCursor)?;
        let told = usize::try_from(u32::from_be_bytes(told)).map_err(|_| NoCursor)?;
        // A page tells so many at most, and they are kept in memory to be passed over.
        let time_us = i64::from_be_bytes(*time);
        let before = Self { time_us, told };
        (told <= MAX_PAGE).then_some(before).ok_or(NoCursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text_and_others_are_refused() {
        let cursor = Cursor(vec![0, 0xff, 0x20, 7]);
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["0", "zz", "+1", "é0"] {
            assert_eq!(text.parse::<Cursor>(), Err(NoCursor), "{text}");
        }
        let longest = "00".repeat(MAX_CURSOR_BYTES);
        assert!(longest.parse::<Cursor>().is_ok());
        assert!(format!("{longest}00").parse::<Cursor>().is_err());
    }

    #[test]
    fn a_place_in_a_series_survives_and_asks_for_no_more_memory_than_a_page() {
        let before = |told| Before { time_us: -5, told };
        assert_eq!(Before::of(&before(MAX_PAGE).cursor()), Ok(before(MAX_PAGE)));
        assert_eq!(Before::of(&before(MAX_PAGE + 1).cursor()), Err(NoCursor));
        assert_eq!(Before::of(&Cursor(vec![1; 11])), Err(NoCursor));
    }
}
