//! Every verdict is reached, marks are read back, and pruned data stays explained.

use headwater_lake::audit::{
    MAX_RANGES, MAX_REASONS, MAX_SUSPECTS, Options, Totals, Verdict, audit, audit_each, audit_with,
    marks,
};
use headwater_lake::prune::prune;
use headwater_lake::{
    EpochRow, EpochState, Fault, GapRow, LogRow, MAX_FAULTS, MemStore, QuarantineRow, Record, Rows,
    Store, Table,
};
use headwater_proto::ids::SeqRange;
use headwater_proto::sample::Value;

use crate::help::{
    MIDNIGHT_US, device, epoch, flush, gap, line, open, push_batches, push_digest, push_digested,
    read, refused, sample, stream,
};

/// The only stream's verdict after `flushes`, and what was counted.
fn verdict(flushes: &[&dyn Fn(&mut Rows)]) -> (Verdict, headwater_lake::audit::Counts) {
    let store = MemStore::new();
    let mut lake = open(&store);
    for (position, fill) in (0..).zip(flushes) {
        let mut rows = Rows::new();
        fill(&mut rows);
        rows.push_device(device("d")).unwrap();
        flush(&mut lake, (position, position), &rows);
    }
    let found = audit(&store).unwrap();
    assert_eq!(found.streams.len(), 1, "{found:?}");
    let bad = matches!(
        found.streams[0].verdict,
        Verdict::Unexplained | Verdict::Repeated | Verdict::Conflicting
    );
    assert_eq!(found.totals.is_good(), !bad);
    (found.streams[0].verdict, found.streams[0].counts)
}

fn state(next: u64, state: EpochState) -> impl Fn(&mut Rows) {
    move |rows| rows.push_epoch(epoch(&stream("d"), next, state)).unwrap()
}

fn data(seqs: std::ops::Range<u64>) -> impl Fn(&mut Rows) {
    move |rows| push_batches(rows, "d", seqs.clone())
}

#[test]
fn all_numbers_there_is_complete() {
    let (found, counts) = verdict(&[&data(0..3), &data(3..5), &state(5, EpochState::Closed)]);
    assert_eq!(found, Verdict::Complete);
    assert_eq!((counts.samples, counts.batches), (10, 5));
    // An open epoch may be further than its last row says.
    assert_eq!(
        verdict(&[&data(0..5), &state(3, EpochState::Open)]).0,
        Verdict::Complete
    );
}

#[test]
fn a_hole_that_a_gap_names_is_explained() {
    let named = |rows: &mut Rows| rows.push_gap(gap(&stream("d"), 2, 3)).unwrap();
    let (found, counts) = verdict(&[&data(0..2), &named, &state(4, EpochState::Closed)]);
    assert_eq!(found, Verdict::Explained);
    assert_eq!((counts.explained, counts.gap_samples), (2, 4));
}

#[test]
fn readings_of_a_gap_count_whole_beside_gaps_that_do_not_know_them() {
    let named = |rows: &mut Rows| {
        let unknown = GapRow {
            samples: None,
            ..gap(&stream("d"), 0, 3)
        };
        rows.push_gap(unknown).unwrap();
        rows.push_gap(gap(&stream("d"), 0, 1)).unwrap();
        rows.push_gap(GapRow {
            samples: Some(9),
            ..gap(&stream("d"), 0, 3)
        })
        .unwrap();
    };
    let (found, counts) = verdict(&[&named, &data(4..5), &state(5, EpochState::Closed)]);
    assert_eq!(found, Verdict::Explained);
    assert_eq!((counts.explained, counts.gap_samples), (4, 9));
}

