//! Core: the marks of a lake: what tells what the lake holds of each stream.
//!
//! Without them a journal that is new beside a lake reads every file to learn that. The owner writes
//! them after a flush that wrote a checkpoint; what came since is read from the files of the later
//! versions. They may be removed: the next ones are made from all files.
//!
//! ```text
//! _headwater/marks                 rewritten each time: streams that go on, and what is over since the last seal
//!      │ more than SEAL_BYTES: what is over is sealed
//! _headwater/marks-sealed/<sha256> written once, read only by a journal that is new beside the lake
//! ```
//! So what is rewritten does not grow with the age of a lake. A stream may stand in several of them: what is
//! told of it merges, in any order.
//!
//! | bytes of each | what |
//! |---|---|
//! | 1 | version, 2 |
//! | postcard | [`MarksHead`]; of a sealed part with the number of streams alone |
//! | postcard, each stream | [`RawStream`], ascending by device, lane, epoch |
//! | 32 | SHA-256 of all before; a sealed part's name |

mod flushed;
mod part;

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_proto::ids::SeqRange;
use serde::{Deserialize, Serialize};

use crate::audit::{EpochMark, Holding, Holdings, Key};
use crate::plan::Sha256;
use crate::ranges::Ranges;
use crate::row::EpochState;
use crate::schema::Table;
pub(crate) use flushed::holdings_of;
pub(crate) use part::{Part, PartError};

/// Version of the form.
const MARKS_VERSION: u8 = 2;

/// Bytes of the object at most: some two million streams that go on. While one is made, the one before, the new
/// one and what came since stand in memory. A lake with more has no marks: a new journal beside it reads all
/// files.
pub(crate) const MAX_MARKS_BYTES: usize = 64 << 20;

/// Beyond it, what is over leaves the object for sealed parts, each of about as many bytes: some 300,000 epochs.
const SEAL_BYTES: usize = 4 << 20;

/// Less than this is not worth a part.
const MIN_SEALED_BYTES: usize = SEAL_BYTES / 4;

/// Sealed parts at most: some 36 million epochs, more than the collector's index of closed ones has room for. While they
/// are merged a window of each stands in memory, [`part::WINDOW_BYTES`].
const MAX_PARTS: usize = 128;

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

/// What stands before the streams.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct MarksHead {
    /// Term of the owner who wrote it.
    pub(crate) term: u64,
    /// Newest version of each log whose files are covered, by the table's name.
    pub(crate) versions: Vec<(String, u64)>,
    /// The parts that were sealed, by their hash.
    pub(crate) parts: Vec<Sha256>,
    /// Streams that follow.
    pub(crate) streams: u64,
}

/// One stream.
#[derive(Debug, Serialize, Deserialize)]
struct RawStream<'a> {
    /// `None`: the device of the stream before.
    device: Option<&'a str>,
    /// `None`: the lane of the stream before.
    lane: Option<&'a str>,
    /// From that of the stream before, if device and lane are its own.
    epoch: u64,
    held: RawHolding,
}

/// What is held of one stream.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum RawHolding {
    /// All from 0 on: number after the last, place of the state in [`STATES`].
    Whole(u64, u8),
    Other(RawRanges),
}

/// Ranges are pairs: numbers from the end of the range before, length.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RawRanges {
    /// First number, next number, place of the state in [`STATES`].
    known: Option<(u64, u64, u8)>,
    there: Vec<(u64, u64)>,
    named: Vec<(u64, u64)>,
    /// Batches that are there in part.
    partial: Vec<u64>,
}

/// States by their number in the object.
const STATES: [EpochState; 5] = [
    EpochState::Open,
    EpochState::Ended,
    EpochState::Closed,
    EpochState::Abandoned,
    EpochState::Claimed,
];

/// The object is damaged, or of a version that is not known: it is made anew from all files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMarks;

/// Reads the streams of an object one by one.
#[derive(Debug, Clone)]
pub(crate) struct Streams<'a> {
    rest: &'a [u8],
    left: u64,
    last: Option<Key>,
}

