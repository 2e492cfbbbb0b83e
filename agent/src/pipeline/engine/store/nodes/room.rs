//! Core: which segments of nodes' records go: those that nobody needs, and under a full quota the one that
//! holds least of nodes within their share.

use std::ops::ControlFlow;

use headwater_proto::frame::{self, Kind};
use headwater_proto::ids::{SeqRange, Stream};
use headwater_spool::Disk;

use super::index::Run;
use super::streams::without;
use super::{Incoming, NodeStore};
use crate::pipeline::engine::store::contents::Contents;
use crate::pipeline::foreign;
use crate::pipeline::record::schema_of;

/// Bytes of a segment that are looked through at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// A segment with more percent of it still needed is not moved: that would free little.
const MOVE_PERCENT: u64 = 90;

/// Records of a node that give way.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) stream: Stream,
    pub(crate) contents: Contents,
}

/// The segment that gives way.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) segment: u64,
    /// What is lost with it. The rest moves.
    pub(crate) lost: Vec<Lost>,
}

impl<D: Disk> NodeStore<D> {
    /// Records of a stream may be forgotten, as far as `is_committed` says so or a gap names them.
    pub(crate) fn settle(&mut self, stream: &Stream, is_committed: &dyn Fn(SeqRange) -> bool) {
        let Some(id) = self.streams.find(stream) else {
            return;
        };
        for run in self.index.of_mut(id).filter(|run| !run.done) {
            let kept = self.streams.get(id);
            if kept.is_some_and(|kept| kept.is_done(run.seqs, is_committed)) {
                run.done = true;
                self.streams.free(id, run.bytes);
            }
        }
    }

    /// Gives back the segments of which nobody needs anything. The newest stays: it carries the marks.
    pub(crate) fn release_done(&mut self) {
        let newest = self.log.segments().next_back().map(|info| info.id);
        let all = self.log.segments().filter(|info| info.readable);
        let done: Vec<u64> = all
            .map(|info| info.id)
            .filter(|id| Some(*id) != newest && self.index.runs(*id).iter().all(|run| run.done))
            // Records of the open group may stand in a segment that is not the newest any more.
            .filter(|id| self.held.iter().all(|entry| entry.segment != *id))
            .collect();
        for id in done {
            self.release(id);
        }
    }

    /// Lets a segment go of which nothing is needed, or all that is lost with it was named. False: it is still
    /// there.
    pub(crate) fn release(&mut self, segment: u64) -> bool {
        if self.log.release(segment).is_err() {
            return false;
        }
        for run in self.index.forget(segment).iter().filter(|run| !run.done) {
            self.streams.free(run.stream, run.bytes);
        }
        true
    }

    /// A gap names these records: they are not needed here.
    pub(crate) fn let_go(&mut self, stream: &Stream, range: SeqRange) {
        let id = self.streams.find(stream);
        if let Some(kept) = id.and_then(|id| self.streams.get_mut(id)) {
            kept.let_go(range);
        }
    }

