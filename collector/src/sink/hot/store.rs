//! Writing the hot store: one owner, on the hot sink's thread.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use headwater_proto::codec::{BatchHeader, Limits};
use headwater_proto::ids::{Epoch, JournalId, Stream};
use headwater_proto::schema::Schema;
use headwater_proto::time::UnixMicros;
use serde::Serialize;

use super::chunk::{self, Format, MAX_PARTS, Point, StoredRow, StoredValue};
use super::maps::{CURSOR, DeviceInfo, Maps, latest_key, part_key, schema_key};
use super::query::{HotView, SchemaCache};
use crate::interpret::{Block, Interpreted, Origin};
use crate::state::{Found, MAX_VALUE_BYTES, State, StateError};

/// Most bytes of a schema that the store keeps.
const MAX_SCHEMA_BYTES: usize = MAX_PARTS * MAX_VALUE_BYTES;

/// Schemas that are known to be stored, so that each is written once; about 100 bytes each.
const MAX_KNOWN_SCHEMAS: usize = 16_384;

/// Bytes of chunks between two looks at the room on disk, of which each takes sled four system calls;
/// a commit looks again too.
const ROOM_EVERY_BYTES: u64 = 256 << 10;

/// How long and how much the store keeps.
#[derive(Debug, Clone, Copy)]
pub struct HotSettings {
    /// Readings older than this are dropped from `recent`, in microseconds.
    pub keep_us: i64,
    /// Chunks may take this many bytes; the oldest go first.
    pub max_bytes: u64,
    /// sled's cache in bytes.
    pub cache_bytes: u64,
}

/// The store, open for writing.
#[derive(Debug)]
pub struct HotStore {
    state: State,
    maps: Maps,
    settings: HotSettings,
    devices: HashMap<String, DeviceInfo>,
    /// By device the chunks that came since the last commit.
    changed: HashMap<String, Vec<Changed>>,
    /// Device, epoch and number of schemas that were stored in this life.
    schemas: HashSet<(String, u64, u32)>,
    bytes: u64,
    room: Room,
}

/// Whether there was room when it was last looked for.
#[derive(Debug)]
struct Room {
    is_full: bool,
    /// Bytes offered since then.
    offered_bytes: u64,
}

impl Room {
    /// Nobody has looked yet.
    const UNKNOWN: Self = Self {
        is_full: false,
        offered_bytes: ROOM_EVERY_BYTES,
    };

    fn has(&mut self, bytes: u64, state: &State) -> bool {
        self.offered_bytes = self.offered_bytes.saturating_add(bytes);
        if self.offered_bytes >= ROOM_EVERY_BYTES {
            *self = Self {
                is_full: state.room().is_err(),
                offered_bytes: 0,
            };
        }
        !self.is_full
    }
}

/// Outcome of offering readings to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Kept {
    /// The store has them, or there were none.
    Stored,
    /// Nothing was stored: the state has reached its quota.
    NoRoom,
    /// Nothing was stored: a chunk of more than `MAX_PARTS` parts, or a schema of more than
    /// `MAX_SCHEMA_BYTES`, never fits.
    TooLarge,
}

/// A chunk whose newest values are not in `latest` yet.
#[derive(Debug)]
struct Changed {
    key: Vec<u8>,
    /// Time of its newest row.
    last_us: i64,
    /// Epoch and header of a batch.
    batch: Option<(u64, BatchHeader)>,
}

impl HotStore {
    /// Opens the store in `folder`.
    ///
    /// # Errors
    /// When its folder cannot be used at all.
    pub fn open(folder: &Path, settings: HotSettings) -> Result<(Self, Found), StateError> {
        // sled keeps what it once took and rewrites before it frees: four times the live bytes.
        let quota = settings
            .max_bytes
            .saturating_mul(4)
            .saturating_add(64 << 20);
        let (state, found) = State::open(folder, settings.cache_bytes, quota)?;
        let maps = Maps::open(&state)?;
        let mut devices = HashMap::new();
        for pair in maps.devices.prefix(&[]) {
            let (key, value) = pair?;
            if let (Ok(name), Ok(info)) = (String::from_utf8(key), postcard::from_bytes(&value)) {
                devices.insert(name, info);
            }
        }
        let bytes = devices.values().map(|info: &DeviceInfo| info.bytes).sum();
        Ok((
            Self {
                state,
                maps,
                settings,
                devices,
                changed: HashMap::new(),
                schemas: HashSet::new(),
                bytes,
                room: Room::UNKNOWN,
            },
            found,
        ))
    }

