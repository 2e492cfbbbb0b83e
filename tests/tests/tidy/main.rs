//! The house rules that a compiler does not check.

mod bounds;
mod circles;
mod debts;
mod mutants;
mod sizes;
mod source;

use source::{root, sources};

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
    for source in sources() {
        if !(source.text.starts_with("//! Core:") || source.path.starts_with("proto/src")) {
            continue;
        }
        cores += 1;
        let code = &source.shipped;
        for word in banned.iter().filter(|word| code.contains(**word)) {
            broken.push(format!("{}: names {word}", source.path.display()));
        }
    }
    assert!(
        cores > 20,
        "only {cores} core files: do they still begin with '//! Core:'?"
    );
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_top_level_holds_what_the_map_names_and_little_else() {
    let known = [
        "agent",
        "collector",
        "crates",
        "cross",
        "firmware",
        "infra",
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
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!(
                    "{}:{}: {}",
                    source.path.display(),
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