#[test]
fn readings_and_time_of_gaps_are_summed_by_reason_and_what_came_later_does_not_count() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    let second = |first: u64, last: u64, s: i64, reason: &str| GapRow {
        t_first_us: MIDNIGHT_US + s * 1_000_000,
        t_last_us: MIDNIGHT_US + (s + 1) * 1_000_000,
        reason: reason.into(),
        ..gap(&stream("d"), first, last)
    };
    // Two that overlap, one of unknown start, one that came after all.
    rows.push_gap(second(0, 3, 0, "evicted")).unwrap();
    rows.push_gap(GapRow {
        t_last_us: MIDNIGHT_US + 3_000_000,
        ..second(0, 5, 0, "evicted")
    })
    .unwrap();
    rows.push_gap(GapRow {
        t_first_us: 0,
        ..second(6, 6, 0, "damaged")
    })
    .unwrap();
    rows.push_gap(second(7, 7, 9, "damaged")).unwrap();
    // Known by time alone.
    rows.push_gap(GapRow {
        seqs: None,
        samples: Some(4),
        ..second(0, 0, 20, "unclean_stop")
    })
    .unwrap();
    push_batches(&mut rows, "d", 7..8);
    for n in 0..MAX_REASONS as u64 {
        rows.push_gap(second(10 + n, 10 + n, 0, &format!("z-reason-{n:02}")))
            .unwrap();
    }
    flush(&mut open(&store), (0, 0), &rows);
    let missing = audit(&store).unwrap().totals.missing;
    let told = |reason: &str| {
        let told = missing[reason];
        (told.gaps, told.samples, told.time_ms, told.open)
    };
    assert_eq!(told("evicted"), (2, 12, 3_000, 0));
    assert_eq!(told("damaged"), (1, 2, 0, 1));
    assert_eq!(told("unclean_stop"), (1, 4, 1_000, 0));
    // Of more reasons than are told apart.
    assert_eq!(missing.len(), MAX_REASONS + 1);
    assert_eq!(told("other").0, 3);
}

#[test]
fn what_arrives_after_its_gap_wins() {
    let named = |rows: &mut Rows| rows.push_gap(gap(&stream("d"), 0, 3)).unwrap();
    let (found, counts) = verdict(&[&named, &named, &data(1..4), &state(4, EpochState::Closed)]);
    assert_eq!(found, Verdict::Explained);
    assert_eq!(
        (counts.filled, counts.explained, counts.gap_samples),
        (3, 1, 2)
    );
    let (found, counts) = verdict(&[&named, &data(0..4), &state(4, EpochState::Closed)]);
    assert_eq!((found, counts.gap_samples), (Verdict::Complete, 0));
}

#[test]
fn what_another_sink_lacks_does_not_explain_a_hole() {
    let of_sink = |rows: &mut Rows| {
        let mut gap = gap(&stream("d"), 2, 3);
        gap.stage = "sink".into();
        gap.sink = Some("kinesis".into());
        rows.push_gap(gap).unwrap();
    };
    let (found, _) = verdict(&[&data(0..2), &of_sink, &state(4, EpochState::Closed)]);
    assert_eq!(found, Verdict::Unexplained);
}

#[test]
fn records_that_held_nothing_are_there() {
    let empty = |rows: &mut Rows| {
        let row = GapRow {
            samples: Some(0),
            reason: "empty".into(),
            ..gap(&stream("d"), 2, 3)
        };
        rows.push_gap(row).unwrap();
    };
    let (found, counts) = verdict(&[&data(0..2), &empty, &state(4, EpochState::Closed)]);
    assert_eq!(found, Verdict::Complete);
    assert_eq!((counts.records, counts.explained), (2, 0));
}

#[test]
fn a_hole_that_may_still_fill_is_pending() {
    // Live first: 5 and 6 came before 3 and 4; the collector handed over all below 3.
    let (found, counts) = verdict(&[&data(0..3), &data(5..7), &state(3, EpochState::Open)]);
    assert_eq!((found, counts.pending), (Verdict::Pending, 2));
    let (found, counts) = verdict(&[&data(0..3), &state(9, EpochState::Ended)]);
    assert_eq!((found, counts.pending), (Verdict::Pending, 6));
    assert_eq!(
        verdict(&[&data(0..3)]).0,
        Verdict::Pending,
        "no row of epochs yet"
    );
}

#[test]
fn a_hole_below_what_was_handed_over_is_unexplained() {
    for known in [EpochState::Open, EpochState::Closed, EpochState::Abandoned] {
        let (found, counts) = verdict(&[&data(0..2), &data(3..5), &state(5, known)]);
        assert_eq!(
            (found, counts.unexplained),
            (Verdict::Unexplained, 1),
            "{known:?}"
        );
    }
}

#[test]
fn a_row_lost_inside_a_batch_is_unexplained() {
    let cut = |rows: &mut Rows| {
        rows.push_sample(&sample("d", 0, 0, Value::I64(1))).unwrap();
        push_batches(rows, "d", 1..3);
    };
    let (found, counts) = verdict(&[&cut, &state(3, EpochState::Open)]);
    assert_eq!((found, counts.unexplained), (Verdict::Unexplained, 1));
}

