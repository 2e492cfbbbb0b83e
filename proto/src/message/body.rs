//! Messages as bytes: the seal, postcard, and the checks after decoding.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Ack, EpochEnd, Gap, Hello, MAX_MESSAGE_BYTES, MAX_PAGES, MAX_SEQ, Mark, Reject, SchemaRequest,
    Stat, TimeBase, Welcome,
};
use crate::frame::{self, Kind};
use crate::ids::Epoch;
use crate::portion::{Held, Portion};
use crate::varint::NoRoom;

/// Bytes of a seal: flag, counter, code.
const SEAL_BYTES: usize = 1 + 8 + 16;

/// Why a body was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not postcard of this message, or bytes follow it.
    #[error("the body is not a {0:?} message")]
    Body(Kind),
    /// Its numbers contradict each other or pass their limits.
    #[error("the numbers of a {0:?} message make no sense")]
    Sense(Kind),
    /// The seal has an unknown form.
    #[error("the seal of a {0:?} message has an unknown form")]
    Seal(Kind),
}

/// A body with a frame kind of its own.
pub trait Body: Serialize + DeserializeOwned {
    /// The kind of its frame.
    const KIND: Kind;
    /// Whether a seal stands before it.
    const SEALED: bool;
    /// Whether its numbers make sense; checked after decoding.
    fn makes_sense(&self) -> bool;
}

/// Proof that a down message is the collector's. Reserved: no message carries one yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// Rises with every message to this sender.
    pub counter: u64,
    /// First half of the HMAC-SHA-256.
    pub mac: [u8; 16],
}

/// Writes the payload of a message's frame, unsealed; returns its length.
///
/// # Errors
/// [`NoRoom`] if `out` is too short; [`MAX_MESSAGE_BYTES`] always suffices.
pub fn encode<M: Body>(message: &M, out: &mut [u8]) -> Result<usize, NoRoom> {
    encode_sealed(message, None, out)
}

/// Writes the payload of a down message's frame with its seal; returns its length.
///
/// # Errors
/// As [`encode`].
pub fn encode_sealed<M: Body>(
    message: &M,
    seal: Option<&Seal>,
    out: &mut [u8],
) -> Result<usize, NoRoom> {
    let mut at = 0;
    if M::SEALED {
        if let Some(seal) = seal {
            let place = out.first_chunk_mut::<SEAL_BYTES>().ok_or(NoRoom)?;
            place[0] = 1;
            place[1..9].copy_from_slice(&seal.counter.to_le_bytes());
            place[9..].copy_from_slice(&seal.mac);
            at = SEAL_BYTES;
        } else {
            *out.first_mut().ok_or(NoRoom)? = 0;
            at = 1;
        }
    }
    let body = out.get_mut(at..).ok_or(NoRoom)?;
    let written = postcard::to_slice(message, body).map_err(|_| NoRoom)?.len();
    Ok(at + written)
}

/// Writes a whole frame, unsealed; returns its length.
///
/// # Errors
/// As [`encode`].
pub fn encode_frame<M: Body>(message: &M, out: &mut [u8]) -> Result<usize, NoRoom> {
    let mut payload = [0u8; MAX_MESSAGE_BYTES];
    let len = encode(message, &mut payload)?;
    frame::encode(M::KIND, &payload[..len], out)
}

/// The payload of a message's frame, unsealed.
#[cfg(feature = "alloc")]
#[must_use]
pub fn to_vec<M: Body>(message: &M) -> alloc::vec::Vec<u8> {
    let mut out = alloc::vec![0; MAX_MESSAGE_BYTES];
    let len = encode(message, &mut out).expect("MAX_MESSAGE_BYTES holds every message");
    out.truncate(len);
    out
}

/// Appends a whole frame, unsealed.
#[cfg(feature = "alloc")]
pub fn append_frame<M: Body>(message: &M, out: &mut alloc::vec::Vec<u8>) {
    frame::append(M::KIND, &to_vec(message), out).expect("a message is far below a frame's limit");
}

/// Reads the payload of a message's frame.
///
/// # Errors
/// [`MessageError`]. No bytes make it panic.
pub fn decode<M: Body>(payload: &[u8]) -> Result<M, MessageError> {
    decode_sealed(payload).map(|(message, _, _)| message)
}

