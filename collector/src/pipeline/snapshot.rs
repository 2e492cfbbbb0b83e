//! Core: what a journal segment begins with, so that all before it may go. Version 5:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | n | `Head`, postcard: journal id, position since which it is without the lake, term of the lake that the marks agree with, the position that they are exact to, rule set, sinks' cursors and plans, sessions, plain counters, schemas, time bases, what its times of receipt are worth and the last of them |
//! | 4 | number of streams, little-endian |
//! | each | `TrackHead`, postcard, then the receiver's own bytes |
//! | each | [`Times`] of a stream, then of each plain counter, postcard: as much as `MAX_TIMES_BYTES` leaves to each |
//! | n | the portions of sources' contents by device, postcard: at most `MAX_PORTION_BYTES` |
//! | rest | open entries of plain devices, in the gate's format: the newest that the log's bound leaves room for |
//!
//! The log refuses a snapshot above its bound, and could then begin no segment ever again. So what
//! grows is admitted by what it may add here (`NEW_BYTES`, `HOLE_BYTES`).

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_gate::repeat::OpenEntries;
use headwater_proto::delivery::{Ranges, Receiver};
use headwater_proto::ids::{DeviceId, Epoch, JournalId, SeqRange, Stream};
use headwater_proto::sabotage::{self, Bug};
use headwater_proto::time::UnixMicros;
use headwater_spool::format::MAX_SNAPSHOT_BYTES;
use serde::{Deserialize, Serialize};

use super::envelope::{ClockHead, SchemaHead, SinkCursor};
use super::ledger::{self, Ledger, PlainTrack, SaidAt, Track};
use super::portions::{MAX_PORTION_BYTES, Piece, Portions};
use super::schemas::SchemaBook;
use super::spans::Times;
use super::time_bases::KnownBase;
use super::undated::{CLOCK_BYTES, Stretches};

/// The snapshot version this build writes and reads.
pub const VERSION: u8 = 5;

/// Most bytes of the times of all streams: with many, each keeps fewer, and a start knows when missing records were
/// made less closely. The two bounds below are of what stands beside them.
pub(crate) const MAX_TIMES_BYTES: usize = 2 << 20;
/// Up to here a new stream, device, session or schema is taken; the rest is for what is known.
pub(crate) const NEW_BYTES: usize = HOLE_BYTES - (3 << 20);
/// Up to here a stream may get another hole; the rest is for plans and the head of open entries.
pub(crate) const HOLE_BYTES: usize =
    MAX_SNAPSHOT_BYTES - MAX_TIMES_BYTES - MAX_PORTION_BYTES - CLOCK_BYTES - (1 << 20);
/// Most bytes of a stream without holes.
pub(crate) const STREAM_BYTES: usize = 336;
/// Most bytes of one more hole: a range in each of four sets.
pub(crate) const RANGE_BYTES: usize = 4 * 18;
/// Most bytes of a plain device's counter and marks, or of a schema's number.
pub(crate) const NUMBER_BYTES: usize = 192;

/// A sink's plan that may not be carried out yet; the lake's last one always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingPlan {
    /// The sink.
    pub sink: String,
    /// The plan's own position.
    pub position: u64,
    /// The sink's bytes.
    pub bytes: Vec<u8>,
}

/// By sink.
pub(crate) type Plans = BTreeMap<String, PendingPlan>;

/// The small things, as they are written.
#[derive(Debug, Serialize)]
struct Head<'a> {
    journal: JournalId,
    apart_since: Option<u64>,
    lake_term: u64,
    committed_to: u64,
    rules: &'a [u8],
    sinks: &'a [SinkCursor],
    plans: Vec<&'a PendingPlan>,
    sessions: Vec<&'a str>,
    plain_epoch: Epoch,
    plain: Vec<(Epoch, &'a DeviceId, u64, &'a [SeqRange])>,
    schemas: Vec<&'a [u8]>,
    numbers: &'a [(SchemaHead, u32)],
    time_bases: Vec<(&'a DeviceId, u64, KnownBase)>,
    clock: &'a ClockHead,
    last_receipt: Option<UnixMicros>,
}

