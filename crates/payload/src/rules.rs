//! Core: the rules by which a payload is read.

use crate::time::{TimeFormat, Unit, Zone};

/// Rules of a payload. [`Rules::DEFAULT`] reads most devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// Name of a single value; empty stands for `value`.
    pub metric: &'a str,
    /// Stands before each name of JSON and CSV, joined by a dot; may be empty.
    pub prefix: &'a str,
    /// Keeps `values.` in names. Otherwise an object called `values`, or an array of that name whose
    /// elements carry names, adds nothing to the names of its members.
    pub keep_values: bool,
    /// Where the time of JSON and CSV stands.
    pub time: TimeRule<'a>,
    /// Unit of the times in line protocol; `None` tells it by magnitude.
    pub precision: Option<Unit>,
    /// Name of the JSON member whose members are tags, if there may be one.
    pub tags: Option<&'a str>,
    /// The members of a JSON object are devices: each holds an object of values, or an array of them.
    pub devices: bool,
    /// Separates the cells of CSV; not a quote, a line feed or a carriage return.
    pub delimiter: u8,
    /// The header of CSV that has none of its own.
    pub header: Option<&'a str>,
}

impl Rules<'static> {
    /// The rules without any configuration.
    pub const DEFAULT: Self = Self {
        metric: "",
        prefix: "",
        keep_values: false,
        time: TimeRule::Auto,
        precision: None,
        tags: None,
        devices: false,
        delimiter: b',',
        header: None,
    };
}

impl Default for Rules<'static> {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Where the time of a message, element or row stands.
///
/// A time holds for the object it stands in. It is looked for in a message, in each element of an
/// array, and in each object that holds a member called `values`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeRule<'a> {
    /// A member called `ts`, `time`, `timestamp`, `Time`, `datetime` or `date_time`, also with `_s`,
    /// `_ms`, `_us` or `_ns` behind it, if its value reads as a time between 2000 and 2100:
    /// RFC 3339 with its offset, or a Unix time. The first of this list that does is the time, and no
    /// metric. An element that carries a name and a value may also call it `t`.
    Auto,
    /// Nothing is a time.
    Ignore,
    /// The member of this name, or at this way through nested objects, joined by dots. Without it
    /// there is no time; with one that cannot be read the object or row is refused.
    Key {
        /// The name.
        name: &'a str,
        /// How the value is written.
        format: TimeFormat,
        /// The zone of times without offset; such times are refused without it.
        zone: Option<Zone>,
    },
}
