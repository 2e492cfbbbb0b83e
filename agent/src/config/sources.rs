//! Core: the sources of a configuration. Each kind of source checks its own settings; checked here is
//! what all of them have.

use std::collections::BTreeSet;

use headwater_proto::ids::Lane;

use crate::check::lane;
use crate::pipeline::record::{MAX_SOURCE_BYTES, MAX_SOURCES};
use crate::source::kind::{Declared, Kind};
use crate::source::registry::SourceKind;

/// A source that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its name, unique.
    pub name: String,
    /// Where its readings go.
    pub lane: Lane,
    /// Its kind, with the settings of that kind.
    pub kind: SourceKind,
}

impl Source {
    /// Whether it can begin again from a cursor.
    #[must_use]
    pub const fn resumes(&self) -> bool {
        self.kind.resumes()
    }
}

/// The sources checked up to now, and a line for each thing the operator must fix.
#[derive(Debug, Default)]
pub(super) struct Checked {
    sources: Vec<Source>,
    problems: Vec<String>,
}

impl Checked {
    /// Checks every source of one kind.
    pub(super) fn add<K: Kind>(&mut self, all: Vec<K::Raw>)
    where
        SourceKind: From<K>,
    {
        for raw in all {
            let Declared {
                name,
                lane: lane_name,
                settings,
            } = K::check(raw, &mut self.problems);
            let lane = lane(&format!("{name}.lane"), &lane_name, &mut self.problems);
            let kind = settings.into();
            self.sources.push(Source { name, lane, kind });
        }
    }

    /// The sources, and what must be fixed.
    pub(super) fn finish(self) -> (Vec<Source>, Vec<String>) {
        let Self {
            sources,
            mut problems,
        } = self;
        let mut names = BTreeSet::new();
        for source in &sources {
            let name = &source.name;
            if name.is_empty() || name.len() > MAX_SOURCE_BYTES {
                problems.push(format!(
                    "source {name:?}: a name has 1 to {MAX_SOURCE_BYTES} bytes"
                ));
            }
            if name == super::SEND_SOURCE || !names.insert(name) {
                problems.push(format!("source {name:?}: the name is taken already"));
            }
        }
        // One place is kept for what `send` hands over.
        if sources.len() >= MAX_SOURCES {
            problems.push(format!(
                "{} sources: at most {}",
                sources.len(),
                MAX_SOURCES - 1
            ));
        }
        (sources, problems)
    }
}
