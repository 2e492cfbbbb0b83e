//! Core: the results as tables.

use std::fmt::Write as _;

use anyhow::Context;

use super::Group;
use super::measure::{Cell, Results};
use super::summary::{Summary, mean_of, summaries};

const BEGIN: &str = "<!-- codec summary: written by headwater-bench compare --readme -->";
const END: &str = "<!-- end of the codec summary -->";

/// Everything, the most important first.
pub(super) fn tables(results: &Results) -> String {
    let mut text = String::from("# The batch codec beside what people ship today\n\n");
    text += &format!(
        "Written by `cargo run --release -p headwater-bench -- compare`; the docs of its module `compare` \
         say what is counted. CPU: {}.\n\n",
        results.machine
    );
    for group in Group::ALL {
        if summaries(results, group).is_empty() {
            continue;
        }
        text += &heading(results, group);
        text += &summary_table(&summaries(results, group), true);
        text += "\nBytes per sample, geometric mean over sets:\n\n";
        text += &means(results, group, |cell| Some(cell.bytes_per_sample()), 3);
        if results.cells.iter().any(|cell| cell.encode_ns.is_some()) {
            text += "\nCPU per sample in ns, encoding:\n\n";
            text += &means(results, group, |cell| cell.encode_ns, 0);
            text += "\nCPU per sample in ns, decoding:\n\n";
            text += &means(results, group, |cell| cell.decode_ns, 0);
        }
        text += "\nPeak heap of one batch in KiB, encoding / decoding:\n\n";
        text += &heap(results, group);
        for &rows in &results.sizes {
            text += &per_set(results, group, rows);
        }
        text += &once(results, group);
    }
    text += &exactness(results);
    text
}

/// Puts the summary between the markers of `text`.
///
/// # Errors
/// If a marker is missing.
pub(super) fn replace_summary(text: &str, results: &Results) -> anyhow::Result<String> {
    let missing = || format!("no {BEGIN:?} ... {END:?}");
    let (before, rest) = text.split_once(BEGIN).with_context(missing)?;
    let (_, after) = rest.split_once(END).with_context(missing)?;
    let mut new = format!("{before}{BEGIN}\n");
    for group in Group::ALL {
        let summaries = summaries(results, group);
        if summaries.is_empty() {
            continue;
        }
        if group == Group::HeldOut {
            new += &format!(
                "The same on {} generated sets; two of them (thermistor_adc, vibration_xyz) were looked at while it was \
                 developed, the others not:\n\n",
                count_of(results, group)
            );
        }
        new += &summary_table(&summaries, false);
        new += "\n";
    }
    Ok(format!("{new}{END}{after}"))
}

fn count_of(results: &Results, group: Group) -> usize {
    results.sets.iter().filter(|set| set.group == group).count()
}

fn heading(results: &Results, group: Group) -> String {
    let count = count_of(results, group);
    match group {
        Group::Known => format!("## {count} real sets, on which the codec was developed\n\n"),
        Group::HeldOut => {
            format!(
                "## {count} generated sets; thermistor_adc and vibration_xyz were looked at in development\n\n"
            )
        }
    }
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(head) + &line(&rule) + &rows
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// 10000 as 10,000.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A column of the summary: its head and a line's cell.
type Part<'a> = (&'a str, fn(&Summary) -> Option<String>);

/// The columns that have figures; `best` adds which codecs were the best shipped.
fn summary_table(summaries: &[Summary], best: bool) -> String {
    let mut parts: Vec<Part<'_>> = vec![
        ("rows per batch", |s| Some(grouped(s.rows))),
        ("sets", |s| Some(s.sets.to_string())),
        ("ours, B/sample", |s| {
            Some(format!("{:.2}", s.bytes_per_sample))
        }),
        ("best shipped, B/sample", |s| {
            Some(format!("{:.2}", s.best_bytes_per_sample))
        }),
        ("best shipped / ours", |s| {
            Some(format!("**{:.2}**", s.ratio))
        }),
        ("worst set", |s| {
            Some(format!("{:.2}, {}", s.worst.0, s.worst.1))
        }),
        ("encode CPU / postcard + zstd 3", |s| {
            s.encode_ratio.map(two)
        }),
        ("decode CPU / JSON + zstd 3", |s| s.decode_ratio.map(two)),
        ("a fit, in encodes", |s| {
            s.fit_encodes.map(|n| format!("{n:.0}"))
        }),
    ];
    if best {
        parts.push(("best shipped was (sets)", |s| {
            let best = s.best.iter().map(|(codec, n)| format!("{codec} ({n})"));
            Some(best.collect::<Vec<_>>().join(", "))
        }));
    }
    parts.retain(|(_, cell)| summaries.iter().any(|s| cell(s).is_some()));
    let head: Vec<&str> = parts.iter().map(|(head, _)| *head).collect();
    let cell = |s, (_, cell): &Part<'_>| cell(s).unwrap_or_else(|| "-".to_owned());
    let rows: Vec<Vec<String>> = summaries
        .iter()
        .map(|s| parts.iter().map(|part| cell(s, part)).collect())
        .collect();
    table(&owned(&head), &rows)
}

fn two(value: f64) -> String {
    format!("{value:.2}")
}

/// A size as a column's head.
fn size(rows: usize) -> String {
    match rows {
        1 => "1 row".to_owned(),
        rows => format!("{} rows", grouped(rows)),
    }
}