/// Reads the payload of a message's frame: the message, its seal, and the body's bytes, over which
/// the seal is computed.
///
/// # Errors
/// As [`decode`].
pub fn decode_sealed<M: Body>(payload: &[u8]) -> Result<(M, Option<Seal>, &[u8]), MessageError> {
    let (seal, body) = if M::SEALED {
        split_seal::<M>(payload)?
    } else {
        (None, payload)
    };
    let (message, rest) =
        postcard::take_from_bytes::<M>(body).map_err(|_| MessageError::Body(M::KIND))?;
    if !rest.is_empty() {
        return Err(MessageError::Body(M::KIND));
    }
    if !message.makes_sense() {
        return Err(MessageError::Sense(M::KIND));
    }
    Ok((message, seal, body))
}

fn split_seal<M: Body>(payload: &[u8]) -> Result<(Option<Seal>, &[u8]), MessageError> {
    let error = MessageError::Seal(M::KIND);
    match payload.split_first() {
        Some((0, body)) => Ok((None, body)),
        Some((1, rest)) => {
            let (counter, rest) = rest.split_first_chunk::<8>().ok_or(error)?;
            let (mac, body) = rest.split_first_chunk::<16>().ok_or(error)?;
            Ok((
                Some(Seal {
                    counter: u64::from_le_bytes(*counter),
                    mac: *mac,
                }),
                body,
            ))
        }
        _ => Err(error),
    }
}

/// Below the limit and in order.
const fn is_range(first: u64, next: u64) -> bool {
    first <= next && next <= MAX_SEQ
}

/// 63 bits, as [`Epoch::new`] makes them.
const fn is_epoch(epoch: Epoch) -> bool {
    epoch.get() >> 63 == 0
}

const fn is_page(page: u8, pages: u8) -> bool {
    page < pages && pages <= MAX_PAGES
}

fn are_marks(marks: &[Mark]) -> bool {
    marks.iter().all(|mark| {
        let mut edge = mark.received;
        is_epoch(mark.epoch)
            && mark.committed <= mark.received
            && mark.received <= MAX_SEQ
            && mark.ranges.iter().all(|range| {
                let in_order = edge <= range.first && range.first < range.next;
                edge = range.next;
                in_order && range.next <= MAX_SEQ
            })
    })
}

impl<const N: usize> Body for Hello<N> {
    const KIND: Kind = Kind::Hello;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        self.version_min <= self.version_max
            && is_page(self.page, self.pages)
            && self
                .streams
                .iter()
                .all(|s| is_epoch(s.epoch) && is_range(s.oldest, s.next))
    }
}

impl<const N: usize> Body for Stat<N> {
    const KIND: Kind = Kind::Stat;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        true
    }
}

impl<const N: usize> Body for Gap<N> {
    const KIND: Kind = Kind::Gap;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch)
            && self
                .seqs
                .is_none_or(|range| is_range(range.first, range.next) && !range.is_empty())
            && self
                .t_first
                .zip(self.t_last)
                .is_none_or(|(first, last)| first <= last)
    }
}

impl<const N: usize> Body for EpochEnd<N> {
    const KIND: Kind = Kind::EpochEnd;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch) && is_range(self.first, self.next)
    }
}

impl<const N: usize> Body for TimeBase<N> {
    const KIND: Kind = Kind::TimeBase;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        i64::try_from(self.uptime_us).is_ok()
    }
}

impl Body for Portion {
    const KIND: Kind = Kind::Portion;
    const SEALED: bool = false;
    fn makes_sense(&self) -> bool {
        !self.source.is_empty() && self.from.is_none_or(|from| self.to.covers(from))
    }
}

impl<const N: usize> Body for Held<N> {
    const KIND: Kind = Kind::Held;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        self.places.iter().all(|place| !place.source.is_empty())
    }
}

impl<const N: usize> Body for Welcome<N> {
    const KIND: Kind = Kind::Welcome;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_page(self.page, self.pages) && are_marks(&self.marks)
    }
}

impl<const N: usize> Body for Ack<N> {
    const KIND: Kind = Kind::Ack;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        are_marks(&self.marks)
    }
}

impl<const N: usize> Body for Reject<N> {
    const KIND: Kind = Kind::Reject;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch) && is_range(self.range.first, self.range.next)
    }
}

impl<const N: usize> Body for SchemaRequest<N> {
    const KIND: Kind = Kind::SchemaRequest;
    const SEALED: bool = true;
    fn makes_sense(&self) -> bool {
        is_epoch(self.epoch)
    }
}
