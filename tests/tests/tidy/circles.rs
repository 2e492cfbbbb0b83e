//! Modules form no circle: what one may be read without is never what reads it.
//!
//! In each folder, a module leads to another one when any file of the first names anything of the
//! second. A folder's own module (`mod.rs`, `lib.rs`) is left out: it holds what its modules share,
//! and lists them. A name that it passes on (`pub use`) counts as that of the module it comes from.

use std::collections::{BTreeMap, BTreeSet};

use crate::debts::{CIRCLES, Debts};
use crate::source::{Crate, crates, is_of_name, places};

type Module = Vec<String>;
/// For each folder: which of its modules lead where, and a line that shows it.
type Ways = BTreeMap<Module, BTreeMap<String, BTreeMap<String, String>>>;

#[test]
fn modules_form_no_circle() {
    let mut debts = Debts::new(CIRCLES);
    for package in crates() {
        for (folder, ways) in ways(&package) {
            for circle in circles(&ways) {
                let names: Vec<&str> = circle.iter().map(String::as_str).collect();
                let place = folder.join("::");
                let what = format!("{} {place}: {}", package.folder.display(), names.join(" "));
                debts.meet(&what, || witnesses(&ways, &circle));
            }
        }
    }
    debts.settle();
}

fn witnesses(
    ways: &BTreeMap<String, BTreeMap<String, String>>,
    circle: &BTreeSet<String>,
) -> String {
    let mut lines = Vec::new();
    for (from, to) in ways.iter().filter(|(from, _)| circle.contains(*from)) {
        for (to, shown) in to.iter().filter(|(to, _)| circle.contains(*to)) {
            lines.push(format!("\n  {from} -> {to}: {shown}"));
        }
    }
    lines.concat()
}

fn ways(package: &Crate) -> Ways {
    let known: BTreeSet<Module> = package
        .modules
        .iter()
        .flat_map(|(module, _)| (1..=module.len()).map(|len| module[..len].to_vec()))
        .collect();
    let mut passed_on: BTreeMap<Module, Module> = BTreeMap::new();
    for (module, source) in &package.modules {
        for path in paths(&source.shipped, module, &known) {
            // `use child::Name` in a folder's own module makes the name one of the folder's.
            if let (Some(name), true) = (path.last(), path.len() > module.len() + 1)
                && path.starts_with(module)
                && name.starts_with(char::is_uppercase)
            {
                let mut here = module.clone();
                here.push(name.clone());
                passed_on.insert(here, path.clone());
            }
        }
    }
    let mut ways = Ways::new();
    for (module, source) in package
        .modules
        .iter()
        .filter(|(_, source)| !source.is_test())
    {
        for path in paths(&source.shipped, module, &known) {
            let path = passed_on.get(&path).unwrap_or(&path);
            let len = (0..=path.len())
                .rev()
                .find(|len| *len == 0 || known.contains(&path[..*len]));
            let target = &path[..len.unwrap_or(0)];
            let shared = module
                .iter()
                .zip(target)
                .take_while(|(a, b)| a == b)
                .count();
            if let (Some(from), Some(to)) = (module.get(shared), target.get(shared)) {
                ways.entry(module[..shared].to_vec())
                    .or_default()
                    .entry(from.clone())
                    .or_default()
                    .entry(to.clone())
                    .or_insert_with(|| {
                        format!("{} names {}", source.path.display(), path.join("::"))
                    });
            }
        }
    }
    ways
}

/// Every path in `code` that leads somewhere in its package, from the package's root.
fn paths(code: &str, module: &[String], known: &BTreeSet<Module>) -> Vec<Module> {
    let mut found = Vec::new();
    for (word, up) in [("crate", module.len()), ("super", 1), ("self", 0)] {
        for at in places(code, word) {
            // `pub(crate)`, `self.x` and the later ones of `super::super` begin no path.
            let after = &code[at + word.len()..];
            if !after.starts_with("::") || code[..at].ends_with("::") {
                continue;
            }
            let mut base = module[..module.len().saturating_sub(up)].to_vec();
            let mut rest = &after[2..];
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
            tree(rest, &base, &mut found);
        }
    }
    // In a folder's own module its modules stand without a prefix: `use child::Name`.
    for at in places(code, "use") {
        let rest = code[at + 3..].trim_start();
        let first: String = rest.chars().take_while(|c| is_of_name(*c)).collect();
        let mut child = module.to_vec();
        child.push(first);
        if known.contains(&child) {
            tree(rest, module, &mut found);
        }
    }
    found
}

/// The paths of a `use` tree such as `a::{b, c::D}`, or of a plain path.
fn tree(text: &str, base: &[String], found: &mut Vec<Module>) {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut begin = 0;
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth > 0 => depth -= 1,
                    ',' | '}' if depth == 0 => {
                        if !group[begin..at].trim().is_empty() {
                            tree(&group[begin..at], &path, found);
                        }
                        begin = at + 1;
                        if c == '}' {
                            return;
                        }
                    }
                    _ => {}
                }
            }
            return;
        }
        let name: String = rest.chars().take_while(|c| is_of_name(*c)).collect();
        if name.is_empty() {
            break;
        }
        rest = &rest[name.len()..];
        if name != "self" {
            path.push(name);
        }
        match rest.strip_prefix("::") {
            Some(further) => rest = further,
            None => break,
        }
    }
    found.push(path);
}

/// The largest sets of modules that all lead to each other.
fn circles(ways: &BTreeMap<String, BTreeMap<String, String>>) -> BTreeSet<BTreeSet<String>> {
    let reach = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut next = vec![from.to_owned()];
        while let Some(at) = next.pop() {
            for to in ways.get(&at).into_iter().flat_map(BTreeMap::keys) {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        ways.keys().map(|from| (from, reach(from))).collect();
    reached
        .iter()
        .filter(|(from, seen)| seen.contains(**from))
        .map(|(from, seen)| {
            seen.iter()
                .filter(|to| reached.get(to).is_some_and(|back| back.contains(*from)))
                .cloned()
                .collect()
        })
        .collect()
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let words = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let known: BTreeSet<Module> = ["a", "a::b", "a::c"].into_iter().map(words).collect();
    let code = "use crate::{x::Y, z::{self, W}};\nuse super::c::D;\nfn f(g: crate::h::I) { self.j(); }\n\
                use c::E;\n";
    let found: BTreeSet<String> = paths(code, &words("a::b"), &known)
        .into_iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = ["a::c::D", "h::I", "x::Y", "z", "z::W"];
    assert_eq!(found, expected.map(str::to_owned).into());
    let of_folder = paths(code, &words("a"), &known);
    assert!(of_folder.contains(&words("a::c::E")));
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let ways = |pairs: &[(&str, &str)]| {
        let mut ways: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (from, to) in pairs {
            let to = ((*to).to_owned(), String::new());
            ways.entry((*from).to_owned()).or_default().extend([to]);
        }
        ways
    };
    assert!(circles(&ways(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
    let found = circles(&ways(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]));
    let abc: BTreeSet<String> = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(found, BTreeSet::from([abc]));
}
