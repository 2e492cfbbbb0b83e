//! Spans hold the rows that are missing, whatever came and in whatever order.

use super::*;
use headwater_proto::delivery::Ranges;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SECOND_US: i64 = 1_000_000;
const BEGAN_US: i64 = 1_700_000_000 * SECOND_US;
const AT: UnixMicros = UnixMicros(BEGAN_US + 100_000 * SECOND_US);

/// Rows of record `seq` of a stream that makes one a second.
fn times(seq: u64) -> (i64, i64) {
    let first_us = BEGAN_US + seq.cast_signed() * SECOND_US;
    (first_us, first_us + SECOND_US - 1)
}

fn numbers(first: u64, next: u64) -> Which {
    Which::Numbers(SeqRange::new(first, next))
}

/// A stream of which these records came, in this order.
#[derive(Default)]
struct Came {
    times: Times,
    data: BTreeSet<u64>,
}

impl Came {
    fn note(&mut self, seq: u64, span: (i64, i64)) {
        self.data.insert(seq);
        self.times.note(seq, span, |seq| self.data.contains(&seq));
    }

    fn of(order: impl IntoIterator<Item = u64>) -> Self {
        let mut came = Self::default();
        order.into_iter().for_each(|seq| came.note(seq, times(seq)));
        came
    }
}

fn seconds(span: Span) -> (i64, i64, Known) {
    let of = |time: UnixMicros| (time.0 - BEGAN_US).div_euclid(SECOND_US);
    (of(span.first), of(span.last), span.known)
}

#[test]
fn a_hole_lies_between_the_records_beside_it_in_whatever_order_they_came() {
    for order in [vec![7, 8, 14, 15], vec![14, 15, 7, 8], vec![8, 14, 7, 15]] {
        let span = Came::of(order).times.span(numbers(9, 14), AT);
        assert_eq!(seconds(span), (6, 16, Known::Neighbours));
    }
}

#[test]
fn what_is_open_on_one_side_reaches_to_the_naming_or_to_the_start_of_the_epoch() {
    let mut came = Came::of([3, 4]);
    let end = came.times.span(numbers(5, 9), AT);
    assert_eq!(
        (seconds(end).0, end.last, end.known),
        (2, AT, Known::Bounds)
    );
    assert_eq!(came.times.span(Which::Beyond, AT), end);
    let start = came.times.span(numbers(0, 3), AT);
    assert_eq!((start.first, seconds(start).1), (UnixMicros(0), 5));
    let since = UnixMicros(BEGAN_US - SECOND_US);
    came.times.begin(Some(since));
    let start = came.times.span(numbers(0, 3), AT);
    assert_eq!((start.first, start.known), (since, Known::Bounds));
    let any = came.times.span(Which::Any, AT);
    assert_eq!((any.first, any.last), (since, AT));
    // The next epoch begins where this one had come.
    assert_eq!(came.times.end(), Some(end.first));
}

#[test]
fn a_stream_whose_batches_overlap_has_wider_spans() {
    // Each tenth batch was open for a minute.
    let slow = |seq: u64| match seq % 10 {
        0 => (times(seq).0 - 60 * SECOND_US, times(seq).1),
        _ => times(seq),
    };
    let mut came = Came::default();
    for seq in (0..40).filter(|seq| !(30..33).contains(seq)) {
        came.note(seq, slow(seq));
    }
    let span = came.times.span(numbers(30, 33), AT);
    assert_eq!(seconds(span), (29 - 60, 33 + 60, Known::Neighbours));
}

#[test]
fn what_is_kept_is_bounded_and_finest_at_the_end() {
    let came = Came::of(0..100_000);
    assert_eq!(came.times.marks.len(), MAX_MARKS);
    for back in [1, 10, 100, 1_000, 10_000, 50_000] {
        let seq = 100_000 - 1 - back;
        let span = came.times.span(numbers(seq, seq + 1), AT);
        let long = seconds(span).1 - seconds(span).0;
        assert!(long <= 100 * back.cast_signed(), "{back}: {long}");
    }
}

#[test]
fn marks_beside_holes_stay_as_long_as_there_is_room() {
    let mut came = Came::of(0..10);
    for seq in (15..1_000).chain(2_000..3_000) {
        came.note(seq, times(seq));
    }
    let spans = [numbers(10, 15), numbers(1_000, 2_000)];
    let spans = spans.map(|which| seconds(came.times.span(which, AT)));
    assert_eq!(spans[0], (7, 17, Known::Neighbours));
    assert_eq!(spans[1], (997, 2_002, Known::Neighbours));
}

