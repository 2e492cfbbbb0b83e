//! Logs on a real disk: every line comes once and in order, and what cannot is named.

use super::cut::CUT;
use super::tail::{Found, How, Tail};
use super::*;
use crate::source::MAX_LINE_BYTES;
use headwater_proto::time::Millis;
use proptest::prelude::*;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::UNIX_EPOCH;

mod begun;
mod races;
mod strays;

/// A log in a folder of its own. Every write has a time of its own, later than all before.
struct Log {
    folder: tempfile::TempDir,
    writes: Cell<u64>,
}

impl Log {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            writes: Cell::new(1_000),
        }
    }

    fn named(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn path(&self) -> PathBuf {
        self.named("app.log")
    }

    fn date(&self, name: &str) {
        self.writes.set(self.writes.get() + 1);
        let changed = UNIX_EPOCH + Duration::from_secs(self.writes.get());
        let file = File::options().append(true).open(self.named(name)).unwrap();
        file.set_modified(changed).unwrap();
    }

    fn write(&self, text: &str) {
        self.write_to("app.log", text);
    }

    fn write_to(&self, name: &str, text: &str) {
        let mut options = File::options();
        let file = options.create(true).append(true).open(self.named(name));
        file.unwrap().write_all(text.as_bytes()).unwrap();
        self.date(name);
    }

    /// The content is another from now on, in the same file.
    fn overwrite(&self, text: &str) {
        fs::write(self.path(), text).unwrap();
        self.date("app.log");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.named(from), self.named(to)).unwrap();
    }

    /// As `copytruncate` of logrotate.
    fn copy_and_cut(&self, to: &str) {
        fs::copy(self.path(), self.named(to)).unwrap();
        self.date(to);
        self.overwrite("");
    }

    /// Makes room for a new `app.log.1`.
    fn shift(&self) {
        for age in (1..60).rev() {
            let (name, older) = (format!("app.log.{age}"), format!("app.log.{}", age + 1));
            if self.named(&name).exists() {
                self.rename(&name, &older);
            }
        }
    }

    fn rotate(&self) {
        self.shift();
        self.rename("app.log", "app.log.1");
    }
}

const FROM_START: How = How {
    from_start: true,
    rotate_wait_ms: 0,
};
const FROM_END: How = How {
    from_start: false,
    ..FROM_START
};

/// Reads a log, and remembers what it found.
struct Reader<'a> {
    path: &'a Path,
    tail: Tail<'a>,
    now: Millis,
    found: Vec<Found>,
}

impl<'a> Reader<'a> {
    fn new(path: &'a Path, resume: Option<Cursor>, how: How) -> Self {
        Self {
            path,
            tail: Tail::new(path, resume, how),
            now: Millis(0),
            found: Vec::new(),
        }
    }

    /// A look at the log, as there is one every 250 ms; says whether there may be more.
    fn look(&mut self) -> bool {
        self.now = self.now.plus(250);
        self.tail.read(self.now, &mut self.found).unwrap()
    }

    /// All there is, as text, without what was told before.
    fn all(&mut self) -> Vec<String> {
        let told = self.found.len();
        let mut idle = 0;
        while idle < 3 {
            idle = if self.look() { 0 } else { idle + 1 };
        }
        let mut last = None;
        for cursor in self.found.iter().filter_map(cursor_of) {
            let is_further = last.is_none_or(|last: Cursor| !last.covers(cursor) || last == cursor);
            assert!(is_further, "{last:?} {cursor:?}");
            last = Some(cursor);
        }
        self.texts(told)
    }

    fn texts(&self, from: usize) -> Vec<String> {
        let folder = format!("{}/", self.path.parent().unwrap().display());
        let texts = self.found[from..].iter().map(|found| match found {
            Found::Line(line, _) => String::from_utf8(line.clone()).unwrap(),
            Found::Gone(gone, _) => format!("{gone}: {:?}", gone.why).replace(&folder, ""),
        });
        texts.collect()
    }

    /// What a reader finds that starts again after the first `found` things.
    fn resumed(&self, found: usize) -> Vec<String> {
        let cursor = cursor_of(&self.found[found - 1]);
        Reader::new(self.path, cursor, FROM_START).all()
    }

