//! Core: reads a configuration and names every fault in it at once.
//!
//! A fault about an unknown key names the setting that was probably meant, or the one that took its
//! place. The rest of the configuration is checked in spite of that: one run of `--check` shows the
//! operator everything there is to fix.

use std::ops::{Range, RangeInclusive};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// Most faults about unknown or unreadable keys: more than anybody mends before the next
/// check, and a bound on the time that a large wrong file takes.
pub const MAX_UNREADABLE: usize = 32;

/// Why a configuration is not taken: all that the operator must fix, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

/// A key that a setting had once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renamed {
    /// Its path, for example `spool.max_mb`.
    pub old: &'static str,
    /// The setting to write instead: a path, or a phrase with one.
    pub new: &'static str,
}

/// Reads `text` (TOML; empty is valid) and checks it.
///
/// - `renamed`: keys of earlier versions.
/// - `check`: makes the valid configuration, and adds a line for each thing the operator must fix.
///   It sees defaults where a key could not be read.
///
/// # Errors
/// [`Faults`]: where the text is no TOML that fault alone, otherwise every one.
pub fn parse<Raw: DeserializeOwned, Valid>(
    text: &str,
    renamed: &[Renamed],
    check: impl FnOnce(Raw, &mut Vec<String>) -> Option<Valid>,
) -> Result<Valid, Faults> {
    match parse_leniently(text, renamed, check) {
        (Some(valid), problems) if problems.is_empty() => Ok(valid),
        (_, problems) => Err(Faults(problems)),
    }
}

/// As [`parse`], but hands over what it could make in spite of faults, for further checks. Nothing
/// may run with it unless there are none.
pub fn parse_leniently<Raw: DeserializeOwned, Valid>(
    text: &str,
    renamed: &[Renamed],
    check: impl FnOnce(Raw, &mut Vec<String>) -> Option<Valid>,
) -> (Option<Valid>, Vec<String>) {
    let mut problems = Vec::new();
    let raw = read(text, renamed, &mut problems);
    let valid = raw.and_then(|raw| check(raw, &mut problems));
    (valid, problems)
}

/// `value` if it lies in `range`, otherwise its nearest end and a line in `problems` that says why
/// it must.
pub fn within(
    key: &str,
    value: u64,
    range: RangeInclusive<u64>,
    why: &str,
    problems: &mut Vec<String>,
) -> u64 {
    if !range.contains(&value) {
        problems.push(format!(
            "{key} = {value}: must be from {} to {}, {why}",
            range.start(),
            range.end()
        ));
    }
    value.clamp(*range.start(), *range.end())
}

/// Reads `text` without the entries that cannot be read; each of them is a line in `problems`.
fn read<Raw: DeserializeOwned>(
    text: &str,
    renamed: &[Renamed],
    problems: &mut Vec<String>,
) -> Option<Raw> {
    match DeTable::parse(text) {
        Ok(document) => read_table(document, text, "", renamed, problems),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    }
}

/// One table of a list of tables such as `[[sink]]`, whose meaning depends on what it says itself: it is
/// read apart from its document, with the same words about what is wrong.
#[derive(Debug)]
pub struct Part<'i> {
    text: &'i str,
    table: Spanned<DeTable<'i>>,
    path: String,
}

