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
        said_by: SaidBy::Spool,
        name: name.to_owned(),
        cursor: cursor_of(&reader.found[found]).unwrap(),
    };
    let (early, late) = (stray("early", 0), stray("late", 1));
    let mut other = stray("other", 2);
    other.cursor.tag ^= 1 << 40;
    let strays = [early, late.clone(), other.clone()];
    assert_eq!(find(&path, &strays, false), Some(late.clone()));
    assert_eq!(find(&path, &[other], false), None);
    // Also where it was rotated meanwhile.
    log.rename("app.log", "app.log.1");
    log.write("four\n");
    assert_eq!(find(&path, &strays, false), Some(late));
    assert_eq!(find(&path.with_extension("none"), &strays, false), None);
}

#[test]
fn what_the_collector_says_is_a_place_only_in_the_file_itself_and_for_who_begins_at_the_end_only_the_last()
 {
    let log = Log::new();
    log.write("same\nsame\nsame\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    reader.all();
    let said = |is_last| Stray {
        name: "log".to_owned(),
        cursor: cursor_of(&reader.found[1]).unwrap(),
        said_by: SaidBy::Collector {
            is_last,
            is_taken: true,
        },
    };
    assert_eq!(find(&path, &[said(true)], false), Some(said(true)));
    assert_eq!(find(&path, &[said(false)], true), Some(said(false)));
    assert_eq!(find(&path, &[said(false)], false), None);
    // Another file of the same lines, the first one being kept so that it has another inode.
    log.rename("app.log", "elsewhere");
    log.write("same\nsame\nsame\n");
    assert_eq!(find(&path, &[said(true)], true), None);
}