/// The small things, as they are read.
#[derive(Debug, Deserialize)]
struct ReadHead<'a> {
    journal: JournalId,
    apart_since: Option<u64>,
    lake_term: u64,
    committed_to: u64,
    #[serde(borrow)]
    rules: &'a [u8],
    sinks: Vec<SinkCursor>,
    plans: Vec<PendingPlan>,
    sessions: Vec<String>,
    plain_epoch: Epoch,
    plain: Vec<(Epoch, DeviceId, u64, Vec<SeqRange>)>,
    #[serde(borrow)]
    schemas: Vec<&'a [u8]>,
    numbers: Vec<(SchemaHead, u32)>,
    time_bases: Vec<(DeviceId, u64, KnownBase)>,
    clock: ClockHead,
    last_receipt: Option<UnixMicros>,
}

/// What stands before each stream's marks.
#[derive(Debug, Serialize, Deserialize)]
struct TrackHead {
    stream: Stream,
    claimed: u64,
    ram: bool,
    boot: u64,
    relayed: bool,
    listed_at: UnixMicros,
    abandoned: bool,
    closed_at: Option<UnixMicros>,
}

/// All that a snapshot is made of.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) journal: JournalId,
    pub(crate) apart_since: Option<u64>,
    pub(crate) lake_term: u64,
    pub(crate) committed_to: u64,
    pub(crate) rules: &'a [u8],
    pub(crate) sinks: &'a [SinkCursor],
    pub(crate) plans: &'a Plans,
    pub(crate) sessions: &'a std::collections::BTreeSet<Arc<str>>,
    pub(crate) ledger: &'a Ledger,
    pub(crate) schemas: &'a SchemaBook,
    pub(crate) open: &'a OpenEntries,
    pub(crate) clock: &'a Stretches,
}

/// All that a snapshot gives back.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) journal: JournalId,
    /// Where the time without the lake began, if it did not end.
    pub(crate) apart_since: Option<u64>,
    /// Term of the lake that the marks agree with.
    pub(crate) lake_term: u64,
    /// Marks of all records below it say what was committed.
    pub(crate) committed_to: u64,
    /// The rule set of the time before.
    pub(crate) rules: Vec<u8>,
    pub(crate) sinks: Vec<SinkCursor>,
    pub(crate) plans: Plans,
    pub(crate) sessions: std::collections::BTreeSet<Arc<str>>,
    pub(crate) ledger: Ledger,
    pub(crate) schemas: SchemaBook,
    pub(crate) open: OpenEntries,
    /// What its times of receipt are worth.
    pub(crate) clock: Stretches,
}

impl Restored {
    const fn parts(&self) -> Parts<'_> {
        Parts {
            journal: self.journal,
            apart_since: self.apart_since,
            lake_term: self.lake_term,
            committed_to: self.committed_to,
            rules: self.rules.as_slice(),
            sinks: self.sinks.as_slice(),
            plans: &self.plans,
            sessions: &self.sessions,
            ledger: &self.ledger,
            schemas: &self.schemas,
            open: &self.open,
            clock: &self.clock,
        }
    }
}

/// Appends the snapshot to `out`; returns its bytes without times and open entries, which have a bound of their own.
pub(crate) fn write(parts: &Parts<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.push(VERSION);
    let (schemas, numbers) = parts.schemas.dump();
    let head = Head {
        journal: parts.journal,
        apart_since: parts.apart_since,
        lake_term: parts.lake_term,
        committed_to: parts.committed_to,
        rules: parts.rules,
        sinks: parts.sinks,
        plans: parts.plans.values().collect(),
        sessions: parts.sessions.iter().map(|client| &**client).collect(),
        plain_epoch: parts.ledger.plain_epoch(),
        plain: parts
            .ledger
            .plain_tracks()
            .map(|(epoch, device, track)| (epoch, device, track.next, track.committed.as_slice()))
            .collect(),
        schemas: schemas.iter().map(|bytes| &**bytes).collect(),
        numbers: &numbers,
        time_bases: parts.ledger.time_bases().all(),
        clock: parts.clock.head(),
        last_receipt: parts.clock.last(),
    };
    extend(&head, out);
    let forgets = sabotage::is(Bug::SegmentWithoutSnapshot);
    let streams = if forgets { 0 } else { parts.ledger.len() };
    out.extend_from_slice(&u32::try_from(streams).unwrap_or(u32::MAX).to_le_bytes());
    for (stream, track) in parts.ledger.streams().take(streams) {
        write_track(stream, track, out);
    }
    let bytes = out.len() - start;
    let each = MAX_TIMES_BYTES / (streams + parts.ledger.plain_tracks().count()).max(1);
    for (_, track) in parts.ledger.streams().take(streams) {
        let data = track.receiver.data();
        extend(&track.times.within(each, |seq| data.contains(seq)), out);
    }
    for (_, _, track) in parts.ledger.plain_tracks() {
        extend(&track.times.within(each, |seq| seq < track.next), out);
    }
    extend(&parts.ledger.portions.all(), out);
    let bytes_all = out.len() - start;
    parts
        .open
        .encode_within(MAX_SNAPSHOT_BYTES.saturating_sub(bytes_all), out);
    bytes
}

