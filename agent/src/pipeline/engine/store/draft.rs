//! Core: a record before it has a number, and what it says of epochs and boots.

use std::sync::Arc;

use headwater_proto::bundle::Stamps;
use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, EpochEnd, Gap, GapReason, TimeBase};
use headwater_proto::time::{Base, UnixMicros};

use crate::pipeline::receipts::Owed;
use crate::pipeline::record::{Cursor, Envelope, Life};

/// A record as its maker gives it. A group whose sync failed is made of these: nothing of it must be
/// read back to be stored again.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) kind: Kind,
    pub(crate) stamps: Stamps,
    /// The source; empty when the agent itself made the record.
    pub(crate) source: String,
    /// Where the times of a source's record count from.
    pub(crate) base: Base,
    pub(crate) cursor: Option<Cursor>,
    /// With a cursor: where the source stood before the record, if it had read anything.
    pub(crate) from: Option<Cursor>,
    /// Its source loses what is not durable at a kill.
    pub(crate) live: bool,
    /// It waits for a disk that takes nothing: its source can begin again.
    pub(crate) waits: bool,
    pub(crate) stored_to: Option<UnixMicros>,
    /// A schema that is first used by this record.
    pub(crate) schema: Option<(u32, Arc<[u8]>)>,
    pub(crate) frame: Vec<u8>,
    /// Samples that are durable with it.
    pub(crate) samples: u64,
    pub(crate) says: Says,
    /// The receipts that wait for it.
    pub(crate) owed: Option<Owed>,
}

impl Draft {
    /// What the agent itself says. `device`: this one.
    pub(crate) fn own<B: Own>(body: &B, device: &DeviceId, stamps: Stamps) -> Box<Self> {
        let mut bytes = Vec::new();
        frame::append(B::KIND, &message::to_vec(body), &mut bytes)
            .expect("a message is far below a frame's limit");
        Box::new(Self {
            kind: B::KIND,
            stamps,
            source: String::new(),
            base: Base::Wall,
            cursor: None,
            from: None,
            live: false,
            waits: false,
            stored_to: None,
            schema: None,
            frame: bytes,
            samples: 0,
            says: body.says(device),
            owed: None,
        })
    }

    /// Whether the agent itself made it.
    pub(crate) const fn is_own(&self) -> bool {
        self.source.is_empty()
    }

    /// The record's bytes. `epoch`: where it does not live in memory only.
    pub(super) fn payload(&self, seq: u64, epoch: Option<Epoch>, life: Life) -> Vec<u8> {
        let schema = self.schema.as_ref();
        let mut payload = Vec::new();
        Envelope {
            seq,
            epoch,
            life,
            stamps: self.stamps,
            source: &self.source,
            cursor: self.cursor,
            from: self.from,
            live: self.live,
            stored_to: self.stored_to,
            schema: schema.map(|(number, bytes)| (*number, &**bytes)),
            frame: &self.frame,
        }
        .encode(&mut payload);
        payload
    }
}

/// What a record of the agent itself says that a lane must remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Says {
    /// Nothing of the kind.
    Nothing,
    /// An epoch of a lane is over.
    End {
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    },
    /// A gap names what an unclean stop of a source lost, up to a time if a clock knew it.
    Unclean {
        source: String,
        until: Option<UnixMicros>,
    },
    /// The wall time of a boot of this device, or of a node.
    Dated { device: DeviceId, boot: u64 },
}

impl Says {
    /// What a record on the disk says.
    pub(super) fn read(frame: &[u8], device: &DeviceId) -> Self {
        let Ok((frame, _)) = frame::decode(frame) else {
            return Self::Nothing;
        };
        let said = if frame.kind == Kind::EpochEnd {
            message::decode::<EpochEnd>(frame.payload).map(|end| end.says(device))
        } else if frame.kind == Kind::Gap {
            message::decode::<Gap>(frame.payload).map(|gap| gap.says(device))
        } else if frame.kind == Kind::TimeBase {
            message::decode::<TimeBase>(frame.payload).map(|base| base.says(device))
        } else {
            return Self::Nothing;
        };
        said.unwrap_or(Self::Nothing)
    }
}

/// A message that the agent stores as a record of its own.
pub(crate) trait Own: message::Body {
    /// What it says of this device, or of the boots of a node.
    fn says(&self, device: &DeviceId) -> Says;
}

impl Own for EpochEnd {
    fn says(&self, device: &DeviceId) -> Says {
        if self.origin != *device {
            return Says::Nothing;
        }
        Says::End {
            lane: self.lane,
            epoch: self.epoch,
            range: SeqRange::new(self.first, self.next),
        }
    }
}

impl Own for Gap {
    fn says(&self, device: &DeviceId) -> Says {
        if self.reason != GapReason::UncleanStop || self.origin != *device {
            return Says::Nothing;
        }
        let part = self.part.as_deref();
        Says::Unclean {
            source: part.unwrap_or_default().to_owned(),
            until: self.t_last,
        }
    }
}

impl Own for TimeBase {
    fn says(&self, _: &DeviceId) -> Says {
        Says::Dated {
            device: self.origin.clone(),
            boot: self.boot,
        }
    }
}