#[test]
fn a_snapshot_keeps_the_last_of_them_and_those_beside_holes() {
    let came = Came::of((0..100).chain(110..200));
    let most = HEAD_BYTES + MAX_MARKS * MARK_BYTES;
    let numbers = |bytes| {
        let kept = came.times.within(bytes, |seq| came.data.contains(&seq));
        assert_eq!(kept.disorder_us, came.times.disorder_us);
        let numbers = kept.marks.iter().map(|mark| mark.seq);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(most), [99, 110, 199]);
    assert_eq!(numbers(HEAD_BYTES + 2 * MARK_BYTES), [110, 199]);
    assert_eq!(numbers(HEAD_BYTES + MARK_BYTES - 1), [0; 0]);
    let wide = Times {
        since: Some(UnixMicros(i64::MIN)),
        disorder_us: u64::MAX,
        marks: vec![
            Mark {
                seq: u64::MAX,
                first_us: i64::MIN,
                long_us: u64::MAX,
            };
            MAX_MARKS
        ],
    };
    assert_eq!(postcard::to_allocvec(&wide).unwrap().len(), most);
}

#[test]
fn of_a_closed_epoch_the_last_one_is_kept_for_the_next_epoch() {
    let mut came = Came::of(0..100);
    let end = came.times.end();
    came.times.close();
    assert_eq!((came.times.marks.len(), came.times.end()), (1, end));
}

#[test]
fn times_that_no_stream_can_have_made_are_not_taken_from_a_disk() {
    let sound = Came::of(0..100).times;
    assert_eq!(sound.clone().sound(), Some(sound.clone()));
    let mut many = sound.clone();
    many.marks.push(Mark {
        seq: 100,
        first_us: 0,
        long_us: 0,
    });
    assert_eq!(many.sound(), None);
    let mut unsorted = sound;
    unsorted.marks.reverse();
    assert_eq!(unsorted.sound(), None);
}

proptest! {
    /// Records of a clock that is right, in any order and with any of them missing: the rows of each hole lie
    /// within its span.
    #[test]
    fn the_rows_of_a_hole_lie_within_its_span(
        mut order in Just((0u64..60).collect::<Vec<_>>()).prop_shuffle(),
        came in 1usize..60,
    ) {
        order.truncate(came);
        let came = Came::of(order);
        let mut data = Ranges::<{ usize::MAX }>::new();
        for seq in &came.data {
            data.insert(SeqRange::new(*seq, seq + 1)).unwrap();
        }
        for hole in data.holes(SeqRange::new(0, 60)) {
            let span = came.times.span(Which::Numbers(hole), AT);
            prop_assert!(span.first.0 <= times(hole.first).0, "{hole:?} {span:?}");
            prop_assert!(span.last.0 >= times(hole.next - 1).1, "{hole:?} {span:?}");
        }
    }
}

#[test]
fn a_bound_that_rows_refute_is_none() {
    let mut came = Came::of([5, 6]);
    // The lane had reached more than the rows of this epoch: a file that is replayed.
    came.times
        .begin(Some(UnixMicros(BEGAN_US + 50 * SECOND_US)));
    let start = came.times.span(numbers(0, 5), AT);
    assert_eq!((start.first, seconds(start).1), (UnixMicros(0), 7));
    // The naming comes before the rows, by a clock that is behind.
    let early = UnixMicros(BEGAN_US - 100 * SECOND_US);
    let end = came.times.span(numbers(7, 9), early);
    assert_eq!(seconds(end).0, 4);
    assert!(end.last >= end.first);
}

/// An older lake lacks what came once, and the clock that names it is behind the rows.
#[test]
fn records_that_came_and_are_lost_lie_where_their_own_times_say() {
    let came = Came::of([6, 14]);
    let span = came.times.span(numbers(6, 15), UnixMicros(BEGAN_US));
    assert_eq!((seconds(span).1, span.known), (16, Known::Bounds));
    assert!(span.first.0 <= times(6).0 && span.last.0 >= times(14).1);
    let only = came.times.span(numbers(6, 7), AT);
    assert_eq!(seconds(only).1, 16, "up to the record after it");
}