#[test]
fn the_same_rows_twice_are_repeated_and_other_values_conflict() {
    let (found, counts) = verdict(&[&data(0..2), &data(1..2), &state(2, EpochState::Closed)]);
    assert_eq!((found, counts.repeated), (Verdict::Repeated, 2));
    let other = |rows: &mut Rows| {
        rows.push_sample(&sample("d", 1, 0, Value::F64(1.0)))
            .unwrap();
        rows.push_sample(&sample("d", 1, 1, Value::F64(-0.5)))
            .unwrap();
    };
    let (found, counts) = verdict(&[&data(0..2), &other, &state(2, EpochState::Closed)]);
    assert_eq!((found, counts.conflicting), (Verdict::Conflicting, 1));
}

#[test]
fn beyond_the_ranges_that_a_report_names_holes_are_counted() {
    let holes = |count: u64| {
        let store = MemStore::new();
        let mut rows = Rows::new();
        // Every second batch is there, from the second on.
        (0..count).for_each(|n| push_batches(&mut rows, "d", 2 * n + 1..2 * n + 2));
        let end = epoch(&stream("d"), 2 * count, EpochState::Closed);
        rows.push_epoch(end).unwrap();
        flush(&mut open(&store), (0, 0), &rows);
        audit(&store).unwrap().streams.remove(0)
    };
    let most = MAX_RANGES as u64;
    for count in [most, most + 1] {
        let found = holes(count);
        assert_eq!(found.verdict, Verdict::Unexplained);
        assert_eq!(found.counts.unexplained, count);
        let named: Vec<_> = (0..most).map(|n| (2 * n, 2 * n + 1)).collect();
        assert_eq!(found.unexplained_ranges, named);
    }
}

#[test]
fn batches_that_are_there_twice_are_compared_up_to_the_bound_and_the_others_counted() {
    let twice = |count: u64| {
        // Of the last one, the values differ.
        let other = move |rows: &mut Rows| {
            push_batches(rows, "d", 0..count - 1);
            for row in 0..2 {
                let value = Value::F64(-1.0);
                rows.push_sample(&sample("d", count - 1, row, value))
                    .unwrap();
            }
        };
        verdict(&[&data(0..count), &other, &state(count, EpochState::Closed)])
    };
    let most = MAX_SUSPECTS as u64;
    let (found, counts) = twice(most);
    assert_eq!(found, Verdict::Conflicting);
    assert_eq!((counts.conflicting, counts.uncompared), (2, 0));
    let (found, counts) = twice(most + 1);
    assert_eq!(found, Verdict::Repeated);
    assert_eq!((counts.conflicting, counts.uncompared), (0, 1));
    assert_eq!(counts.repeated, 2 * (most + 1));
}

#[test]
fn data_beyond_a_closed_end_conflicts() {
    let (found, counts) = verdict(&[&data(0..4), &state(3, EpochState::Closed)]);
    assert_eq!((found, counts.conflicting), (Verdict::Conflicting, 1));
    // Several ends merge to the highest.
    let (found, _) = verdict(&[
        &data(0..4),
        &state(3, EpochState::Ended),
        &state(4, EpochState::Closed),
    ]);
    assert_eq!(found, Verdict::Complete);
}

#[test]
fn readings_in_quarantine_complete_their_batch() {
    let split = |rows: &mut Rows| {
        rows.push_sample(&sample("d", 0, 0, Value::I64(1))).unwrap();
        let refused = QuarantineRow {
            payload: Some(vec![1, 2]),
            cause: Some("a year ahead".into()),
            ..refused(&stream("d"), 0)
        };
        rows.push_quarantine(refused).unwrap();
    };
    let (found, counts) = verdict(&[&split, &state(1, EpochState::Closed)]);
    assert_eq!(
        (found, counts.quarantined, counts.batches),
        (Verdict::Complete, 1, 1)
    );
}

/// A row that takes the second reading of batch 0 back from quarantine.
fn taken_back() -> QuarantineRow {
    QuarantineRow {
        samples: -1,
        reason: "replayed".into(),
        ..refused(&stream("d"), 0)
    }
}

