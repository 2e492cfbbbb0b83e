//! Finding the segments of a log at its start.

use std::io;
use std::ops::Range;

use crate::disk::{Disk, DiskFile};
use crate::format::{
    FOOTER_BYTES, Footer, HEADER_BYTES, Header, HeaderError, MAX_POSITION, Name,
    RECORD_HEADER_BYTES,
};
use crate::index::{Segment, SegmentInfo};
use crate::reader::read_snapshot;
use crate::recover::{Cut, Fate, Found, Recovery, Unreadable, judge};
use crate::walk::{Step, Walk};

/// Allocated bytes are counted in blocks of this size.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// `len` in whole blocks.
pub(crate) fn in_blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// More records than a segment file can hold: positions that are left out behind a file which
/// cannot be looked at now, so that none of them is given out twice.
const UNKNOWN_POSITIONS: u64 = 1 << 28;

/// A file kept for its blocks.
#[derive(Debug, Clone)]
pub(crate) struct Spare {
    pub(crate) name: String,
    pub(crate) len: u64,
}

/// Bytes of a tail that are written again at a time.
const REWRITE_BYTES: usize = 256 * 1024;

/// What a folder holds of one log.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) segments: Vec<Segment>,
    pub(crate) spares: Vec<Spare>,
    /// A number that no segment or spare of this log ever had.
    pub(crate) next_id: u64,
    pub(crate) recovery: Recovery,
    /// Positions that may be taken by files which could not be looked at.
    unknown: u64,
}

/// Looks at every file of log `log`, cuts the tail, drops what is empty.
pub(crate) fn take_stock<D: Disk>(disk: &D, log: &str) -> io::Result<Inventory> {
    let mut inventory = Inventory {
        next_id: 1,
        ..Inventory::default()
    };
    let mut ids = Vec::new();
    for file in disk.list()? {
        match Name::parse(log, &file) {
            Some(Name::Segment(id)) => ids.push(id),
            Some(Name::Spare(id)) => {
                inventory.next_id = inventory.next_id.max(id.saturating_add(1));
                match disk.open(&file).and_then(|f| f.size()) {
                    Ok(size) => inventory.spares.push(Spare {
                        name: file,
                        len: size.len,
                    }),
                    Err(error) => inventory.trouble(&file, "look at", &error),
                }
            }
            None => {}
        }
    }
    ids.sort_unstable();
    if let Some(&newest) = ids.last() {
        inventory.next_id = inventory.next_id.max(newest.saturating_add(1));
    }
    let (mut found, mut skipped) = (Vec::with_capacity(ids.len()), Vec::new());
    for id in ids {
        match probe(disk, log, id) {
            Ok(file) => found.push(file),
            Err(error) => {
                inventory.skip(&Name::Segment(id).file(log), "read", &error);
                skipped.push(id);
            }
        }
    }
    for (at, (file, fate)) in found.iter().zip(judge(&found)).enumerate() {
        let until = found.get(at + 1).map_or(u64::MAX, |newer| newer.id);
        let is_beside_hidden = skipped.iter().any(|id| (file.id..until).contains(id));
        let ends_nowhere = match fate {
            Fate::Scan => true,
            Fate::Rescue => file.footer.is_none(),
            Fate::Sealed { .. } | Fate::Stale | Fate::Foreign { .. } => false,
        };
        if is_beside_hidden && ends_nowhere {
            // Only the file that cannot be read says where this one ends: nothing of it is cut or removed.
            let error = io::Error::other("the file after it cannot be read");
            inventory.skip(&Name::Segment(file.id).file(log), "judge", &error);
            continue;
        }
        let newer = found.get(at + 1).and_then(|newer| newer.header.ok());
        inventory.settle(disk, log, file, newer, fate);
    }
    inventory.sync_newest(disk, log);
    // A tail may have been cut below what its successor's header promises; positions never return.
    let promised = found
        .iter()
        .filter_map(|f| f.header.ok())
        .map(|h| h.first.max(h.previous_next));
    let reached = inventory.segments.iter().map(|s| s.info.next);
    let known = promised.chain(reached).max().unwrap_or(0);
    inventory.recovery.next = known.max(inventory.recovery.next) + inventory.unknown;
    inventory.recovery.segments = inventory.segments.len();
    Ok(inventory)
}

/// Reads the first and the last bytes of a segment.
pub(crate) fn probe<D: Disk>(disk: &D, log: &str, id: u64) -> io::Result<Found> {
    let file = disk.open(&Name::Segment(id).file(log))?;
    let len = file.size()?.len;
    let mut head = [0; HEADER_BYTES];
    let read = file.read_at(&mut head, 0)?;
    let header = Header::decode(&head[..read]);
    // A header that promises more than the file holds was never synced.
    let header = header.and_then(|h| {
        if h.records_at() <= len {
            Ok(h)
        } else {
            Err(HeaderError::Damaged)
        }
    });
    let mut tail = [0; FOOTER_BYTES];
    let mut footer = None;
    if let Some(at) = len.checked_sub(FOOTER_BYTES as u64) {
        let read = file.read_at(&mut tail, at)?;
        footer = Footer::decode(&tail[..read], id);
    }
    Ok(Found {
        id,
        len,
        header,
        footer,
    })
}

