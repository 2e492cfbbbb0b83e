//! Reading a log, from any thread, up to its durable position.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::format::{self, HEADER_BYTES, Name};
use crate::index::{self, Segment, SegmentInfo};
use crate::walk::{Step, Walk};

/// Most damages named in one chunk: a ruined segment is told in portions.
pub const MAX_DAMAGES: usize = 64;

/// Positions whose records a segment holds no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number.
    pub segment: u64,
    /// The positions.
    pub positions: Range<u64>,
}

/// What a read gave beside its records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Where the next read goes on.
    pub next: u64,
    /// Records visited.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: usize,
    /// What was skipped on the way, at most [`MAX_DAMAGES`]. Reading on from [`Chunk::next`] never
    /// names a position twice.
    pub damage: Vec<Damage>,
}

/// Why nothing could be read. The same read may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {file}")]
pub struct ReadError {
    /// The file.
    pub file: String,
    /// The disk's error.
    #[source]
    pub source: io::Error,
}

/// The segments as the writer last published them.
pub(crate) type Shared = Arc<Mutex<Vec<Segment>>>;

pub(crate) fn locked(shared: &Shared) -> MutexGuard<'_, Vec<Segment>> {
    // A panic elsewhere cannot leave the list half changed: each change is one assignment.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads records that are durable. Keeps its place: reading on costs no search.
pub struct Reader<D: Disk> {
    disk: D,
    log: Arc<str>,
    shared: Shared,
    place: Option<Walk<D::File>>,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(disk: D, log: Arc<str>, shared: Shared) -> Self {
        Self {
            disk,
            log,
            shared,
            place: None,
        }
    }

