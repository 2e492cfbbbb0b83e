//! The residual model: cells become residuals, and residuals become cells.

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