impl Inventory {
    fn trouble(&mut self, file: &str, action: &str, error: &io::Error) {
        self.recovery
            .trouble
            .push(format!("cannot {action} {file}: {error}"));
    }

    /// Goes on without a segment.
    fn skip(&mut self, file: &str, action: &str, error: &io::Error) {
        self.trouble(file, action, error);
        self.recovery.hidden.push(file.to_owned());
        self.unknown += UNKNOWN_POSITIONS;
    }

    fn settle<D: Disk>(
        &mut self,
        disk: &D,
        log: &str,
        file: &Found,
        newer: Option<Header>,
        fate: Fate,
    ) {
        let name = Name::Segment(file.id).file(log);
        match fate {
            Fate::Sealed { next, end } => {
                let mut segment = segment(file, next, end);
                let footed = file.footer.is_some_and(|f| f.next == next && f.end == end);
                segment.unsealed_end = (!footed).then_some(u64::MAX);
                self.segments.push(segment);
            }
            Fate::Scan => {
                if let Err(error) = self.scan(disk, &name, file) {
                    self.skip(&name, "scan", &error);
                }
            }
            Fate::Rescue => {
                let older = self.segments.last().map(|segment| segment.info.next);
                let promised = newer.map(|newer| promised(file, newer));
                let likely = likely_positions(file, older, newer);
                if let Err(error) = self.rescue(disk, &name, file, likely, promised) {
                    self.skip(&name, "scan", &error);
                }
            }
            Fate::Stale => self.drop_file(disk, name),
            Fate::Foreign {
                version,
                first,
                next,
            } => {
                let why = format!("written in version {version} of the format");
                self.unreadable(file, name, why, first);
                self.recovery.next = self.recovery.next.max(next);
            }
        }
    }

    /// The records of a file without a header may have been written and not synced: what is taken for
    /// durable from now on is made so.
    fn sync_newest<D: Disk>(&mut self, disk: &D, log: &str) {
        let Some(newest) = self.segments.last().filter(|newest| newest.info.readable) else {
            return;
        };
        let name = Name::Segment(newest.info.id).file(log);
        if let Err(error) = disk.open(&name).and_then(|file| file.sync_data()) {
            self.trouble(&name, "sync", &error);
            self.recovery.unsynced.push(name);
        }
    }

    fn unreadable(&mut self, file: &Found, name: String, why: String, first: u64) {
        self.recovery
            .unreadable
            .push(Unreadable { file: name, why });
        let info = SegmentInfo {
            id: file.id,
            first,
            next: first,
            bytes_allocated: in_blocks(file.len),
            sealed: true,
            readable: false,
        };
        let (records_at, end) = (0, 0);
        let (snapshot_len, snapshot_crc, unsealed_end) = (0, 0, None);
        let segment = Segment {
            info,
            records_at,
            end,
            snapshot_len,
            snapshot_crc,
            unsealed_end,
        };
        self.segments.push(segment);
    }

    fn drop_file<D: Disk>(&mut self, disk: &D, name: String) {
        match disk.remove(&name) {
            Ok(()) => self.recovery.dropped.push(name),
            Err(error) => self.trouble(&name, "remove", &error),
        }
    }

