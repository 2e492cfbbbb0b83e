//! Core: which files beside a log file are its earlier ones, and in which order they are read.
//!
//! Of `NAME` or `STEM.EXT` these are `NAME.N`, `NAME.old`, `NAME.bak`, and with a date of six digits or more
//! `NAME-DATE`, `NAME.DATE`, `NAME_DATE`; of the latter also `STEM.N.EXT`, `STEM-DATE.EXT` and so on. Others
//! may be logs of their own: their lines must not come in with these.

use std::path::PathBuf;

use headwater_proto::time::Millis;

use super::print::fold;
use crate::pipeline::record::Cursor;

/// Most earlier files that are looked at; the latest ones, if there are more.
pub const MAX_EARLIER: usize = 256;
/// Endings of files that hold a compressed log.
const COMPRESSED: [&str; 7] = [".gz", ".zst", ".xz", ".bz2", ".lz4", ".lzma", ".Z"];
const SECOND_US: u64 = 1_000_000;
/// Least digits of a date: `261130`.
const DATE_DIGITS: usize = 6;

/// A file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// The device it lies on.
    pub device: u64,
    /// Its number there, which may be given again once it is gone.
    pub inode: u64,
}

impl Id {
    /// As it stands in a cursor: enough to choose between files that look alike.
    const fn short(self) -> u32 {
        fold(self.inode ^ self.device.rotate_left(40))
    }
}

/// The cursor of a place.
///
/// - `major`: time of the last change, microseconds, of the files before this one; rising.
/// - `offset`: bytes of the file before the place.
#[must_use]
pub const fn cursor(major: u64, offset: u64, print: u32, id: Id) -> Cursor {
    Cursor {
        major,
        minor: offset,
        tag: (print as u64) << 32 | id.short() as u64,
    }
}

/// The print that a cursor holds.
#[must_use]
pub const fn print_of(cursor: Cursor) -> u32 {
    (cursor.tag >> 32) as u32
}

/// Whether a cursor was in that file, as far as its number tells.
#[must_use]
pub fn is_of(cursor: Cursor, id: Id) -> bool {
    cursor.tag & u64::from(u32::MAX) == u64::from(id.short())
}

/// How an earlier file is numbered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Further back with every rotation.
    Age(u64),
    /// The numbers of a date, as they are written.
    Date(Vec<u64>),
}

/// A file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: PathBuf,
    /// Which file it is.
    pub id: Id,
    /// When it was last written to, microseconds since the Unix epoch.
    pub changed_us: u64,
    /// Its bytes.
    pub len: u64,
    /// `None` for the one that has the log's name.
    pub rank: Option<Rank>,
    /// It cannot be read as it is.
    pub compressed: bool,
}

/// How the file `name` is numbered as an earlier one of `log`, and whether it is compressed; `None` if it is no
/// such file.
#[must_use]
pub fn earlier(log: &str, name: &str) -> Option<(Rank, bool)> {
    let plain = COMPRESSED.iter().find_map(|end| name.strip_suffix(end));
    let compressed = plain.is_some();
    let name = plain.unwrap_or(name);
    let within_name = || {
        let (stem, end) = log.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?;
        let name = name.strip_prefix(stem)?.strip_suffix(end)?;
        rank(name.strip_suffix('.')?)
    };
    let behind_name = name.strip_prefix(log).and_then(rank);
    Some((behind_name.or_else(within_name)?, compressed))
}

/// The rank that an addition to a name says.
fn rank(addition: &str) -> Option<Rank> {
    if matches!(addition, ".old" | ".bak") {
        return Some(Rank::Age(1));
    }
    let separator = addition.chars().next()?;
    let rest = &addition[separator.len_utf8()..];
    let digits = rest.chars().filter(char::is_ascii_digit).count();
    if digits == rest.len() && digits < DATE_DIGITS {
        // A number behind another sign may tell programs apart, as in `server-2`.
        let age = rest.parse().ok().filter(|_| separator == '.')?;
        return Some(Rank::Age(age));
    }
    let is_of_date = |c: char| c.is_ascii_digit() || ".-_:+@TZ".contains(c);
    let is_date =
        ".-_".contains(separator) && digits >= DATE_DIGITS && rest.chars().all(is_of_date);
    is_date.then(|| {
        let numbers = rest.split(|c: char| !c.is_ascii_digit());
        let numbers = numbers.filter(|number| !number.is_empty());
        // Digits without end are no date, and as late as can be.
        let numbers = numbers.map(|number| number.parse().unwrap_or(u64::MAX));
        Rank::Date(numbers.collect())
    })
}

