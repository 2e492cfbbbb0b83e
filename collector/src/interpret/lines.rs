//! Core: log lines.

use std::borrow::Cow;
use std::fmt;

use headwater_lake::schema::MAX_TIME_US;
use headwater_proto::text::{Lines, TextHeader};
use headwater_proto::time::UnixMicros;

use crate::pipeline::envelope::{Clock, TimeClass};

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Number of the line within its record.
    pub line: u32,
    /// When it was logged, Unix microseconds; the time of receipt where nothing dates it.
    pub ts_us: i64,
    /// The time as told, where `ts_us` is that of receipt in its place.
    pub told_us: Option<i64>,
    /// How its times became Unix time.
    pub clock: Clock,
    /// The log it belongs to, or empty.
    pub source: &'a str,
    /// The line, what is no UTF-8 replaced.
    pub message: Cow<'a, str>,
}

/// The lines of a record.
#[derive(Clone, Copy)]
pub struct LogLines<'a> {
    body: &'a [u8],
    source: &'a str,
    lines: u32,
    first_us: i64,
    clock: Clock,
    at: UnixMicros,
}

impl<'a> LogLines<'a> {
    /// No lines.
    pub(super) const NONE: Self = Self {
        body: &[],
        source: "",
        lines: 0,
        first_us: 0,
        clock: Clock::SYNCED,
        at: UnixMicros(0),
    };

    /// Whether `body` is the lines that `header` tells of.
    pub(super) fn are_whole(header: &TextHeader<'_>, body: &[u8]) -> bool {
        let mut walk = Lines::new(body, header.first_time_us);
        (0..header.lines).all(|_| walk.next().is_some()) && walk.is_done()
    }

    /// The lines of a decompressed `body`.
    pub(super) const fn new(
        header: &TextHeader<'a>,
        body: &'a [u8],
        clock: Clock,
        at: UnixMicros,
    ) -> Self {
        Self {
            body,
            source: header.name,
            lines: header.lines,
            first_us: header.first_time_us,
            clock,
            at,
        }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.lines
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Line<'a>> + use<'a> {
        let all = *self;
        let mut walk = Lines::new(all.body, all.first_us);
        (0..all.lines).map_while(move |line| {
            let (told_us, text) = walk.next()?;
            let is_dated = all.clock.class != TimeClass::Undated;
            let ts_us = told_us.saturating_add(all.clock.offset_us);
            let ts_us = is_dated.then_some(ts_us).filter(|ts_us| is_date(*ts_us));
            let clock = match ts_us {
                Some(_) => all.clock,
                None => Clock {
                    class: TimeClass::Received,
                    offset_us: 0,
                    error_ms: None,
                },
            };
            Some(Line {
                line,
                ts_us: ts_us.unwrap_or(all.at.0),
                told_us: ts_us.is_none().then_some(told_us),
                clock,
                source: all.source,
                message: String::from_utf8_lossy(text),
            })
        })
    }
}

impl fmt::Debug for LogLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// `ts_us`, or `otherwise` in place of a time outside the years 1970 to 9999.
pub(super) fn dated(ts_us: i64, otherwise: UnixMicros) -> i64 {
    if is_date(ts_us) { ts_us } else { otherwise.0 }
}

fn is_date(ts_us: i64) -> bool {
    (0..MAX_TIME_US).contains(&ts_us)
}
