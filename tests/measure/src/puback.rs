//! Durable PUBACKs for stock clients, beside mosquitto, which keeps nothing.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use headwater_tests::process::{Process, free_port, wait_for};
use headwater_tests::site::Site;

use crate::table::Figure;
use crate::{Effort, build};

/// What the load's clients publish is one text: the least that a decoder can do.
pub(crate) const PLAIN: &str =
    "\n[[plain]]\ntopic = \"sensors/{device}/#\"\ndecoder = \"number\"\n";
/// Each broker has its turn this often; the middle one counts.
const TURNS: usize = 3;

pub(crate) fn run(effort: Effort) -> Result<Vec<Figure>> {
    let mut site = Site::new()?;
    PLAIN.clone_into(&mut site.settings);
    site.start_collector()?;
    let port = free_port()?;
    let mosquitto = mosquitto(&site, port)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(load(site.mqtt().port(), effort.puback)?);
        if mosquitto.is_some() {
            theirs.push(load(port, effort.puback)?);
        }
    }
    let Load { rate, p99_ms, .. } = middle(ours);
    let mut figures = vec![
        Figure::new(
            "100 stock clients, 1 KiB, QoS 1: PUBACK after fsync",
            rate,
            "msg/s",
        ),
        Figure::new("  99 of 100 within", p99_ms, "ms"),
    ];
    if mosquitto.is_some() {
        let theirs = middle(theirs);
        let (their_rate, their_p99_ms) = (theirs.rate, theirs.p99_ms);
        figures.push(Figure::new(
            "  mosquitto without persistence",
            their_rate,
            "msg/s",
        ));
        figures.push(Figure::new("  99 of 100 within", their_p99_ms, "ms"));
        figures.push(Figure::new("  the one over the other", rate / their_rate, "x").at_least(1.5));
    }
    Ok(figures)
}

/// What one run of the load saw.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Messages per second.
    pub(crate) rate: f64,
    /// Half of the PUBACKs came within.
    pub(crate) p50_ms: f64,
    /// 99 of 100 came within.
    pub(crate) p99_ms: f64,
}

/// The run whose rate is in the middle.
fn middle(mut runs: Vec<Load>) -> Load {
    runs.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    runs[runs.len() / 2]
}

/// The middle one of some figures.
pub(crate) fn middle_of(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Runs the load against a port.
pub(crate) fn load(port: u16, time: Duration) -> Result<Load> {
    let load = build::load()?;
    let output = Command::new(&load)
        .args([
            "--port",
            &port.to_string(),
            "--seconds",
            &time.as_secs().to_string(),
            "--json",
        ])
        .output()
        .with_context(|| format!("cannot start {}", load.display()))?;
    if !output.status.success() {
        bail!(
            "the load failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |name: &str| {
        said[name]
            .as_f64()
            .with_context(|| format!("no {name} in {said}"))
    };
    Ok(Load {
        rate: number("messages_per_s")?,
        p50_ms: number("p50_ms")?,
        p99_ms: number("p99_ms")?,
    })
}

/// A mosquitto that answers at once and keeps nothing; `None` where it is not installed.
fn mosquitto(site: &Site, port: u16) -> Result<Option<Process>> {
    let found = [
        "/usr/sbin/mosquitto",
        "/usr/bin/mosquitto",
        "/usr/local/sbin/mosquitto",
    ]
    .into_iter()
    .find(|path| std::path::Path::new(path).exists());
    let Some(program) = found else {
        return Ok(None);
    };
    let config = site.folder().join("mosquitto.conf");
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n");
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    let process = Process::start("mosquitto", site.folder(), command.arg("-c").arg(config))?;
    wait_for("mosquitto to listen", || {
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
    })?;
    Ok(Some(process))
}