    /// A handle for readers; sees every write at once.
    #[must_use]
    pub fn view(&self) -> HotView {
        HotView::new(self.maps.clone())
    }

    /// The journal position to read next, if this journal was read before.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn cursor(&self, journal: JournalId) -> Result<Option<u64>, StateError> {
        let stored = self.maps.meta.get(CURSOR)?;
        Ok(stored
            .and_then(|bytes| postcard::from_bytes::<(u64, u64)>(&bytes).ok())
            .filter(|(id, _)| *id == journal.0)
            .map(|(_, position)| position))
    }

    /// Empties the store, durably when this returns: one that does not stand where its journal does is
    /// filled anew, and nothing of before may come twice.
    ///
    /// # Errors
    /// When the state refuses; what is left has no cursor then.
    pub fn begin_anew(&mut self) -> Result<(), StateError> {
        self.devices.clear();
        self.changed.clear();
        self.schemas.clear();
        self.bytes = 0;
        self.room = Room::UNKNOWN;
        self.maps.clear(&self.state)
    }

    /// How far back readings are kept, in microseconds.
    #[must_use]
    pub const fn keep_us(&self) -> i64 {
        self.settings.keep_us
    }

    /// Looks for room again before the next chunk: whoever offers one again wants to know at once.
    pub(super) const fn look_for_room(&mut self) {
        self.room = Room::UNKNOWN;
    }

    /// As if the state had just reached its quota.
    #[cfg(test)]
    pub(super) const fn fill_up(&mut self) {
        self.room = Room {
            is_full: true,
            offered_bytes: 0,
        };
    }

    /// Takes in one journal record, or nothing of it. Idempotent.
    ///
    /// # Errors
    /// When the state refuses; the record may be taken again.
    pub fn take(&mut self, item: &Interpreted<'_>) -> Result<Kept, StateError> {
        let Some(origin) = item.origin else {
            return Ok(Kept::Stored);
        };
        if let Some(block) = &item.block {
            let bytes = item.news.known.map_or(&[][..], |known| &known.bytes);
            return self.block(origin, block, bytes);
        }
        let rows: Vec<StoredRow> = item
            .samples
            .iter()
            .map(|sample| StoredRow {
                metric: sample.metric.to_owned(),
                labels: sample.tags.to_owned(),
                time_us: sample.ts_us,
                value: StoredValue::from(sample.value),
            })
            .collect();
        self.rows(&origin.stream(), origin.seq, &rows, origin.at)
    }

    /// Makes everything durable up to `position` of the journal: latest values, device infos and
    /// the cursor with them.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn commit(&mut self, journal: JournalId, position: u64) -> Result<(), StateError> {
        self.fold_changed()?;
        self.maps
            .meta
            .put(CURSOR, &encode(&(journal.0, position)))?;
        self.state.sync()
    }

    /// Makes durable what was taken, and says nothing of a journal.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn settle(&mut self) -> Result<(), StateError> {
        self.fold_changed()?;
        self.state.sync()
    }

    /// Takes the newest values of the chunks that came since the last time over into `latest`.
    fn fold_changed(&mut self) -> Result<(), StateError> {
        self.room = Room::UNKNOWN;
        let mut changed = std::mem::take(&mut self.changed);
        let folded = self.fold(&mut changed);
        if folded.is_err() {
            // To fold a chunk twice changes nothing: the newest value stays.
            for (device, chunks) in changed {
                self.changed.entry(device).or_default().extend(chunks);
            }
        }
        folded
    }

    fn fold(&self, changed: &mut HashMap<String, Vec<Changed>>) -> Result<(), StateError> {
        let view = self.view();
        for (device, chunks) in changed {
            let mut schemas = SchemaCache::default();
            chunks.sort_by(|a, b| (a.last_us, &a.key).cmp(&(b.last_us, &b.key)));
            for chunk in not_covered(&view, device, chunks, &mut schemas) {
                let points = view.newest(device, &chunk.key, &mut schemas)?;
                self.fold_latest(device, &points)?;
            }
            if let Some(info) = self.devices.get(device) {
                self.maps.devices.put(device.as_bytes(), &encode(info))?;
            }
        }
        Ok(())
    }

    /// Drops the oldest chunks if there are more than the store keeps; their newest values stay.
    pub(super) fn keep_to_size(&mut self, now: UnixMicros) -> Result<(), StateError> {
        if self.bytes > self.settings.max_bytes {
            self.fold_changed()?;
            self.expire(now)?;
        }
        Ok(())
    }

    /// Drops chunks older than the store keeps, and the oldest ones above its size.
    ///
    /// # Errors
    /// When the state refuses.
    pub fn expire(&mut self, now: UnixMicros) -> Result<(), StateError> {
        let mut cutoff = now.0.saturating_sub(self.settings.keep_us);
        self.drop_before(cutoff)?;
        while self.bytes > self.settings.max_bytes {
            let oldest = self.devices.values().filter(|info| info.bytes > 0);
            let Some(oldest) = oldest.map(|info| info.oldest_us).min() else {
                break;
            };
            // An eighth of what is kept at a time; at least a millisecond, so that it ends.
            let step = (now.0.saturating_sub(oldest) / 8).max(1_000);
            cutoff = cutoff.max(oldest.saturating_add(step));
            self.drop_before(cutoff)?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        origin: &Origin,
        block: &Block<'_>,
        schema: &[u8],
    ) -> Result<Kept, StateError> {
        let Block {
            header,
            payload,
            offset_us,
            ..
        } = *block;
        let (device, epoch) = (origin.device.as_str(), origin.epoch);
        let number = header.schema_no;
        let key = (device.to_owned(), epoch.get(), number);
        if !self.schemas.contains(&key) {
            if schema.len() > MAX_SCHEMA_BYTES {
                // Nobody could read the batch without it.
                return Ok(Kept::TooLarge);
            }
            self.schema(device, epoch, number, schema)?;
            if self.schemas.len() >= MAX_KNOWN_SCHEMAS {
                self.schemas.clear();
            }
            self.schemas.insert(key);
        }
        let first = header.first_time_us.saturating_add(offset_us);
        let span = header.last_time_us.saturating_sub(header.first_time_us);
        let parts = chunk::parts(Format::Batch, offset_us, payload);
        self.store(
            &origin.stream(),
            origin.seq,
            first,
            span.max(0),
            header.samples.into(),
            origin.at,
            &parts,
            Some((epoch.get(), header)),
        )
    }

    pub(super) fn rows(
        &mut self,
        stream: &Stream,
        seq: u64,
        rows: &[StoredRow],
        at: UnixMicros,
    ) -> Result<Kept, StateError> {
        let times = || rows.iter().map(|row| row.time_us);
        let (Some(first), Some(last)) = (times().min(), times().max()) else {
            return Ok(Kept::Stored);
        };
        let parts = chunk::parts(Format::Rows, 0, &encode(&rows));
        self.store(
            stream,
            seq,
            first,
            last.saturating_sub(first),
            rows.len() as u64,
            at,
            &parts,
            None,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the facts of one chunk, used once each"
    )]
    fn store(
        &mut self,
        stream: &Stream,
        seq: u64,
        first_us: i64,
        span_us: i64,
        samples: u64,
        at: UnixMicros,
        parts: &[Vec<u8>],
        batch: Option<(u64, BatchHeader)>,
    ) -> Result<Kept, StateError> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        if parts.len() > MAX_PARTS {
            return Ok(Kept::TooLarge);
        }
        if !self.room.has(bytes, &self.state) {
            return Ok(Kept::NoRoom);
        }
        let key = chunk::key(stream, seq, first_us);
        let mut known = false;
        for (number, part) in parts.iter().enumerate() {
            known |= self.maps.recent.put(&part_key(&key, number), part)?;
        }
        let device = stream.device.as_str();
        let info = self
            .devices
            .entry(device.to_owned())
            .or_insert_with(|| DeviceInfo {
                first_seen_us: at.0,
                oldest_us: first_us,
                ..DeviceInfo::default()
            });
        info.last_seen_us = info.last_seen_us.max(at.0);
        info.max_span_us = info.max_span_us.max(span_us);
        info.oldest_us = if info.bytes == 0 {
            first_us
        } else {
            info.oldest_us.min(first_us)
        };
        if !known {
            info.records += 1;
            info.samples += samples;
            info.bytes += bytes;
            self.bytes += bytes;
        }
        let changed = Changed {
            key,
            last_us: first_us.saturating_add(span_us),
            batch,
        };
        self.changed
            .entry(device.to_owned())
            .or_default()
            .push(changed);
        Ok(Kept::Stored)
    }

    pub(super) fn schema(
        &mut self,
        device: &str,
        epoch: Epoch,
        number: u32,
        bytes: &[u8],
    ) -> Result<(), StateError> {
        if bytes.len() > MAX_SCHEMA_BYTES || Schema::decode(bytes, &Limits::DEFAULT).is_err() {
            return Ok(());
        }
        let key = schema_key(device, epoch.get(), number);
        for (number, part) in bytes.chunks(MAX_VALUE_BYTES).enumerate() {
            self.maps.schemas.put(&part_key(&key, number), part)?;
        }
        Ok(())
    }

    /// Latest values are the newest by time, whichever came last.
    fn fold_latest(&self, device: &str, points: &[Point]) -> Result<(), StateError> {
        let mut newest: HashMap<(&str, &str), &Point> = HashMap::new();
        for point in points {
            let slot = newest
                .entry((&point.metric, &point.labels))
                .or_insert(point);
            if slot.time_us <= point.time_us {
                *slot = point;
            }
        }
        for ((metric, labels), point) in newest {
            let key = latest_key(device, metric, labels);
            let known = self.maps.latest.get(&key)?;
            let known = known.and_then(|bytes| postcard::from_bytes::<StoredRow>(&bytes).ok());
            if known.is_none_or(|known| known.time_us <= point.time_us) {
                let value = encode(&stored(point));
                // A text that long is in `recent` and in the lake.
                if value.len() <= MAX_VALUE_BYTES {
                    self.maps.latest.put(&key, &value)?;
                }
            }
        }
        Ok(())
    }

    fn drop_before(&mut self, cutoff_us: i64) -> Result<(), StateError> {
        let due: Vec<String> = self
            .devices
            .iter()
            .filter(|(_, info)| info.bytes > 0 && info.oldest_us < cutoff_us)
            .map(|(device, _)| device.clone())
            .collect();
        for device in due {
            let from = chunk::key_from(&device, i64::MIN);
            let to = chunk::key_from(&device, cutoff_us);
            let mut freed = 0;
            for pair in self.maps.recent.range(&from, &to) {
                let (key, value) = pair?;
                self.maps.recent.remove(&key)?;
                freed += value.len() as u64;
            }
            let mut rest = self.maps.recent.range(&to, &chunk::key_after(&device));
            let oldest = rest
                .next()
                .transpose()?
                .and_then(|(k, _)| chunk::parse_key(&device, &k));
            let Some(info) = self.devices.get_mut(&device) else {
                continue;
            };
            info.bytes = if oldest.is_some() {
                info.bytes.saturating_sub(freed)
            } else {
                0
            };
            info.oldest_us = oldest.map_or(cutoff_us, |(time, _)| time);
            self.maps.devices.put(device.as_bytes(), &encode(info))?;
        }
        self.bytes = self.devices.values().map(|info| info.bytes).sum();
        Ok(())
    }
}

