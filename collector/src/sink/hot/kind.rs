//! The hot store as a kind of sink: its settings, and how it comes back from nothing.

use std::path::{Path, PathBuf};

use anyhow::Result;
use headwater_gate::clock::Clock;
use headwater_lake::LocalStore;
use headwater_program::chain::chain;
use headwater_program::faults::within;
use headwater_program::findings::{Findings, possible_folder};
use headwater_proto::ids::JournalId;
use headwater_proto::time::UnixMicros;
use serde::Deserialize;

use super::{HotSettings, HotSink, HotStore};
use crate::background;
use crate::interpret::Depth;
use crate::sink::kind::{Kind, Rule, Start};
use crate::sink::lake::{self, LakeFolder};
use crate::sink::worker::Worker;

const MIB: u64 = 1 << 20;

/// How much of the present a hot store keeps, and where.
#[derive(Debug, Clone)]
pub struct HotKind {
    /// Its folder; `None`: the folder of keyed state.
    pub dir: Option<PathBuf>,
    /// How long and how much it keeps.
    pub settings: HotSettings,
    /// Milliseconds between two commits.
    pub freshness_ms: u64,
}

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHot {
    dir: String,
    keep_hours: u64,
    max_mib: u64,
    freshness_s: u64,
}

impl Default for RawHot {
    fn default() -> Self {
        Self {
            dir: String::new(),
            keep_hours: 24,
            max_mib: 256,
            freshness_s: 1,
        }
    }
}

impl Kind for HotKind {
    type Raw = RawHot;
    const RULE: Rule = Rule::Any { required: false };

    fn check(name: &str, raw: RawHot, problems: &mut Vec<String>) -> Self {
        let key = |key: &str| format!("sink {name}: {key}");
        let why = "the lake keeps the rest";
        let hours = within(&key("keep_hours"), raw.keep_hours, 1..=8_760, why, problems);
        let max = within(&key("max_mib"), raw.max_mib, 16..=65_536, why, problems);
        let why = "each update is a sync of the disk";
        let (key, most) = (key("freshness_s"), 3_600);
        let freshness = within(&key, raw.freshness_s, 1..=most, why, problems);
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Self {
            dir: (!raw.dir.is_empty()).then(|| raw.dir.into()),
            settings: HotSettings {
                keep_us: hours.saturating_mul(3_600_000_000),
                max_bytes: max * MIB,
                // The floor of sled's own memory is higher than a small cache would save.
                cache_bytes: (max * MIB / 16).clamp(8 * MIB, 64 * MIB),
            },
            freshness_ms: freshness * 1_000,
        }
    }

    fn place(&self, state_dir: &Path) -> Option<PathBuf> {
        Some(self.dir.as_deref().unwrap_or(state_dir).to_path_buf())
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        if let Some(dir) = &self.dir
            && let Err(error) = possible_folder(dir)
        {
            found.fault(&format!("sink {name}: dir"), dir.display(), &error);
        }
    }

    /// One that is required and cannot be opened is an error; an optional one stays off.
    fn start(self, mut start: Start<'_>) -> Result<()> {
        let required = start.required();
        let (name, is_stopping) = (start.name().clone(), start.is_stopping());
        let site = start.site();
        let (journal, clock) = (site.custody.journal(), site.clock);
        let folder = self.dir.unwrap_or_else(|| site.state_dir.to_path_buf());
        let open = || {
            if !required {
                // The database's own threads are started here, and step back with this one.
                background::enter();
            }
            HotStore::open(&folder, self.settings)
        };
        let opened = std::thread::scope(|scope| scope.spawn(open).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            .and_then(|(store, found)| Ok((store.cursor(journal)?, store, found)));
        let (cursor, mut hot, found) = match opened {
            Ok(opened) => opened,
            Err(error) if required => return Err(error.into()),
            Err(error) => {
                start.stay_off(&format!("it cannot be opened: {}", chain(&error)));
                return Ok(());
            }
        };
        tracing::info!(sink = &*name, ?found, %journal, "hot store open");
        // Where it stands in a later time of the journal than the disk shows, it begins anew.
        let end = site.custody.log().next();
        let cursor = cursor.filter(|cursor| *cursor <= end);
        // An empty one is filled from the lake, and the journal follows from where the lake ends; or begins
        // with what the journal holds.
        let begin = site.custody.cursor(lake::NAME).unwrap_or_default();
        let lake = site.find::<LakeFolder>().cloned();
        let from = cursor.unwrap_or(if lake.is_some() { begin } else { 0 });
        site.custody.resume(&name, from)?;
        let empty = lake.filter(|_| cursor.is_none());
        if site.find::<super::HotView>().is_none() {
            site.leave(hot.view());
        }
        let freshness_ms = self.freshness_ms;
        start.run(from, Depth::Blocks, move |mut feed| {
            if let Some(LakeFolder(dir)) = empty
                && let Err(error) = refill(&mut hot, &dir, journal, begin, clock, &is_stopping)
            {
                tracing::warn!(%error, "the hot store begins with what the journal holds");
                feed.seek(0);
            }
            let from = feed.position();
            Worker::new(
                HotSink::new(hot, journal, from, freshness_ms, required),
                feed,
            )
        });
        Ok(())
    }
}

/// Fills an empty hot store from the lake; the journal follows from where the lake ends.
fn refill(
    hot: &mut HotStore,
    lake_dir: &Path,
    journal: JournalId,
    begin: u64,
    clock: Clock,
    is_stopping: &dyn Fn() -> bool,
) -> Result<()> {
    let now = clock.now().wall;
    let since = UnixMicros(now.0.saturating_sub(hot.keep_us()));
    let filled = hot.refill(&LocalStore::new(lake_dir)?, since, now, is_stopping)?;
    hot.commit(journal, begin)?;
    tracing::info!(?filled, "hot store filled from the lake");
    Ok(())
}