#[test]
fn a_reading_that_was_replayed_counts_among_the_samples_alone() {
    let whole = |rows: &mut Rows| push_batches(rows, "d", 0..1);
    let half = |rows: &mut Rows| {
        rows.push_sample(&sample("d", 0, 0, Value::I64(1))).unwrap();
    };
    let other = |rows: &mut Rows| {
        rows.push_sample(&sample("d", 0, 1, Value::I64(1))).unwrap();
    };
    let put = |rows: &mut Rows| rows.push_quarantine(refused(&stream("d"), 0)).unwrap();
    let back = |rows: &mut Rows| rows.push_quarantine(taken_back()).unwrap();
    let closed = state(1, EpochState::Closed);
    let counted = |flushes: &[&dyn Fn(&mut Rows)]| {
        let (found, counts) = verdict(flushes);
        (found, counts.samples, counts.quarantined, counts.unmarked)
    };
    let complete = (Verdict::Complete, 2, 0, 0);
    assert_eq!(counted(&[&half, &put, &other, &back, &closed]), complete);
    assert_eq!(
        counted(&[&put, &put2, &back, &back2, &whole, &closed]),
        complete
    );
    // Without what takes it back, or with it twice, or without the sample.
    let unmarked = counted(&[&half, &put, &other, &closed]);
    assert_eq!(unmarked, (Verdict::Conflicting, 2, 1, 1));
    let whole_twice = counted(&[&put, &whole, &closed]);
    assert_eq!(whole_twice, (Verdict::Conflicting, 2, 1, 1));
    let twice = counted(&[&half, &put, &other, &back, &back, &closed]);
    assert_eq!(twice, (Verdict::Conflicting, 2, 0, 1));
    let lost = counted(&[&half, &put, &back, &closed]);
    assert_eq!(lost, (Verdict::Unexplained, 1, 0, 0));
    // Put there twice.
    let doubled = counted(&[&half, &put, &other, &other, &back, &closed]);
    assert_eq!(doubled.0, Verdict::Repeated);
}

fn put2(rows: &mut Rows) {
    let row = QuarantineRow {
        row: Some(0),
        ..refused(&stream("d"), 0)
    };
    rows.push_quarantine(row).unwrap();
}

fn back2(rows: &mut Rows) {
    let row = QuarantineRow {
        row: Some(0),
        ..taken_back()
    };
    rows.push_quarantine(row).unwrap();
}

#[test]
fn records_that_gave_other_rows_count_as_there() {
    let records = |rows: &mut Rows| {
        push_batches(rows, "d", 0..2);
        let record = |seq| {
            Some(Record {
                stream: stream("d"),
                seq,
            })
        };
        let named = headwater_lake::GapRow {
            seqs: None,
            record: record(2),
            ..gap(&stream("d"), 0, 0)
        };
        rows.push_gap(named).unwrap();
        // The end of an epoch is its own last record.
        let end = EpochRow {
            record: record(3),
            ..epoch(&stream("d"), 3, EpochState::Closed)
        };
        rows.push_epoch(end).unwrap();
    };
    let (found, counts) = verdict(&[&records]);
    assert_eq!(
        (found, counts.records, counts.gaps_uncounted),
        (Verdict::Explained, 2, 1)
    );
}

/// Lines of one record, which has so many.
fn lines(lines: std::ops::Range<u32>, record_lines: Option<u32>) -> impl Fn(&mut Rows) {
    lines_from(MIDNIGHT_US, lines, record_lines)
}

fn lines_from(
    first_us: i64,
    lines: std::ops::Range<u32>,
    record_lines: Option<u32>,
) -> impl Fn(&mut Rows) {
    move |rows| {
        for n in lines.clone() {
            let row = LogRow {
                ts_us: first_us + i64::from(n),
                record_lines,
                ..line(&stream("d"), 2, n)
            };
            rows.push_log(row).unwrap();
        }
    }
}