    /// A reader of the same log, with a place of its own.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(
            self.disk.clone(),
            Arc::clone(&self.log),
            Arc::clone(&self.shared),
        )
    }

    /// Position after the last durable record.
    #[must_use]
    pub fn durable(&self) -> u64 {
        locked(&self.shared)
            .last()
            .map_or(0, |segment| segment.info.next)
    }

    /// The segment that a read from `from` on begins in; `None` when nothing durable is left there.
    #[must_use]
    pub fn segment_at(&self, from: u64) -> Option<SegmentInfo> {
        index::locate(&locked(&self.shared), from).map(|segment| segment.info)
    }

    /// As [`Reader::read`], but ends with segment `id`; reads nothing where a read from `from` on
    /// begins in another one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read_within(
        &mut self,
        id: u64,
        from: u64,
        max_bytes: usize,
        mut visit: impl FnMut(u64, u8, &[u8]) -> ControlFlow<()>,
    ) -> Result<Chunk, ReadError> {
        let mut chunk = Chunk {
            next: from,
            ..Chunk::default()
        };
        let found = index::locate(&locked(&self.shared), from).copied();
        if let Some(segment) = found.filter(|segment| segment.info.id == id) {
            // Whether it ended early is of no interest: the caller reads on from the chunk's end.
            let read = self.read_segment(&segment, max_bytes, &mut visit, &mut chunk);
            let _ = failed_at_once(read, from, &chunk)?;
        }
        Ok(chunk)
    }

    /// Visits durable records from `from` on, oldest first, until their payloads pass `max_bytes`
    /// (at least one record is visited), `visit` breaks, or nothing durable is left.
    ///
    /// `visit` gets position, kind and payload. Positions of released segments and of failed groups
    /// are passed over; damaged records are named in the chunk.
    ///
    /// # Errors
    /// [`ReadError`]. A medium error inside a file is no error but damage.
    pub fn read(
        &mut self,
        from: u64,
        max_bytes: usize,
        mut visit: impl FnMut(u64, u8, &[u8]) -> ControlFlow<()>,
    ) -> Result<Chunk, ReadError> {
        let mut chunk = Chunk {
            next: from,
            ..Chunk::default()
        };
        loop {
            let Some(segment) = index::locate(&locked(&self.shared), chunk.next).copied() else {
                return Ok(chunk);
            };
            let read = self.read_segment(&segment, max_bytes, &mut visit, &mut chunk);
            if failed_at_once(read, from, &chunk)?.is_break() {
                return Ok(chunk);
            }
        }
    }

    fn read_segment(
        &mut self,
        segment: &Segment,
        max_bytes: usize,
        visit: &mut impl FnMut(u64, u8, &[u8]) -> ControlFlow<()>,
        chunk: &mut Chunk,
    ) -> Result<ControlFlow<()>, ReadError> {
        let id = segment.info.id;
        let log = Arc::clone(&self.log);
        let file = || Name::Segment(id).file(&log);
        let from = chunk.next.max(segment.info.first);
        let mut place = match self.enter(segment, from) {
            Ok(place) => place,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                // Released meanwhile, or taken away by somebody else.
                self.note_damage(id, from..segment.info.next, chunk);
                chunk.next = segment.info.next;
                return Ok(ControlFlow::Continue(()));
            }
            Err(source) => {
                return Err(ReadError {
                    file: file(),
                    source,
                });
            }
        };
        if place.position() > from {
            // Damage that begins before `from` reaches beyond it.
            chunk.next = place.position();
            self.note_damage(id, from..chunk.next, chunk);
        }
        let flow = loop {
            match place.step().map_err(|source| ReadError {
                file: file(),
                source,
            })? {
                Step::Record { position, kind } => {
                    let payload = place.payload();
                    chunk.next = position + 1;
                    chunk.records += 1;
                    chunk.bytes += payload.len();
                    let flow = visit(position, kind, payload);
                    if flow.is_break() || chunk.bytes >= max_bytes {
                        break ControlFlow::Break(());
                    }
                }
                Step::Damaged(positions) => {
                    chunk.next = positions.end;
                    self.note_damage(id, positions.start.max(from)..positions.end, chunk);
                    if chunk.damage.len() >= MAX_DAMAGES {
                        break ControlFlow::Break(());
                    }
                }
                Step::End => {
                    chunk.next = chunk.next.max(segment.info.next);
                    break ControlFlow::Continue(());
                }
            }
        };
        self.place = Some(place);
        Ok(flow)
    }

    /// Stands before the record `from` of `segment`, from the place kept if that helps.
    fn enter(&mut self, segment: &Segment, from: u64) -> io::Result<Walk<D::File>> {
        let kept = self.place.take();
        let kept = kept.filter(|p| p.id() == segment.info.id && p.position() <= from);
        let (end, limit) = (segment.end, segment.info.next);
        let mut place = match kept {
            Some(mut place) => {
                place.extend(end, limit);
                place
            }
            None => {
                let info = &segment.info;
                let file = self.disk.open(&Name::Segment(info.id).file(&self.log))?;
                Walk::new(file, info.id, segment.records_at, info.first, end, limit)
            }
        };
        place.skip_to(from)?;
        Ok(place)
    }

    /// Names damage, unless the segment was released while it was read: its file may then hold
    /// something else already.
    fn note_damage(&self, segment: u64, positions: Range<u64>, chunk: &mut Chunk) {
        let there = locked(&self.shared).iter().any(|s| s.info.id == segment);
        if there && !positions.is_empty() {
            chunk.damage.push(Damage { segment, positions });
        }
    }

    /// The snapshot that segment `id` begins with; `None` if there is no such segment, or the
    /// snapshot is damaged.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn snapshot_of(&self, id: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let found = locked(&self.shared)
            .iter()
            .find(|s| s.info.id == id)
            .copied();
        let Some(segment) = found.filter(|s| s.info.readable) else {
            return Ok(None);
        };
        let file = Name::Segment(id).file(&self.log);
        let read = self
            .disk
            .open(&file)
            .and_then(|f| read_snapshot(&f, &segment));
        read.map_err(|source| ReadError { file, source })
    }

    /// Lets go of a file that was released, so that its blocks come back.
    pub(crate) fn forget(&mut self, id: u64) {
        self.place.take_if(|place| place.id() == id);
    }
}

/// An error after something was passed ends the chunk, which names it; the next read meets the error
/// again, at its beginning.
fn failed_at_once(
    read: Result<ControlFlow<()>, ReadError>,
    from: u64,
    chunk: &Chunk,
) -> Result<ControlFlow<()>, ReadError> {
    match read {
        Err(_) if chunk.next > from => Ok(ControlFlow::Break(())),
        other => other,
    }
}

pub(crate) fn read_snapshot<F: DiskFile>(
    file: &F,
    segment: &Segment,
) -> io::Result<Option<Vec<u8>>> {
    let len = segment.snapshot_len as usize;
    if len > format::MAX_SNAPSHOT_BYTES {
        return Ok(None);
    }
    let mut snapshot = vec![0; len];
    let whole = file.read_at(&mut snapshot, HEADER_BYTES as u64)? == len;
    let good = whole && format::snapshot_crc(segment.info.id, &snapshot) == segment.snapshot_crc;
    Ok(good.then_some(snapshot))
}
