//! Core: which segments a log has, what a position lies in, and which segment gives way when room is
//! short.

use std::ops::Range;

/// What the owner of a log sees of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; numbers only grow and are never used twice.
    pub id: u64,
    /// Position of its first record.
    pub first: u64,
    /// Position after its last durable record.
    pub next: u64,
    /// Bytes that it takes of the quota.
    pub bytes_allocated: u64,
    /// Whether it takes no more records.
    pub sealed: bool,
    /// False for a segment of another version, or one without a header: kept, never read.
    pub readable: bool,
}

impl SegmentInfo {
    /// Its positions.
    #[must_use]
    pub const fn positions(&self) -> Range<u64> {
        self.first..self.next
    }
}

/// A segment with what it takes to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) info: SegmentInfo,
    /// Offset of the first record.
    pub(crate) records_at: u64,
    /// Offset that no durable record reaches beyond.
    pub(crate) end: u64,
    pub(crate) snapshot_len: u32,
    pub(crate) snapshot_crc: u32,
    /// It was cut after a failure, and no footer says so yet.
    pub(crate) unsealed_end: Option<u64>,
}

/// The segment that holds `position`, or else the next one that can be read. `segments` are in order.
pub(crate) fn locate(segments: &[Segment], position: u64) -> Option<&Segment> {
    let at = segments.partition_point(|s| s.info.next <= position);
    // An unreadable segment has no positions of its own and may stand anywhere.
    segments[at..]
        .iter()
        .find(|s| s.info.readable && s.info.next > position)
}

/// One lane as the choice of a victim sees it.
#[derive(Debug, Clone, Copy)]
pub struct LaneView<'a> {
    /// Its segments, oldest first.
    pub segments: &'a [SegmentInfo],
    /// It has room of its own: it gives way to nobody, and nobody gives way to it.
    pub exclusive: bool,
}

/// The segment that gives way so that lane `writer` can go on: `(lane, segment number)`.
///
/// Lanes stand in order of urgency, most urgent first. The newest segment of a lane never goes: it
/// carries the position. In this order:
///
/// 1. a segment whose records are all acknowledged, wherever it stands (`acked` says so);
/// 2. the oldest segment of the least urgent lane that is not more urgent than the writer.
///
/// An exclusive lane finds victims only in itself, and is no victim of others.
pub fn victim(
    lanes: &[LaneView<'_>],
    writer: usize,
    acked: &dyn Fn(usize, &SegmentInfo) -> bool,
) -> Option<(usize, u64)> {
    let alone = lanes.get(writer)?.exclusive;
    let within = |lane: usize| {
        if alone {
            lane == writer
        } else {
            !lanes[lane].exclusive
        }
    };
    let free = |lane: usize| {
        let segments = lanes[lane].segments;
        &segments[..segments.len().saturating_sub(1)]
    };
    let done = (0..lanes.len())
        .rev()
        .filter(|&lane| within(lane))
        .find_map(|lane| {
            free(lane)
                .iter()
                .find(|segment| acked(lane, segment))
                .map(|segment| (lane, segment.id))
        });
    done.or_else(|| {
        (writer..lanes.len())
            .rev()
            .filter(|&lane| within(lane))
            .find_map(|lane| free(lane).first().map(|segment| (lane, segment.id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(id: u64) -> SegmentInfo {
        let (first, next) = (id * 10, id * 10 + 10);
        SegmentInfo {
            id,
            first,
            next,
            bytes_allocated: 1,
            sealed: true,
            readable: true,
        }
    }

    fn pick(writer: usize, acked: &[(usize, u64)]) -> Option<(usize, u64)> {
        let (alarm, normal, bulk) = (
            [segment(1), segment(2), segment(3)],
            [segment(1), segment(2), segment(3)],
            [segment(4), segment(5)],
        );
        let lanes = [
            LaneView {
                segments: &alarm,
                exclusive: true,
            },
            LaneView {
                segments: &normal,
                exclusive: false,
            },
            LaneView {
                segments: &bulk,
                exclusive: false,
            },
        ];
        victim(&lanes, writer, &|lane, s| acked.contains(&(lane, s.id)))
    }

    #[test]
    fn the_oldest_of_the_least_urgent_lane_goes_first() {
        assert_eq!(pick(1, &[]), Some((2, 4)));
        assert_eq!(pick(2, &[]), Some((2, 4)));
    }

    #[test]
    fn an_acknowledged_segment_goes_before_any_other_wherever_it_stands() {
        assert_eq!(pick(2, &[(1, 2)]), Some((1, 2)));
        // The newest one carries the position.
        assert_eq!(pick(2, &[(1, 3)]), Some((2, 4)));
    }

    #[test]
    fn an_exclusive_lane_evicts_only_its_own_and_is_left_alone() {
        assert_eq!(pick(0, &[(1, 1)]), Some((0, 1)));
        assert_eq!(pick(1, &[(0, 1)]), Some((2, 4)));
    }

    #[test]
    fn a_less_urgent_lane_never_evicts_a_more_urgent_one() {
        let (normal, bulk) = ([segment(1), segment(2)], [segment(3)]);
        let lanes = [
            LaneView {
                segments: &normal,
                exclusive: false,
            },
            LaneView {
                segments: &bulk,
                exclusive: false,
            },
        ];
        assert_eq!(victim(&lanes, 1, &|_, _| false), None);
        assert_eq!(victim(&lanes, 0, &|_, _| false), Some((0, 1)));
    }
}