#[test]
fn a_log_record_is_there_once_all_its_lines_are() {
    let found = |flushes: &[&dyn Fn(&mut Rows)]| {
        let mut all: Vec<&dyn Fn(&mut Rows)> = flushes.to_vec();
        let (before, end) = (data(0..2), state(3, EpochState::Closed));
        all.extend([&before as &dyn Fn(&mut Rows), &end]);
        verdict(&all)
    };
    let (whole, counts) = found(&[&lines(0..2, Some(3)), &lines(2..3, Some(3))]);
    assert_eq!(whole, Verdict::Complete);
    assert_eq!(
        (counts.log_lines, counts.records, counts.batches),
        (3, 1, 2)
    );
    for cut in [0..2, 1..3] {
        let (verdict, counts) = found(&[&lines(cut, Some(3))]);
        assert_eq!((verdict, counts.unexplained), (Verdict::Unexplained, 1));
    }
    // Before and after the record is whole.
    for twice in [[0..2, 1..3], [0..3, 1..2]] {
        let [first, second] = twice.map(|range| lines(range, Some(3)));
        let (verdict, counts) = found(&[&first, &second]);
        assert_eq!((verdict, counts.repeated), (Verdict::Repeated, 1));
    }
    let (other, _) = found(&[&lines(0..1, Some(3)), &lines(1..3, Some(4))]);
    assert_eq!(other, Verdict::Conflicting);
    // Nobody says how many there are.
    assert_eq!(found(&[&lines(0..1, None)]).0, Verdict::Complete);
}

#[test]
fn a_device_of_samples_without_a_row_of_its_own_is_a_fault_once_its_flush_is_whole() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let faults = || audit(&store).unwrap().faults;
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", 0..1);
    let plan = flush(&mut lake, (0, 0), &rows);
    // Of the last flush it may be on its way: a crash between two tables.
    assert_eq!(faults(), []);
    let mut rows = Rows::new();
    push_batches(&mut rows, "e", 0..1);
    rows.push_device(device("e")).unwrap();
    flush(&mut lake, (1, 1), &rows);
    let found = faults();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(Some(&found[0].path), plan.paths().next().as_ref());
    assert!(found[0].what.contains("\"d\""), "{found:?}");
    assert!(!audit(&store).unwrap().totals.is_good());
    let mut rows = Rows::new();
    rows.push_device(device("d")).unwrap();
    flush(&mut lake, (2, 2), &rows);
    assert_eq!(faults(), []);
}

#[test]
fn beyond_the_faults_that_a_report_names_they_are_counted() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    for day in 0..=MAX_FAULTS as u64 {
        let mut one = sample("d", day, 0, Value::Bool(true));
        one.ts_us += i64::try_from(day).unwrap() * 86_400_000_000;
        rows.push_sample(&one).unwrap();
    }
    let plan = flush(&mut open(&store), (0, 0), &rows);
    for path in plan.paths() {
        store.replace(&path, b"no Parquet").unwrap();
    }
    let found = audit(&store).unwrap();
    let checked = headwater_lake::guard::guard(&store).unwrap();
    for faults in [&found.faults, &checked.faults] {
        assert_eq!(faults.len(), MAX_FAULTS);
    }
    let all = MAX_FAULTS as u64 + 1;
    assert_eq!((found.totals.faults, checked.fault_count), (all, all));
}

#[test]
fn many_passes_find_what_one_finds() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    for device in ["a", "b", "c", "d", "e", "f"] {
        push_digested(&mut rows, device, 0..3);
        rows.push_epoch(epoch(&stream(device), 3, EpochState::Open))
            .unwrap();
    }
    // A batch that is gone, though a gap says that it never came.
    let gone = [sample("c", 2, 0, Value::I64(1))];
    push_digest(&mut rows, (&stream("c"), 3), &gone, &[], &[]);
    rows.push_gap(gap(&stream("c"), 3, 3)).unwrap();
    flush(&mut open(&store), (0, 0), &rows);
    let mut devices = Vec::new();
    let options = Options {
        memory_bytes: 1,
        ..Options::default()
    };
    let found = audit_each(&store, &options, |stream| devices.push(stream.device_id)).unwrap();
    devices.sort();
    assert_eq!(devices, ["a", "b", "c", "d", "e", "f"]);
    let whole = audit(&store).unwrap();
    let lacking: Vec<&str> = whole.faults.iter().map(|f| f.what.as_str()).collect();
    let what = "batch 3 of c normal 0000000000000007 has 1 rows too few";
    assert!(lacking.contains(&what), "{lacking:?}");
    // Devices without a row in `devices` are told in another order.
    let sorted = |(totals, mut faults): (Totals, Vec<Fault>)| {
        faults.sort_by(|a, b| a.what.cmp(&b.what));
        (totals, faults)
    };
    assert_eq!(sorted(found), sorted((whole.totals, whole.faults)));
}

