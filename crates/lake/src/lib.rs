//! The lake: Parquet tables behind a Delta log of our own, written exactly once.
//!
//! ```text
//! rows (buffered) → files (cut by table and date, sorted) → parquet (bytes) → plan (names, hashes)
//!      → writer (stage, publish, commit, finish) → store (a folder, memory; put if absent)
//! lake → audit (is everything there once?) · catalog, ddl (how to read it) · prune · guard
//! ```
//!
//! | path | what |
//! |---|---|
//! | `<table>/_delta_log/<version>.json` | commits: the truth |
//! | `<table>/hot/dt=<date>/<journal>-<first>-<last>-0.parquet` | rows |
//! | `_headwater/stage/<journal>/` | files that are not published yet |
//! | `_headwater/schemas/<sha256>` | schemas of the wire, and dictionaries of its log lines |
//! | `catalog.json` | tables, columns, units, ranges, versions |

pub mod audit;
pub mod catalog;
mod checkpoint;
pub mod date;
pub mod ddl;
pub mod delta;
mod files;
pub mod guard;
pub mod parquet;
pub mod plan;
pub mod prune;
mod ranges;
mod read;
mod row;
pub mod rows;
pub mod scan;
pub mod schema;
pub mod store;
pub mod writer;

pub use plan::{Plan, PlanError, PlanFile, Sha256};
pub use read::ReadError;
pub use rows::{
    DeviceRow, EpochRow, EpochState, GapRow, LogRow, MetricRow, QuarantineRow, Record, RowError,
    Rows, SampleRow, TimeClass, ValueKind,
};
pub use schema::{Encoding, Table};
pub use store::{LocalStore, MemStore, Put, Store, StoreError};
pub use writer::{Flush, Lake, LakeError, Settings};
