//! The residual model: what a value is predicted to be, and how far it is off.
//!
//! ```text
//! bits ── scale ──► mantissa, correction ── unit ──► quotient ── predictor ──► residual
//! ```
//!
//! | step | undoes | parameters |
//! |---|---|---|
//! | scale | floats as integers: decimals, parts of a unit, ranks among levels, bit patterns | `scale`, `corrections`, levels |
//! | unit | a common divisor, or the steps of a converter | `divisor`, `offset`, `stride` |
//! | predictor | what earlier values of the series predict | `predictor`, `slope`, `reference` |
//!
//! A [`Plan`] holds the first two steps of a column, a [`History`] the third within a series. Back ends
//! code [`Symbol`]s.

mod history;
#[cfg(feature = "alloc")]
mod learn;
mod levels;
mod plan;
#[cfg(feature = "alloc")]
mod recent;
pub mod scale;
#[cfg(feature = "alloc")]
mod split;
mod symbol;
#[cfg(feature = "alloc")]
mod table;

pub use crate::schema::params::Predictor;
pub use history::{History, TimeHistory, Width};
#[cfg(feature = "alloc")]
pub(crate) use learn::{learn, learn_at, symbol_of};
pub use plan::Plan;
#[cfg(feature = "alloc")]
pub(crate) use recent::Recent;
#[cfg(feature = "alloc")]
pub(crate) use split::{NONE, parts};
pub use symbol::{Class, Symbol};
#[cfg(feature = "alloc")]
pub(crate) use table::Table;
