//! One durable log: append, sync, read, release.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::config::Budget;
pub use crate::config::Config;
use crate::disk::{Disk, DiskFile};
pub use crate::error::{AppendError, FullCause, OpenError, ReleaseError, SyncError};
use crate::format::{
    self, FOOTER_BYTES, Footer, HEADER_BYTES, Header, MAX_PAYLOAD_BYTES, MAX_SNAPSHOT_BYTES, Name,
    RECORD_HEADER_BYTES,
};
use crate::index::{Segment, SegmentInfo};
use crate::reader::{Chunk, ReadError, Reader, Shared, locked};
use crate::recover::Recovery;
use crate::segments::{Spare, in_blocks, seal_file, take_stock};

/// Room at a sealed segment's end that is left where it is: cutting a file costs more.
const SLACK_BYTES: u64 = 64 << 10;
/// A scratch buffer above this is given back after a snapshot.
const KEEP_BYTES: usize = 1 << 20;

/// The segment that takes records.
struct Active<F> {
    id: u64,
    file: F,
    name: String,
    len: u64,
    /// Offset up to which everything is durable.
    synced: u64,
    /// Offset up to which everything is written.
    written: u64,
    /// Begun where only reserved records might begin one.
    on_reserve: bool,
}

/// One durable log in a folder. See the crate's page for what it promises.
pub struct Log<D: Disk> {
    pub(crate) disk: D,
    pub(crate) config: Config,
    name: Arc<str>,
    pub(crate) budget: Arc<Budget>,
    /// Bytes of segments and spares; part of `budget.used`.
    pub(crate) used: u64,
    infos: Vec<SegmentInfo>,
    shared: Shared,
    pub(crate) spares: Vec<Spare>,
    active: Option<Active<D::File>>,
    /// Records appended and not yet written.
    buffer: Vec<u8>,
    pub(crate) scratch: Vec<u8>,
    next_id: u64,
    next: u64,
    durable: u64,
    reader: Reader<D>,
}

impl<D: Disk> Log<D> {
    /// Opens the log, or begins it. Whatever its files hold, it opens: the tail is cut after its last
    /// good record and sealed, newest files without a record are dropped, files of another version
    /// are kept and named. Reads headers and footers only, but for the tail.
    ///
    /// # Errors
    /// [`OpenError`] if the folder cannot be listed.
    pub fn open(disk: D, config: Config) -> Result<(Self, Recovery), OpenError> {
        let budget = Budget::new(config.quota_bytes, config.reserve_bytes);
        Self::open_within(disk, config, budget)
    }

    pub(crate) fn open_within(
        disk: D,
        config: Config,
        budget: Arc<Budget>,
    ) -> Result<(Self, Recovery), OpenError> {
        let inventory = take_stock(&disk, &config.name).map_err(|source| OpenError {
            log: config.name.clone(),
            source,
        })?;
        let mut recovery = inventory.recovery;
        recovery.next = recovery.next.max(config.first_position);
        let infos: Vec<_> = inventory.segments.iter().map(|s| s.info).collect();
        let shared: Shared = Arc::new(Mutex::new(inventory.segments));
        let name: Arc<str> = config.name.as_str().into();
        let mut log = Self {
            reader: Reader::new(disk.clone(), Arc::clone(&name), Arc::clone(&shared)),
            disk,
            name,
            budget,
            used: 0,
            infos,
            shared,
            spares: inventory.spares,
            active: None,
            buffer: Vec::new(),
            scratch: Vec::new(),
            next_id: inventory.next_id,
            next: recovery.next,
            durable: recovery.next,
            config,
        };
        let segments: u64 = log.infos.iter().map(|s| s.bytes_allocated).sum();
        let spares: u64 = log.spares.iter().map(|s| in_blocks(s.len)).sum();
        log.take(segments + spares);
        while log.spares.len() > log.config.spares {
            if let Err(error) = log.drop_spare() {
                recovery
                    .trouble
                    .push(format!("cannot remove a spare file: {error}"));
                break;
            }
        }
        Ok((log, recovery))
    }

