//! The lake: Parquet tables behind a Delta log of our own, written exactly once.
//!
//! ```text
//! rows (buffered) → files (cut by table and date, sorted) → parquet (bytes) → plan (names, hashes)
//!      → writer (stage, publish, commit, finish) → store (a folder, memory; put if absent, swap)
//!         owner (who may write) · delta (a table's log) · head (where all logs are) · marks
//!         digest (whose hash stands where) · row_hash (what a batch's digest is made of) · faults (what is wrong with an object)
//! lake → audit (is everything there once?) · catalog, ddl (how to read it) · prune · replay · guard · repair
//! ```
//!
//! Where the objects are: `paths.rs`.

pub mod audit;
pub mod catalog;
mod command;
pub mod date;
pub mod ddl;
pub mod delta;
mod digest;
mod error;
mod faults;
mod files;
pub mod guard;
mod head;
mod marks;
mod numbers;
pub mod owner;
pub mod parquet;
mod paths;
pub mod plan;
pub mod prune;
mod ranges;
mod read;
pub mod repair;
pub mod replay;
mod row;
pub mod row_hash;
pub mod rows;
pub mod scan;
pub mod schema;
pub mod store;
pub mod writer;

pub use error::LakeError;
pub use faults::{Fault, MAX_FAULTS};
pub use numbers::{Near, near};
pub use owner::{Claim, Owner};
pub use paths::{HEAD_PATH, MARKS_PATH, OWNER_PATH};
pub use plan::{Plan, PlanError, PlanFile, Sha256};
pub use read::ReadError;
pub use rows::{
    DeviceRow, DigestRow, EpochRow, EpochState, GapRow, LogRow, MetricRow, QuarantineRow, Record,
    RowError, Rows, SampleRow, SpanKind, TimeClass, ValueKind,
};
pub use schema::{Encoding, Table};
pub use store::{Aside, Call, LocalStore, MemStore, Put, Store, StoreError, Swap, Tag, Tagged};
pub use writer::{Beyond, Flush, Found, Lake, MAX_NAMESAKES, MAX_SWEPT, Opened, Settings, Swept};
