//! Core: the marks of a lake: one object that tells what the lake holds of each stream.
//!
//! Without it a journal that is new beside a lake reads every file to learn that. The owner writes
//! it after a flush that wrote a checkpoint; what came since is read from the files of the later
//! versions. It may be removed: the next one is made from all files.
//!
//! | bytes of `_headwater/marks` | what |
//! |---|---|
//! | 1 | version, 1 |
//! | postcard | [`MarksHead`]: term of the owner, newest version of each log that is covered, streams |
//! | postcard, each stream | [`RawStream`], ascending by device, lane, epoch |
//! | 32 | SHA-256 of all before |

use std::collections::HashMap;
use std::sync::Arc;

use headwater_proto::ids::{SeqRange, Stream};
use serde::{Deserialize, Serialize};

use crate::audit::{EpochMark, Holding, Holdings, Key};
use crate::plan::Sha256;
use crate::ranges::Ranges;
use crate::row::{EpochRow, EpochState, GapRow, LogRow, PRUNED, Record};
use crate::rows::{Rows, TextId};

/// Version of the form.
const MARKS_VERSION: u8 = 1;

/// Bytes of the object at most: some two million streams. While one is made, the one before, the new
/// one and what came since stand in memory. A lake with more streams has no marks: a new journal
/// beside it reads all files.
pub(crate) const MAX_MARKS_BYTES: usize = 64 << 20;

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

/// Stage of a gap that names what another sink lacks: the lake has it.
const OTHER_SINK: &str = "sink";

/// What stands before the streams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MarksHead {
    /// Term of the owner who wrote it.
    pub(crate) term: u64,
    /// Newest version of each log whose files are covered, by the table's name.
    pub(crate) versions: Vec<(String, u64)>,
    /// Streams that follow.
    pub(crate) streams: u64,
}

/// One stream. Ranges are pairs: numbers from the end of the range before, length.
#[derive(Debug, Serialize, Deserialize)]
struct RawStream<'a> {
    /// `None`: the device of the stream before.
    device: Option<&'a str>,
    lane: &'a str,
    epoch: u64,
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
pub(crate) struct Streams<'a> {
    rest: &'a [u8],
    left: u64,
    last: Option<Key>,
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
    let left = head.streams;
    let streams = Streams {
        rest,
        left,
        last: None,
    };
    Ok((head, streams))
}

/// Whether the bytes are an object that was written whole.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    decode(bytes).is_ok()
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

