//! Core: which parts of the contents of devices' sources the journal took in: so that an agent that lost its spool,
//! or was brought back from an old copy, is told where to go on.
//!
//! The portions of one content are joined where one ends exactly where the next begins, which the tag of a cursor
//! proves. Within an epoch, thus within one life of the spool, places are ordered, and portions that overlap (a
//! bundle that came again, cut anew) are joined too. Portions are kept apart where something between them has not
//! come yet: a device that sends its newest records first. Told is what has no hole, from where a source began.

use std::collections::BTreeMap;

use headwater_proto::ids::{DeviceId, Epoch, Stream};
use headwater_proto::portion::{Cursor, Place, Portion, SourceName};
use serde::{Deserialize, Serialize};

use super::envelope::PortionHead;

/// Most pieces of one device; the one that was added to longest ago gives way.
pub const MAX_PIECES: usize = 64;
/// Most epochs by which a piece is known, the latest.
pub const MAX_PIECE_EPOCHS: usize = 4;
/// Most bytes of the pieces of all devices in a snapshot. Beyond it the device that takes most loses its oldest
/// piece, and where each has one, the device that was heard of longest ago.
pub const MAX_PORTION_BYTES: usize = 1 << 20;
/// Most bytes of a device beside its name and pieces.
const DEVICE_BYTES: usize = 4;

/// A part of a content without a hole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The source that gave the last of it.
    source: SourceName,
    /// Where it begins; `None`: where its source began.
    from: Option<Cursor>,
    to: Cursor,
    /// Those that its records came in, the latest last.
    epochs: Vec<Epoch>,
}

impl Piece {
    fn new(epoch: Epoch, portion: &Portion) -> Self {
        Self {
            source: portion.source.clone(),
            from: portion.from,
            to: portion.to,
            epochs: vec![epoch],
        }
    }

    fn is_of_life(&self, other: &Self) -> bool {
        let shares = |epoch: &Epoch| other.epochs.contains(epoch);
        self.source == other.source && self.epochs.iter().any(shares)
    }

    /// Whether all of a piece of the same life is in this one.
    fn holds(&self, other: &Self) -> bool {
        self.is_of_life(other) && self.begins_by(other.from) && self.to.covers(other.to)
    }

    /// Whether it begins no later than there.
    fn begins_by(&self, from: Option<Cursor>) -> bool {
        match (self.from, from) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(from)) => from.covers(own),
        }
    }

    /// Whether both are one part without a hole.
    fn joins(&self, other: &Self) -> bool {
        let reaches = |one: &Self, next: &Self| next.from.is_none_or(|from| one.to.covers(from));
        Some(self.to) == other.from
            || Some(other.to) == self.from
            || (self.is_of_life(other) && reaches(self, other) && reaches(other, self))
    }

    /// Both as one; `later` came later.
    fn joined(self, later: Self) -> Self {
        let from = if self.begins_by(later.from) {
            self.from
        } else {
            later.from
        };
        let (source, to) = if later.to.covers(self.to) {
            (later.source, later.to)
        } else {
            (self.source, self.to)
        };
        let mut epochs = self.epochs;
        epochs.retain(|epoch| !later.epochs.contains(epoch));
        epochs.extend(later.epochs);
        let beyond = epochs.len().saturating_sub(MAX_PIECE_EPOCHS);
        epochs.drain(..beyond);
        Self {
            source,
            from,
            to,
            epochs,
        }
    }

    /// As it stands in a snapshot.
    fn bytes(&self) -> usize {
        postcard::to_allocvec(self).map_or(0, |bytes| bytes.len())
    }
}

/// What one device's sources gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Device {
    /// The one that was added to last is the last.
    pieces: Vec<Piece>,
    /// When it was heard of.
    heard: u64,
    /// Bytes of the pieces, as they were counted when they were put in.
    bytes: usize,
}

/// The piece that goes together with this one: of its source, or, where nothing else is known of that, of another one,
/// which was renamed.
fn place_of_next(pieces: &[Piece], piece: &Piece) -> Option<usize> {
    let is_own = |known: &Piece| known.source == piece.source;
    let own = pieces
        .iter()
        .position(|known| is_own(known) && known.joins(piece));
    if own.is_some() || pieces.iter().any(is_own) {
        return own;
    }
    pieces.iter().position(|known| known.joins(piece))
}

/// What all devices' sources gave. Changes of the running group are tentative.
#[derive(Debug, Clone, Default)]
pub struct Portions {
    devices: BTreeMap<DeviceId, Device>,
    /// What the running group has changed, as it was before.
    undo: BTreeMap<DeviceId, Option<Device>>,
    count: u64,
    bytes: usize,
    /// Pieces that gave way.
    left: u64,
}

impl Portions {
    /// Whether all of it is known.
    #[must_use]
    pub fn knows(&self, head: &PortionHead) -> bool {
        let piece = Piece::new(head.epoch, &head.portion);
        let device = self.devices.get(&head.origin);
        device.is_some_and(|device| device.pieces.iter().any(|known| known.holds(&piece)))
    }

