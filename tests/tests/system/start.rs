//! A program that cannot start says why at once, and names the cause.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use headwater_program::clock::Clock;
use headwater_tests::process::program;
use headwater_tests::site::at_a_site;

/// Longest that a program may take to say that it cannot start, in milliseconds.
const MOST_MS: u64 = 2_000;

fn text_of(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn a_collector_whose_port_is_taken_says_who_holds_it_and_ends() {
    at_a_site(|site| {
        for section in ["gate", "http"] {
            let other = TcpListener::bind("127.0.0.1:0")?;
            let taken = other.local_addr()?;
            let config = site.folder().join("taken.toml");
            let free = |name: &str| if name == section { taken.port() } else { 0 };
            let text = format!(
                "data_dir = {:?}\n[gate]\nlisten = \"127.0.0.1:{}\"\n[http]\nlisten = \
                 \"127.0.0.1:{}\"\n[[sink]]\nkind = \"lake\"\ndir = {:?}\n",
                site.data(),
                free("gate"),
                free("http"),
                site.lake()
            );
            std::fs::write(&config, text)?;
            let clock = Clock::start();
            let ended = Command::new("timeout")
                .args(["-s", "KILL", "20"])
                .arg(program("headwater-collector")?)
                .args(["run", "--config"])
                .arg(&config)
                .output()?;
            let took_ms = clock.mono().0;
            let told = text_of(&ended);
            ensure!(took_ms < MOST_MS, "{section}: took {took_ms} ms\n{told}");
            ensure!(ended.status.code() == Some(2), "{}\n{told}", ended.status);
            let last = told.lines().last().unwrap_or_default();
            let me = format!("(process {}) holds", std::process::id());
            ensure!(
                last.contains(&taken.to_string()) && last.contains(&me),
                "{section}: {told}"
            );
        }
        Ok(())
    });
}

/// Exit code and output of `headwater-agent --check`.
#[test]
fn a_required_sink_that_cannot_be_opened_ends_the_start_and_an_optional_one_is_off() {
    at_a_site(|site| {
        let file = site.folder().join("file");
        std::fs::write(&file, "")?;
        // The settings go on in the table of the hot store.
        let dir = format!("dir = {:?}\n", file.join("hot"));
        site.settings = dir.clone();
        site.start_collector()?;
        let (_, told) = site.http("/readyz")?;
        ensure!(told.contains("sink hot is broken"), "{told}");
        site.stop_collector()?;
        site.settings = format!("required = true\n{dir}");
        let told = match site.start_collector() {
            Ok(()) => "it started".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        ensure!(told.contains("the collector ended"), "{told}");
        ensure!(told.contains("sink hot cannot be opened"), "{told}");
        Ok(())
    });
}

fn check(config: &Path) -> Result<(Option<i32>, String)> {
    let output = Command::new(program("headwater-agent")?)
        .args(["--check", "--config"])
        .arg(config)
        .output()?;
    Ok((output.status.code(), text_of(&output)))
}

#[test]
fn check_names_every_part_of_an_agent_that_cannot_work() {
    at_a_site(|site| {
        let config = site.folder().join("agent.toml");
        let text = "[log]\nlevel = \"warning\"\n[collector]\naddress = \"mqtt://broker:1883\"\n\
                    insecure = true\nuser = \"a\"\npassword_file = \"/no/such/password\"\n[text]\n\
                    dictionary = \"/no/such/dictionary\"\n[[file]]\nname = \"folder\"\npath = \
                    \"/tmp\"\n[[file]]\nname = \"pattern\"\npath = \"/no/such/*.log\"\n[[replay]]\n\
                    name = \"rows\"\npath = \"/no/such/rows.csv\"\n[[exec]]\nname = \"probe\"\n\
                    command = [\"/no/such/program\"]\n";
        std::fs::write(&config, text)?;
        let (code, told) = check(&config)?;
        ensure!(code == Some(2), "{code:?}\n{told}");
        for (expected, count) in [
            ("log.level = \"warning\"", 1),
            ("collector.address = \"mqtt://broker:1883\"", 1),
            ("collector.password_file = \"/no/such/password\"", 1),
            ("text.dictionary = \"/no/such/dictionary\"", 1),
            ("file.folder.path = \"/tmp\"", 1),
            ("warning: file.pattern.path", 1),
            ("replay.rows.path", 1),
            ("exec.probe.command", 1),
            ("warning: ", 1),
        ] {
            let found = told.matches(expected).count();
            ensure!(
                found == count,
                "{expected:?} is told {found} times in:\n{told}"
            );
        }
        Ok(())
    });
}

#[test]
fn check_judges_the_cases_from_the_field() {
    let Some(cases) = std::env::var_os("HEADWATER_CASES").map(PathBuf::from) else {
        // tests/run says that they were left out.
        return;
    };
    at_a_site(|_| {
        let cases = cases.join("config");
        let (code, told) = check(&cases.join("c01-log-level-warning-silences-everything.toml"))?;
        ensure!(
            code == Some(2) && told.contains("error, warn, info"),
            "{told}"
        );
        let (code, told) = check(&cases.join("c03-agent-passes-check-and-never-reads.toml"))?;
        ensure!(code == Some(2), "{told}");
        for name in [
            "warning: file.glob.",
            "file.dir.",
            "file.rel.",
            "replay.r.",
            "exec.e.",
            "text.dictionary",
            "collector.address",
            "collector.password_file",
        ] {
            told.lines()
                .find(|line| line.contains(name))
                .with_context(|| format!("{name} is not told in:\n{told}"))?;
        }
        Ok(())
    });
}
