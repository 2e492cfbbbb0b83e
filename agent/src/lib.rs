//! The agent: reads sensors, makes their samples durable on its own disk, and sends them until the
//! collector says that they are in the lake.
//!
//! ```text
//! source → queue → engine (admit → batch → spool, synced → sender) → link → collector
//!                     ▲ forget: committed ◄────────────────────────────┘
//! ```
//!
//! Memory is bounded: `memory.readings_kib` for readings not yet on disk, `memory.fallback_kib` for
//! records while the disk cannot be written, 192 readings per source on their way, 32 KiB for each
//! connection that sends lines and 272 KiB for the output of a command, a few times its length for the
//! record that is being read (at most 8 MiB for a line and 24 MiB for a document, however they are made),
//! one bundle of at most 128 KiB being packed, one on its way to the link and those that the link holds
//! (32 at most, and no more bytes than the collector's credit).

mod check;
pub mod command;
pub mod config;
pub mod desk;
pub mod doctor;
pub mod origins;
pub mod pipeline;
pub mod run;
pub mod source;
pub mod status;
pub mod uplink;

pub use headwater_program::clock;