/// Puts earlier files in the order in which they were written.
///
/// Ages say it best: what is still written to a file that was renamed long ago changes its time, and not its
/// age. Dates are written in many ways, so that the time of the last change says it better.
pub fn sort(earlier: &mut [Entry]) {
    let has_age = |entry: &Entry| matches!(entry.rank, Some(Rank::Age(_)));
    let all_have_ages = earlier.iter().all(has_age);
    earlier.sort_by(|a, b| {
        let by_time = a.changed_us.cmp(&b.changed_us);
        let by_rank = match (&a.rank, &b.rank) {
            (Some(Rank::Age(a)), Some(Rank::Age(b))) => b.cmp(a),
            (a, b) => a.cmp(b),
        };
        if all_have_ages {
            by_rank.then(by_time)
        } else {
            by_time.then(by_rank)
        }
    });
}

/// What is to be read after a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread<'a> {
    /// The earlier files that come after it, in order.
    pub files: Vec<&'a Entry>,
    /// When those that do not were last written to, microseconds.
    pub before_us: u64,
    /// The file is among the earlier ones, as it was or compressed.
    pub is_known: bool,
}

/// What is to be read of the sorted earlier files.
///
/// - `read`: the file that was read last. If it is among them, those behind it are to be read.
/// - `left`: one that was read before, and may have been written to since.
/// - `changed_us`: when `read` was last written to. If it is not among them, also not compressed, those that were
///   written to after this time are to be read.
#[must_use]
pub fn after(earlier: &[Entry], read: Option<Id>, left: Option<Id>, changed_us: u64) -> Unread<'_> {
    // Who compresses a file gives the new one its time, to the second at least.
    let is_compressed =
        |entry: &Entry| entry.compressed && entry.changed_us / SECOND_US == changed_us / SECOND_US;
    let place = earlier.iter().position(|entry| Some(entry.id) == read);
    let place = place.or_else(|| earlier.iter().position(is_compressed));
    let is_after = |(at, entry): &(usize, &Entry)| match place {
        Some(place) => *at > place,
        None => entry.changed_us > changed_us && Some(entry.id) != left,
    };
    let (files, read): (Vec<_>, Vec<_>) = earlier.iter().enumerate().partition(is_after);
    let before = read.iter().map(|(_, entry)| entry.changed_us).max();
    Unread {
        files: files.into_iter().map(|(_, entry)| entry).collect(),
        before_us: before.map_or(changed_us, |before| before.max(changed_us)),
        is_known: place.is_some(),
    }
}

/// Where the place of a cursor may be found again, best first: the file that it was in under any name, the one
/// that has the log's name, and the latest of the earlier ones.
///
/// - `not`: a file whose content is known to be another.
#[must_use]
pub fn homes<'a>(
    live: Option<&'a Entry>,
    earlier: &'a [Entry],
    cursor: Cursor,
    not: Option<Id>,
) -> Vec<&'a Entry> {
    let all = live.into_iter().chain(earlier.iter().rev());
    let mut homes: Vec<_> = all
        .filter(|entry| !entry.compressed && Some(entry.id) != not)
        .collect();
    // The order of those that are alike stays.
    homes.sort_by_key(|entry| !is_of(cursor, entry.id));
    homes
}

/// How long a file has not grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quiet {
    since: Option<Millis>,
}

impl Quiet {
    /// It grew, or still has the log's name.
    pub const fn end(&mut self) {
        self.since = None;
    }

