//! Core: a lake that lost a part of its logs, and the repair after which its collector goes on.

use headwater_lake::repair::{self, Options};
use headwater_lake::store::Entry;
use headwater_lake::{Claim, HEAD_PATH, MARKS_PATH, MemStore, Settings, Store as _, Table};
use headwater_proto::ids::JournalId;

use super::course::Course;
use super::site::Home;

/// Most versions that one hole takes.
const MOST_VERSIONS: usize = 3;

impl Home {
    /// Whether a version of a log says that files came or went.
    fn names_files(&self, path: &str) -> bool {
        let bytes = self.collector.store.get(path).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.contains("{\"add\":") || text.contains("{\"remove\":")
    }

    /// Somebody removes a part of the lake's logs while the collector is off. A start that sees it is refused,
    /// and then somebody repairs the lake.
    pub(super) fn make_hole(&mut self, course: &mut Course) {
        if self.collector.store.is_away() {
            return;
        }
        let lake = self.collector.store.fork();
        let lost = lose_versions(&lake, course);
        if lost.is_empty() {
            return;
        }
        course.note(|| format!("the lake loses {lost:?}"));
        course.seen.holes += 1;
        self.collector.store = lake;
        let before = paths(&self.collector.store);
        self.start(course);
        if self.collector.is_up() {
            // What is lost stands in a checkpoint too.
            return;
        }
        // Or it did not come to look. A term that is raised in one table before the hole in another one is met names no
        // file.
        let is_refused = self.collector.found.contains("is missing, though");
        course.seen.holes_refused += u64::from(is_refused);
        let after = paths(&self.collector.store);
        if is_refused
            && after
                .iter()
                .any(|path| is_log(path) && !before.contains(path) && self.names_files(path))
        {
            course
                .faults
                .push(format!("something is committed beside a hole: {lost:?}"));
        }
        self.repair(course);
    }

    fn repair(&mut self, course: &mut Course) {
        let options = Options {
            settings: Settings {
                checkpoint_versions: course.plan.checkpoint_versions,
                ..Settings::default()
            },
            claim: Claim {
                take_over: true,
                ..Claim::new(JournalId(course.dice.bits()), course.now.wall.0)
            },
            committed: self.collector.known_committed(),
            drop_missing: false,
            dry_run: false,
        };
        match repair::repair(self.collector.store.clone(), &options) {
            // A version without files may have been a takeover's: nobody knows, and nothing is missing.
            Ok(repaired) if repaired.open_holes.is_empty() && repaired.missing_count == 0 => {
                course.note(|| format!("the lake is repaired: {repaired:?}"));
            }
            other => course
                .faults
                .push(format!("the lake cannot be repaired: {other:?}")),
        }
    }
}

/// Removes some versions of one table, in a row, and sometimes the head or the marks. Gives the paths.
fn lose_versions(lake: &MemStore, course: &mut Course) -> Vec<String> {
    let table = Table::ALL[course.dice.index(Table::ALL.len())];
    let all = paths(lake);
    let prefix = format!("{}/_delta_log/", table.name());
    let versions: Vec<_> = all
        .iter()
        .filter(|path| path.starts_with(&prefix) && is_log(path))
        .cloned()
        .collect();
    if versions.is_empty() {
        return Vec::new();
    }
    let first = course.dice.index(versions.len());
    let count = 1 + course.dice.index(MOST_VERSIONS);
    let mut lost: Vec<_> = versions.into_iter().skip(first).take(count).collect();
    lost.extend(match course.dice.below(4) {
        0 => Some(HEAD_PATH.to_owned()),
        1 => all
            .iter()
            .find(|path| path.starts_with(MARKS_PATH))
            .cloned(),
        _ => None,
    });
    for path in &lost {
        // A store in memory that nobody breaks does not fail.
        let _ = lake.delete(path);
    }
    lost
}

fn is_log(path: &str) -> bool {
    path.contains("/_delta_log/") && path.ends_with(".json")
}

fn paths(store: &MemStore) -> Vec<String> {
    let all = store.fork().list("").unwrap_or_default();
    all.into_iter().map(|Entry { path, .. }| path).collect()
}
