//! `cargo demo`: build both programs beside this one, then hand over to the collector's demo.

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};

/// The programs of the demo; the cloud sinks are not part of it.
const PACKAGES: [&str; 2] = ["headwater-agent", "headwater-collector"];

/// Builds, runs `headwater-collector demo` with `args`, and ends with its exit code.
pub(crate) fn run(args: Vec<String>) -> anyhow::Result<ExitCode> {
    let me = std::env::current_exe().context("cannot find this program's own path")?;
    let folder = me.parent().context("this program has no folder")?;
    // This program lies in <target>/release: the build below goes to the same target folder.
    let target = folder
        .parent()
        .context("this program lies outside a target folder")?;
    build(target.to_path_buf())?;
    let collector = folder.join("headwater-collector");
    let status = Command::new(&collector)
        .arg("demo")
        .arg("--agent")
        .arg(folder.join("headwater-agent"))
        .args(args)
        .status()
        .with_context(|| format!("cannot start {}", collector.display()))?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))),
        None => bail!("the demo was ended by a signal: {status}"),
    }
}

fn build(target: PathBuf) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--target-dir"])
        .arg(target);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let status = command
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!(
            "the build of {} failed; its errors stand above",
            PACKAGES.join(" and ")
        );
    }
    Ok(())
}