/// Appends what is known of one stream.
pub(crate) fn write_track(stream: &Stream, track: &Track, out: &mut Vec<u8>) {
    let head = TrackHead {
        stream: stream.clone(),
        claimed: track.claimed,
        ram: track.ram,
        boot: track.boot,
        relayed: track.relayed,
        listed_at: track.listed_at,
        abandoned: track.abandoned,
        closed_at: track.closed_at,
    };
    extend(&head, out);
    track.receiver.append_to(out);
}

/// Reads what is known of one stream, and the bytes after it.
pub(crate) fn read_track(bytes: &[u8]) -> Option<(Stream, Track, &[u8])> {
    let (head, after) = postcard::take_from_bytes::<TrackHead>(bytes).ok()?;
    let (receiver, len) = Receiver::decode(after).ok()?;
    let track = Track {
        receiver,
        claimed: head.claimed,
        noted: head.claimed,
        ram: head.ram,
        boot: head.boot,
        relayed: head.relayed,
        listed_at: head.listed_at,
        said_at: SaidAt::default(),
        abandoned: head.abandoned,
        closed_at: head.closed_at,
        times: Times::default(),
    };
    Some((head.stream, track, after.get(len..)?))
}

fn extend<T: Serialize>(value: &T, out: &mut Vec<u8>) {
    *out = postcard::to_extend(value, std::mem::take(out))
        .expect("plain values always serialise into a growing buffer");
}

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotRead {
    /// It is none.
    Damaged,
    /// Another version of this program wrote it.
    OtherVersion(u8),
}

/// Reads a snapshot.
pub(crate) fn read(bytes: &[u8]) -> Result<Restored, NotRead> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => read_present(rest).ok_or(NotRead::Damaged),
        Some((0, _)) | None => Err(NotRead::Damaged),
        Some((&version, _)) => Err(NotRead::OtherVersion(version)),
    }
}

/// The rule set in a snapshot's bytes, and what times of receipt are worth from there on.
pub(crate) fn preamble_of(bytes: &[u8]) -> Option<(Vec<u8>, ClockHead)> {
    let rest = bytes.strip_prefix(&[VERSION])?;
    let (head, _) = postcard::take_from_bytes::<ReadHead<'_>>(rest).ok()?;
    Some((head.rules.to_vec(), head.clock))
}

fn read_present(rest: &[u8]) -> Option<Restored> {
    let (head, rest) = postcard::take_from_bytes::<ReadHead<'_>>(rest).ok()?;
    let schemas = SchemaBook::default();
    for (number, place) in &head.numbers {
        schemas.bind(number, head.schemas.get(usize::try_from(*place).ok()?)?);
    }
    schemas.synced();
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut ledger = Ledger::new(head.plain_epoch);
    for _ in 0..u32::from_le_bytes(*count) {
        let (stream, track, after) = read_track(rest)?;
        rest = after;
        ledger.restore(stream, track);
    }
    for (epoch, device, next, ranges) in head.plain {
        let mut committed = Ranges::new();
        for range in ranges {
            committed.insert(range).ok()?;
        }
        let times = Times::default();
        let track = PlainTrack {
            next,
            committed,
            times,
        };
        ledger.restore_plain(epoch, device, track);
    }
    for times in ledger::all_times(&mut ledger) {
        let (read, after) = postcard::take_from_bytes::<Times>(rest).ok()?;
        (*times, rest) = (read.sound()?, after);
    }
    for (device, boot, base) in &head.time_bases {
        ledger.restore_time_base(device, *boot, *base);
    }
    let (portions, rest) = postcard::take_from_bytes::<Vec<(DeviceId, Vec<Piece>)>>(rest).ok()?;
    ledger.portions = Portions::restore(portions);
    let (open, _) = OpenEntries::decode(rest).ok()?;
    let sessions = head.sessions.into_iter().map(Arc::from).collect();
    let (journal, sinks) = (head.journal, head.sinks);
    let by_sink = |plan: PendingPlan| (plan.sink.clone(), plan);
    let plans = head.plans.into_iter().map(by_sink).collect();
    Some(Restored {
        journal,
        apart_since: head.apart_since,
        lake_term: head.lake_term,
        committed_to: head.committed_to,
        rules: head.rules.to_vec(),
        sinks,
        plans,
        sessions,
        ledger,
        schemas,
        open,
        clock: Stretches::new(head.clock, head.last_receipt),
    })
}

