//! The AWS SDK behind two seams: a lake's [`Store`](headwater_lake::Store) in S3, and calls of streaming services.
//!
//! | module | what it is |
//! |---|---|
//! | `access` | whose credentials, and where; core |
//! | `bucket` | the settings of a lake in S3; core |
//! | `remedy` | what an operator has to do; core |
//! | `trouble` | what the SDK tells of a call that failed; core |
//! | `s3` | the objects of a lake as requests |
//! | `streams` | Kinesis and Firehose, one call each |
//! | `set_up` | runtime, configuration, clients |
//!
//! It is a crate of its own for the sake of those who build: the SDK's code is made once, not with each change of the
//! collector. One layer repeats what fails, and it is ours: the SDK's own is off, for it takes a call that succeeds for
//! success of each record.

#![cfg_attr(
    not(feature = "sdk"),
    allow(
        dead_code,
        reason = "a build without the SDK checks what it does not use"
    )
)]

mod access;
mod bucket;
mod remedy;
#[cfg_attr(not(feature = "sdk"), path = "s3_not_built.rs")]
mod s3;
#[cfg(feature = "sdk")]
mod set_up;
#[cfg(feature = "sdk")]
mod streams;
mod trouble;

pub use access::Access;
pub use bucket::{Bucket, MAX_PREFIX_BYTES, RawBucket, SCHEME};
pub use remedy::credentials_remedy;
pub use s3::open;
#[cfg(feature = "sdk")]
pub use streams::{Item, Service, Streams};
pub use trouble::Trouble;

/// A build without the SDK.
pub const NOT_BUILT: &str =
    "this build has no sinks in AWS: build the collector with `--features aws`";
