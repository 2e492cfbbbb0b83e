//! The house rules that a compiler does not check.

use std::path::{Path, PathBuf};

/// Longest source file; a longer one holds more than one thought.
const MAX_LINES: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the project")
        .to_path_buf()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .expect("an entry has a name")
                .to_string_lossy()
                .into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("a source file is text");
                found.push((
                    path.strip_prefix(root())
                        .expect("below the root")
                        .to_path_buf(),
                    text,
                ));
            }
        }
    }
    assert!(
        found.len() > 50,
        "the walk found only {} files",
        found.len()
    );
    found
}

/// The code above the unit tests, without comments.
fn shipped(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn core_files_have_no_clock_no_socket_no_file_and_no_task() {
    let banned = [
        "tokio::",
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "thread::spawn",
        "thread::sleep",
        "thread::scope",
        "Instant::now",
        "SystemTime::now",
        "rand::",
    ];
    let mut cores = 0;
    let mut broken = Vec::new();
    for (path, text) in sources() {
        if !(text.starts_with("//! Core:") || path.starts_with("proto/src")) {
            continue;
        }
        cores += 1;
        let code = shipped(&text);
        for word in banned.iter().filter(|word| code.contains(**word)) {
            broken.push(format!("{}: names {word}", path.display()));
        }
    }
    assert!(
        cores > 20,
        "only {cores} core files: do they still begin with '//! Core:'?"
    );
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(
        long.is_empty(),
        "above {MAX_LINES} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| !(text.starts_with("//!") || text.starts_with("#![no_main]")))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(
        silent.is_empty(),
        "without a first line '//! ...':\n{}",
        silent.join("\n")
    );
}

#[test]
fn the_top_level_holds_what_the_map_names_and_little_else() {
    let known = [
        "agent",
        "collector",
        "crates",
        "cross",
        "firmware",
        "proto",
        "tests",
        "target",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "SECURITY.md",
        "clippy.toml",
        "deny.toml",
        "rustfmt.toml",
    ];
    for entry in std::fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || known.contains(&name.as_str()),
            "{name} is not on the map"
        );
    }
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "SECURITY.md",
    ] {
        assert!(root().join(name).exists(), "{name} is missing");
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!(
                    "{}:{}: {}",
                    path.display(),
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_agent_stays_free_of_the_collectors_heavy_parts() {
    let output = std::process::Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--package",
            "headwater-agent",
            "--edges",
            "normal",
        ])
        .args(["--prefix", "none"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("headwater-spool"), "cargo tree said: {tree}");
    for banned in [
        "arrow-array ",
        "parquet ",
        "rumqttd ",
        "aws-config ",
        "aws-lc-rs ",
        "sled ",
        "regex-automata ",
    ] {
        assert!(!tree.contains(banned), "the agent's tree holds {banned}");
    }
}
