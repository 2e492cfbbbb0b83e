//! Code that still breaks a house rule. Each list may only become shorter: an entry that is no longer
//! needed fails its test, and code that would need a new one fails it too.

use std::collections::BTreeSet;

/// Functions above the limit, by file and name.
pub(crate) const LONG_FUNCTIONS: &[&str] = &[];

/// Types above the limit, by package and name.
pub(crate) const LARGE_TYPES: &[&str] = &[];

/// Modules that form circles, by package, the module they stand in, and their names.
pub(crate) const CIRCLES: &[&str] = &[];

/// Bounds that no test names, by package and name.
pub(crate) const UNTESTED_BOUNDS: &[&str] = &[];

/// One list while its test runs.
pub(crate) struct Debts {
    unmet: BTreeSet<&'static str>,
    new: Vec<String>,
}

impl Debts {
    pub(crate) fn new(list: &[&'static str]) -> Self {
        let unmet: BTreeSet<_> = list.iter().copied().collect();
        assert_eq!(unmet.len(), list.len(), "the list holds an entry twice");
        Self {
            unmet,
            new: Vec::new(),
        }
    }

    /// `what` breaks the rule: it must be on the list.
    pub(crate) fn meet(&mut self, what: &str, how: impl FnOnce() -> String) {
        if !self.unmet.remove(what) {
            self.new.push(format!("{what:?}: {}", how()));
        }
    }

    /// Fails unless the list was met entry by entry.
    pub(crate) fn settle(self) {
        assert!(
            self.new.is_empty(),
            "breaks the rule:\n{}",
            self.new.join("\n")
        );
        assert!(
            self.unmet.is_empty(),
            "on the list without need, so take it off:\n{}",
            self.unmet.into_iter().collect::<Vec<_>>().join("\n")
        );
    }
}

#[test]
fn a_list_that_is_too_long_or_too_short_fails() {
    let outcome = |list: &[&'static str], met: &[&str]| {
        let mut debts = Debts::new(list);
        met.iter().for_each(|what| debts.meet(what, String::new));
        std::panic::catch_unwind(|| debts.settle()).is_ok()
    };
    assert!(outcome(&["a", "b"], &["b", "a"]));
    assert!(!outcome(&["a", "b"], &["a"]));
    assert!(!outcome(&["a"], &["a", "b"]));
}