    /// The segment that gives way under a full quota. `None`: none would make room, and what comes must wait.
    pub(crate) fn victim(&mut self) -> Option<Victim> {
        let share = self.share(0);
        let over: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, kept)| self.bytes_of(&kept.stream.device) > share)
            .map(|(id, _)| id)
            .collect();
        let newest = self.log.segments().next_back().map(|info| info.id);
        let held = |id: u64| self.held.iter().any(|entry| entry.segment == id);
        let stays = |id: u64| -> u64 {
            let runs = self.index.runs(id).iter();
            let kept = runs.filter(|run| !run.done && !over.contains(&run.stream));
            kept.map(|run| u64::from(run.bytes)).sum()
        };
        let segments = self.log.segments().filter(|info| info.readable);
        // Where damage may hide records, the collector is asked first which of them it has.
        let seeks = |id: u64| {
            let mut runs = self.index.runs(id).iter();
            runs.any(|run| run.is_sought() && !run.done)
        };
        let most = self.log.config().segment_bytes / 100 * MOVE_PERCENT;
        let (_, _, segment) = segments
            .map(|info| info.id)
            .filter(|id| Some(*id) != newest && !held(*id))
            .map(|id| (seeks(id), stays(id), id))
            .filter(|(_, stays, _)| *stays <= most)
            .min()?;
        let runs = self.index.runs(segment).iter();
        let lost: Vec<Run> = runs
            .filter(|run| !run.done && over.contains(&run.stream))
            .copied()
            .collect();
        let lost = lost.iter().filter_map(|run| self.look_through(run));
        let lost = lost.collect();
        Some(Victim { segment, lost })
    }

    /// What the records of a run hold.
    fn look_through(&mut self, run: &Run) -> Option<Lost> {
        let stream = self.streams.get(run.stream)?.stream.clone();
        let mut contents = Contents::new(0, stream.epoch, Some(run.seqs));
        let mut take = |seq, payload: &[u8]| {
            contents.take(seq, payload);
            false
        };
        let mut from = run.seqs.first;
        while from < run.seqs.next {
            let read = self.read_run(&stream, run, from, &mut take);
            from = read.map_or(run.seqs.next, |ran| ran.goes_on.max(from + 1));
        }
        contents.compare(run.seqs.len());
        Some(Lost { stream, contents })
    }

    /// Moves the records of a segment that are needed to the newest one and syncs them, after gaps name what is
    /// lost with it. Gives those of which it found none: they are damaged. `None`: they could not be moved.
    pub(crate) fn move_rest(&mut self, victim: &Victim) -> Option<Vec<(Stream, SeqRange)>> {
        for Lost { stream, contents } in &victim.lost {
            if let Some(range) = contents.lost {
                self.let_go(stream, range);
                self.settle(stream, &|_| false);
            }
        }
        let info = self.log.segments().find(|info| info.id == victim.segment);
        let info = info.copied()?;
        let runs = self.index.runs(victim.segment).iter();
        // Of each run the numbers that are still to come.
        let mut rest: Vec<Run> = runs.filter(|run| !run.done).copied().collect();
        let mut damaged: Vec<(u32, SeqRange)> = Vec::new();
        let mut from = info.first;
        while from < info.next && rest.iter().any(|run| !run.seqs.is_empty()) {
            // They are copied out first: the log is read and written by turns.
            let mut records: Vec<(u64, Vec<u8>)> = Vec::new();
            let chunk = self.log.read(from, CHUNK_BYTES, |position, _, payload| {
                if position >= info.next {
                    return ControlFlow::Break(());
                }
                records.push((position, payload.to_vec()));
                ControlFlow::Continue(())
            });
            for (position, payload) in &records {
                let moved = self.move_record(*position, payload, &mut rest)?;
                damaged.extend(moved.filter(|(_, passed)| !passed.is_empty()));
            }
            match chunk {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => return None,
            }
        }
        let rest = rest.iter().filter(|run| !run.seqs.is_empty());
        damaged.extend(rest.map(|run| (run.stream, run.seqs)));
        if !self.sync() {
            return None;
        }
        let named = |(id, range)| {
            let stream = &self.streams.get(id)?.stream;
            // What is sought here may have come again since.
            let others = self.index.of(id).filter(|(at, _)| *at != victim.segment);
            let others = others.filter(|(_, run)| !run.is_sought());
            let mut others: Vec<_> = others.map(|(_, run)| run.seqs).collect();
            others.sort_by_key(|range| range.first);
            let rest = without(range, &others).into_iter();
            Some(rest.map(move |range| (stream.clone(), range)))
        };
        Some(damaged.into_iter().filter_map(named).flatten().collect())
    }

    /// Appends a record of a segment that goes, if somebody needs it; gives its stream and the numbers of its run
    /// that it passed. `None`: it finds no room.
    #[expect(
        clippy::option_option,
        reason = "not needed, and not to be moved, are two answers"
    )]
    fn move_record(
        &mut self,
        position: u64,
        payload: &[u8],
        rest: &mut [Run],
    ) -> Option<Option<(u32, SeqRange)>> {
        let Ok(record) = foreign::decode(payload) else {
            return Some(None);
        };
        let Some(id) = self.streams.find(&record.stream) else {
            return Some(None);
        };
        let envelope = &record.envelope;
        if let Some((number, bytes)) = envelope.schema {
            self.streams.bind(id, number, bytes, None);
        }
        let run = rest.iter_mut().find(|run| {
            let is_there = (run.at..=run.last).contains(&position);
            run.stream == id && run.seqs.contains(envelope.seq) && is_there
        });
        let frame = frame::decode(envelope.frame).map(|(frame, _)| frame.kind);
        let Some((run, kind)) = run.zip(frame.ok()) else {
            return Some(None);
        };
        let passed = SeqRange::new(run.seqs.first, envelope.seq);
        run.seqs.first = envelope.seq + 1;
        self.append_moved(id, kind, &record)
            .then_some(Some((id, passed)))
    }

    fn append_moved(&mut self, id: u32, kind: Kind, record: &foreign::Foreign<'_>) -> bool {
        let envelope = &record.envelope;
        let moved = Incoming {
            seq: envelope.seq,
            kind,
            stamps: envelope.stamps,
            frame: envelope.frame,
            schema: schema_of(envelope.frame),
            is_new: false,
        };
        match self.write(id, &moved, true) {
            Ok(()) => true,
            Err(headwater_spool::AppendError::Sync(error)) => {
                self.lose_group(&error);
                false
            }
            Err(_) => false,
        }
    }
}