    /// Starts again, after all that was found.
    fn restart(&self) -> Self {
        let cursor = self.found.iter().filter_map(cursor_of).next_back();
        Self::new(self.path, cursor, FROM_START)
    }
}

fn cursor_of(found: &Found) -> Option<Cursor> {
    match found {
        Found::Line(_, cursor) => *cursor,
        Found::Gone(_, cursor) => Some(*cursor),
    }
}

#[test]
fn lines_count_with_their_newline_only() {
    let log = Log::new();
    log.write("one\ntw");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write("o\r\n\nthree\n");
    assert_eq!(reader.all(), ["two", "three"]);
    assert_eq!(reader.resumed(1), ["two", "three"]);
}

#[test]
fn a_file_first_seen_is_followed_from_its_end_unless_told_otherwise() {
    let log = Log::new();
    log.write("old\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_END);
    assert_eq!(reader.all(), [""; 0]);
    log.write("new\n");
    assert_eq!(reader.all(), ["new"]);
    log.rotate();
    log.write("newer\n");
    assert_eq!(reader.all(), ["newer"]);
}

#[test]
fn a_file_that_appears_later_is_read_from_its_start() {
    let log = Log::new();
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_END);
    assert_eq!(reader.all(), [""; 0]);
    log.write("one\ntwo\n");
    assert_eq!(reader.all(), ["one", "two"]);
}

#[test]
fn earlier_files_from_before_the_first_start_are_left_alone() {
    let log = Log::new();
    log.write_to("app.log.2", "oldest\n");
    log.write_to("app.log.1", "old\n");
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    fs::remove_file(&path).unwrap();
    log.write("two\n");
    assert_eq!(
        reader.restart().all(),
        ["from byte 4 on of app.log: Nowhere", "two"]
    );
}

#[test]
fn a_renamed_file_is_read_to_its_end_before_the_next_while_it_grows() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let how = How {
        rotate_wait_ms: 2_000,
        ..FROM_START
    };
    let mut reader = Reader::new(&path, None, how);
    assert_eq!(reader.all(), ["one"]);
    log.write("two\n");
    log.rotate();
    log.write("seven\n");
    // Its writer opens the new file long after that one is there.
    for line in ["three\n", "four\n", "fi", "ve\n"] {
        for _ in 0..7 {
            reader.look();
        }
        log.write_to("app.log.1", line);
    }
    log.write_to("app.log.1", "six");
    for _ in 0..8 {
        reader.look();
    }
    assert_eq!(reader.texts(1), ["two", "three", "four", "five"]);
    for _ in 0..8 {
        reader.look();
    }
    assert_eq!(reader.texts(5), ["six", "seven"]);
    for found in 1..=6 {
        let all = ["one", "two", "three", "four", "five", "six", "seven"];
        assert_eq!(reader.resumed(found), all[found..]);
    }
}

#[test]
fn what_is_written_to_a_renamed_file_after_it_was_left_still_comes_once() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.rotate();
    log.write("two\n");
    assert_eq!(reader.all(), ["two"]);
    log.write_to("app.log.1", "late\nla");
    log.write("three\n");
    assert_eq!(reader.all(), ["late", "three"]);
    log.write_to("app.log.1", "ter");
    log.rotate();
    log.write("four\n");
    assert_eq!(reader.all(), ["later", "four"]);
    // Though it changed last, it is not taken for a later one.
    fs::remove_file(log.named("app.log.1")).unwrap();
    fs::remove_file(&path).unwrap();
    log.write("five\n");
    assert_eq!(
        reader.restart().all(),
        ["from byte 5 on of app.log: Nowhere", "five"]
    );
}

#[test]
fn files_that_were_rotated_between_two_looks_are_read_in_order() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    for line in ["two\n", "three\n", "four\n"] {
        log.write(line);
        log.rotate();
    }
    log.write("five\n");
    // The oldest was written to last.
    log.write_to("app.log.3", "two and a half\n");
    let expected = ["two", "two and a half", "three", "four", "five"];
    assert_eq!(reader.all(), expected);
    for found in 1..=5 {
        assert_eq!(reader.resumed(found), expected[found - 1..], "{found}");
    }
}

