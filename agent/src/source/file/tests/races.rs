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