    /// Appends a record to the present group; it is durable after the next [`Log::sync`]. Returns its
    /// position.
    ///
    /// Where the segment is full, the group is synced, and a new segment begins with what `snapshot`
    /// appends to an empty buffer (at most [`MAX_SNAPSHOT_BYTES`]): what an owner needs to read the
    /// log from here on without anything before. It is asked before this record is appended.
    ///
    /// # Errors
    /// [`AppendError`]; the record is not stored then.
    pub fn append(
        &mut self,
        kind: u8,
        payload: &[u8],
        snapshot: &dyn Fn(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        self.put(kind, payload, snapshot, false)
    }

    /// Like [`Log::append`], and may use the reserve: for records that make room, or name what is lost.
    ///
    /// # Errors
    /// [`AppendError`]; the record is not stored then.
    pub fn append_reserved(
        &mut self,
        kind: u8,
        payload: &[u8],
        snapshot: &dyn Fn(&mut Vec<u8>),
    ) -> Result<u64, AppendError> {
        self.put(kind, payload, snapshot, true)
    }

    fn put(
        &mut self,
        kind: u8,
        payload: &[u8],
        snapshot: &dyn Fn(&mut Vec<u8>),
        reserved: bool,
    ) -> Result<u64, AppendError> {
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(AppendError::TooLarge(payload.len()));
        }
        let total = (RECORD_HEADER_BYTES + payload.len()) as u64;
        let position = self.next;
        let id = match &self.active {
            Some(active) if self.fits(active, total) => {
                // Others would fill up what is kept for those that make room.
                if active.on_reserve && !reserved && self.is_on_reserve() {
                    let (need, cause) = (total, FullCause::Quota);
                    return Err(AppendError::Full { need, cause });
                }
                active.id
            }
            _ => self.begin_segment(total, snapshot, reserved)?,
        };
        format::append_record(&mut self.buffer, id, position, kind, payload);
        self.next += 1;
        if self.buffer.len() >= self.config.group_bytes {
            self.write_group()?;
        }
        Ok(position)
    }

    /// Makes sure that records with payloads of `lens` bytes will stand together in one segment: begins
    /// a new one, as [`Log::append`] does, where the present one cannot take all of them. Returns
    /// whether it did. For owners that repeat something in each segment.
    ///
    /// # Errors
    /// [`AppendError`]; no record is lost by it that [`AppendError::Sync`] does not name.
    pub fn make_way(
        &mut self,
        lens: &[usize],
        snapshot: &dyn Fn(&mut Vec<u8>),
        reserved: bool,
    ) -> Result<bool, AppendError> {
        if let Some(len) = lens.iter().find(|len| **len > MAX_PAYLOAD_BYTES) {
            return Err(AppendError::TooLarge(*len));
        }
        if !self.needs_segment(lens) {
            return Ok(false);
        }
        self.begin_segment(total_of(lens), snapshot, reserved)?;
        Ok(true)
    }

    fn fits(&self, active: &Active<D::File>, total: u64) -> bool {
        let after = active.written + self.buffer.len() as u64 + total + FOOTER_BYTES as u64;
        after <= active.len
    }

    /// Makes every appended record durable with one write and one sync; returns the first position
    /// that is not durable, the next to be given out.
    ///
    /// # Errors
    /// [`SyncError`] names the records that are lost.
    pub fn sync(&mut self) -> Result<u64, SyncError> {
        if self.durable == self.next {
            return Ok(self.durable);
        }
        self.write_group()?;
        let Some(active) = &mut self.active else {
            return Ok(self.durable);
        };
        if let Err(source) = active.file.sync_data() {
            return Err(self.poison(source));
        }
        active.synced = active.written;
        self.durable = self.next;
        let (next, end) = (self.durable, active.synced);
        if let Some(info) = self.infos.last_mut() {
            info.next = next;
        }
        if let Some(segment) = locked(&self.shared).last_mut() {
            (segment.info.next, segment.end) = (next, end);
        }
        Ok(self.durable)
    }