#[test]
fn files_that_were_rotated_while_nobody_read_are_found_whatever_they_are_called() {
    for [second, first] in [
        ["app.log.1", "app.log.2"],
        ["app.log-20261130", "app.log-20261129"],
        ["app.log.2026-11-30", "app.log.2026-11-29"],
        ["app-2026-11-30.log", "app-2026-11-29.log"],
        ["app.1.log", "app.2.log"],
        ["app.log_2026-11-30T10:00:00", "app.log_2026-11-30T09:00:00"],
        ["app.log.old", "app.log.2"],
    ] {
        let log = Log::new();
        log.write("one\ntwo\n");
        let path = log.path();
        let mut reader = Reader::new(&path, None, FROM_START);
        assert_eq!(reader.all(), ["one", "two"]);
        log.write("three\nfour");
        log.rename("app.log", first);
        assert_eq!(reader.resumed(1), ["two", "three"]);
        log.write("five\n");
        log.write_to("app-other.log", "of another log\n");
        assert_eq!(reader.resumed(1), ["two", "three", "four", "five"]);
        log.rename("app.log", second);
        log.write("six\n");
        let expected = ["two", "three", "four", "five", "six"];
        assert_eq!(reader.resumed(1), expected);
        let mut resumed = reader.restart();
        assert_eq!(resumed.all(), expected[1..]);
        for found in 1..=4 {
            assert_eq!(resumed.resumed(found), expected[found + 1..]);
        }
    }
}

#[test]
fn a_log_that_is_copied_and_cut_to_nothing_is_read_on_in_its_copy() {
    for regrown in ["x\n", "one\nand more than was there before\n"] {
        let log = Log::new();
        log.write("one\ntwo\n");
        let path = log.path();
        let mut reader = Reader::new(&path, None, FROM_START);
        assert_eq!(reader.all(), ["one", "two"]);
        log.write("three\nfour");
        log.copy_and_cut("app.log.1");
        log.write(regrown);
        let mut expected = vec!["three", "four"];
        expected.extend(regrown.lines());
        assert_eq!(reader.restart().all(), expected);
        assert_eq!(reader.all(), expected);
        log.shift();
        log.copy_and_cut("app.log.1");
        log.write("last\n");
        assert_eq!(reader.all(), ["last"]);
        expected.push("last");
        for found in 2..reader.found.len() {
            assert_eq!(reader.resumed(found), expected[found - 2..]);
        }
    }
}

#[test]
fn an_empty_log_that_grew_and_was_cut_between_two_looks_is_read_in_its_copy() {
    let log = Log::new();
    log.write("");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), [""; 0]);
    log.write("one\n");
    log.copy_and_cut("app.log.1");
    log.write("two\n");
    assert_eq!(reader.all(), ["one", "two"]);
}

#[test]
fn what_was_cut_away_without_a_copy_is_named_with_file_and_bytes() {
    for regrown in ["x\n", "one\nand more than was there before\n", "one\ntwo\n"] {
        let log = Log::new();
        log.write("one\ntwo\nthr");
        let path = log.path();
        let mut reader = Reader::new(&path, None, FROM_START);
        assert_eq!(reader.all(), ["one", "two"]);
        log.overwrite(regrown);
        let mut expected = vec!["bytes 8 to 11 and what came after them of app.log: Nowhere"];
        expected.extend(regrown.lines());
        assert_eq!(reader.all(), expected);
        // After a restart nobody knows how far the file was seen. What was found is not named again.
        let before: Vec<_> = reader.found.iter().filter_map(cursor_of).collect();
        assert_eq!(reader.resumed(3), expected[1..]);
        if regrown != "one\ntwo\n" {
            let resumed = Reader::new(&path, Some(before[1]), FROM_START).all();
            assert_eq!(resumed[0], "from byte 8 on of app.log: Nowhere");
            assert_eq!(resumed[1..], expected[1..]);
        }
    }
}

