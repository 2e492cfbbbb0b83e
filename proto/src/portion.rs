//! Which part of a source's content the records of a bundle hold, and how far the collector holds it: so that an
//! agent whose own memory of it is gone, or is an old copy, reads nothing twice.
//!
//! A source that can begin again (a file) gives a [`Cursor`] with all it reads. Behind the records of a bundle, a
//! [`Portion`] says from which cursor to which they go. A collector joins portions, and tells a device with
//! [`Held`] how far it holds each source's content without a hole. The agent resumes there only if the bytes before
//! that place are those that were read: the tag is of them.

use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, MAX_DEVICE_ID_BYTES};

/// Longest name of a source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 64;
/// Most portions in one bundle: an agent has as many sources.
pub const MAX_PORTIONS: u16 = 64;
/// Most places in one [`Held`].
pub const MAX_PLACES: usize = 16;

/// The name of a source.
pub type SourceName = String<MAX_SOURCE_BYTES>;

/// Where a resumable source stands, after the samples that it covers.
///
/// Ordered by `major`, then `minor`: a replay counts rows in `minor`; a followed log counts the bytes of its
/// present file in `minor`, and `major` rises from file to file. `tag` is the source's own (by which a file
/// is known again) and does not order; 0: its content cannot be known again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// The coarse part.
    pub major: u64,
    /// The fine part.
    pub minor: u64,
    /// Anything the source needs to find its place again.
    pub tag: u64,
}

impl Cursor {
    /// Whether everything up to `other` is covered by this cursor too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        (self.major, self.minor) >= (other.major, other.minor)
    }
}

/// Up, in a bundle: what of a source's content its records hold. Takes no sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Portion {
    /// The source.
    pub source: SourceName,
    /// Where the portion begins; `None`: where its source begins to read content that it never read.
    pub from: Option<Cursor>,
    /// Where it ends.
    pub to: Cursor,
}

/// How far a source's content is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The source.
    pub source: SourceName,
    /// All before it is held, from where the source began.
    pub cursor: Cursor,
    /// Nothing later of that source is held.
    pub is_last: bool,
}

/// Down, before a Welcome: how far the collector holds the content of a device's sources. Several may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<const N: usize = MAX_DEVICE_ID_BYTES> {
    /// The device.
    pub origin: DeviceId<N>,
    /// Of one source there may be several: it has read more than one content.
    pub places: Vec<Place, MAX_PLACES>,
}
