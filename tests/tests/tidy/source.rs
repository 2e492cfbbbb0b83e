//! The project's source files as these tests see them: code without comments, texts and unit tests.

use std::path::{Path, PathBuf};

/// One Rust file.
pub(crate) struct Source {
    /// Below the project's root.
    pub(crate) path: PathBuf,
    /// As it is written.
    pub(crate) text: String,
    /// With spaces for all that stands in comments and quotes; places and lines stay.
    pub(crate) code: String,
    /// As `code`, with spaces for unit tests as well.
    pub(crate) shipped: String,
}

/// One package with its library or program.
pub(crate) struct Crate {
    /// Its folder below the root.
    pub(crate) folder: PathBuf,
    /// The files below its `src`, with the path of the module that each holds: the root's is empty.
    pub(crate) modules: Vec<(Vec<String>, Source)>,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the project")
        .to_path_buf()
}

/// Every Rust file of the project.
pub(crate) fn sources() -> Vec<Source> {
    let mut found: Vec<Source> = files(&root(), "rs").into_iter().map(read).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        found.len() > 50,
        "the walk found only {} files",
        found.len()
    );
    found
}

fn read(path: PathBuf) -> Source {
    let text = std::fs::read_to_string(root().join(&path)).expect("a source file is text");
    let code = blank(&text);
    let shipped = without_tests(&code);
    Source {
        path,
        text,
        code,
        shipped,
    }
}

/// The packages that hold more than tests and measurements of others.
pub(crate) fn crates() -> Vec<Crate> {
    let mut all = Vec::new();
    let manifests = files(&root(), "toml");
    let folders = manifests
        .iter()
        .filter(|path| path.ends_with("Cargo.toml"))
        .filter_map(|path| path.parent())
        .filter(|folder| root().join(folder).join("src").is_dir());
    for folder in folders {
        let src = folder.join("src");
        let modules = files(&root().join(&src), "rs")
            .into_iter()
            .map(|path| {
                (
                    module_of(path.strip_prefix(&src).expect("below src")),
                    read(path),
                )
            })
            .collect();
        all.push(Crate {
            folder: folder.to_path_buf(),
            modules,
        });
    }
    assert!(all.len() > 8, "the walk found only {} packages", all.len());
    all
}

impl Source {
    /// Whether the whole file is a test: an integration test, or the tests of a module in a file of
    /// their own.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.iter().map(|part| part.to_string_lossy());
        // The first may be the folder of the package that tests the others.
        parts.next();
        parts.any(|part| part == "tests" || part == "tests.rs")
    }
}

/// `config/raw.rs` and `config/mod.rs` as the modules they are.
fn module_of(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    let last = parts.last().map(String::as_str);
    if last == Some("mod") || (parts.len() == 1 && matches!(last, Some("lib" | "main"))) {
        parts.pop();
    }
    parts
}

/// Paths below the root of all files with this ending.
fn files(below: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![below.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("an entry has a name");
            if path.is_dir() {
                if !name.to_string_lossy().starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_path_buf(),
                );
            }
        }
    }
    found.sort();
    found
}

/// `text` with spaces for everything in comments and quotes.
pub(crate) fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment_len(rest),
            '"' => quote_len(rest),
            '\'' => char_len(rest),
            'r' | 'b' | 'c' if !out.ends_with(is_of_name) => raw_quote_len(rest),
            _ => 0,
        };
        if len == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (hidden, after) = rest.split_at(len);
        out.extend(hidden.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        rest = after;
    }
    out
}

pub(crate) fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        match here {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quote_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character in quotes; 0 for a lifetime.
fn char_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3.min(text.len())..].find('\'').map_or(0, |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// The length of a raw quote such as `r#".."#`; 0 for anything else.
fn raw_quote_len(text: &str) -> usize {
    let prefix = text.trim_start_matches(['b', 'c']);
    let Some(fence) = prefix.strip_prefix('r') else {
        return 0;
    };
    let inner = fence.trim_start_matches('#');
    let hashes = fence.len() - inner.len();
    if text.len() - prefix.len() > 1 || !inner.starts_with('"') {
        return 0;
    }
    let begin = text.len() - inner.len() + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    text[begin..]
        .find(&end)
        .map_or(text.len(), |at| begin + at + end.len())
}

/// The place of the bracket that closes the one at `open`.
pub(crate) fn closing(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len() - 1
}

/// `code` with spaces for the items that are compiled for unit tests alone.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut rest = code.to_owned();
    while let Some(begin) = rest.find(MARK) {
        let after = begin + MARK.len();
        let end = match rest[after..].find([';', '{']) {
            Some(at) if rest.as_bytes()[after + at] == b'{' => closing(&rest, after + at),
            Some(at) => after + at,
            None => rest.len() - 1,
        };
        let hidden: String = rest[begin..=end]
            .bytes()
            .map(|b| if b == b'\n' { '\n' } else { ' ' })
            .collect();
        rest.replace_range(begin..=end, &hidden);
    }
    rest
}

/// Where `word` stands in `code` as a whole name.
pub(crate) fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| {
            let (before, after) = (&code[..*at], &code[at + word.len()..]);
            !before.ends_with(is_of_name) && !after.starts_with(is_of_name)
        })
}

#[test]
fn comments_and_quotes_do_not_count_as_code() {
    let text = "a // {\n\"{ \\\" {\" b'{' '\\'' 'c r##\"{\"#\"## /* { /* */ { */ d::<'a>";
    let code = blank(text);
    assert_eq!(code.len(), text.len());
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>(),
        ["a", "b", "'c", "d::<'a>"]
    );
    let code = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { {} } }\nfn c() {}";
    let shipped = without_tests(code);
    assert!(
        shipped.contains("fn c") && !shipped.contains("fn b"),
        "{shipped}"
    );
}
