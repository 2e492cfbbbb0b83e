//! The lake as a kind of sink: its settings.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use headwater_lake::{Encoding, LocalStore, StoreError};
use headwater_program::faults::within;
use headwater_program::findings::{Findings, possible_folder};
use headwater_spool::RealDisk;
use serde::Deserialize;

use super::late::Late;
use super::waiting::wait_for_lake;
use super::{LakeSettings, LakeSink};
use crate::interpret::Depth;
use crate::sink::kind::{Kind, Rule, Start};
use crate::sink::worker::Worker;

const MIB: u64 = 1 << 20;

/// Where the lake lies and when rows go there.
#[derive(Debug, Clone)]
pub struct LakeKind {
    /// Folder of the tables.
    pub dir: PathBuf,
    /// When rows go out.
    pub settings: LakeSettings,
}

/// The lake when the journal was opened.
pub(crate) enum AtStart {
    /// It agrees with the journal.
    There(Box<LakeSink<LocalStore>>),
    /// It is away: devices are served meanwhile.
    Away(Box<Late<RealDisk>>),
}

/// The folder of a lake that was there at the start, for sinks that are filled from it.
#[derive(Debug, Clone)]
pub struct LakeFolder(pub PathBuf);

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLake {
    dir: String,
    flush_s: u64,
    flush_mib: u64,
    flush_rows: u64,
    encoding: String,
}

impl Default for RawLake {
    fn default() -> Self {
        Self {
            dir: "/var/lib/headwater-collector/lake".into(),
            flush_s: 60,
            flush_mib: 64,
            flush_rows: 4_000_000,
            encoding: "compact".into(),
        }
    }
}

impl Kind for LakeKind {
    type Raw = RawLake;
    const RULE: Rule = Rule::One(
        "gaps, epochs and what a new journal begins with stand in it, and a device forgets what it has",
    );

    fn check(name: &str, raw: RawLake, problems: &mut Vec<String>) -> Self {
        let key = |key: &str| format!("sink {name}: {key}");
        if raw.dir.is_empty() {
            problems.push(format!("{} is empty: name a folder", key("dir")));
        }
        let why = "small files are slow to read, late ones hold up the devices' disks";
        let flush_s = within(&key("flush_s"), raw.flush_s, 1..=3_600, why, problems);
        let why = "this is memory";
        let flush_mib = within(&key("flush_mib"), raw.flush_mib, 1..=4_096, why, problems);
        let (why, most) = ("each takes about 57 bytes of memory", 64_000_000);
        let rows = within(
            &key("flush_rows"),
            raw.flush_rows,
            1_000..=most,
            why,
            problems,
        );
        let encoding = match raw.encoding.as_str() {
            "compact" => Encoding::Compact,
            "compat" => Encoding::Compat,
            other => {
                problems.push(format!(
                    "{} = {other:?}: must be \"compact\" or \"compat\"",
                    key("encoding")
                ));
                Encoding::Compact
            }
        };
        let settings = LakeSettings {
            lake: headwater_lake::Settings {
                encoding,
                ..headwater_lake::Settings::default()
            },
            take_over: false,
            new_lake: false,
            flush_after_ms: flush_s * 1_000,
            flush_bytes: usize::try_from(flush_mib * MIB).unwrap_or(usize::MAX),
            flush_rows: usize::try_from(rows).unwrap_or(usize::MAX),
        };
        Self {
            dir: raw.dir.into(),
            settings,
        }
    }

    fn place(&self, _: &Path) -> Option<PathBuf> {
        Some(self.dir.clone())
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        if let Err(error) = possible_folder(&self.dir) {
            found.fault(&format!("sink {name}: dir"), self.dir.display(), &error);
        }
    }

    /// The journal was opened beside it, and both agree on what is committed; or the lake is waited for.
    fn start(self, mut start: Start<'_>) -> Result<()> {
        let opened = start.site().take::<AtStart>();
        match opened.ok_or_else(|| anyhow!("the journal was opened without a lake"))? {
            AtStart::There(lake) => {
                start.site().leave(LakeFolder(self.dir));
                start.run(lake.position(), Depth::Samples, move |feed| {
                    Worker::new(*lake, feed)
                });
            }
            AtStart::Away(late) => start.run_late(move |context| {
                wait_for_lake(*late, || existing_lake(&self.dir), context)
            }),
        }
        Ok(())
    }
}

/// The folder of a lake that was there before: it is not made, for it may be a disk that is not mounted.
pub(crate) fn existing_lake(folder: &Path) -> Result<LocalStore, StoreError> {
    std::fs::read_dir(folder).map_err(|source| StoreError::Io {
        action: "list",
        path: folder.display().to_string(),
        source,
    })?;
    LocalStore::new(folder)
}