impl<'i> Part<'i> {
    /// The tables that `text` lists under `key`; none if it is no TOML, or lists no tables there.
    #[must_use]
    pub fn all(text: &'i str, key: &str) -> Vec<Self> {
        let Ok(mut document) = DeTable::parse(text) else {
            return Vec::new();
        };
        let list = document.get_mut().remove::<str>(key);
        let Some(DeValue::Array(list)) = list.map(Spanned::into_inner) else {
            return Vec::new();
        };
        let part = |element: Spanned<DeValue<'i>>| {
            let span = element.span();
            match element.into_inner() {
                DeValue::Table(table) => Some(Part {
                    text,
                    table: Spanned::new(span, table),
                    path: key.to_owned(),
                }),
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_)
                | DeValue::Array(_) => None,
            }
        };
        list.into_iter().filter_map(part).collect()
    }

    /// Takes `keys` out, as a part of their own.
    #[must_use]
    pub fn split(&mut self, keys: &[&str]) -> Self {
        let span = self.table.span();
        let all = std::mem::take(self.table.get_mut());
        let is_taken =
            |key: &Spanned<toml::de::DeString<'i>>| keys.contains(&key.get_ref().as_ref());
        let (taken, rest): (DeTable<'i>, DeTable<'i>) =
            all.into_iter().partition(|(key, _)| is_taken(key));
        *self.table.get_mut() = rest;
        Self {
            text: self.text,
            table: Spanned::new(span, taken),
            path: self.path.clone(),
        }
    }

    /// Reads it without the entries that cannot be read; each of them is a line in `problems`.
    pub fn read<Raw: DeserializeOwned>(self, problems: &mut Vec<String>) -> Option<Raw> {
        read_table(self.table, self.text, &self.path, &[], problems)
    }

    /// The line, from 1, on which it begins.
    #[must_use]
    pub fn line(&self) -> usize {
        line_of(self.text, &self.table.span())
    }
}

/// Reads a table of `text` that stands at the path `above`.
fn read_table<Raw: DeserializeOwned>(
    mut document: Spanned<DeTable<'_>>,
    text: &str,
    above: &str,
    renamed: &[Renamed],
    problems: &mut Vec<String>,
) -> Option<Raw> {
    let mut told = Vec::new();
    let mut cuts: Vec<Cut<'_>> = Vec::new();
    let raw = loop {
        let error = match Raw::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(raw) => break Some(raw),
            Err(error) => error,
        };
        if told.len() >= MAX_UNREADABLE {
            told.push((
                usize::MAX,
                "more cannot be read; fix these first".to_owned(),
            ));
            break None;
        }
        let place = error.span().unwrap_or_default();
        let line = line_of(text, &place);
        let root = document.span();
        let Some(cut) = cut_from_table(document.get_mut(), &root, &place, above) else {
            told.push((line, format!("line {line}: {}", error.message())));
            break None;
        };
        // A table is not blamed for the lack of a key that was there and could not be read.
        let lacks = |key: &Cut<'_>| {
            let name = key.path.rsplit('.').next().unwrap_or_default();
            key.within == place && error.message() == format!("missing field `{name}`")
        };
        if !cuts.iter().any(lacks) {
            let lines = explain(error.message(), &cut.path, &cut.value, renamed);
            told.extend(
                lines
                    .into_iter()
                    .map(|text| (line, format!("line {line}: {text}"))),
            );
        }
        cuts.push(cut);
    };
    told.sort_by_key(|(line, _)| *line);
    problems.extend(told.into_iter().map(|(_, text)| text));
    raw
}

/// The line, from 1, on which `place` begins.
fn line_of(text: &str, place: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..place.start).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// An entry that was taken out of a document.
struct Cut<'i> {
    /// Keys from the root, joined by dots; places in arrays are left out.
    path: String,
    value: DeValue<'i>,
    /// Where the table stands that held it.
    within: Range<usize>,
}

/// Takes the entry out whose key or value stands at `place`. The table stands at `within`, below
/// the keys in `above`.
fn cut_from_table<'i>(
    table: &mut DeTable<'i>,
    within: &Range<usize>,
    place: &Range<usize>,
    above: &str,
) -> Option<Cut<'i>> {
    let mut at_place = None;
    for (key, value) in table.iter_mut() {
        let path = match above {
            "" => key.get_ref().to_string(),
            above => format!("{above}.{}", key.get_ref()),
        };
        // An array of tables stands where its first table stands, so what lies within comes first.
        let below = cut_from_value(value, place, &path);
        if below.is_some() {
            return below;
        }
        if key.span() == *place || value.span() == *place {
            at_place = Some((key.clone(), path));
            break;
        }
    }
    let (key, path) = at_place?;
    let value = table.remove::<str>(key.get_ref())?.into_inner();
    let within = within.clone();
    Some(Cut {
        path,
        value,
        within,
    })
}

