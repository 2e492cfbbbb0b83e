//! A log whose source has another name than before.

use super::super::find;
use super::*;

#[test]
fn a_log_that_was_read_under_another_name_of_its_source_is_found_among_the_strays() {
    let log = Log::new();
    log.write("one\ntwo\nthree\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    reader.all();
    let stray = |name: &str, found: usize| Stray {
        name: name.to_owned(),
        cursor: cursor_of(&reader.found[found]).unwrap(),
    };
    let (early, late) = (stray("early", 0), stray("late", 1));
    let mut other = stray("other", 2);
    other.cursor.tag ^= 1 << 40;
    let strays = [early, late.clone(), other.clone()];
    assert_eq!(find(&path, &strays), Some(late.clone()));
    assert_eq!(find(&path, &[other]), None);
    // Also where it was rotated meanwhile.
    log.rename("app.log", "app.log.1");
    log.write("four\n");
    assert_eq!(find(&path, &strays), Some(late));
    assert_eq!(find(&path.with_extension("none"), &strays), None);
}
