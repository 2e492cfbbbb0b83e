//! The hot store as a kind of sink: its settings, and how it comes back from nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use headwater_gate::clock::Clock;
use headwater_program::chain::chain;
use headwater_program::faults::within;
use headwater_program::findings::{Findings, possible_folder};
use headwater_proto::ids::JournalId;
use headwater_proto::time::UnixMicros;
use serde::Deserialize;

use super::{HotSettings, HotSink, HotStore, RefillError};
use crate::background;
use crate::interpret::{Depth, Feed};
use crate::pipeline::undated::ClockBook;
use crate::sink::kind::{Kind, Replay, Rule, Start};
use crate::sink::lake::{self, LakePlace};
use crate::sink::letters::Replayed;
use crate::sink::worker::Worker;
use crate::state::StateError;

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

    fn replay(self, replay: Replay<'_>) -> Result<Replayed> {
        let folder = self.dir.unwrap_or_else(|| replay.state_dir.to_path_buf());
        let (store, _) = HotStore::open(&folder, self.settings)?;
        replay.run(HotSink::apart(store), Depth::Blocks)
    }

    /// One that is required and cannot be opened, or filled when it is empty, is an error; an optional one
    /// stays off, or begins with what the journal holds.
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
        let begin = Beginning {
            lake: site.find::<LakePlace>().cloned(),
            lake_end: site.custody.cursor(lake::NAME).unwrap_or_default(),
            journal,
            is_required: required,
            clock,
            book: site.custody.clock.book(),
        };
        // Custody hears of nothing that is not there: a required one is filled before the gate opens, and
        // an optional one tells with its first delivery.
        let from = match cursor {
            None if required => {
                let filled = begin.fill(&mut hot, &is_stopping);
                Some(
                    filled
                        .context("it is empty, and required: it must be filled before the start")?,
                )
            }
            known => known,
        };
        if let Some(from) = from {
            site.custody.resume(&name, from)?;
        }
        if site.find::<super::HotView>().is_none() {
            site.leave(hot.view());
        }
        let freshness_ms = self.freshness_ms;
        let mut feed = Feed::new(
            site.custody.reader(),
            from.unwrap_or_default(),
            Depth::Blocks,
        )
        .with_clock(site.custody.clock.book());
        start.run_late(move |context| {
            if from.is_none() {
                match begin.fill_or_not(&mut hot, &is_stopping) {
                    Ok(Some(from)) => feed.seek(from),
                    Ok(None) => return Ok(None),
                    Err(error) => {
                        let why = format!("it cannot be emptied: {}", chain(&error));
                        tracing::error!(sink = &*context.name, why, "the sink is off");
                        context.board.sink_ended(&context.name, "open", &why);
                        context.runtime.block_on(context.stop.cancelled());
                        return Ok(None);
                    }
                }
            }
            let from = feed.position();
            let sink = HotSink::new(hot, journal, from, freshness_ms, required).untold();
            Ok(Some(Worker::new(sink, feed)))
        });
        Ok(())
    }
}

/// How a store begins that does not stand where the journal does.
struct Beginning {
    /// The place of the lake, if that was there at the start.
    lake: Option<LakePlace>,
    /// The first position of the journal that the lake does not have.
    lake_end: u64,
    journal: JournalId,
    is_required: bool,
    clock: Clock,
    book: ClockBook,
}

impl Beginning {
    /// Empties the store and fills it from the lake; without a lake it stays empty. Returns where it
    /// goes on in the journal: from where the lake ends, or with what the journal holds.
    fn fill(&self, hot: &mut HotStore, is_stopping: &dyn Fn() -> bool) -> Result<u64, RefillError> {
        hot.begin_anew()?;
        let Some(place) = &self.lake else {
            tracing::warn!("the lake is away: the hot store begins with what the journal holds");
            return Ok(0);
        };
        let now = self.book.now(self.clock.now()).wall;
        let since = UnixMicros(now.0.saturating_sub(hot.keep_us()));
        let lake = place.open_existing()?;
        let filled = hot.refill(&lake, since, now, is_stopping)?;
        if self.is_required && filled.left_out > 0 {
            return Err(RefillError::LeftOut(filled.left_out));
        }
        hot.commit(self.journal, self.lake_end)?;
        tracing::info!(?filled, "hot store filled from the lake");
        Ok(self.lake_end)
    }

    /// As [`Beginning::fill`]; a store that cannot be filled begins with what the journal holds. `None`:
    /// the end came first, and the next start fills it.
    ///
    /// # Errors
    /// When it cannot be emptied of what was filled in part.
    fn fill_or_not(
        &self,
        hot: &mut HotStore,
        is_stopping: &dyn Fn() -> bool,
    ) -> Result<Option<u64>, StateError> {
        match self.fill(hot, is_stopping) {
            Ok(from) => Ok(Some(from)),
            Err(RefillError::Stopped) => Ok(None),
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(why, "the hot store begins with what the journal holds");
                // Else the journal would bring once more what was filled in part.
                hot.begin_anew()?;
                Ok(Some(0))
            }
        }
    }
}

#[cfg(test)]
mod tests;