    /// Takes in a portion of which all records are in the journal.
    pub fn take(&mut self, head: &PortionHead) {
        let PortionHead {
            origin,
            epoch,
            portion,
        } = head;
        let mut piece = Piece::new(*epoch, portion);
        let mut device = self.remove(origin);
        while let Some(at) = place_of_next(&device.pieces, &piece) {
            piece = device.pieces.remove(at).joined(piece);
        }
        device.pieces.push(piece);
        if device.pieces.len() > MAX_PIECES {
            device.pieces.remove(0);
            self.left += 1;
        }
        self.insert(origin.clone(), device);
        while self.bytes > MAX_PORTION_BYTES && self.make_room() {}
    }

    /// How far the contents of a device's sources are held, from where each began.
    pub fn places(&self, origin: &DeviceId) -> impl Iterator<Item = Place> {
        let device = self.devices.get(origin);
        let pieces = device.map(|device| &*device.pieces).unwrap_or_default();
        let is_last = |piece: &Piece| {
            let mut of_source = pieces.iter().filter(|it| it.source == piece.source);
            of_source.all(|it| piece.to.covers(it.to))
        };
        pieces
            .iter()
            .filter(|piece| piece.from.is_none())
            .map(move |piece| Place {
                source: piece.source.clone(),
                cursor: piece.to,
                is_last: is_last(piece),
            })
    }

    /// Something of an epoch is lost that may have been told as held: what is known by it is known no more.
    pub fn doubt(&mut self, stream: &Stream) {
        let is_of = |piece: &Piece| piece.epochs.contains(&stream.epoch);
        let device = self.devices.get(&stream.device);
        if !device.is_some_and(|device| device.pieces.iter().any(is_of)) {
            return;
        }
        let mut device = self.remove(&stream.device);
        device.pieces.retain(|piece| !is_of(piece));
        if !device.pieces.is_empty() {
            self.put_in(stream.device.clone(), device);
        }
    }

    /// Pieces that gave way since the start: what they were of may be read twice by an agent without its spool.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// All of them, those first that were heard of longest ago.
    pub(crate) fn all(&self) -> Vec<(&DeviceId, &[Piece])> {
        let mut all: Vec<_> = self.devices.iter().collect();
        all.sort_unstable_by_key(|(_, device)| device.heard);
        all.into_iter()
            .map(|(id, device)| (id, &*device.pieces))
            .collect()
    }

    /// Puts back what [`Self::all`] gave.
    pub(crate) fn restore(all: Vec<(DeviceId, Vec<Piece>)>) -> Self {
        let mut portions = Self::default();
        for (id, pieces) in all {
            let device = Device {
                pieces,
                ..Device::default()
            };
            portions.insert(id, device);
        }
        portions
    }

    /// What was taken in is durable.
    pub(crate) fn synced(&mut self) {
        self.undo.clear();
    }

    /// The running group failed: nothing of it happened.
    pub(crate) fn roll_back(&mut self) {
        for (id, before) in std::mem::take(&mut self.undo) {
            self.take_out(&id);
            if let Some(before) = before {
                self.put_in(id, before);
            }
        }
    }

    /// A device was heard of.
    fn insert(&mut self, id: DeviceId, device: Device) {
        self.count += 1;
        let heard = self.count;
        self.put_in(id, Device { heard, ..device });
    }

    fn remove(&mut self, id: &DeviceId) -> Device {
        if !self.undo.contains_key(id) {
            let before = self.devices.get(id).cloned();
            self.undo.insert(id.clone(), before);
        }
        self.take_out(id)
    }

    fn put_in(&mut self, id: DeviceId, mut device: Device) {
        device.bytes = device.pieces.iter().map(Piece::bytes).sum();
        self.bytes += DEVICE_BYTES + id.as_str().len() + device.bytes;
        self.devices.insert(id, device);
    }

    fn take_out(&mut self, id: &DeviceId) -> Device {
        let device = self.devices.remove(id).unwrap_or_default();
        if !device.pieces.is_empty() {
            self.bytes -= DEVICE_BYTES + id.as_str().len() + device.bytes;
        }
        device
    }

    /// Whether something gave way.
    fn make_room(&mut self) -> bool {
        let devices = self.devices.iter();
        let most = devices
            .clone()
            .filter(|(_, device)| device.pieces.len() > 1)
            .max_by_key(|(_, device)| device.bytes);
        let oldest = || devices.min_by_key(|(_, device)| device.heard);
        let Some(id) = most.or_else(oldest).map(|(id, _)| id.clone()) else {
            return false;
        };
        let mut device = self.remove(&id);
        device.pieces.remove(0);
        self.left += 1;
        if !device.pieces.is_empty() {
            self.put_in(id, device);
        }
        true
    }
}

#[cfg(test)]
mod tests;
