//! The formats, their rules and bounds, and cases from the field.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod bounds;
mod cases;
mod csv;
mod json;
mod line;
mod properties;
mod show;
mod single;
mod time;