    fn write_group(&mut self) -> Result<(), SyncError> {
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        if self.buffer.is_empty() {
            return Ok(());
        }
        if let Err(source) = active.file.write_at(&self.buffer, active.written) {
            return Err(self.poison(source));
        }
        active.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Gives up the active segment behind its last good sync.
    fn poison(&mut self, source: io::Error) -> SyncError {
        let lost = self.durable..self.next;
        self.buffer.clear();
        self.durable = self.next;
        if let Some(active) = self.active.take() {
            let sealed = seal_file(&active.file, active.id, lost.start, active.synced);
            let unsealed_end = sealed.is_err().then_some(active.synced);
            self.close_segment(sealed.unwrap_or(active.len), unsealed_end);
        }
        SyncError { lost, source }
    }

    /// Seals the segment that takes records, so that the next append begins a new one with a new
    /// snapshot. Syncs what was appended.
    ///
    /// # Errors
    /// [`SyncError`], as [`Log::sync`].
    pub fn roll(&mut self) -> Result<(), SyncError> {
        self.sync()?;
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        let end = active.synced;
        let footer = Footer {
            id: active.id,
            next: self.durable,
            end,
        }
        .encode();
        let cut = end + FOOTER_BYTES as u64;
        let mut len = active.len;
        if len - cut > SLACK_BYTES && active.file.truncate(cut).is_ok() {
            len = cut;
        }
        // Unsynced, and without an answer to its failure: the footer only spares the next start a
        // scan. It is written after the sync, so it never claims what is not durable.
        let _ = active.file.write_at(&footer, len - FOOTER_BYTES as u64);
        self.close_segment(len, None);
        Ok(())
    }

    /// The last segment, no longer active, is now `len` bytes long.
    fn close_segment(&mut self, len: u64, unsealed_end: Option<u64>) {
        let Some(info) = self.infos.last_mut() else {
            return;
        };
        let before = info.bytes_allocated;
        info.sealed = true;
        info.bytes_allocated = in_blocks(len);
        let after = info.bytes_allocated;
        if let Some(segment) = locked(&self.shared).last_mut() {
            (segment.info, segment.unsealed_end) = (*info, unsealed_end);
        }
        self.give(before);
        self.take(after);
    }

    /// Begins a segment that has room for a record of `total` bytes; returns its number.
    fn begin_segment(
        &mut self,
        total: u64,
        snapshot: &dyn Fn(&mut Vec<u8>),
        reserved: bool,
    ) -> Result<u64, AppendError> {
        self.scratch.clear();
        self.scratch.resize(HEADER_BYTES, 0);
        snapshot(&mut self.scratch);
        let snapshot_len = self.scratch.len() - HEADER_BYTES;
        let header_len = match u32::try_from(snapshot_len) {
            Ok(len) if snapshot_len <= MAX_SNAPSHOT_BYTES => len,
            _ => return Err(AppendError::SnapshotTooLarge(snapshot_len)),
        };
        let least = self.scratch.len() as u64 + total + FOOTER_BYTES as u64;
        let want = in_blocks(least.max(self.config.segment_bytes));
        let spare = self.check_room(want, reserved)?;
        self.roll()?;

        let id = self.next_id;
        self.next_id += 1;
        let (previous, previous_next) = self.infos.last().map_or((0, 0), |s| (s.id, s.next));
        let snapshot_crc = format::snapshot_crc(id, &self.scratch[HEADER_BYTES..]);
        let first = self.next;
        let snapshot_len = header_len;
        let header = Header {
            id,
            first,
            previous,
            previous_next,
            snapshot_len,
            snapshot_crc,
        };
        self.scratch[..HEADER_BYTES].copy_from_slice(&header.encode());

        let name = Name::Segment(id).file(&self.name);
        let (file, len) = self.make_file(&name, want, spare)?;
        let records_at = self.scratch.len() as u64;
        if self.scratch.capacity() > KEEP_BYTES {
            self.scratch = Vec::new();
        }
        let bytes_allocated = in_blocks(len);
        let info = SegmentInfo {
            id,
            first,
            next: first,
            bytes_allocated,
            sealed: false,
            readable: true,
        };
        self.infos.push(info);
        locked(&self.shared).push(Segment {
            info,
            records_at,
            end: records_at,
            snapshot_len,
            snapshot_crc,
            unsealed_end: None,
        });
        let (synced, written) = (records_at, records_at);
        let on_reserve = self.is_on_reserve();
        self.active = Some(Active {
            id,
            file,
            name,
            len,
            synced,
            written,
            on_reserve,
        });
        Ok(id)
    }

    /// Gives back a segment, wherever it stands, whether or not its records were read. Needs no
    /// space. Its file is kept for its blocks where one is wanted, else removed. After a crash it may
    /// be there again, whole. False if there is no such segment.
    ///
    /// # Errors
    /// [`ReleaseError`]; the segment is then still there.
    pub fn release(&mut self, id: u64) -> Result<bool, ReleaseError> {
        let Some(at) = self.infos.iter().position(|s| s.id == id) else {
            return Ok(false);
        };
        if at + 1 == self.infos.len() {
            return Err(ReleaseError::Newest(id));
        }
        self.settle_before(at);
        let bytes = self.infos[at].bytes_allocated;
        let name = Name::Segment(id).file(&self.name);
        let spare = Name::Spare(id).file(&self.name);
        let wanted = self.spares.len() < self.config.spares
            && bytes >= in_blocks(self.config.segment_bytes)
            && bytes <= 2 * in_blocks(self.config.segment_bytes)
            && self.file_system_has(0, false);
        if wanted && self.disk.rename(&name, &spare).is_ok() {
            self.spares.push(Spare {
                name: spare,
                len: bytes,
            });
        } else {
            match self.disk.remove(&name) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ReleaseError::Disk { file: name, source });
                }
                _ => self.give(bytes),
            }
        }
        self.infos.remove(at);
        locked(&self.shared).retain(|s| s.info.id != id);
        self.reader.forget(id);
        Ok(true)
    }

    /// The segment before the one at `at` may have been cut without a footer; what stands in the
    /// header of the one at `at` goes with it, so the footer is due now. A failure leaves the next
    /// start to find records again that were told lost.
    fn settle_before(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else {
            return;
        };
        let mut segments = locked(&self.shared);
        let Some(segment) = segments.get_mut(before) else {
            return;
        };
        let Some(end) = segment.unsealed_end.filter(|&end| end != u64::MAX) else {
            return;
        };
        let SegmentInfo { id, next, .. } = segment.info;
        let file = self.disk.open(&Name::Segment(id).file(&self.name));
        if file.is_ok_and(|file| seal_file(&file, id, next, end).is_ok()) {
            segment.unsealed_end = None;
        }
    }

    /// Removes one spare file; false if there is none.
    ///
    /// # Errors
    /// The disk's.
    pub fn drop_spare(&mut self) -> io::Result<bool> {
        let Some(spare) = self.spares.pop() else {
            return Ok(false);
        };
        match self.disk.remove(&spare.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.spares.push(spare);
                Err(error)
            }
            _ => {
                self.give(in_blocks(spare.len));
                Ok(true)
            }
        }
    }

    /// Visits durable records; see [`Reader::read`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &mut self,
        from: u64,
        max_bytes: usize,
        visit: impl FnMut(u64, u8, &[u8]) -> ControlFlow<()>,
    ) -> Result<Chunk, ReadError> {
        self.reader.read(from, max_bytes, visit)
    }

    /// A reader for another thread, or for another place in the log.
    #[must_use]
    pub fn reader(&self) -> Reader<D> {
        Reader::new(
            self.disk.clone(),
            Arc::clone(&self.name),
            Arc::clone(&self.shared),
        )
    }

    /// Its segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &SegmentInfo> + ExactSizeIterator {
        self.infos.iter()
    }

    pub(crate) fn infos(&self) -> &[SegmentInfo] {
        &self.infos
    }

    /// The snapshot that segment `id` begins with; see [`Reader::snapshot_of`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn snapshot_of(&self, id: u64) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.snapshot_of(id)
    }

    /// The newest segment whose snapshot is good, and the snapshot: where an owner's replay begins.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn newest_snapshot(&self) -> Result<Option<(SegmentInfo, Vec<u8>)>, ReadError> {
        for info in self.infos.iter().rev() {
            if let Some(snapshot) = self.snapshot_of(info.id)? {
                return Ok(Some((*info, snapshot)));
            }
        }
        Ok(None)
    }

    /// The first position that is not durable yet.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The position that the next record takes.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether records with payloads of `lens` bytes, if they are to stand together, begin a new
    /// segment.
    #[must_use]
    pub fn needs_segment(&self, lens: &[usize]) -> bool {
        let total = total_of(lens);
        !self
            .active
            .as_ref()
            .is_some_and(|active| self.fits(active, total))
    }

    /// Bytes appended and not yet written.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that its segments and spares take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used
    }

    /// Bytes of them that spares take: a new segment is made of one.
    #[must_use]
    pub fn spare_bytes(&self) -> u64 {
        self.spares.iter().map(|s| in_blocks(s.len)).sum()
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The disk it is on.
    #[must_use]
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Name of the file that takes records now, for messages.
    #[must_use]
    pub fn active_file(&self) -> Option<&str> {
        self.active.as_ref().map(|active| active.name.as_str())
    }

    pub(crate) fn take(&mut self, bytes: u64) {
        self.used += bytes;
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give(&mut self, bytes: u64) {
        self.used -= bytes;
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes of records with payloads of `lens` bytes.
fn total_of(lens: &[usize]) -> u64 {
    lens.iter()
        .map(|len| (RECORD_HEADER_BYTES + len) as u64)
        .sum()
}

impl<D: Disk> Drop for Log<D> {
    /// What was not synced is not stored: a sync whose failure nobody hears would promise nothing.
    fn drop(&mut self) {
        let used = self.used;
        self.give(used);
    }
}
