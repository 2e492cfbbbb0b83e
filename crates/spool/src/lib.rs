//! The durable log of headwater: the agent's spool and the collector's journal.
//!
//! A [`Log`] is a folder of segment files. Records are numbered by a position that only grows; each
//! segment begins with a snapshot that its owner writes, so that whatever stands before it may go.
//! What the records mean is the owner's business.
//!
//! | promise | how |
//! |---|---|
//! | what [`Log::sync`] called durable survives a power cut | one write and one `fdatasync` per group; a segment's name, header and snapshot are synced before its first record |
//! | a crash never stops a start | only the tail is scanned, and cut at its first bad record; newest files without a record are dropped |
//! | stale bytes of a recycled file are never read | every checksum covers the segment's number |
//! | damage is named, never fatal | a bad record of a sealed segment is skipped, its positions are reported |
//! | a failed write or sync is believed | its segment is cut and sealed, its records come back as lost, the log goes on in a new segment |
//! | a full disk is met before it is full | segments are allocated whole, under a quota and a reserve; releasing never needs space |
//!
//! Everything is synchronous and generic over [`Disk`], so that a simulation runs the same code over
//! [`FakeDisk`] that a program runs over [`RealDisk`].

mod config;
pub mod disk;
mod error;
pub mod fake_disk;
mod fake_medium;
pub mod format;
pub mod fsck;
pub mod index;
pub mod lanes;
pub mod log;
pub mod reader;
pub mod recover;
mod room;
mod segments;
mod walk;

pub use disk::{Disk, DiskFile, DiskStats, RealDisk, Space};
pub use fake_disk::FakeDisk;
pub use index::SegmentInfo;
pub use lanes::{LaneConfig, Lanes, LanesConfig, Victim};
pub use log::{AppendError, Config, FullCause, Log, OpenError, ReleaseError, SyncError};
pub use reader::{Chunk, Damage, ReadError, Reader};
pub use recover::Recovery;