fn cut_from_value<'i>(
    value: &mut Spanned<DeValue<'i>>,
    place: &Range<usize>,
    path: &str,
) -> Option<Cut<'i>> {
    let within = value.span();
    let array = match value.get_mut() {
        DeValue::Table(inner) => return cut_from_table(inner, &within, place, path),
        DeValue::Array(inner) => inner,
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => return None,
    };
    let mut cut = None;
    for mut element in std::mem::replace(array, DeArray::new()) {
        cut = cut.or_else(|| cut_from_value(&mut element, place, path));
        if cut.is_none() && element.span() == *place {
            cut = Some(Cut {
                path: path.to_owned(),
                value: element.into_inner(),
                within: within.clone(),
            });
        } else {
            array.push(element);
        }
    }
    cut
}

/// The lines that the operator reads about the entry at `path`. `message` is serde's.
fn explain(message: &str, path: &str, value: &DeValue<'_>, renamed: &[Renamed]) -> Vec<String> {
    let Some(names) = message.strip_prefix("unknown field ") else {
        return vec![format!("{path}: {message}")];
    };
    let below = |old: &str| {
        let rest = old.strip_prefix(path)?.strip_prefix('.')?;
        let mut at = value;
        for key in rest.split('.') {
            at = at.as_table()?.get(key)?.get_ref();
        }
        Some(())
    };
    let moved: Vec<String> = renamed
        .iter()
        .filter(|renamed| renamed.old == path || below(renamed.old).is_some())
        .map(|Renamed { old, new }| format!("{old} is now {new}"))
        .collect();
    if !moved.is_empty() {
        return moved;
    }
    // "unknown field `a`, expected one of `b`, `c`"
    let known: Vec<&str> = names.split('`').skip(3).step_by(2).collect();
    let (above, key) = path.rsplit_once('.').unwrap_or(("", path));
    let full = |name: &str| match above {
        "" => name.to_owned(),
        above => format!("{above}.{name}"),
    };
    vec![match nearest(key, &known) {
        Some(meant) => format!("{path}: unknown; did you mean {}?", full(meant)),
        None => format!("{path}: unknown; there are {}", known.join(", ")),
    }]
}

/// The name in `known` that `key` is most likely a slip for: few letters differ, or one holds the
/// other.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let close = |name: &&str| distance(key, name) * 3 <= key.len().max(name.len());
    let within = |name: &&str| key.len() > 2 && (name.contains(key) || key.contains(*name));
    known
        .iter()
        .copied()
        .filter(|name| close(name) || within(name))
        .min_by_key(|name| distance(key, name))
}