#[test]
fn marks_tell_what_a_new_journal_must_not_take_again() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", 0..3);
    rows.push_sample(&sample("d", 9, 0, Value::I64(1))).unwrap();
    rows.push_gap(gap(&stream("d"), 4, 5)).unwrap();
    rows.push_epoch(epoch(&stream("d"), 3, EpochState::Open))
        .unwrap();
    flush(&mut open(&store), (0, 0), &rows);
    let found = marks(&store).unwrap();
    assert_eq!(found.len(), 1);
    let held = [
        SeqRange::new(0, 3),
        SeqRange::new(4, 6),
        SeqRange::new(9, 10),
    ];
    assert_eq!(found[0].held, held);
    assert_eq!(
        (found[0].partial.as_slice(), found[0].next),
        ([9].as_slice(), 10)
    );
}

fn lake_of_two_days() -> MemStore {
    let store = MemStore::new();
    let mut lake = open(&store);
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", 0..3);
    // The second reading of batch 3 lies before midnight.
    let mut before = sample("d", 3, 0, Value::I64(1));
    before.ts_us = MIDNIGHT_US - 1;
    rows.push_sample(&before).unwrap();
    rows.push_sample(&sample("d", 3, 1, Value::I64(2))).unwrap();
    let mut old = sample("d", 4, 0, Value::I64(1));
    (old.ts_us, old.batch_samples) = (MIDNIGHT_US - 2, 1);
    rows.push_sample(&old).unwrap();
    rows.push_epoch(epoch(&stream("d"), 5, EpochState::Closed))
        .unwrap();
    flush(&mut lake, (0, 0), &rows);
    store
}

/// Samples of batch 0 before midnight, of 1 before and after, of 2 after, each with its digest.
fn digested_lake_of_two_days() -> MemStore {
    let store = MemStore::new();
    let mut rows = Rows::new();
    for (seq, times) in (0..).zip([[-2, -1], [-1, 1], [1, 2]]) {
        let of = |row: u32| {
            let mut one = sample("d", seq, row, Value::I64(7));
            one.ts_us = MIDNIGHT_US + times[row as usize];
            one
        };
        let samples = [of(0), of(1)];
        samples.iter().for_each(|s| rows.push_sample(s).unwrap());
        push_digest(&mut rows, (&stream("d"), seq), &samples, &[], &[]);
    }
    rows.push_epoch(epoch(&stream("d"), 3, EpochState::Closed))
        .unwrap();
    rows.push_device(device("d")).unwrap();
    flush(&mut open(&store), (0, 0), &rows);
    store
}

#[test]
fn a_digest_is_pruned_with_the_last_row_of_its_batch_and_excuses_none_before() {
    let first = digested_lake_of_two_days();
    let whole = first.fork();
    prune(&whole, 1, MIDNIGHT_US).unwrap();
    let seqs = read(&whole, Table::Digests);
    let seqs: Vec<&str> = seqs.iter().map(|row| &*row["seq"]).collect();
    assert_eq!(seqs, ["1", "2"]);
    for crash in 0..=whole.operations() {
        let store = first.fork();
        store.crash_after(crash);
        let _ = prune(&store, 1, MIDNIGHT_US);
        store.restart();
        let found = audit(&store).unwrap();
        assert!(found.totals.is_good(), "operation {crash}: {found:?}");
        assert_eq!(found.totals.counts.undigested, 0, "operation {crash}");
    }
}

#[test]
fn a_batch_without_a_digest_is_a_fault_once_digests_of_its_journal_are_there() {
    let store = MemStore::new();
    let mut lake = open(&store);
    let fill: [fn(&mut Rows, &str, std::ops::Range<u64>); 3] =
        [push_batches, push_digested, push_batches];
    for (at, push) in (0..).zip(fill) {
        let mut rows = Rows::new();
        push(&mut rows, "d", at * 2..at * 2 + 2);
        rows.push_epoch(epoch(&stream("d"), at * 2 + 2, EpochState::Open))
            .unwrap();
        rows.push_device(device("d")).unwrap();
        flush(&mut lake, (at, at), &rows);
        let found = audit(&store).unwrap();
        let expected = [
            (2, 0),
            // A journal that has committed digests had them in every flush before.
            (0, 2),
            (2, 2),
        ];
        let counted = (found.totals.counts.undigested, found.totals.faults);
        assert_eq!(counted, expected[usize::try_from(at).unwrap()], "{found:?}");
    }
    let quick = Options {
        with_hashes: false,
        ..Options::default()
    };
    let found = audit_with(&store, &quick).unwrap().totals;
    assert_eq!((found.counts.undigested, found.faults), (0, 0));
}

