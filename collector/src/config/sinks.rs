//! Core: the sinks of a configuration. Each kind of sink checks its own settings; checked here is what all
//! of them have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_program::faults::Part;
use serde::Deserialize;

use crate::pipeline::custody::SinkSpec;
use crate::sink::kind::Rule;
use crate::sink::registry::{Declared, SinkKind};

/// Most sinks: each has a thread, and a reader of the journal.
pub const MAX_SINKS: usize = 16;
/// Longest name of a sink: it stands in plans, cursors and gaps.
pub const MAX_SINK_NAME_BYTES: usize = 64;

/// The sinks that are there when none is written.
const NONE_WRITTEN: &str = "[[sink]]\nkind = \"lake\"\n[[sink]]\nkind = \"hot\"\n";

/// The keys that every sink has.
const COMMON: &[&str] = &["kind", "name", "required"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawCommon {
    kind: String,
    name: Option<String>,
    required: Option<bool>,
}

/// The valid sinks that `text` declares, and a line in `problems` for each thing the operator must fix.
///
/// - `journal_dir`: the journal's folder, which no sink may have.
/// - `state_dir`: the folder of a sink whose settings name none.
pub(super) fn check(
    text: &str,
    journal_dir: &Path,
    state_dir: &Path,
    problems: &mut Vec<String>,
) -> Vec<Declared> {
    let mut parts = Part::all(text, "sink");
    if parts.is_empty() {
        parts = Part::all(NONE_WRITTEN, "sink");
    }
    if parts.len() > MAX_SINKS {
        problems.push(format!("sink: {} sinks; at most {MAX_SINKS}", parts.len()));
    }
    let mut sinks: Vec<Declared> = Vec::new();
    let mut places = vec![(absolute(journal_dir), "the journal".to_owned())];
    let mut written: BTreeMap<String, usize> = BTreeMap::new();
    for part in parts {
        let line = part.line();
        let Some((kind, declared)) = check_one(part, line, problems) else {
            continue;
        };
        *written.entry(kind).or_default() += 1;
        if let Some(declared) = declared {
            apart(&declared, &sinks, problems);
            placed_apart(&declared, state_dir, &mut places, problems);
            sinks.push(declared);
        }
    }
    for kind in SinkKind::NAMES {
        let count = written.get(*kind).copied().unwrap_or_default();
        if let Some(Rule::One(why)) = SinkKind::rule(kind)
            && count != 1
        {
            problems.push(format!(
                "sink: {count} sinks with kind = {kind:?}; there must be one: {why}"
            ));
        }
    }
    sinks
}

/// As custody knows them.
pub(super) fn specs(sinks: &[Declared]) -> Vec<SinkSpec> {
    let spec = |sink: &Declared| SinkSpec {
        name: sink.name.to_string(),
        required: sink.required,
    };
    sinks.iter().map(spec).collect()
}

/// The kind that one sink is written with, and the sink if its settings could be read.
fn check_one(
    mut part: Part<'_>,
    line: usize,
    problems: &mut Vec<String>,
) -> Option<(String, Option<Declared>)> {
    let common = part.split(COMMON).read::<RawCommon>(problems)?;
    let RawCommon {
        kind,
        name,
        required,
    } = common;
    let name = name.unwrap_or_else(|| kind.clone());
    let Some(rule) = SinkKind::rule(&kind) else {
        let kinds: Vec<String> = SinkKind::NAMES
            .iter()
            .map(|name| format!("{name:?}"))
            .collect();
        problems.push(format!(
            "line {line}: sink {name}: kind = {kind:?}: must be {}",
            kinds.join(" or ")
        ));
        return None;
    };
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > MAX_SINK_NAME_BYTES || !name.chars().all(is_of_name) {
        problems.push(format!(
            "line {line}: sink: name = {name:?}: must be 1 to {MAX_SINK_NAME_BYTES} letters, digits, '-' or '_'"
        ));
    }
    let required = match rule {
        Rule::One(why) => {
            if name != kind {
                problems.push(format!("sink {name}: name must be {kind:?}: {why}"));
            }
            if required == Some(false) {
                problems.push(format!("sink {name}: required must be true: {why}"));
            }
            true
        }
        Rule::Any { required: usual } => required.unwrap_or(usual),
    };
    let settings = SinkKind::check(&kind, &name, part, problems);
    let declared = settings.map(|settings| Declared {
        name: Arc::from(name),
        required,
        kind: settings,
    });
    Some((kind, declared))
}

/// A line in `problems` if a sink has the name of one of `others`.
fn apart(sink: &Declared, others: &[Declared], problems: &mut Vec<String>) {
    let name = &sink.name;
    if others.iter().any(|other| other.name == *name) {
        // The journal knows a sink's plan and cursor by its name.
        problems.push(format!("sink {name}: the name is taken already"));
    }
}

/// A line in `problems` if a sink's folder is one of `places`, each with its owner; else it is one more.
fn placed_apart(
    sink: &Declared,
    state_dir: &Path,
    places: &mut Vec<(PathBuf, String)>,
    problems: &mut Vec<String>,
) {
    let name = &sink.name;
    let Some(place) = sink.kind.place(state_dir) else {
        return;
    };
    let whole = absolute(&place);
    // Paths compare by component, so that neither a slash more nor a dot makes another folder.
    match places.iter().find(|(other, _)| *other == whole) {
        Some((_, owner)) => problems.push(format!(
            "sink {name}: {} is {owner}'s already: name another",
            place.display()
        )),
        None => places.push((whole, format!("sink {name}"))),
    }
}

/// A path from the root on; as it is written where the working directory cannot be told. Links are not
/// followed: the lock of a state folder finds two names of one at the start.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
