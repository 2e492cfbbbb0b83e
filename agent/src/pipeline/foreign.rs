//! Core: the bytes of a node's record in the agent's spool, and of the snapshot with which each segment of
//! such records begins.
//!
//! A record:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | lane |
//! | 1 | flags: 1 the node keeps its epoch in RAM alone |
//! | 1, n | length of the node's id, the id |
//! | 8 | boot in which its epoch was written, little-endian; 0 if unknown |
//! | rest | number, epoch, clock, schema and frame, as in a record of the agent itself ([`super::record`]) |
//!
//! A schema stands with the first record of each segment that needs it: each segment can be read alone.
//!
//! A snapshot:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, now 1 |
//! | 8 | id under which nodes know this spool, little-endian |
//! | each: | streams of nodes, the latest used first |
//! | | lane (1), flags (1), length of the id (1), the id, epoch (8), boot (8) |
//! | | what was received of it: length (2, little-endian), bytes of a receiver ([`headwater_proto::delivery::snapshot`]) |
//!
//! | flag of a stream | means |
//! |---|---|
//! | 1 | the node keeps it in RAM alone |
//! | 2 | its times count from the boot |
//! | 4 | its writer has ended |

use headwater_proto::delivery::snapshot::MAX_SNAPSHOT_BYTES as MAX_RECEIVER_BYTES;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, Stream};
use headwater_proto::time::Base;

use super::record::{self, Envelope, Life, Malformed};

/// The snapshot version that this build writes and reads.
pub const SNAPSHOT_VERSION: u8 = 1;
/// Most bytes of the streams in a snapshot; those that were used longest ago stay out. Their nodes send
/// again what they still hold.
pub const MAX_SNAPSHOT_BYTES: usize = 128 << 10;
/// What stands in place of a source's name: the agent itself did not make the record.
pub const NODE: &str = "node";

const RAM: u8 = 1;
const UPTIME: u8 = 2;
const ENDED: u8 = 4;

/// A record of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign<'a> {
    /// The node's stream.
    pub stream: Stream,
    /// In which of the node's boots it was written, and where its times count from.
    pub life: Life,
    /// The node keeps the epoch in RAM alone.
    pub ram: bool,
    /// The bytes of the envelope.
    pub bytes: &'a [u8],
    /// Number, clock, schema and frame.
    pub envelope: Envelope<'a>,
}

/// Appends a record. `envelope` has the epoch and [`NODE`] as its source.
pub fn encode(stream: &Stream, boot: u64, ram: bool, envelope: &Envelope<'_>, out: &mut Vec<u8>) {
    out.push(stream.lane.to_u8());
    out.push(flag(ram, RAM));
    put_id(&stream.device, out);
    out.extend_from_slice(&boot.to_le_bytes());
    envelope.encode(out);
}

/// Reads a record.
///
/// # Errors
/// [`Malformed`]; never panics.
pub fn decode(payload: &[u8]) -> Result<Foreign<'_>, Malformed> {
    read(payload).ok_or(Malformed { what: "record" })
}

fn read(payload: &[u8]) -> Option<Foreign<'_>> {
    let (&[lane, flags], mut rest) = payload.split_first_chunk::<2>()?;
    let device = take_id(&mut rest)?;
    let boot = take_u64(&mut rest)?;
    let envelope = record::decode(rest).ok()?;
    let stream = Stream {
        device,
        lane: Lane::from_u8(lane)?,
        epoch: envelope.epoch?,
    };
    if flags & !RAM != 0 {
        return None;
    }
    Some(Foreign {
        stream,
        life: Life {
            boot,
            base: envelope.life.base,
        },
        ram: flags & RAM != 0,
        bytes: rest,
        envelope,
    })
}

/// A node's stream as a snapshot lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The node's stream.
    pub stream: Stream,
    /// In which of the node's boots it was written, and where its times count from.
    pub life: Life,
    /// The node keeps it in RAM alone.
    pub ram: bool,
    /// Its writer has ended.
    pub ended: bool,
    /// What was received of it, as bytes of a receiver.
    pub received: Vec<u8>,
}

/// Begins a snapshot: its version, and the id under which nodes know this spool.
pub fn begin_snapshot(spool: JournalId, out: &mut Vec<u8>) {
    out.push(SNAPSHOT_VERSION);
    out.extend_from_slice(&spool.0.to_le_bytes());
}

/// Adds a stream to a snapshot.
pub fn add_stream(listed: &Listed, out: &mut Vec<u8>) {
    let Ok(len) = u16::try_from(listed.received.len()) else {
        return;
    };
    out.push(listed.stream.lane.to_u8());
    out.push(
        flag(listed.ram, RAM)
            | flag(listed.life.base == Base::Uptime, UPTIME)
            | flag(listed.ended, ENDED),
    );
    put_id(&listed.stream.device, out);
    out.extend_from_slice(&listed.stream.epoch.get().to_le_bytes());
    out.extend_from_slice(&listed.life.boot.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&listed.received);
}

/// Reads a snapshot.
///
/// # Errors
/// [`Malformed`]; never panics, and allocates no more than the bytes justify.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(JournalId, Vec<Listed>), Malformed> {
    read_snapshot(bytes).ok_or(Malformed { what: "snapshot" })
}