#[test]
fn a_reused_inode_with_other_content_is_another_file() {
    let log = Log::new();
    let path = log.path();
    log.write(&"a line of the first file\n".repeat(50));
    let mut reader = Reader::new(&path, None, FROM_START);
    reader.all();
    // The first file lies in a copy of other number, and its own number is that of the new file.
    fs::copy(&path, log.named("app.log-20261130")).unwrap();
    log.write_to("app.log-20261130", "its last line\n");
    log.overwrite(&"a line of another file\n".repeat(60));
    let found = reader.restart().all();
    assert_eq!(found[0], "its last line");
    assert_eq!(found[1..], vec!["a line of another file"; 60]);
    fs::remove_file(log.named("app.log-20261130")).unwrap();
    let found = reader.restart().all();
    assert_eq!(found[0], "from byte 1250 on of app.log: Nowhere");
    assert_eq!(found[1..], vec!["a line of another file"; 60]);
}

#[test]
fn files_that_look_alike_are_told_apart_by_their_numbers() {
    let log = Log::new();
    let tick = "tick\n".repeat(200);
    log.write(&tick);
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all().len(), 200);
    log.write("tick\n");
    log.rotate();
    log.write(&tick.repeat(2));
    assert_eq!(reader.restart().all().len(), 401);
}

#[test]
fn a_last_line_without_a_newline_counts_once_its_file_has_ended() {
    let log = Log::new();
    log.write("one\ntwo");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.rotate();
    // Its writer has it open still: there is no other.
    assert_eq!(reader.all(), [""; 0]);
    log.write("three");
    assert_eq!(reader.all(), ["two"]);
    assert_eq!(reader.resumed(1), ["two"]);
    assert_eq!(reader.resumed(2), [""; 0]);
    log.write("\n");
    assert_eq!(reader.all(), ["three"]);
    assert_eq!(reader.resumed(1), ["two", "three"]);
}

#[test]
fn a_line_of_40_kib_comes_in_marked_parts() {
    let log = Log::new();
    let cut = std::str::from_utf8(CUT).unwrap();
    let long = "0123456789".repeat(4 * 1024);
    log.write(&format!("before\n{long}"));
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    let first = reader.all();
    log.write("\nafter\n");
    let rest = reader.all();
    let all = [first, rest].concat();
    assert_eq!((&*all[0], &*all[4], all.len()), ("before", "after", 5));
    assert!(all.iter().all(|part| part.len() <= MAX_LINE_BYTES));
    let joined = all[1..4].concat();
    assert_eq!(joined.replace(&format!("{cut}{cut}"), ""), long);
    for found in 1..=5 {
        assert_eq!(reader.resumed(found), all[found..]);
    }
}

#[test]
fn compressed_files_are_named_and_those_behind_them_read() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write_to("app.log.3.gz", "two");
    log.write_to("app.log.2.gz", "three");
    log.write_to("app.log.1", "four\n");
    log.overwrite("five\n");
    let expected = [
        "from byte 4 on of app.log.3.gz: Compressed",
        "from byte 0 on of app.log.2.gz: Compressed",
        "four",
        "five",
    ];
    let mut resumed = reader.restart();
    assert_eq!(resumed.all(), expected);
    assert_eq!(resumed.resumed(2), expected[2..]);
    // With the file still open nothing of it is lost.
    fs::remove_file(&path).unwrap();
    log.write("six\n");
    assert_eq!(reader.restart().all()[..2], expected[..2]);
}

#[test]
fn of_files_that_were_rotated_and_compressed_while_one_is_open_only_those_are_lost() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write("two\n");
    log.rotate();
    log.shift();
    log.write_to("app.log.1.xz", "three");
    log.write("four\n");
    let expected = ["two", "from byte 0 on of app.log.1.xz: Compressed", "four"];
    assert_eq!(reader.all(), expected);
    for found in 1..=3 {
        assert_eq!(reader.resumed(found), expected[found - 1..]);
    }
}