/// The newest version of each table that an object covers.
///
/// # Errors
/// [`NoMarks`].
pub(crate) fn versions(bytes: &[u8]) -> Result<Vec<(Table, u64)>, NoMarks> {
    let (head, _) = decode(bytes)?;
    let versions = head.versions.iter();
    let versions = versions.filter_map(|(name, at)| Some((Table::from_name(name)?, *at)));
    Ok(versions.collect())
}

/// Opens the bytes of an object.
///
/// # Errors
/// [`NoMarks`].
pub(crate) fn decode(bytes: &[u8]) -> Result<(MarksHead, Streams<'_>), NoMarks> {
    let body = bytes.len().checked_sub(HASH_BYTES).ok_or(NoMarks)?;
    let (body, hash) = bytes.split_at(body);
    if Sha256::of(body).0 != *hash {
        return Err(NoMarks);
    }
    let (version, body) = body.split_first().ok_or(NoMarks)?;
    if *version != MARKS_VERSION {
        return Err(NoMarks);
    }
    let (head, rest): (MarksHead, _) = postcard::take_from_bytes(body).map_err(|_| NoMarks)?;
    // No number that is counted on from is the last there is.
    if head
        .versions
        .iter()
        .any(|(_, version)| *version == u64::MAX)
    {
        return Err(NoMarks);
    }
    if head.parts.len() > MAX_PARTS {
        return Err(NoMarks);
    }
    let left = head.streams;
    let streams = Streams {
        rest,
        left,
        last: None,
    };
    Ok((head, streams))
}

fn ranges(pairs: &[(u64, u64)]) -> Result<Ranges, NoMarks> {
    let (mut ranges, mut at) = (Ranges::default(), 0u64);
    for (gap, len) in pairs {
        let first = at.checked_add(*gap).ok_or(NoMarks)?;
        at = first.checked_add(*len).ok_or(NoMarks)?;
        ranges.insert(SeqRange::new(first, at));
    }
    Ok(ranges)
}

fn pairs(ranges: &Ranges) -> Vec<(u64, u64)> {
    let mut at = 0;
    let pair = |range: SeqRange| {
        let gap = range.first - at;
        at = range.next;
        (gap, range.len())
    };
    ranges.iter().map(pair).collect()
}

impl RawHolding {
    fn of(holding: &Holding) -> Self {
        let state = |epoch: &EpochMark| {
            let state = STATES.iter().position(|state| *state == epoch.state);
            let state = state.and_then(|state| u8::try_from(state).ok());
            state.unwrap_or_default()
        };
        let known = holding
            .epoch
            .map(|epoch| (epoch.first, epoch.next, state(&epoch)));
        let raw = RawRanges {
            known,
            there: pairs(&holding.there),
            named: pairs(&holding.named),
            partial: holding.partial.iter().copied().collect(),
        };
        match known {
            Some((0, next, state)) if raw == RawRanges::whole(next, state) => {
                Self::Whole(next, state)
            }
            _ => Self::Other(raw),
        }
    }

    fn holding(self) -> Result<Holding, NoMarks> {
        let raw = match self {
            Self::Whole(next, state) => RawRanges::whole(next, state),
            Self::Other(raw) => raw,
        };
        if raw.partial.contains(&u64::MAX) {
            return Err(NoMarks);
        }
        let mut holding = Holding {
            there: ranges(&raw.there)?,
            named: ranges(&raw.named)?,
            partial: raw.partial.into_iter().collect(),
            epoch: None,
        };
        if let Some((first, next, state)) = raw.known {
            let state = *STATES.get(usize::from(state)).ok_or(NoMarks)?;
            holding.epoch = Some(EpochMark { first, next, state });
        }
        Ok(holding)
    }
}

impl RawRanges {
    fn whole(next: u64, state: u8) -> Self {
        Self {
            known: Some((0, next, state)),
            there: (next > 0).then_some((0, next)).into_iter().collect(),
            named: Vec::new(),
            partial: Vec::new(),
        }
    }
}

