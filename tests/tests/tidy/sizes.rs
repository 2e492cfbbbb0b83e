//! How much a reader must hold in mind at once: lines of a file and a function, methods of a type.

use std::collections::BTreeMap;

use crate::debts::{self, Debts};
use crate::source::{Source, closing, crates, places, sources};

/// Longest source file; a longer one holds more than one subject.
const MAX_FILE_LINES: usize = 800;
/// Longest function.
const MAX_FUNCTION_LINES: usize = 100;
/// Most methods and associated functions of one type, over all its files.
const MAX_METHODS: usize = 40;

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<String> = sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > MAX_FILE_LINES)
        .map(|(lines, path)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "above {MAX_FILE_LINES} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn no_function_is_longer_than_a_screen_or_two() {
    let mut debts = Debts::new(debts::LONG_FUNCTIONS);
    for source in sources() {
        for (name, lines) in functions(&source.code) {
            if lines > MAX_FUNCTION_LINES {
                debts.meet(&format!("{} {name}", source.path.display()), || {
                    format!("{lines} lines; at most {MAX_FUNCTION_LINES}")
                });
            }
        }
    }
    debts.settle();
}

#[test]
fn no_type_has_more_methods_than_a_reader_can_hold() {
    let mut debts = Debts::new(debts::LARGE_TYPES);
    for package in crates() {
        let mut methods: BTreeMap<String, usize> = BTreeMap::new();
        for (_, source) in package
            .modules
            .iter()
            .filter(|(_, source)| !source.is_test())
        {
            for (name, count) in inherent_methods(&source.shipped) {
                *methods.entry(name).or_default() += count;
            }
        }
        for (name, count) in methods {
            if count > MAX_METHODS {
                debts.meet(&format!("{} {name}", package.folder.display()), || {
                    format!("{count} methods; at most {MAX_METHODS}")
                });
            }
        }
    }
    debts.settle();
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let is_silent = |source: &Source| {
        !(source.text.starts_with("//!") || source.text.starts_with("#![no_main]"))
    };
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(is_silent)
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "without a first line '//! ...':\n{}",
        silent.join("\n")
    );
}

/// Each function with a body, and the lines from its `fn` to its last bracket.
fn functions(code: &str) -> Vec<(String, usize)> {
    places(code, "fn")
        .filter_map(|at| {
            let name = name_at(&code[at + 2..])?;
            let mut depth = 0;
            let body = code[at..].char_indices().find_map(|(after, c)| {
                match c {
                    '(' | '[' => depth += 1,
                    ')' | ']' => depth -= 1,
                    '{' if depth == 0 => return Some(Some(at + after)),
                    ';' if depth == 0 => return Some(None),
                    _ => {}
                }
                None
            })??;
            let lines = code[at..=closing(code, body)].lines().count();
            Some((name, lines))
        })
        .collect()
}

/// For each `impl` block without a trait: its type, and the functions in it.
fn inherent_methods(code: &str) -> Vec<(String, usize)> {
    places(code, "impl")
        .filter_map(|at| {
            // In a signature `impl` stands after an operator, an item begins after another one.
            let before = code[..at].trim_end();
            if !(before.is_empty() || before.ends_with(['}', '{', ';', ']'])) {
                return None;
            }
            let open = at + code[at..].find('{')?;
            let head = code[at + 4..open].trim_start();
            let head = &head[generics_len(head)..];
            if places(head, "for")
                .next()
                .is_some_and(|at| !head[at + 3..].starts_with('<'))
            {
                return None;
            }
            let path = head.split(['<', ' ', '\n']).find(|part| !part.is_empty())?;
            let name = path.rsplit("::").next()?.to_owned();
            let body = &code[open + 1..closing(code, open)];
            let count = places(body, "fn")
                .filter(|at| name_at(&body[at + 2..]).is_some() && depth_at(body, *at) == 0)
                .count();
            Some((name, count))
        })
        .collect()
}

fn name_at(code: &str) -> Option<String> {
    let name: String = code
        .trim_start()
        .chars()
        .take_while(|c| crate::source::is_of_name(*c))
        .collect();
    (!name.is_empty()).then_some(name)
}

fn depth_at(code: &str, at: usize) -> i32 {
    code[..at].bytes().fold(0, |depth, byte| match byte {
        b'{' => depth + 1,
        b'}' => depth - 1,
        _ => depth,
    })
}

/// The length of `<..>` at the beginning of `head`, if it begins so.
fn generics_len(head: &str) -> usize {
    let mut depth = 0;
    for (at, c) in head.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if !head[..at].ends_with('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if c == '>' { at + 1 } else { 0 };
        }
    }
    0
}

#[test]
fn functions_and_methods_are_counted() {
    let code = "impl<F: Fn() -> [u8; 2]> a::Big<F> {\n    fn one() {\n        fn inner() {}\n    }\n    \
                pub async fn two(x: impl Fn()) -> impl Sized {\n    }\n}\nimpl Clone for Big {\n    fn \
                clone() {}\n}\nfn free(f: [u8; 3]);\n";
    let found: Vec<_> = functions(code);
    let expected = [("one", 3), ("inner", 1), ("two", 2), ("clone", 1)];
    assert_eq!(
        found,
        expected.map(|(name, lines)| (name.to_owned(), lines))
    );
    assert_eq!(inherent_methods(code), [("Big".to_owned(), 2)]);
}