impl Streams<'_> {
    fn read(&mut self) -> Result<(Key, Holding), NoMarks> {
        let (raw, rest): (RawStream<'_>, _) =
            postcard::take_from_bytes(self.rest).map_err(|_| NoMarks)?;
        self.rest = rest;
        if raw.partial.contains(&u64::MAX) {
            return Err(NoMarks);
        }
        let device = match (raw.device, &self.last) {
            (Some(device), _) => device.into(),
            (None, Some(last)) => Arc::clone(&last.device),
            (None, None) => return Err(NoMarks),
        };
        let key = Key {
            device,
            lane: raw.lane.into(),
            epoch: raw.epoch.cast_signed(),
        };
        if self.last.as_ref().is_some_and(|last| *last >= key) {
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
        self.last = Some(key.clone());
        Ok((key, holding))
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

/// Hands over the streams of an object merged with what came since, in order.
///
/// # Errors
/// [`NoMarks`] if the object is damaged.
pub(crate) fn merge(
    base: Option<Streams<'_>>,
    since: &Holdings,
    mut take: impl FnMut(&Key, &Holding),
) -> Result<(), NoMarks> {
    let mut since = since.iter().peekable();
    for stream in base.into_iter().flatten() {
        let (key, mut holding) = stream?;
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

/// The object: `base` merged with `since`. `None`: it would have more than `most` bytes.
///
/// # Errors
/// [`NoMarks`] if `base` is damaged.
pub(crate) fn encode(
    term: u64,
    versions: &[(String, u64)],
    base: Option<Streams<'_>>,
    since: &Holdings,
    most: usize,
) -> Result<Option<Vec<u8>>, NoMarks> {
    let (mut body, mut streams) = (Vec::new(), 0);
    let mut last: Option<Arc<str>> = None;
    merge(base, since, |key, holding| {
        streams += 1;
        if body.len() <= most {
            let same = last.as_ref() == Some(&key.device);
            body = write(std::mem::take(&mut body), key, holding, same);
            last = Some(Arc::clone(&key.device));
        }
    })?;
    let head = MarksHead {
        term,
        versions: versions.to_vec(),
        streams,
    };
    let out = vec![MARKS_VERSION];
    let mut out = postcard::to_extend(&head, out).expect("a vector grows");
    out.append(&mut body);
    let hash = Sha256::of(&out);
    out.extend(hash.0);
    Ok((out.len() <= most).then_some(out))
}

fn write(out: Vec<u8>, key: &Key, holding: &Holding, same_device: bool) -> Vec<u8> {
    let known = holding.epoch.map(|epoch| {
        let state = STATES.iter().position(|state| *state == epoch.state);
        let state = state.and_then(|state| u8::try_from(state).ok());
        (epoch.first, epoch.next, state.unwrap_or_default())
    });
    let raw = RawStream {
        device: (!same_device).then_some(&*key.device),
        lane: &key.lane,
        epoch: key.epoch.cast_unsigned(),
        known,
        there: pairs(&holding.there),
        named: pairs(&holding.named),
        partial: holding.partial.iter().copied().collect(),
    };
    postcard::to_extend(&raw, out).expect("a vector grows")
}

/// What the rows of one flush bring, as a scan of their files would find it.
pub(crate) fn holdings_of(rows: &Rows) -> Holdings {
    let mut found = Found::default();
    found.samples(rows);
    for row in rows.quarantine.iter().filter(|row| row.samples > 0) {
        let key = found.key_of(&row.stream);
        let part = found.parts.entry((key, row.seq)).or_default();
        part.found += u64::from(row.samples.unsigned_abs());
        part.size = part.size.max(row.batch_samples.unwrap_or(0));
    }
    rows.gaps.iter().for_each(|row| found.gap(row));
    rows.epochs.iter().for_each(|row| found.epoch(row));
    rows.logs.iter().for_each(|row| found.line(row));
    for ((key, seq), part) in std::mem::take(&mut found.parts) {
        let holding = found.holdings.entry(key).or_default();
        if part.size > 0 && part.found >= u64::from(part.size) {
            holding.there.insert(SeqRange::new(seq, seq + 1));
        } else {
            holding.partial.insert(seq);
        }
    }
    found.holdings.values_mut().for_each(Holding::settle);
    found.holdings
}

/// Readings of one batch, or lines of one record, that were found.
#[derive(Default)]
struct Part {
    size: u32,
    found: u64,
}

#[derive(Default)]
struct Found {
    holdings: Holdings,
    parts: std::collections::BTreeMap<(Key, u64), Part>,
    names: HashMap<String, Arc<str>>,
}

impl Found {
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.names.insert(name.to_owned(), Arc::clone(&new));
        new
    }

    fn key_of(&mut self, stream: &Stream) -> Key {
        Key {
            device: self.name(stream.device.as_str()),
            lane: self.name(stream.lane.name()),
            epoch: stream.epoch.get().cast_signed(),
        }
    }

    fn samples(&mut self, rows: &Rows) {
        let mut counts = vec![0u64; rows.batches.len()];
        for part in &rows.samples {
            counts[part.batch as usize] += 1;
        }
        let mut devices: HashMap<TextId, Arc<str>> = HashMap::new();
        for (batch, count) in rows.batches.iter().zip(counts) {
            let device = devices
                .entry(batch.device)
                .or_insert_with(|| rows.texts.get(batch.device).unwrap_or_default().into());
            let key = Key {
                device: Arc::clone(device),
                lane: self.name(batch.lane.name()),
                epoch: batch.epoch,
            };
            let (seq, size) = (
                batch.seq.cast_unsigned(),
                batch.batch_samples.cast_unsigned(),
            );
            if count == u64::from(size) {
                let holding = self.holdings.entry(key).or_default();
                holding.there.insert(SeqRange::new(seq, seq + 1));
            } else {
                // Its readings lie apart, or some are in quarantine.
                let part = self.parts.entry((key, seq)).or_default();
                part.size = part.size.max(size);
                part.found += count;
            }
        }
    }

    fn gap(&mut self, row: &GapRow) {
        if row.stage != OTHER_SINK {
            let key = self.key_of(&row.stream);
            let holding = self.holdings.entry(key).or_default();
            if let Some((first, last)) = row.seqs {
                let range = SeqRange::new(first, last + 1);
                holding.named.insert(range);
                if (&*row.reason, &*row.stage) == PRUNED {
                    holding.there.insert(range);
                }
            }
        }
        self.record(row.record.as_ref());
    }

    fn epoch(&mut self, row: &EpochRow) {
        let key = self.key_of(&row.stream);
        let new = EpochMark {
            first: row.first_seq,
            next: row.next_seq,
            state: row.state,
        };
        let known = &mut self.holdings.entry(key).or_default().epoch;
        *known = Some(known.map_or(new, |known| known.merge(new)));
        self.record(row.record.as_ref());
    }

    fn line(&mut self, row: &LogRow) {
        match (&row.record, row.record_lines) {
            (Some(record), Some(lines)) if lines > 0 => {
                let key = self.key_of(&record.stream);
                let part = self.parts.entry((key, record.seq)).or_default();
                part.size = part.size.max(lines);
                part.found += 1;
            }
            (record, _) => self.record(record.as_ref()),
        }
    }

    fn record(&mut self, record: Option<&Record>) {
        if let Some(Record { stream, seq }) = record {
            let key = self.key_of(stream);
            let holding = self.holdings.entry(key).or_default();
            holding.there.insert(SeqRange::new(*seq, seq + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        ]
        .into()
    }

    fn versions() -> Vec<(String, u64)> {
        vec![("samples".to_owned(), 12), ("epochs".to_owned(), 0)]
    }

    fn written(holdings: &Holdings) -> Vec<u8> {
        let bytes = encode(3, &versions(), None, holdings, MAX_MARKS_BYTES).unwrap();
        bytes.expect("it is small")
    }

    fn read(bytes: &[u8]) -> Result<(MarksHead, Holdings), NoMarks> {
        let (head, streams) = decode(bytes)?;
        Ok((head, streams.collect::<Result<_, _>>()?))
    }

    #[test]
    fn the_bytes_of_version_1_never_change() {
        let golden = include_bytes!("../tests/golden/marks_1.bin");
        assert_eq!(written(&example()), golden);
        let (head, holdings) = read(golden).unwrap();
        assert_eq!((head.term, head.versions, head.streams), (3, versions(), 3));
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
        let mut holdings = Holdings::new();
        holdings.insert(key("a", &long, 1), Holding::default());
        assert!(
            encode(1, &[], None, &holdings, MAX_MARKS_BYTES)
                .unwrap()
                .is_some()
        );
        holdings.insert(key("b", &long, 1), Holding::default());
        assert_eq!(encode(1, &[], None, &holdings, MAX_MARKS_BYTES), Ok(None));
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
            let merged = encode(3, &versions(), Some(streams), &b, MAX_MARKS_BYTES).unwrap();
            let mut expected = a.clone();
            for (key, holding) in &b {
                expected.entry(key.clone()).or_default().merge(holding);
            }
            prop_assert_eq!(&read(&merged.unwrap()).unwrap().1, &expected);
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
            let head = MarksHead { term: 1, versions: vec![], streams: 9 };
            let mut body = postcard::to_extend(&head, vec![MARKS_VERSION]).unwrap();
            body.extend(bytes);
            let _ = read(&sealed(body));
        }
    }
}