/// Letters to insert, leave out or exchange between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let exchanged = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Raw {
        name: String,
        spool: Spool,
        lines: Vec<Lines>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Spool {
        max_mib: u64,
        dir: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Lines {
        listen: String,
        #[serde(default)]
        format: String,
    }

    const RENAMED: &[Renamed] = &[
        Renamed {
            old: "buffer.mb",
            new: "spool.max_mib",
        },
        Renamed {
            old: "lines.address",
            new: "lines.listen",
        },
    ];

    fn faults(text: &str) -> Vec<String> {
        let checked = parse(text, RENAMED, |raw: Raw, problems| {
            within("spool.max_mib", raw.spool.max_mib, 0..=9, "MiB", problems);
            Some(raw)
        });
        checked.map_or_else(|faults| faults.0, |_| Vec::new())
    }

    #[test]
    fn a_table_of_a_list_is_read_apart_and_told_with_its_own_lines() {
        let text = "name = \"a\"\n[[lines]]\nlisten = \"x\"\nkind = \"one\"\n[[lines]]\nlistn = 1\nformat \
                    = 3\n";
        let mut parts = Part::all(text, "lines");
        assert_eq!(parts.iter().map(Part::line).collect::<Vec<_>>(), [2, 5]);
        let mut problems = Vec::new();
        let second: Option<Lines> = parts.remove(1).read(&mut problems);
        assert!(second.is_none());
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(
            problems[..2],
            [
                "line 5: missing field `listen`",
                "line 6: lines.listn: unknown; did you mean lines.listen?"
            ]
        );
        assert!(
            problems[2].starts_with("line 7: lines.format: "),
            "{problems:?}"
        );
        let kind = parts[0].split(&["kind", "nothing"]);
        let first: Lines = parts.remove(0).read(&mut problems).unwrap();
        assert_eq!((first.listen.as_str(), first.format.as_str()), ("x", ""));
        let kind: std::collections::BTreeMap<String, String> = kind.read(&mut problems).unwrap();
        assert_eq!(kind["kind"], "one");
        assert_eq!(problems.len(), 3);
        for text in ["lines = 3", "[lines]\nlisten = \"x\"", "[[", ""] {
            assert!(Part::all(text, "lines").is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_right_is_taken() {
        let text = "name = \"a\"\n[spool]\nmax_mib = 9\ndir = \"d\"\n[[lines]]\nlisten = \"x\"\n";
        let raw = parse(text, RENAMED, |raw: Raw, _| Some(raw)).unwrap();
        assert_eq!(raw.name, "a");
        assert_eq!((raw.spool.max_mib, raw.spool.dir.as_str()), (9, "d"));
        assert_eq!(raw.lines[0].listen, "x");
        assert_eq!(raw.lines[0].format, "");
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_line() {
        let text = "nam = 1\n[spool]\nmax_mib = 10\ndirs = \"d\"\nzzz = 1\n[[lines]]\nlisten = 3\n\
                    [[lines]]\nformat = \"f\"\n";
        assert_eq!(
            faults(text),
            [
                "line 1: nam: unknown; did you mean name?",
                "line 4: spool.dirs: unknown; did you mean spool.dir?",
                "line 5: spool.zzz: unknown; there are max_mib, dir",
                "line 7: lines.listen: invalid type: integer `3`, expected a string",
                "line 8: lines: missing field `listen`",
                "spool.max_mib = 10: must be from 0 to 9, MiB",
            ]
        );
    }

    #[test]
    fn an_old_key_is_told_with_the_new_one() {
        let text = "[buffer]\nmb = 3\n[[lines]]\nlisten = \"x\"\naddress = \"y\"\n";
        assert_eq!(
            faults(text),
            [
                "line 1: buffer.mb is now spool.max_mib",
                "line 5: lines.address is now lines.listen",
            ]
        );
    }

    #[test]
    fn a_text_that_is_no_toml_says_where() {
        let told = faults("name = \"a\"\nspool = {\n").join("\n");
        assert!(told.contains("line 2"), "{told}");
    }

    #[test]
    fn a_file_full_of_wrong_keys_is_given_up_at_the_bound() {
        let keys = |count: usize| -> String { (0..count).map(|k| format!("k{k} = 1\n")).collect() };
        assert_eq!(faults(&keys(MAX_UNREADABLE - 1)).len(), MAX_UNREADABLE - 1);
        let told = faults(&keys(MAX_UNREADABLE + 5));
        assert_eq!(told.len(), MAX_UNREADABLE + 1);
        assert!(told.last().unwrap().starts_with("more cannot be read"));
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let known = ["listen", "max_connections", "address"];
        assert_eq!(nearest("lisen", &known), Some("listen"));
        assert_eq!(nearest("max_conections", &known), Some("max_connections"));
        assert_eq!(nearest("connections", &known), Some("max_connections"));
        assert_eq!(nearest("password", &known), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z\\[\\]{}=\"\n. 0-9]{0,80}") {
            let _ = faults(&text);
        }

        #[test]
        fn letters_that_differ_are_counted_the_same_both_ways(a in "[ab]{0,6}", b in "[ab]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
        }
    }
}