    /// It did not grow since the last look; says whether it has not for so long. Never at the first look:
    /// what was written before the file was renamed may have come after it was read.
    pub fn lasts(&mut self, wait_ms: u64, now: Millis) -> bool {
        match self.since {
            Some(since) => now.since(since) >= wait_ms,
            None => {
                self.since = Some(now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(inode: u64) -> Id {
        Id { device: 1, inode }
    }

    /// An earlier file of `log`; its number is its place in the list.
    fn entry(inode: u64, name: &str, changed_us: u64) -> Entry {
        let (rank, compressed) = earlier("log", name).unwrap();
        Entry {
            path: name.into(),
            id: id(inode),
            changed_us,
            len: 0,
            rank: Some(rank),
            compressed,
        }
    }

    fn names<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<&'a str> {
        let names = entries
            .into_iter()
            .map(|entry| entry.path.to_str().unwrap());
        names.collect()
    }

    #[test]
    fn earlier_files_are_known_by_their_names_and_logs_of_their_own_are_not() {
        let age = |age| Some((Rank::Age(age), false));
        let date = |numbers: &[u64]| Some((Rank::Date(numbers.to_vec()), false));
        for (log, name, expected) in [
            ("syslog", "syslog.1", age(1)),
            ("syslog", "syslog.old", age(1)),
            ("syslog", "syslog.12.gz", Some((Rank::Age(12), true))),
            ("syslog", "syslog-20261130", date(&[20_261_130])),
            (
                "syslog",
                "syslog-2026-11-30.zst",
                Some((Rank::Date(vec![2026, 11, 30]), true)),
            ),
            (
                "app.log",
                "app.log.2026-11-30_12",
                date(&[2026, 11, 30, 12]),
            ),
            (
                "app.log",
                "app.log_20261130T120000Z",
                date(&[20_261_130, 120_000]),
            ),
            ("app.log", "app-2026-11-30.log", date(&[2026, 11, 30])),
            ("app.log", "app.3.log", age(3)),
            ("syslog", "syslog", None),
            ("syslog", "syslog-ng", None),
            ("syslog", "syslog.1.offset", None),
            ("syslog", "syslog.", None),
            ("server.log", "server-2.log", None),
            ("server.log", "server.log-2", None),
            ("error.log", "error-db.log", None),
            ("error.log", "error.log.ü20261130", None),
            ("error.log", "errors.log", None),
            (".log", "x.log", None),
        ] {
            assert_eq!(earlier(log, name), expected, "{log} {name}");
        }
        let endless = format!("log.{}", "9".repeat(99));
        assert_eq!(earlier("log", &endless), date(&[u64::MAX]));
    }

    #[test]
    fn ages_put_files_in_order_and_else_the_time_of_their_last_change() {
        let mut aged = [
            entry(1, "log.1", 5),
            entry(2, "log.10", 7),
            entry(3, "log.2.gz", 6),
        ];
        sort(&mut aged);
        assert_eq!(names(&aged), ["log.10", "log.2.gz", "log.1"]);
        let mut mixed = [
            entry(1, "log.1", 5),
            entry(2, "log-20261130", 7),
            entry(3, "log.2", 6),
        ];
        sort(&mut mixed);
        assert_eq!(names(&mixed), ["log.1", "log.2", "log-20261130"]);
        let mut dated = ["log-2026-11-30.10", "log-2026-11-30.9"].map(|name| entry(1, name, 5));
        sort(&mut dated);
        assert_eq!(names(&dated), ["log-2026-11-30.9", "log-2026-11-30.10"]);
    }

    #[test]
    fn after_a_file_come_those_behind_it_or_those_written_since() {
        let mut earlier = [
            entry(1, "log.1", 5),
            entry(2, "log.2", 9),
            entry(3, "log.3", 3),
        ];
        sort(&mut earlier);
        let found = |read: Option<u64>, left: Option<u64>, changed_us| {
            let unread = after(&earlier, read.map(id), left.map(id), changed_us);
            (names(unread.files), unread.before_us, unread.is_known)
        };
        // The second was written to after it was renamed: its place counts, not its time.
        assert_eq!(found(Some(2), None, 4), (vec!["log.1"], 9, true));
        assert_eq!(found(Some(1), None, 5), (vec![], 9, true));
        assert_eq!(found(Some(7), None, 3), (vec!["log.2", "log.1"], 3, false));
        assert_eq!(found(None, Some(2), 4), (vec!["log.1"], 9, false));
        assert_eq!(found(None, None, 99), (vec![], 99, false));
        let second = SECOND_US;
        let compressed = [
            entry(1, "log.2.gz", 3 * second),
            entry(2, "log.1", 3 * second + 7),
        ];
        let unread = after(&compressed, Some(id(9)), None, 3 * second + 5);
        assert_eq!(
            (names(unread.files), unread.is_known),
            (vec!["log.1"], true)
        );
    }

    #[test]
    fn a_place_is_looked_for_in_its_own_file_first_and_never_in_a_compressed_one() {
        let live = Entry {
            rank: None,
            path: "log".into(),
            ..entry(4, "log.1", 11)
        };
        let mut earlier = [
            entry(1, "log.1", 9),
            entry(2, "log.2", 5),
            entry(3, "log.3.gz", 3),
        ];
        sort(&mut earlier);
        let at = |inode| cursor(0, 9, 0, id(inode));
        let found = |cursor, not| names(homes(Some(&live), &earlier, cursor, not));
        assert_eq!(found(at(2), None), ["log.2", "log", "log.1"]);
        assert_eq!(found(at(9), None), ["log", "log.1", "log.2"]);
        assert_eq!(found(at(4), Some(id(4))), ["log.1", "log.2"]);
        assert_eq!(
            names(homes(None, &earlier, at(9), None)),
            ["log.1", "log.2"]
        );
    }

    #[test]
    fn a_cursor_holds_the_print_and_tells_files_apart() {
        let place = cursor(7, 8, 0xdead_beef, id(5));
        assert_eq!((place.major, place.minor), (7, 8));
        assert_eq!(print_of(place), 0xdead_beef);
        assert!(is_of(place, id(5)) && !is_of(place, id(6)));
        let elsewhere = Id {
            device: 2,
            inode: 5,
        };
        assert!(!is_of(place, elsewhere));
    }

    #[test]
    fn a_file_is_quiet_at_the_second_look_at_the_earliest() {
        let mut quiet = Quiet::default();
        assert!(!quiet.lasts(0, Millis(5)));
        assert!(quiet.lasts(0, Millis(5)));
        assert!(!quiet.lasts(10, Millis(14)));
        assert!(quiet.lasts(10, Millis(15)));
        quiet.end();
        assert!(!quiet.lasts(10, Millis(99)));
    }
}