    /// Finds where the records of a tail end, and cuts and seals it there.
    fn scan<D: Disk>(&mut self, disk: &D, name: &str, found: &Found) -> io::Result<()> {
        let mut segment = segment(found, 0, found.len);
        let file = disk.open(name)?;
        let first = segment.info.first;
        let mut walk = Walk::new(
            file,
            found.id,
            segment.records_at,
            first,
            found.len,
            u64::MAX,
        );
        while walk.step_strict()? != Step::End {}
        let (next, end) = (walk.position(), walk.offset());
        // A snapshot alone is worth keeping: segments may have been released for its sake.
        if next == first && read_snapshot(walk.file(), &segment)?.is_none() {
            self.drop_file(disk, name.to_owned());
            return Ok(());
        }
        (segment.info.next, segment.end) = (next, end);
        let bytes = if is_blank(walk.file(), end)? {
            0
        } else {
            found.len - end
        };
        self.recovery.cut.push(Cut {
            segment: found.id,
            next,
            bytes,
        });
        let sealed = rewrite(walk.file(), end);
        let sealed = sealed.and_then(|()| seal_file(walk.file(), found.id, next, end));
        match sealed {
            Ok(len) => segment.info.bytes_allocated = in_blocks(len),
            // The next start finds the same end.
            Err(error) => {
                segment.unsealed_end = Some(end);
                self.trouble(name, "cut", &error);
                self.recovery.unsynced.push(name.to_owned());
            }
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Takes what records there are in a file without a header.
    ///
    /// - `promised`: the position after its last one, if a header after it says that.
    fn rescue<D: Disk>(
        &mut self,
        disk: &D,
        name: &str,
        found: &Found,
        likely: Range<u64>,
        promised: Option<u64>,
    ) -> io::Result<()> {
        let file = disk.open(name)?;
        let mut walk = Walk::new(file, found.id, 0, 0, found.len, u64::MAX);
        if !walk.find_any(&likely)? {
            self.drop_file(disk, name.to_owned());
            return Ok(());
        }
        let (first, records_at) = (walk.position(), walk.offset());
        while walk.step_strict()? != Step::End {}
        let read = (walk.position(), walk.offset());
        if found.footer.is_none() {
            // Nothing says that they were synced: `sync_newest` does it, where nothing newer does.
            rewrite(walk.file(), read.1)?;
        }
        let (next, end) = match (found.footer, promised) {
            (Some(footer), _) => (footer.next.max(read.0), footer.end.max(read.1)),
            // What its successor says was there, and is not read up to here, is damaged.
            (None, Some(promised)) if promised > read.0 => (promised, found.len),
            (None, _) => read,
        };
        let why = format!("its header is damaged; records from position {first} on are read");
        self.recovery.unreadable.push(Unreadable {
            file: name.to_owned(),
            why,
        });
        let info = SegmentInfo {
            id: found.id,
            first,
            next,
            bytes_allocated: in_blocks(found.len),
            sealed: true,
            readable: true,
        };
        // No snapshot of 4 GiB exists: its length is never believed.
        let (snapshot_len, snapshot_crc, unsealed_end) = (u32::MAX, 0, None);
        let segment = Segment {
            info,
            records_at,
            end,
            snapshot_len,
            snapshot_crc,
            unsealed_end,
        };
        self.segments.push(segment);
        Ok(())
    }
}

/// The position after the last one that a file may hold, as the header after it says.
const fn promised(file: &Found, newer: Header) -> u64 {
    if newer.previous == file.id {
        newer.previous_next
    } else {
        newer.first
    }
}

/// Positions that a file without a header may hold: so that not every byte of it that could begin a
/// record costs the checksum of what would be its payload.
fn likely_positions(file: &Found, older: Option<u64>, newer: Option<Header>) -> Range<u64> {
    let most = file.len / RECORD_HEADER_BYTES as u64;
    let promised = newer.map(|newer| promised(file, newer));
    let end = file.footer.map(|footer| footer.next).or(promised);
    let from = end.map_or(0, |end| end.saturating_sub(most));
    match (older, end) {
        (_, Some(end)) if newer.is_some_and(|newer| newer.previous != file.id) => {
            // A segment between them may be gone.
            older.unwrap_or(0)..end
        }
        (_, Some(end)) => from..end,
        (Some(older), None) => older..older.saturating_add(UNKNOWN_POSITIONS),
        (None, None) => 0..MAX_POSITION,
    }
}

fn segment(file: &Found, next: u64, end: u64) -> Segment {
    let (first, records_at, snapshot_len, snapshot_crc) = match file.header {
        Ok(h) => (h.first, h.records_at(), h.snapshot_len, h.snapshot_crc),
        Err(_) => (next, end, 0, 0),
    };
    let info = SegmentInfo {
        id: file.id,
        first,
        next,
        bytes_allocated: in_blocks(file.len),
        sealed: true,
        readable: true,
    };
    Segment {
        info,
        records_at,
        end,
        snapshot_len,
        snapshot_crc,
        unsealed_end: None,
    }
}

/// Writes the bytes of a tail once more. After a sync that failed, the system may still show what the
/// disk never got, and take the next sync for done: only what is written anew is synced anew.
fn rewrite<F: DiskFile>(file: &F, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut at = 0;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(REWRITE_BYTES);
        let read = file.read_at(&mut buffer[..left.min(REWRITE_BYTES)], at)?;
        if read == 0 {
            break;
        }
        file.write_at(&buffer[..read], at)?;
        at += read as u64;
    }
    Ok(())
}

/// Cuts a file after its last good record, syncs it, and then writes its footer there and syncs that;
/// returns its length. In this order a footer that a start finds says that what stands before it was
/// synced, even where the system still shows what a failed sync never brought to the disk.
pub(crate) fn seal_file<F: DiskFile>(file: &F, id: u64, next: u64, end: u64) -> io::Result<u64> {
    let len = end + FOOTER_BYTES as u64;
    file.truncate(len)?;
    file.sync_data()?;
    file.write_at(&Footer { id, next, end }.encode(), end)?;
    file.sync_data()?;
    Ok(len)
}

/// Whether nothing was written from there on, as the next block tells: a log that was not closed ends so.
fn is_blank(file: &impl DiskFile, end: u64) -> io::Result<bool> {
    let mut next = [0; 4_096];
    let len = file.read_at(&mut next, end)?;
    Ok(next.iter().take(len).all(|byte| *byte == 0))
}