#[test]
fn pruned_data_is_explained_and_gone() {
    let store = lake_of_two_days();
    let pruned = prune(&store, 1, MIDNIGHT_US + 5).unwrap();
    assert_eq!((pruned.files, pruned.rows, pruned.gaps), (1, 2, 1));
    let mut spans = Vec::new();
    headwater_lake::scan::gaps(&store, |gap| spans.push((gap.t_first_us, gap.t_last_us))).unwrap();
    assert_eq!(spans, [(Some(MIDNIGHT_US - 2), Some(MIDNIGHT_US - 1))]);
    assert_eq!(store.list("samples/hot").unwrap().len(), 1);
    assert_eq!(read(&store, Table::Samples).len(), 7);
    let found = audit(&store).unwrap();
    assert_eq!(found.streams[0].verdict, Verdict::Explained);
    assert_eq!(found.streams[0].counts.explained, 2);
    assert_eq!(prune(&store, 1, MIDNIGHT_US + 5).unwrap().files, 0);
    assert_eq!(headwater_lake::guard::guard(&store).unwrap().faults, []);
}

#[test]
fn of_a_log_record_on_two_days_the_pruned_lines_are_explained() {
    let store = MemStore::new();
    let mut rows = Rows::new();
    push_batches(&mut rows, "d", 0..2);
    lines_from(MIDNIGHT_US - 1, 0..2, Some(2))(&mut rows);
    rows.push_epoch(epoch(&stream("d"), 3, EpochState::Closed))
        .unwrap();
    flush(&mut open(&store), (0, 0), &rows);
    assert_eq!(audit(&store).unwrap().streams[0].verdict, Verdict::Complete);
    assert_eq!(prune(&store, 1, MIDNIGHT_US + 5).unwrap().rows, 1);
    assert_eq!(read(&store, Table::Logs).len(), 1);
    let found = audit(&store).unwrap();
    assert_eq!(found.streams[0].verdict, Verdict::Explained, "{found:?}");
}

#[test]
fn a_prune_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let first = lake_of_two_days();
    let whole = first.fork();
    prune(&whole, 1, MIDNIGHT_US).unwrap();
    for crash in 0..whole.operations() {
        for lands in [false, true] {
            let store = first.fork();
            if lands {
                store.crash_after_landing(crash)
            } else {
                store.crash_after(crash)
            }
            let _ = prune(&store, 1, MIDNIGHT_US);
            store.restart();
            let during = audit(&store).unwrap();
            assert!(during.totals.is_good(), "operation {crash}: {during:?}");
            prune(&store, 1, MIDNIGHT_US).unwrap();
            assert_eq!(
                store.list("samples/hot").unwrap().len(),
                1,
                "operation {crash}"
            );
            let found = audit(&store).unwrap();
            assert_eq!(
                found.streams[0].verdict,
                Verdict::Explained,
                "operation {crash}"
            );
            assert_eq!(read(&store, Table::Samples), read(&whole, Table::Samples));
        }
    }
}

#[test]
fn an_end_that_is_not_clean_needs_the_gap_that_says_of_when() {
    let record = |seq| {
        Some(Record {
            stream: stream("d"),
            seq,
        })
    };
    // The end of an epoch is its own last record here.
    let end = |carrier: Option<Record>| {
        move |rows: &mut Rows| {
            let end = EpochRow {
                record: carrier.clone(),
                clean: Some(false),
                ..epoch(&stream("d"), 3, EpochState::Closed)
            };
            rows.push_epoch(end).unwrap();
        }
    };
    let stop = |rows: &mut Rows| {
        let gap = headwater_lake::GapRow {
            record: record(2),
            seqs: None,
            samples: None,
            reason: "unclean_stop".into(),
            ..gap(&stream("d"), 0, 0)
        };
        rows.push_gap(gap).unwrap();
    };
    let (found, counts) = verdict(&[&data(0..3), &end(record(3))]);
    assert_eq!((found, counts.unnamed_stops), (Verdict::Unexplained, 1));
    let (found, counts) = verdict(&[&data(0..2), &stop, &end(record(3))]);
    assert_eq!((found, counts.unnamed_stops), (Verdict::Explained, 0));
    // What the collector itself knows of an end is of numbers alone.
    assert_eq!(verdict(&[&data(0..3), &end(None)]).0, Verdict::Complete);
}
