//! The list of mutants stays true: what each of them changes stands in the code once.

use std::collections::BTreeSet;
use std::fs;

use crate::source::root;

/// One change of `tests/mutants/list.txt`; its head says what the lines are.
#[derive(Default)]
struct Mutant {
    name: String,
    file: String,
    old: Vec<String>,
    new: Vec<String>,
    tests: usize,
    reasons: usize,
}

fn mutants(list: &str) -> Vec<Mutant> {
    let mut all: Vec<Mutant> = Vec::new();
    let lines = list.lines();
    for line in lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.to_owned();
        if mark == "=" {
            all.push(Mutant {
                name: rest,
                ..Mutant::default()
            });
            continue;
        }
        let mutant = all.last_mut().expect("a mutant begins with its name");
        match mark {
            "file" => mutant.file = rest,
            "-" => mutant.old.push(rest),
            "+" => mutant.new.push(rest),
            "tests" => mutant.tests += 1,
            "why" => mutant.reasons += 1,
            _ => panic!("{}: what is {mark:?}?", mutant.name),
        }
    }
    all
}

#[test]
fn what_a_mutant_changes_stands_in_the_code_once() {
    let list = fs::read_to_string(root().join("tests/mutants/list.txt")).expect("it is there");
    let all = mutants(&list);
    assert!(all.len() > 50, "only {} mutants", all.len());
    let (mut names, mut broken) = (BTreeSet::new(), Vec::new());
    for mutant in &all {
        let Mutant { name, file, .. } = mutant;
        if !names.insert(name) {
            broken.push(format!("{name}: there are two of this name"));
        }
        if mutant.old == mutant.new || mutant.tests == 0 || mutant.reasons != 1 {
            broken.push(format!("{name}: it needs a change, tests, and one reason"));
        }
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let count = text.matches(&mutant.old.join("\n")).count();
        if count != 1 {
            broken.push(format!(
                "{name}: what it changes stands {count} times in {file}; follow the code in \
                 tests/mutants/list.txt"
            ));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