#[test]
fn earlier_files_that_may_not_be_opened_are_named_and_hold_nothing_up() {
    use std::os::unix::fs::PermissionsExt as _;
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write("two\n");
    log.rotate();
    log.rename("app.log.1", "app.log.2");
    log.write_to("app.log.1", "three\n");
    log.write("four\n");
    for name in ["app.log.1", "app.log.2"] {
        fs::set_permissions(log.named(name), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if File::open(log.named("app.log.1")).is_ok() {
        // Whoever runs the tests may open everything.
        return;
    }
    let expected = ["two", "from byte 0 on of app.log.1: Denied", "four"];
    assert_eq!(reader.all(), expected);
    let told = reader.resumed(1);
    assert_eq!(told[0], "from byte 4 on of app.log.2: Denied");
    assert_eq!(told[1..], expected[1..]);
}

#[test]
fn a_folder_in_the_place_of_a_log_is_a_fault_until_a_file_is_there() {
    let log = Log::new();
    let path = log.path();
    fs::create_dir(&path).unwrap();
    let mut reader = Reader::new(&path, None, FROM_START);
    let error = reader.tail.read(Millis(0), &mut reader.found).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    fs::remove_dir(&path).unwrap();
    log.write("one\n");
    assert_eq!(reader.all(), ["one"]);
}

#[test]
fn a_removed_file_tells_that_others_may_be_missing_unless_it_was_there_a_moment_ago() {
    for (pause_ms, expected) in [
        (1_000, vec!["two", "three"]),
        (
            20_000,
            vec!["two", "from byte 8 on of app.log: Between", "three"],
        ),
    ] {
        let log = Log::new();
        log.write("one\n");
        let path = log.path();
        let mut reader = Reader::new(&path, None, FROM_START);
        assert_eq!(reader.all(), ["one"]);
        log.write("two\n");
        fs::remove_file(&path).unwrap();
        log.write("three\n");
        reader.now = reader.now.plus(pause_ms);
        assert_eq!(reader.all(), expected);
    }
}

#[test]
fn a_hole_that_a_writer_leaves_in_a_log_that_was_cut_is_no_line() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.copy_and_cut("app.log.1");
    log.write(&"\0".repeat(100_000));
    log.write("two\n");
    assert_eq!(reader.all(), ["two"]);
    log.write("three\n");
    assert_eq!(reader.restart().all(), ["three"]);
}

#[test]
fn a_log_whose_disk_is_not_there_is_waited_for() {
    let log = Log::new();
    log.write("one\n");
    let path = log.path();
    let mut reader = Reader::new(&path, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write("two\n");
    log.rename("app.log", "elsewhere");
    let mut resumed = reader.restart();
    assert_eq!(resumed.all(), [""; 0]);
    log.rename("elsewhere", "app.log");
    assert_eq!(resumed.all(), ["two"]);
}

#[test]
fn behind_a_link_earlier_files_lie_beside_its_target() {
    let log = Log::new();
    fs::create_dir(log.named("pods")).unwrap();
    log.write_to("pods/0.log", "one\n");
    let link = log.path();
    std::os::unix::fs::symlink(log.named("pods/0.log"), &link).unwrap();
    let mut reader = Reader::new(&link, None, FROM_START);
    assert_eq!(reader.all(), ["one"]);
    log.write_to("pods/0.log", "two\n");
    log.rename("pods/0.log", "pods/0.log.20261130-120000");
    log.write_to("pods/0.log", "three\n");
    assert_eq!(reader.restart().all(), ["two", "three"]);
}

#[derive(Debug, Clone)]
enum Step {
    /// So many lines, and whether the last lacks its newline until the next.
    Write(u8),
    Rotate,
    CopyAndCut,
    Look,
    /// The oldest of the earlier files goes.
    Remove,
    /// The agent starts again, after all but so many of the last things it found.
    Restart(u8),
}

fn steps(removals: u32) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..60_u8).prop_map(Step::Write),
        2 => Just(Step::Rotate),
        1 => Just(Step::CopyAndCut),
        4 => Just(Step::Look),
        removals => Just(Step::Remove),
        2 => (0..9_u8).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What became of a log: all that was found of it, and how many lines were written.
fn live_through(steps: Vec<Step>) -> (Vec<String>, usize) {
    let log = Log::new();
    log.write("");
    let path = log.path();
    let removes = steps.iter().any(|step| matches!(step, Step::Remove));
    let mut reader = Reader::new(&path, None, FROM_START);
    let (mut written, mut durable) = (0, Vec::new());
    reader.look();
    for step in steps {
        // Far enough apart for any number of rotations.
        reader.now = reader.now.plus(20_000);
        match step {
            Step::Write(lines) => {
                let lines = written..written + usize::from(lines);
                written = lines.end;
                log.write(&lines.map(|number| line(number) + "\n").collect::<String>());
                if removes {
                    // What comes and goes in a file that was never seen to hold anything, nobody can name.
                    while reader.look() {}
                }
            }
            Step::Rotate => {
                log.rotate();
                log.write("");
            }
            Step::CopyAndCut => {
                log.shift();
                log.copy_and_cut("app.log.1");
            }
            // Files that are looked for at the moment are not removed.
            Step::Look => while reader.look() && removes {},
            Step::Remove => {
                let names = (1..60)
                    .rev()
                    .map(|age| log.named(&format!("app.log.{age}")));
                if let Some(oldest) = names.into_iter().find(|name| name.exists()) {
                    fs::remove_file(oldest).unwrap();
                }
            }
            Step::Restart(lost) => {
                let kept = reader.found.len().saturating_sub(lost.into());
                let durably = |(_, cursor): &(String, Cursor)| *cursor;
                let cursor = reader.found[..kept]
                    .iter()
                    .filter_map(cursor_of)
                    .next_back();
                let cursor = cursor.or(durable.last().map(durably));
                if cursor.is_none() {
                    // Nothing was read ever: only what has the log's name would be.
                    continue;
                }
                reader.found.truncate(kept);
                for (text, found) in reader.texts(0).into_iter().zip(&reader.found) {
                    durable.push((text, cursor_of(found).unwrap()));
                }
                reader = Reader::new(&path, cursor, FROM_START);
            }
        }
    }
    // What was copied away before anything was seen in a log that is empty now comes with its next line.
    log.write(&(line(written) + "\n"));
    reader.all();
    let durable = durable.into_iter().map(|(text, _)| text);
    (durable.chain(reader.texts(0)).collect(), written + 1)
}

fn line(number: usize) -> String {
    format!("{number} {}", "x".repeat(number * 37 % 400))
}

proptest! {
    #[test]
    fn whatever_happens_to_a_log_whose_files_stay_every_line_comes_once_and_in_order(steps in steps(0)) {
        let (lines, written) = live_through(steps);
        prop_assert_eq!(lines, (0..written).map(line).collect::<Vec<_>>());
    }

    #[test]
    fn where_lines_are_missing_since_their_file_was_removed_that_is_told(steps in steps(2)) {
        let (found, written) = live_through(steps);
        let (mut next, mut told) = (0, false);
        for text in found.iter().map(String::as_str).chain([&*line(written)]) {
            if text.contains(" of app.log") {
                told = true;
                continue;
            }
            let number = text.split(' ').next().unwrap().parse().unwrap();
            prop_assert_eq!(text, line(number));
            prop_assert!(number == next || (number > next && told), "{} after {}: {:?}", number, next, found);
            (next, told) = (number + 1, false);
        }
    }
}

#[test]
fn what_is_gone_is_told_as_a_loss_and_as_a_refused_part_with_file_and_bytes() {
    let (port, mut end) = Port::new("x", std::sync::Arc::default());
    let refusals = Refusals::new("x", Clock::start());
    let gone = tail::Gone {
        file: format!("/var/log/{}", "x".repeat(300)).into(),
        from: 5,
        to: Some(900),
        why: tail::Why::Nowhere,
    };
    let cursor = Cursor {
        major: 7,
        ..Cursor::default()
    };
    give(Found::Gone(gone, cursor), &port, &refusals).unwrap();
    let Ok(Feed::Lost(lost, Some(after))) = end.queue.try_recv() else {
        panic!("no loss");
    };
    assert_eq!(
        (lost.samples, lost.reason.name(), after),
        (0, "missing_at_source", cursor)
    );
    let Ok(Feed::Refused(part, None)) = end.queue.try_recv() else {
        panic!("no refused part");
    };
    let told = "bytes 5 to 900 and what came after them of /var/log/xxx";
    assert!(part.borrowed().place.starts_with(told), "{part:?}");
    let (count, last) = refusals.count();
    assert!(
        count == 1
            && last
                .unwrap()
                .contains("no earlier file beside it holds them")
    );
}
