//! The programs that are measured, built in release beside this one.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Builds agent, collector and the load of the gate; they are found beside this program.
pub(crate) fn programs() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--target-dir"])
        .arg(target()?)
        .args([
            "-p",
            "headwater-agent",
            "-p",
            "headwater-collector",
            "-p",
            "headwater-gate",
        ])
        .args(["--bins", "--example", "gate_load"])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed; its errors stand above");
    }
    Ok(())
}

/// The load generator of the gate.
pub(crate) fn load() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("HEADWATER_BIN") {
        return Ok(PathBuf::from(folder).join("gate_load"));
    }
    Ok(target()?.join("release/examples/gate_load"))
}

fn target() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folder = me
        .ancestors()
        .nth(2)
        .context("this program lies outside a target folder")?;
    Ok(folder.to_path_buf())
}