/// Of chunks in the order of their newest row those that can hold a latest value: what a later
/// batch with a value in every column of its only series has made old needs no decoding.
fn not_covered<'a>(
    view: &HotView,
    device: &str,
    chunks: &'a [Changed],
    schemas: &mut SchemaCache,
) -> Vec<&'a Changed> {
    let mut whole = HashSet::new();
    let mut needed = Vec::new();
    for chunk in chunks.iter().rev() {
        if let Some((epoch, header)) = &chunk.batch {
            let id = (*epoch, header.schema_no);
            if whole.contains(&id) {
                continue;
            }
            let schema = view.cached_schema(device, *epoch, header.schema_no, schemas);
            if schema.is_some_and(|schema| {
                schema.series.len() <= 1
                    && u64::from(header.samples)
                        == u64::from(header.rows) * schema.columns.len() as u64
            }) {
                whole.insert(id);
            }
        }
        needed.push(chunk);
    }
    needed.reverse();
    needed
}

fn stored(point: &Point) -> StoredRow {
    StoredRow {
        metric: point.metric.clone(),
        labels: point.labels.clone(),
        time_us: point.time_us,
        value: StoredValue::from(point.value.borrowed()),
    }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("plain values serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::hot::HotRead;
    use headwater_proto::ids::{DeviceId, Lane};

    /// A row whose chunk has exactly `len` bytes.
    fn row_of(len: usize) -> StoredRow {
        let row = |text_bytes: usize| StoredRow {
            metric: "m".to_owned(),
            labels: String::new(),
            time_us: 7,
            value: StoredValue::Str("x".repeat(text_bytes)),
        };
        let bytes = |row: &StoredRow| {
            chunk::parts(Format::Rows, 0, &encode(&std::slice::from_ref(row)))
                .concat()
                .len()
        };
        let found = row(2 * len - bytes(&row(len)));
        assert_eq!(bytes(&found), len);
        found
    }

    #[test]
    fn room_is_looked_for_at_first_and_after_so_many_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str, quota| State::open(&folder.path().join(name), 1 << 20, quota);
        let (full, _) = open("full", 0).unwrap();
        let (roomy, _) = open("roomy", 64 << 20).unwrap();
        let mut room = Room::UNKNOWN;
        assert!(room.has(1, &roomy));
        // It trusts the last look.
        assert!(room.has(ROOM_EVERY_BYTES - 1, &full));
        assert!(!room.has(1, &full));
        assert!(!room.has(ROOM_EVERY_BYTES - 1, &roomy));
        assert!(room.has(1, &roomy));
    }

    #[test]
    fn a_chunk_of_the_most_parts_is_shown_and_of_a_larger_one_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let settings = HotSettings {
            keep_us: i64::MAX,
            max_bytes: 16 << 20,
            cache_bytes: 1 << 20,
        };
        let (mut hot, _) = HotStore::open(folder.path(), settings).unwrap();
        let most = MAX_PARTS * MAX_VALUE_BYTES;
        let mut shown = |device: &str, len: usize| {
            let stream = Stream {
                device: DeviceId::new(device).unwrap(),
                lane: Lane::Plain,
                epoch: Epoch::new(1),
            };
            let row = row_of(len);
            let kept = hot
                .rows(&stream, 0, std::slice::from_ref(&row), UnixMicros(7))
                .unwrap();
            hot.commit(JournalId(1), 1).unwrap();
            let series = hot.view().series(device, "m", 0..10, None, 10).unwrap();
            let whole = series.items.first().map(|point| &point.value);
            let is_whole =
                whole.is_some_and(|value| StoredValue::from(value.borrowed()) == row.value);
            (is_whole, kept)
        };
        assert_eq!(shown("fits", most), (true, Kept::Stored));
        assert_eq!(shown("one-more", most + 1), (false, Kept::TooLarge));
    }
}