impl Streams<'_> {
    fn read(&mut self) -> Result<(Key, Holding), NoMarks> {
        let (raw, rest): (RawStream<'_>, _) =
            postcard::take_from_bytes(self.rest).map_err(|_| NoMarks)?;
        self.rest = rest;
        let known = |text: Option<&str>, before: Option<&Arc<str>>| match text {
            Some(text) => Ok(text.into()),
            None => before.map(Arc::clone).ok_or(NoMarks),
        };
        let last = self.last.as_ref();
        let goes_on = raw.device.is_none() && raw.lane.is_none();
        let before = last.filter(|_| goes_on).map_or(0, |last| last.epoch);
        let key = Key {
            device: known(raw.device, last.map(|last| &last.device))?,
            lane: known(raw.lane, last.map(|last| &last.lane))?,
            epoch: before.wrapping_add(raw.epoch.cast_signed()),
        };
        if last.is_some_and(|last| *last >= key) {
            return Err(NoMarks);
        }
        self.last = Some(key.clone());
        Ok((key, raw.held.holding()?))
    }
}

impl Iterator for Streams<'_> {
    type Item = Result<(Key, Holding), NoMarks>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return (!std::mem::take(&mut self.rest).is_empty()).then_some(Err(NoMarks));
        }
        self.left -= 1;
        let read = self.read();
        if read.is_err() {
            (self.left, self.rest) = (0, &[]);
        }
        Some(read)
    }
}

/// The streams of an object, in order.
pub(crate) type Base<'a, E> = Box<dyn Iterator<Item = Result<(Key, Holding), E>> + 'a>;

/// Hands over the streams of objects merged with what came since, in order.
///
/// # Errors
/// Those of the objects.
pub(crate) fn merge<E>(
    mut bases: Vec<Base<'_, E>>,
    since: &Holdings,
    mut take: impl FnMut(&Key, &Holding),
) -> Result<(), E> {
    let mut since = since.iter().peekable();
    // The next stream of each object.
    let mut heads = BTreeMap::new();
    for (at, base) in bases.iter_mut().enumerate() {
        if let Some(stream) = base.next() {
            let (key, holding) = stream?;
            heads.insert((key, at), holding);
        }
    }
    while let Some(((key, at), mut holding)) = heads.pop_first() {
        let mut from = vec![at];
        while let Some(other) = heads.first_entry().filter(|other| other.key().0 == key) {
            let ((_, at), more) = other.remove_entry();
            holding.merge(&more);
            from.push(at);
        }
        for at in from {
            if let Some(stream) = bases.get_mut(at).and_then(Iterator::next) {
                let (key, holding) = stream?;
                heads.insert((key, at), holding);
            }
        }
        while let Some((before, new)) = since.next_if(|(other, _)| **other < key) {
            take(before, new);
        }
        if let Some((_, new)) = since.next_if(|(other, _)| **other == key) {
            holding.merge(new);
        }
        take(&key, &holding);
    }
    since.for_each(|(key, new)| take(key, new));
    Ok(())
}

/// The streams of an object that is being made.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    streams: u64,
    last: Option<Key>,
}

impl Body {
    fn push(&mut self, key: &Key, holding: &Holding) {
        let device = self.last.as_ref().filter(|last| last.device == key.device);
        let lane = device.filter(|last| last.lane == key.lane);
        let before = lane.map_or(0, |last| last.epoch);
        let raw = RawStream {
            device: device.is_none().then_some(&*key.device),
            lane: lane.is_none().then_some(&*key.lane),
            epoch: key.epoch.wrapping_sub(before).cast_unsigned(),
            held: RawHolding::of(holding),
        };
        let bytes = std::mem::take(&mut self.bytes);
        self.bytes = postcard::to_extend(&raw, bytes).expect("a vector grows");
        self.streams += 1;
        self.last = Some(key.clone());
    }

    /// The object, and its hash.
    fn end(self, head: MarksHead) -> (Sha256, Vec<u8>) {
        let streams = self.streams;
        let head = MarksHead { streams, ..head };
        let out = vec![MARKS_VERSION];
        let mut out = postcard::to_extend(&head, out).expect("a vector grows");
        out.extend(self.bytes);
        let hash = Sha256::of(&out);
        out.extend(hash.0);
        (hash, out)
    }
}

/// The marks as they are to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) object: Vec<u8>,
    /// New parts, which are to be there before the object names them.
    pub(crate) sealed: Vec<(Sha256, Vec<u8>)>,
    /// All parts that the object names.
    pub(crate) parts: Vec<Sha256>,
}