fn read_snapshot(mut bytes: &[u8]) -> Option<(JournalId, Vec<Listed>)> {
    let (&version, rest) = bytes.split_first()?;
    if version != SNAPSHOT_VERSION {
        return None;
    }
    bytes = rest;
    let spool = JournalId(take_u64(&mut bytes)?);
    let mut all = Vec::new();
    while let Some((&[lane, flags], mut rest)) = bytes.split_first_chunk::<2>() {
        let device = take_id(&mut rest)?;
        let epoch = Epoch::new(take_u64(&mut rest)?);
        let boot = take_u64(&mut rest)?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_le_bytes(*len));
        if flags & !(RAM | UPTIME | ENDED) != 0 || len > MAX_RECEIVER_BYTES {
            return None;
        }
        let (received, rest) = rest.split_at_checked(len)?;
        let base = if flags & UPTIME == 0 {
            Base::Wall
        } else {
            Base::Uptime
        };
        all.push(Listed {
            stream: Stream {
                device,
                lane: Lane::from_u8(lane)?,
                epoch,
            },
            life: Life { boot, base },
            ram: flags & RAM != 0,
            ended: flags & ENDED != 0,
            received: received.to_vec(),
        });
        bytes = rest;
    }
    bytes.is_empty().then_some((spool, all))
}

const fn flag(on: bool, bit: u8) -> u8 {
    if on { bit } else { 0 }
}

fn put_id(device: &DeviceId, out: &mut Vec<u8>) {
    let id = device.as_str().as_bytes();
    out.push(u8::try_from(id.len()).expect("an id has at most 128 bytes"));
    out.extend_from_slice(id);
}

fn take_id(rest: &mut &[u8]) -> Option<DeviceId> {
    let (&len, after) = rest.split_first()?;
    let (id, after) = after.split_at_checked(usize::from(len))?;
    *rest = after;
    DeviceId::new(std::str::from_utf8(id).ok()?).ok()
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::bundle::Stamps;
    use proptest::prelude::*;

    fn stream(epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new("n7").unwrap(),
            lane: Lane::Bulk,
            epoch: Epoch::new(epoch),
        }
    }

    fn envelope(epoch: u64, base: Base) -> Envelope<'static> {
        Envelope {
            seq: 300,
            epoch: Some(Epoch::new(epoch)),
            life: Life {
                boot: if base == Base::Uptime { 9 } else { 0 },
                base,
            },
            stamps: Stamps::default(),
            source: NODE,
            cursor: None,
            from: None,
            live: false,
            stored_to: None,
            schema: Some((5, b"sc")),
            frame: b"frame",
        }
    }

    fn listed(epoch: u64) -> Listed {
        Listed {
            stream: stream(epoch),
            life: Life {
                boot: 3,
                base: Base::Uptime,
            },
            ram: false,
            ended: true,
            received: vec![1, 2],
        }
    }

    #[test]
    fn the_bytes_of_a_record_are_frozen() {
        let mut out = Vec::new();
        encode(&stream(2), 9, true, &envelope(2, Base::Wall), &mut out);
        assert_eq!(
            out,
            b"\x02\x01\x02n7\x09\0\0\0\0\0\0\0\xac\x02\x14\x04node\x02\0\0\0\0\0\0\0\x05\x02scframe"
        );
        let read = decode(&out).unwrap();
        assert_eq!((read.stream, read.ram), (stream(2), true));
        let base = Base::Wall;
        assert_eq!(read.life, Life { boot: 9, base });
        assert_eq!(record::decode(read.bytes).unwrap(), read.envelope);
    }

    #[test]
    fn the_bytes_of_a_snapshot_are_frozen() {
        let mut out = Vec::new();
        begin_snapshot(JournalId(7), &mut out);
        add_stream(&listed(2), &mut out);
        assert_eq!(
            out,
            b"\x01\x07\0\0\0\0\0\0\0\x02\x06\x02n7\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\x01\x02"
        );
        assert_eq!(decode_snapshot(&out), Ok((JournalId(7), vec![listed(2)])));
        out[0] += 1;
        assert_eq!(decode_snapshot(&out), Err(Malformed { what: "snapshot" }));
    }

    #[test]
    fn what_a_snapshot_says_was_received_has_a_receivers_size_at_most() {
        let with = |len| {
            let mut out = Vec::new();
            begin_snapshot(JournalId(7), &mut out);
            let received = vec![0; len];
            add_stream(
                &Listed {
                    received,
                    ..listed(2)
                },
                &mut out,
            );
            decode_snapshot(&out).is_ok()
        };
        assert!(with(MAX_RECEIVER_BYTES));
        assert!(!with(MAX_RECEIVER_BYTES + 1));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, cut in 0usize..60) {
            let _ = decode(&bytes);
            let _ = decode_snapshot(&bytes);
            let mut whole = Vec::new();
            encode(&stream(2), 9, false, &envelope(2, Base::Uptime), &mut whole);
            whole.truncate(cut);
            whole.extend(bytes);
            let _ = decode(&whole);
        }
    }
}