/// A snapshot as the next segment begins with it when nothing has happened since: read, and written
/// again. `None` if the bytes are none of this version.
#[must_use]
pub fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let restored = read(bytes).ok()?;
    let mut out = Vec::new();
    write(&restored.parts(), &mut out);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::envelope::{BatchHead, Change, Clock, MarkHead, RawHead, Record, Verdict};
    use crate::pipeline::envelope::{Tie, Undated};
    use crate::pipeline::rules::RulesId;
    use headwater_gate::{ConnId, Token};
    use headwater_proto::frame::{self, Kind};
    use headwater_proto::ids::Lane;
    use headwater_proto::schema::{Column, ColumnKind, Schema};
    use headwater_proto::time::Base;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const UNDATED: Undated = Undated {
        number: 2,
        boot: 3,
        zero_us: -4,
        by_fleet: true,
        last_us: 5,
    };

    fn stretches() -> Stretches {
        let head = ClockHead {
            undated: Some(UNDATED),
            waiting: vec![UNDATED],
            ties: vec![Tie::NONE],
        };
        Stretches::new(head, Some(UnixMicros(9)))
    }

    fn plan_of(sink: &str) -> (String, PendingPlan) {
        let plan = PendingPlan {
            sink: sink.to_owned(),
            position: 10,
            bytes: vec![1, 2],
        };
        (sink.to_owned(), plan)
    }

    fn bytes() -> Vec<u8> {
        let device = DeviceId::new("dev").unwrap();
        let stream = Stream {
            device: device.clone(),
            lane: Lane::Normal,
            epoch: Epoch::new(9),
        };
        let mut ledger = Ledger::new(Epoch::new(7));
        let at = UnixMicros(1);
        let change = Change::Opened {
            oldest: 0,
            ram: true,
            boot: 4,
            base: Base::Wall,
            relayed: false,
        };
        ledger.apply(
            &Record::Mark(MarkHead {
                stream: stream.clone(),
                change,
                at,
            }),
            false,
        );
        let mut frame = Vec::new();
        frame::append(Kind::Batch, b"x", &mut frame).unwrap();
        for seq in [0, 1, 5] {
            let (verdict, clock) = (Verdict::Store, Clock::SYNCED);
            let head = BatchHead {
                stream: stream.clone(),
                seq,
                verdict,
                at,
                clock,
                via: None,
                rules: RulesId::of(b"rules"),
                around: None,
                evidence: None,
            };
            ledger.apply(&Record::Batch(head, &frame), false);
        }
        let raw = RawHead {
            device: DeviceId::new("meter").unwrap(),
            epoch: Epoch::new(7),
            seq: 2,
            verdict: Verdict::Store,
            at,
            rules: RulesId::of(b"rules"),
            rule: 0,
            metric: "",
            topic: "t",
            client: "c",
            packet_id: 3,
            hash: 4,
        };
        ledger.apply(&Record::Raw(raw, b"{}"), false);
        ledger.synced();
        let plain = Stream {
            device: DeviceId::new("meter").unwrap(),
            lane: Lane::Plain,
            epoch: Epoch::new(7),
        };
        ledger.commit(&plain, SeqRange::new(0, 2));
        let mut open = OpenEntries::default();
        open.open(&"c".into(), 3, 4, 11, (ConnId(1), Token(1)));
        let schemas = SchemaBook::default();
        let mut schema = Vec::new();
        Schema::new(1000, vec![Column::new("t", ColumnKind::F64)])
            .encode(&mut schema)
            .unwrap();
        schemas.bind(
            &SchemaHead {
                origin: device,
                epoch: Epoch::new(9),
                number: 0,
            },
            &schema,
        );
        let clock = stretches();
        let parts = Parts {
            journal: JournalId(7),
            apart_since: Some(6),
            lake_term: 3,
            committed_to: 8,
            rules: b"rules",
            sinks: &[SinkCursor {
                name: "lake".into(),
                position: 8,
            }],
            plans: &["hot", "lake"].map(plan_of).into(),
            sessions: &BTreeSet::from(["c".into()]),
            ledger: &ledger,
            schemas: &schemas,
            open: &open,
            clock: &clock,
        };
        let mut out = Vec::new();
        write(&parts, &mut out);
        out
    }

    #[test]
    fn the_bytes_of_version_5_are_frozen() {
        let hex: String = bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = include_str!("../../tests/golden/snapshot-5.txt");
        assert_eq!(
            hex,
            golden.trim_end(),
            "the snapshot's format changed: a new version"
        );
    }

    #[test]
    fn what_is_read_back_writes_the_same_bytes() {
        assert_eq!(rewritten(&bytes()).unwrap(), bytes());
    }

    #[test]
    fn the_rule_set_is_found_without_the_rest() {
        let mut bytes = bytes();
        assert_eq!(preamble_of(&bytes).unwrap().0, b"rules");
        bytes[0] = VERSION - 1;
        assert_eq!(preamble_of(&bytes), None);
    }

    #[test]
    fn open_entries_get_what_the_bound_leaves_and_the_oldest_give_way() {
        let mut open = OpenEntries::default();
        let clients = 16_000;
        for n in 0..clients {
            let client = format!("{n:01100}").into();
            open.open(&client, 1, 7, n, (ConnId(1), Token(n)));
        }
        let restored = read(&bytes()).unwrap();
        let parts = Parts {
            open: &open,
            ..restored.parts()
        };
        let mut out = Vec::new();
        write(&parts, &mut out);
        assert!(out.len() <= MAX_SNAPSHOT_BYTES);
        let kept = read(&out).unwrap().open;
        assert!(kept.len() > 10_000);
        let newest = format!("{:01100}", clients - 1);
        let place = clients - 1;
        let repeat = headwater_gate::repeat::Verdict::Repeat { place };
        assert_eq!(kept.clone().judge(&newest, 1, true, 7), repeat);
    }

    #[test]
    fn with_many_streams_each_keeps_fewer_times_and_what_is_kept_is_read_back() {
        for (streams, kept) in [(1_000, 3), (20_000, 2), (40_000, 1)] {
            let mut ledger = Ledger::new(Epoch::new(7));
            for n in 0..streams {
                let mut track = Track::default();
                for seq in [1, 5, 9] {
                    track.times.note(seq, (1 << 50, 1 << 60), |_| false);
                }
                let device = DeviceId::new(&format!("device-{n}")).unwrap();
                let (lane, epoch) = (Lane::Bulk, Epoch::new(1));
                let stream = Stream {
                    device,
                    lane,
                    epoch,
                };
                ledger.restore(stream, track);
            }
            let (restored, mut out) = (read(&bytes()).unwrap(), Vec::new());
            let parts = Parts {
                ledger: &ledger,
                ..restored.parts()
            };
            let open = restored.open.len() * 64 + 64;
            let others = write(&parts, &mut out);
            assert!(out.len() - others <= MAX_TIMES_BYTES + open, "{streams}");
            let mut read = read(&out).unwrap().ledger;
            let device = DeviceId::new("device-0").unwrap();
            let (_, track) = ledger.streams_of(&device).next().unwrap();
            let expected = track.times.within(22 + kept * 30, |_| false);
            assert!(
                ledger::all_times(&mut read).all(|times| *times == expected),
                "{streams}"
            );
        }
    }

    #[test]
    fn a_snapshot_of_another_version_is_told_from_damage() {
        let mut bytes = bytes();
        for version in [VERSION - 1, VERSION + 1] {
            bytes[0] = version;
            assert_eq!(read(&bytes).err(), Some(NotRead::OtherVersion(version)));
        }
        bytes[0] = 0;
        assert_eq!(read(&bytes).err(), Some(NotRead::Damaged));
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0usize..200, mask in 1u8.., cut in 0usize..300) {
            let mut bytes = bytes();
            let len = bytes.len();
            bytes[at % len] ^= mask;
            bytes.truncate(cut.max(1));
            let _ = read(&bytes);
        }
    }
}
