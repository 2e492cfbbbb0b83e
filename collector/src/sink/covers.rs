//! Core: the numbers that a sink was handed, until it reports them.

use headwater_proto::ids::{SeqRange, Stream};

use crate::pipeline::numbers::{Listed, Numbers};

/// Numbers by stream, as a sink takes them from [`crate::interpret::Interpreted::covers`] and gives them to
/// custody in [`crate::sink::Delivered::streams`]. Bounded by what the sink takes before a delivery.
#[derive(Debug, Default)]
pub struct Covers(Numbers);

impl Covers {
    /// Adds what a record covers.
    pub fn add(&mut self, covers: &[(Stream, SeqRange)]) {
        for (stream, range) in covers {
            self.0.insert(stream, *range);
        }
    }

    /// All of it, and it is empty then.
    pub fn take(&mut self) -> Listed {
        self.0.take()
    }
}
