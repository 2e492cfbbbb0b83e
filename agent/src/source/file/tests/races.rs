//! Logs whose writer and whose rotation do not keep step.

use super::*;

#[test]
fn what_comes_late_to_a_renamed_file_while_the_new_one_is_empty_has_a_place() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.rotate();
    log.write("");
    assert_eq!(reader.all(), [""; 0]);
    log.write_to("app.log.1", "two\n");
    assert_eq!(reader.all(), ["two"]);
    log.write_to("app.log.1", "three\n");
    assert_eq!(reader.all(), ["three"]);
    assert!(reader.found.iter().all(|found| cursor_of(found).is_some()));
    assert_eq!(reader.restart().all(), [""; 0]);
    assert_eq!(reader.resumed(2), ["three"]);
    log.write_to("app.log.1", "four\n");
    log.write("five\n");
    assert_eq!(reader.restart().all(), ["four", "five"]);
    assert_eq!(reader.all(), ["four", "five"]);
    assert_eq!(reader.restart().all(), [""; 0]);
}

#[test]
fn a_renamed_file_is_left_for_one_that_has_content_or_once_it_is_removed() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.rotate();
    log.write("");
    assert_eq!(reader.all(), [""; 0]);
    // The next one is an earlier one itself by now.
    log.write("two\n");
    log.rotate();
    log.write("");
    assert_eq!(reader.all(), ["two"]);
    fs::remove_file(log.named("app.log.1")).unwrap();
    assert_eq!(reader.all(), [""; 0]);
    reader.now = reader.now.plus(20_000);
    log.write("three\n");
    assert_eq!(reader.all(), ["three"]);
}

#[test]
fn a_copy_that_lacks_what_was_read_before_the_cut_is_not_read_again() {
    for first in ["one\n".to_owned(), "a long line before it\n".repeat(90)] {
        let log = Log::new();
        log.write(&first);
        let path = log.path();
        let mut reader = Reader::new(&path, None, FROM_START);
        assert_eq!(reader.all().len(), first.lines().count());
        reader = reader.restart();
        log.write("two\n");
        assert_eq!(reader.all(), ["two"]);
        fs::copy(&path, log.named("app.log.1")).unwrap();
        log.date("app.log.1");
        log.write("three\n");
        assert_eq!(reader.all(), ["three"]);
        log.overwrite("");
        assert_eq!(reader.all(), [""; 0]);
        log.write("four\n");
        assert_eq!(reader.all(), ["four"]);
        // What came of a line that had no end yet went with the cut.
        log.shift();
        fs::copy(&path, log.named("app.log.1")).unwrap();
        log.date("app.log.1");
        log.write("five\nsi");
        assert_eq!(reader.all(), ["five"]);
        log.overwrite("seven\n");
        let told = "bytes 10 to 12 and what came after them of app.log: Nowhere";
        assert_eq!(reader.all(), [told, "seven"]);
        assert_eq!(reader.restart().all(), [""; 0]);
    }
}

#[test]
fn a_short_file_that_is_no_copy_is_read_after_what_was_cut_away() {
    let log = Log::new();
    log.write("one\ntwo\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one", "two"]);
    log.overwrite("three\n");
    log.copy_and_cut("app.log.1");
    log.write("four\n");
    let gone = "from byte 8 on of app.log: Nowhere";
    assert_eq!(reader.all(), [gone, "three", "four"]);
}

#[test]
fn after_a_restart_a_short_copy_is_read_again_and_that_is_told() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    fs::copy(&path, log.named("app.log.1")).unwrap();
    log.date("app.log.1");
    log.write("two\n");
    assert_eq!(reader.all(), ["two"]);
    log.overwrite("three\n");
    let told = "from byte 8 on of app.log: Again";
    let mut resumed = reader.restart();
    assert_eq!(resumed.all(), [told, "one", "three"]);
    assert_eq!(resumed.resumed(1), ["one", "three"]);
}