/// One line per codec, one column per size.
fn means(
    results: &Results,
    group: Group,
    figure: impl Fn(&Cell) -> Option<f64> + Copy,
    digits: usize,
) -> String {
    let sizes: Vec<usize> = sizes_of(results, group);
    let mut head = owned(&["codec"]);
    head.extend(sizes.iter().map(|&rows| {
        let sets = results.sets_of(group, rows).len();
        format!("{} ({sets} sets)", size(rows))
    }));
    let rows: Vec<Vec<String>> = results
        .codecs
        .iter()
        .map(|codec| {
            let mut line = vec![codec.name.to_owned()];
            line.extend(sizes.iter().map(|&rows| {
                mean_of(results, group, rows, codec.name, figure)
                    .map_or("-".to_owned(), |mean| format!("{mean:.digits$}"))
            }));
            line
        })
        .collect();
    table(&head, &rows)
}

fn sizes_of(results: &Results, group: Group) -> Vec<usize> {
    let sizes = results.sizes.iter().copied();
    sizes
        .filter(|&rows| !results.sets_of(group, rows).is_empty())
        .collect()
}

/// The largest peak of any set.
fn heap(results: &Results, group: Group) -> String {
    let sizes = sizes_of(results, group);
    let mut head = owned(&["codec"]);
    head.extend(sizes.iter().map(|&rows| size(rows)));
    let rows: Vec<Vec<String>> = results
        .codecs
        .iter()
        .map(|codec| {
            let mut line = vec![codec.name.to_owned()];
            line.extend(sizes.iter().map(|&rows| {
                let cells = || {
                    let sets = results.sets_of(group, rows).into_iter();
                    sets.filter_map(|set| results.cell(set, rows, codec.name))
                };
                let encode = cells().map(|c| c.encode_heap).max().unwrap_or(0);
                let decode = cells().map(|c| c.decode_heap).max().unwrap_or(0);
                format!("{} / {}", encode.div_ceil(1024), decode.div_ceil(1024))
            }));
            line
        })
        .collect();
    table(&head, &rows)
}

fn per_set(results: &Results, group: Group, rows: usize) -> String {
    let sets = results.sets_of(group, rows);
    if sets.is_empty() {
        return String::new();
    }
    let mut head = owned(&["codec"]);
    head.extend(sets.iter().map(|&set| results.sets[set].name.clone()));
    let lines: Vec<Vec<String>> = results
        .codecs
        .iter()
        .map(|codec| {
            let mut line = vec![codec.name.to_owned()];
            line.extend(sets.iter().map(|&set| {
                results
                    .cell(set, rows, codec.name)
                    .map_or("-".to_owned(), |cell| {
                        let mark = if cell.lost.is_some() { "!" } else { "" };
                        format!("{:.3}{mark}", cell.bytes_per_sample())
                    })
            }));
            line
        })
        .collect();
    format!(
        "\nBytes per sample, {} per batch (`!`: not every bit came back):\n\n{}",
        size(rows),
        table(&head, &lines)
    )
}

/// What a session pays once.
fn once(results: &Results, group: Group) -> String {
    let head = owned(&[
        "set",
        "rows coded",
        "columns",
        "our schema, B",
        "dictionary, B",
    ]);
    let sets = results.sets.iter().filter(|set| set.group == group);
    let rows: Vec<Vec<String>> = sets
        .map(|set| {
            vec![
                set.name.clone(),
                grouped(set.rows),
                set.columns.to_string(),
                grouped(set.schema_bytes),
                grouped(set.dictionary_bytes),
            ]
        })
        .collect();
    format!(
        "\nSent once per session, and in no figure above:\n\n{}\n",
        table(&head, &rows)
    )
}

fn exactness(results: &Results) -> String {
    let mut text = String::from("## Exactness and framing\n\n");
    let rows: Vec<Vec<String>> = results
        .codecs
        .iter()
        .map(|codec| {
            let cells = || results.cells.iter().filter(|c| c.codec == codec.name);
            let lost = cells().find(|cell| cell.lost.is_some());
            let verdict = match lost.and_then(|cell| Some((cell, cell.lost.as_ref()?))) {
                None => format!("yes, {} batches", grouped(cells().map(|c| c.batches).sum())),
                Some((cell, lost)) => format!("no: {}, {lost}", results.sets[cell.set].name),
            };
            vec![codec.name.to_owned(), verdict, codec.note.to_owned()]
        })
        .collect();
    let _ = write!(
        text,
        "{}",
        table(&owned(&["codec", "every bit came back", "note"]), &rows)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::codecs::{JSON, POSTCARD, SENT};
    use super::super::summary::tests::results;
    use super::*;

    #[test]
    fn the_summary_replaces_what_is_between_the_markers_and_nothing_else() {
        let results = results(&[
            (SENT, [1_000, 1_000]),
            (POSTCARD, [2_000, 2_000]),
            (JSON, [9_000, 9_000]),
        ]);
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace_summary(&text, &results).unwrap();
        assert!(new.starts_with("before\n<!--") && new.ends_with("-->\nafter\n"));
        assert!(new.contains("**2.00**") && !new.contains("old"), "{new}");
        assert_eq!(replace_summary(&new, &results).unwrap(), new);
        assert!(replace_summary("no markers", &results).is_err());
    }

    #[test]
    fn a_codec_that_lost_a_bit_is_marked_with_the_set_and_the_value() {
        let mut results = results(&[
            (SENT, [1_000, 1_000]),
            (POSTCARD, [2_000, 2_000]),
            (JSON, [9_000, 6_000]),
        ]);
        for cell in &mut results.cells {
            if cell.codec == JSON && cell.set == 1 {
                cell.lost = Some("row 3, column 0".to_owned());
            }
        }
        let text = tables(&results);
        assert!(text.contains("| 3.000 | 2.000! |"), "{text}");
        assert!(text.contains("no: two, row 3, column 0"), "{text}");
    }
}
