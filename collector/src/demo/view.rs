//! Core: what a person sees while the demo runs.

use std::fmt::Write as _;

/// One agent as its status file tells.
#[derive(Debug, Clone, Default)]
pub(super) struct DeviceLine {
    /// Its device id.
    pub(super) name: String,
    /// What feeds it: this machine, or the generator.
    pub(super) source: &'static str,
    /// Samples that its spool made durable, over all its lives.
    pub(super) samples: u64,
    /// Records that are not yet committed.
    pub(super) backlog: u64,
    /// Times that it was killed.
    pub(super) kills: u32,
    /// Whether it has a session with the collector.
    pub(super) connected: bool,
}

/// One look at the whole chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// Seconds since the start.
    pub(super) elapsed_s: f64,
    /// Seconds that the generators feed.
    pub(super) seconds: u64,
    /// What happens now.
    pub(super) phase: &'static str,
    /// Samples per second that reached the collector's disk since the look before.
    pub(super) samples_per_s: f64,
    /// Samples that reached the collector's disk.
    pub(super) samples: u64,
    /// Bytes of MQTT payload that reached the collector.
    pub(super) bytes_on_wire: u64,
    /// Samples that are committed in the lake.
    pub(super) samples_in_lake: u64,
    /// Parquet files of the samples table.
    pub(super) lake_files: u64,
    /// Their bytes.
    pub(super) lake_bytes: u64,
    /// Processes killed so far.
    pub(super) kills: u32,
    /// Each agent.
    pub(super) devices: Vec<DeviceLine>,
}

/// Most agents that the table shows; the rest is a count.
const MAX_LINES: usize = 14;
/// Width of the progress bar in characters.
const BAR: usize = 30;

/// The table for a terminal.
#[must_use]
pub(super) fn table(look: &Look) -> String {
    let mut out = String::new();
    let done = (look.elapsed_s / look.seconds.max(1) as f64).clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to BAR"
    )]
    let full = (done * BAR as f64) as usize;
    let bar = format!("{}{}", "#".repeat(full), ".".repeat(BAR - full));
    let _ = writeln!(
        out,
        "headwater demo   [{bar}] {:5.1} of {} s   {}",
        look.elapsed_s, look.seconds, look.phase
    );
    let _ = writeln!(out);
    let _ = writeln!(
        out,
        "  collector  {:>9} samples/s   {:>11} samples   {:>9} on the wire   {} B/sample",
        count(look.samples_per_s.max(0.0).round()),
        look.samples,
        bytes(look.bytes_on_wire),
        ratio(look.bytes_on_wire, look.samples)
    );
    let _ = writeln!(
        out,
        "  lake       {:>9} files       {:>11} samples   {:>9} on disk       {} B/sample",
        look.lake_files,
        look.samples_in_lake,
        bytes(look.lake_bytes),
        ratio(look.lake_bytes, look.samples_in_lake)
    );
    let _ = writeln!(out, "  killed     {:>9} processes\n", look.kills);
    let _ = writeln!(
        out,
        "  {:<16} {:<13} {:>10} {:>9} {:>6}  link",
        "device", "fed by", "samples", "backlog", "kills"
    );
    for device in look.devices.iter().take(MAX_LINES) {
        let _ = writeln!(
            out,
            "  {:<16} {:<13} {:>10} {:>9} {:>6}  {}",
            device.name,
            device.source,
            device.samples,
            device.backlog,
            device.kills,
            if device.connected { "up" } else { "down" }
        );
    }
    if look.devices.len() > MAX_LINES {
        let _ = writeln!(out, "  and {} more", look.devices.len() - MAX_LINES);
    }
    out
}

/// One line, for logs and pipes.
#[must_use]
pub(super) fn line(look: &Look) -> String {
    let backlog: u64 = look.devices.iter().map(|device| device.backlog).sum();
    format!(
        "{:6.1} s  {:<22} {:>9} samples/s  {} received  {} in the lake  backlog {} records  {} \
         killed",
        look.elapsed_s,
        look.phase,
        count(look.samples_per_s.max(0.0).round()),
        look.samples,
        look.samples_in_lake,
        backlog,
        look.kills
    )
}

/// Bytes in the unit that leaves one to three digits before the point.
#[must_use]
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn count(value: f64) -> String {
    if value < 1e6 {
        format!("{value:.0}")
    } else {
        format!("{:.2} M", value / 1e6)
    }
}

fn ratio(bytes: u64, samples: u64) -> String {
    if samples == 0 {
        "-".into()
    } else {
        format!("{:.2}", bytes as f64 / samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_fleet_keeps_the_table_on_one_screen() {
        let devices = vec![
            DeviceLine {
                name: "demo-001".into(),
                ..Default::default()
            };
            200
        ];
        let text = table(&Look {
            seconds: 20,
            devices,
            ..Default::default()
        });
        assert!(text.lines().count() <= 24, "{text}");
        assert!(text.contains(&format!("and {} more", 200 - MAX_LINES)));
    }

    #[test]
    fn an_empty_start_divides_nothing_by_zero() {
        assert!(table(&Look::default()).contains("- B/sample"));
        assert!(line(&Look::default()).contains("0 received"));
    }

    #[test]
    fn bytes_take_the_unit_that_reads_best() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
    }
}