#[test]
fn what_came_to_an_earlier_file_while_nobody_read_is_named_once() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.rotate();
    log.write("two\n");
    assert_eq!(reader.all(), ["two"]);
    // These are known to have come once a line behind them has a place.
    log.write_to("app.log.1", "late\n");
    assert_eq!(reader.all(), ["late"]);
    let told = "what may have come late to app.log.1: Late";
    assert_eq!(reader.restart().all(), [told]);
    log.write("three\n");
    assert_eq!(reader.all(), ["three"]);
    assert_eq!(reader.restart().all(), [""; 0]);
    log.write_to("app.log.1", "later\n");
    let mut resumed = reader.restart();
    assert_eq!(resumed.all(), [told]);
    log.write("four\n");
    assert_eq!(resumed.all(), ["four"]);
    for found in 1..=2 {
        assert_eq!(resumed.resumed(found), ["four"][found - 1..]);
    }
}

#[test]
fn ordinary_rotation_and_copies_are_not_told_as_late() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    for line in ["two\n", "three\n"] {
        log.write("last\n");
        log.rotate();
        log.write(line);
        assert_eq!(reader.all(), ["last", line.trim_end()]);
        assert_eq!(reader.restart().all(), [""; 0]);
    }
    // A copy lies there, whole or in part, before the log is cut.
    log.shift();
    for copied in ["thr", "three\n"] {
        fs::write(log.named("app.log.1"), copied).unwrap();
        log.date("app.log.1");
        assert_eq!(reader.restart().all(), [""; 0]);
    }
    log.overwrite("");
    assert_eq!(reader.restart().all(), [""; 0]);
    log.write("four\n");
    assert_eq!(reader.all(), ["four"]);
    assert_eq!(reader.restart().all(), [""; 0]);
    // So does who compresses one.
    log.write_to("app.log.1.gz", "compressed");
    fs::remove_file(log.named("app.log.1")).unwrap();
    assert_eq!(reader.restart().all(), [""; 0]);
}

#[test]
fn while_a_log_is_absent_its_folder_is_listed_now_and_then_only() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write("two\n");
    log.rename("app.log", "elsewhere");
    let mut resumed = reader.restart();
    assert_eq!(resumed.all(), [""; 0]);
    log.rename("elsewhere", "app.log.1");
    assert_eq!(resumed.all(), [""; 0]);
    resumed.now = resumed.now.plus(5_000);
    assert_eq!(resumed.all(), ["two"]);
    // The log itself is seen at once.
    let mut resumed = reader.restart();
    log.rename("app.log.1", "elsewhere");
    assert_eq!(resumed.all(), [""; 0]);
    log.rename("elsewhere", "app.log");
    assert_eq!(resumed.all(), ["two"]);
}

#[test]
fn with_the_times_of_a_real_disk_rotation_is_told_as_nothing() {
    let log = Log::new();
    let path = log.path();
    let write = |text: String| {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write("first\n".to_owned());
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["first"]);
    for round in 0..300_usize {
        write(format!("{round} before\n"));
        if round % 3 == 1 {
            assert_eq!(reader.all(), [format!("{round} before")]);
            reader = reader.restart();
        }
        log.shift();
        if round % 2 == 0 {
            log.rename("app.log", "app.log.1");
        } else {
            fs::copy(&path, log.named("app.log.1")).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(0)
                .unwrap();
        }
        write(format!("{round} after\n"));
        let mut expected = vec![format!("{round} before"), format!("{round} after")];
        if round % 3 == 1 {
            expected.remove(0);
        }
        if round % 5 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(reader.all(), expected, "{round}");
        reader = reader.restart();
        assert_eq!(reader.all(), [""; 0], "{round}");
        if round % 7 == 0 {
            for age in 5..60 {
                let _ = fs::remove_file(log.named(&format!("app.log.{age}")));
            }
        }
    }
}