/// The object: `base` merged with `since`, without what is sealed. `None`: it would have more than `most` bytes,
/// or too many parts.
///
/// - `head`: with the parts that are sealed already; the number of streams is found.
///
/// # Errors
/// [`NoMarks`] if `base` is damaged.
pub(crate) fn encode(
    mut head: MarksHead,
    base: Option<&Streams<'_>>,
    since: &Holdings,
    most: usize,
) -> Result<Option<Encoded>, NoMarks> {
    let bases = || {
        base.map(|base| Box::new(base.clone()) as Base<'_, _>)
            .into_iter()
            .collect()
    };
    let mut live = Body::default();
    merge(bases(), since, |key, holding| {
        if live.bytes.len() <= most {
            live.push(key, holding);
        }
    })?;
    let mut sealed = Vec::new();
    if live.bytes.len() > SEAL_BYTES {
        let (mut going_on, mut part) = (Body::default(), Body::default());
        merge(bases(), since, |key, holding| {
            if holding.goes_on() {
                if going_on.bytes.len() <= most {
                    going_on.push(key, holding);
                }
                return;
            }
            part.push(key, holding);
            if part.bytes.len() >= SEAL_BYTES {
                sealed.push(std::mem::take(&mut part).end(MarksHead::default()));
            }
        })?;
        if !sealed.is_empty() || part.bytes.len() >= MIN_SEALED_BYTES {
            if part.streams > 0 {
                sealed.push(part.end(MarksHead::default()));
            }
            live = going_on;
        }
    }
    head.parts.extend(sealed.iter().map(|(hash, _)| *hash));
    let parts = head.parts.clone();
    let (_, object) = live.end(head);
    let fits = object.len() <= most && parts.len() <= MAX_PARTS;
    Ok(fits.then_some(Encoded {
        object,
        sealed,
        parts,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn based(bytes: &[u8]) -> Base<'_, NoMarks> {
        Box::new(decode(bytes).unwrap().1)
    }

    fn key(device: &str, lane: &str, epoch: i64) -> Key {
        Key {
            device: device.into(),
            lane: lane.into(),
            epoch,
        }
    }

    fn holding(there: &[(u64, u64)], named: &[(u64, u64)], partial: &[u64]) -> Holding {
        let mut holding = Holding::default();
        for (first, next) in there {
            holding.there.insert(SeqRange::new(*first, *next));
        }
        for (first, next) in named {
            holding.named.insert(SeqRange::new(*first, *next));
        }
        holding.partial.extend(partial);
        holding
    }

    /// All of an epoch that is over.
    fn whole(next: u64) -> Holding {
        let mut whole = holding(&[(0, next)], &[], &[]);
        whole.epoch = Some(EpochMark {
            first: 0,
            next,
            state: EpochState::Closed,
        });
        whole
    }

    fn example() -> Holdings {
        let mut closed = holding(&[(0, 3), (9, 10)], &[(7, 9)], &[5]);
        closed.epoch = Some(EpochMark {
            first: 0,
            next: 12,
            state: EpochState::Closed,
        });
        [
            (key("a", "bulk", 1), Holding::default()),
            (key("a", "normal", i64::MAX), closed),
            (key("b", "normal", 7), holding(&[(4, 1 << 40)], &[], &[])),
            (key("b", "normal", 9), whole(500)),
        ]
        .into()
    }

    fn versions() -> Vec<(String, u64)> {
        vec![("samples".to_owned(), 12), ("epochs".to_owned(), 0)]
    }

    fn head() -> MarksHead {
        MarksHead {
            term: 3,
            versions: versions(),
            parts: vec![Sha256([7; 32])],
            streams: 0,
        }
    }

    fn encoded(base: Option<&Streams<'_>>, since: &Holdings) -> Option<Encoded> {
        encode(head(), base, since, MAX_MARKS_BYTES).unwrap()
    }

    fn written(holdings: &Holdings) -> Vec<u8> {
        encoded(None, holdings).expect("it is small").object
    }

    fn read(bytes: &[u8]) -> Result<(MarksHead, Holdings), NoMarks> {
        let (head, streams) = decode(bytes)?;
        Ok((head, streams.collect::<Result<_, _>>()?))
    }

    #[test]
    fn the_bytes_of_version_2_never_change() {
        let golden = include_bytes!("../tests/golden/marks_2.bin");
        assert_eq!(written(&example()), golden);
        let (head, holdings) = read(golden).unwrap();
        assert_eq!(
            head,
            MarksHead {
                streams: 4,
                ..super::tests::head()
            }
        );
        assert_eq!(holdings, example());
    }

    #[test]
    fn damage_and_later_versions_are_told() {
        let bytes = written(&example());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{at}");
            assert!(read(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_lake_with_too_many_streams_has_no_marks() {
        // Two streams, with names that fill the object.
        let long = "x".repeat(MAX_MARKS_BYTES / 2);
        let open = Holding {
            epoch: Some(EpochMark {
                first: 0,
                next: 0,
                state: EpochState::Open,
            }),
            ..Holding::default()
        };
        let mut holdings = Holdings::new();
        holdings.insert(key("a", &long, 1), open.clone());
        assert!(encoded(None, &holdings).is_some());
        holdings.insert(key("b", &long, 1), open);
        assert_eq!(encoded(None, &holdings), None);
    }

    /// Epochs of one day that were begun: of 1,000 devices with three lanes that restart ten times a day.
    fn day(day: u64, holding: &Holding) -> Holdings {
        let lanes = ["alarm", "normal", "bulk"];
        let mut all = Holdings::new();
        for device in 0..1_000 {
            let name: Arc<str> = format!("device-{device:04}").into();
            for (restart, lane) in (0..10).flat_map(|restart| lanes.map(|lane| (restart, lane))) {
                // Epochs are random numbers.
                let id = format!("{day} {device} {restart} {lane}");
                let Sha256([a, b, c, d, e, f, g, h, ..]) = Sha256::of(id.as_bytes());
                let key = Key {
                    device: Arc::clone(&name),
                    lane: lane.into(),
                    epoch: i64::from_le_bytes([a, b, c, d, e, f, g, h]),
                };
                all.insert(key, holding.clone());
            }
        }
        all
    }

    #[test]
    fn what_is_written_anew_does_not_grow_with_the_age_of_a_lake() {
        const DAYS: u64 = 12;
        let mut open = holding(&[(0, 499)], &[], &[]);
        open.epoch = Some(EpochMark {
            first: 0,
            next: 499,
            state: EpochState::Open,
        });
        let (mut object, mut head) = (written(&Holdings::new()), MarksHead::default());
        let mut sealed: Vec<Vec<u8>> = Vec::new();
        let mut largest = 0;
        for now in 0..DAYS {
            let mut since = day(now, &open);
            since.extend(
                now.checked_sub(1)
                    .map(|before| day(before, &whole(500)))
                    .into_iter()
                    .flatten(),
            );
            let (_, streams) = decode(&object).unwrap();
            let next = encode(head.clone(), Some(&streams), &since, MAX_MARKS_BYTES);
            let next = next.unwrap().expect("it stays small");
            largest = largest.max(next.object.len());
            sealed.extend(next.sealed.into_iter().map(|(_, bytes)| bytes));
            (object, head.parts) = (next.object, next.parts);
        }
        let parts: usize = sealed.iter().map(Vec::len).sum();
        let all = parts + object.len();
        let each = all as f64 / (DAYS * 30_000) as f64;
        for days in [1, 30, 100, 300] {
            let epochs = days * 30_000;
            println!(
                "{days:3} days, {epochs:7} epochs: rewritten at most {:4.1} MiB, sealed {:5.1} MiB ({each:.1} bytes an epoch)",
                largest as f64 / f64::from(1 << 20),
                epochs as f64 * each / f64::from(1 << 20)
            );
        }
        // What goes on stays in the object, and is more than what is sealed of it.
        assert!(largest <= SEAL_BYTES + (1 << 20), "{largest}");
        assert!(each < 20.0, "{each}");
        assert!(300.0 * 30_000.0 * each < (MAX_PARTS / 2 * SEAL_BYTES) as f64);
        assert!(parts > object.len() && head.parts.len() == sealed.len());
        let objects = sealed.iter().chain([&object]);
        let streams = objects.map(|bytes| based(bytes)).collect();
        let mut found = [0, 0];
        merge(streams, &Holdings::new(), |_, holding| {
            let is_over = *holding == whole(500);
            assert!(is_over || *holding == open);
            found[usize::from(is_over)] += 1;
        })
        .unwrap();
        assert_eq!(found, [30_000, (DAYS - 1) * 30_000]);
    }

    #[test]
    fn more_parts_than_there_may_be_are_not_begun() {
        let mut over = Holdings::new();
        for epoch in 0..4 {
            // A lane's name fills a part.
            let lane = "x".repeat(SEAL_BYTES / 3);
            over.insert(key(&format!("d{epoch}"), &lane, epoch), whole(1));
        }
        let with = |parts: usize| {
            let parts = vec![Sha256([0; 32]); parts];
            let head = MarksHead { parts, ..head() };
            encode(head, None, &over, MAX_MARKS_BYTES).unwrap()
        };
        let most = with(MAX_PARTS - 2).expect("there is room for two");
        assert_eq!((most.sealed.len(), most.parts.len()), (2, MAX_PARTS));
        assert_eq!(with(MAX_PARTS - 1), None);
        let naming = |parts: usize| {
            let parts = vec![Sha256([0; 32]); parts];
            let (_, bytes) = Body::default().end(MarksHead { parts, ..head() });
            read(&bytes).is_ok()
        };
        assert!(naming(MAX_PARTS) && !naming(MAX_PARTS + 1));
    }

    /// The bytes with a good hash, as only a writer that goes wrong makes them.
    fn sealed(mut body: Vec<u8>) -> Vec<u8> {
        let hash = Sha256::of(&body);
        body.extend(hash.0);
        body
    }

    fn holdings() -> impl Strategy<Value = Holdings> {
        let ranges = || {
            let range = (0u64..50, 1u64..9).prop_map(|(first, len)| (first, first + len));
            proptest::collection::vec(range, 0..6)
        };
        let partial = proptest::collection::vec(0u64..60, 0..4);
        let epoch = proptest::option::of((0u64..9, 0u64..90, 0..STATES.len()));
        let one =
            (ranges(), ranges(), partial, epoch).prop_map(|(there, named, partial, epoch)| {
                let mut one = holding(&there, &named, &partial);
                one.settle();
                one.epoch = epoch.map(|(first, next, state)| EpochMark {
                    first,
                    next,
                    state: STATES[state],
                });
                one
            });
        let keys = ("[ab]", "[xy]", 0i64..3).prop_map(|(d, lane, epoch)| key(&d, &lane, epoch));
        proptest::collection::btree_map(keys, one, 0..8)
    }

    proptest! {
        #[test]
        fn what_is_merged_on_the_way_is_what_merges_in_memory(a in holdings(), b in holdings()) {
            let base = written(&a);
            let (_, streams) = decode(&base).unwrap();
            let merged = encoded(Some(&streams), &b).unwrap().object;
            let mut expected = a.clone();
            for (key, holding) in &b {
                expected.entry(key.clone()).or_default().merge(holding);
            }
            prop_assert_eq!(&read(&merged).unwrap().1, &expected);
            let (all, mut apart) = (written(&b), Holdings::new());
            let parts = [&all, &base, &base].map(|bytes| based(bytes));
            merge(parts.into(), &a, |key, holding| drop(apart.insert(key.clone(), holding.clone())))
                .unwrap();
            prop_assert_eq!(&apart, &expected);
            // In any order, and any number of times.
            let mut other = b;
            for (key, holding) in a.iter().chain(&a) {
                other.entry(key.clone()).or_default().merge(holding);
            }
            prop_assert_eq!(other, expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let mut body = vec![MARKS_VERSION];
            body.extend(&bytes);
            let _ = read(&sealed(body));
            let head = MarksHead { term: 1, versions: vec![], parts: vec![], streams: 9 };
            let mut body = postcard::to_extend(&head, vec![MARKS_VERSION]).unwrap();
            body.extend(bytes);
            let _ = read(&sealed(body));
        }
    }
}
