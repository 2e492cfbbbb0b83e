//! Every bound has a test that reaches it, and such a test names it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::debts::{Debts, UNTESTED_BOUNDS};
use crate::source::{Source, places, sources};

/// Packages whose cores ship.
const SHIPPED: [&str; 4] = ["agent/src", "collector/src", "proto/src", "crates"];

#[test]
fn every_bound_of_a_core_is_named_in_a_test() {
    let all = sources();
    let tests: Vec<(&Source, String)> = all
        .iter()
        .map(|source| (source, test_code(source)))
        .collect();
    let mut bounds: BTreeMap<String, Vec<&Source>> = BTreeMap::new();
    for source in all.iter().filter(|source| is_shipped_core(source)) {
        for name in bounds_of(&source.shipped) {
            bounds.entry(name).or_default().push(source);
        }
    }
    assert!(bounds.len() > 40, "only {} bounds were found", bounds.len());
    let mut debts = Debts::new(UNTESTED_BOUNDS);
    let mut unnamed = BTreeSet::new();
    for (name, owners) in &bounds {
        for owner in owners {
            let is_named = tests.iter().any(|(test, code)| {
                // Of several bounds with one name, a test means that of its own file, or of the
                // module that it names.
                let is_meant = owners.len() == 1
                    || test.path == owner.path
                    || places(code, &module(owner)).next().is_some();
                is_meant && places(code, name).next().is_some()
            });
            if !is_named {
                unnamed.insert(format!("{} {name}", package(owner)));
            }
        }
    }
    for bound in unnamed {
        debts.meet(&bound, || {
            "no test names it; write one that reaches it".to_owned()
        });
    }
    debts.settle();
}

/// The folder of the package that a file belongs to.
fn package(source: &Source) -> String {
    let parts: Vec<_> = source
        .path
        .iter()
        .map(|part| part.to_string_lossy())
        .collect();
    let len = if parts[0] == "crates" { 2 } else { 1 };
    parts[..len].join("/")
}

fn is_shipped_core(source: &Source) -> bool {
    let of_shipped = SHIPPED.iter().any(|folder| source.path.starts_with(folder));
    let is_core = source.text.starts_with("//! Core:") || source.path.starts_with("proto/src");
    of_shipped && is_core && !source.is_test()
}

/// The module of a file, as a test would name it.
fn module(source: &Source) -> String {
    let file = source.path.with_extension("");
    let name = |path: &Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    match name(&file) {
        Some(name) if name != "mod" => name,
        _ => file.parent().and_then(name).unwrap_or_default(),
    }
}

/// The names of `const MAX_..`.
fn bounds_of(code: &str) -> Vec<String> {
    places(code, "const")
        .filter_map(|at| {
            let rest = code[at + 5..].trim_start();
            let name: String = rest
                .chars()
                .take_while(|c| crate::source::is_of_name(*c))
                .collect();
            name.starts_with("MAX_").then_some(name)
        })
        .collect()
}

/// The code that is compiled for tests alone.
fn test_code(source: &Source) -> String {
    if source.is_test() || source.path.starts_with("tests") {
        return source.code.clone();
    }
    let pairs = source.code.bytes().zip(source.shipped.bytes());
    let differs = pairs.map(|(all, shipped)| if all == shipped { b' ' } else { all });
    String::from_utf8_lossy(&differs.collect::<Vec<_>>()).into_owned()
}
