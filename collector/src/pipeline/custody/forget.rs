//! Core: a device of which an operator says that it will not come back.

use headwater_proto::ids::{DeviceId, Stream};
use headwater_proto::time::Now;
use headwater_spool::Disk;

use super::{Custody, Refused, clock};

/// What became of the open epochs of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// These are abandoned now, and what is missing of them is named.
    pub abandoned: Vec<Stream>,
    /// These are listed by a client that is connected, and stay open.
    pub listed: Vec<Stream>,
}

/// An operator's word could not be carried out; nothing speaks against trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// The journal is full.
    #[error("the journal has no room for it; try again when the sinks have come further")]
    Full,
    /// The collector's clock is in doubt: nobody can say when what is missing was lost.
    #[error(
        "the collector's clock is in doubt; see `headwater-collector status`, and try again when it is right"
    )]
    Clock,
    /// The disk failed.
    #[error("the journal could not take it; see the collector's log")]
    Failed,
}

impl<D: Disk> Custody<D> {
    /// Abandons every open epoch of `device` that no connected client lists, and names what is missing
    /// of each in a gap; durable after the next [`Custody::sync`]. What comes of one all the same is
    /// taken and wins over the gap. After an error part of them may be abandoned.
    ///
    /// # Errors
    /// [`ForgetError`].
    pub fn forget_device(&mut self, device: &DeviceId, now: Now) -> Result<Forgotten, ForgetError> {
        let now = clock::look(self, now);
        if self.clock.doubt().is_some() {
            return Err(ForgetError::Clock);
        }
        let mut forgotten = Forgotten::default();
        let open = self.streams.ledger().streams_of(device);
        let open = open.filter(|(_, track)| track.is_open());
        let open: Vec<Stream> = open.map(|(stream, _)| stream.clone()).collect();
        for stream in open {
            if self.sessions.is_listed(&stream) {
                forgotten.listed.push(stream);
                continue;
            }
            self.upkeep(now)
                .abandon(&stream)
                .map_err(|refused| match refused {
                    Refused::Full => ForgetError::Full,
                    Refused::Failed => ForgetError::Failed,
                })?;
            self.streams.end_absence(&stream);
            forgotten.abandoned.push(stream);
        }
        Ok(forgotten)
    }
}
