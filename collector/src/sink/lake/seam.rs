//! Core: the lake behind the seam of sinks.

use std::future::{Future, ready};
use std::io::ErrorKind;

use headwater_lake::{LakeError, Store, StoreError};
use headwater_program::chain::chain;
use headwater_proto::time::{Millis, Now};

use super::{LakeSink, LakeSinkError, Staged};
use crate::interpret::Interpreted;
use crate::sink::{Delivered, Due, Plan, Sink, SinkError};

/// Time between two catalogs.
const CATALOG_MS: u64 = 60_000;

impl<S: Store + 'static> Sink for LakeSink<S> {
    fn take(&mut self, item: &Interpreted<'_>, now: Now) -> Result<(), SinkError> {
        Ok(Self::take(self, item, now)?)
    }

    fn passed(&mut self, next: u64, now: Now) {
        Self::passed(self, next, now.mono);
    }

    fn due(&self, now: Millis) -> Due {
        if self.is_full() {
            Due::Full
        } else if self.pending.is_some() {
            Due::At(now)
        } else {
            self.due_at().map_or(Due::Never, Due::At)
        }
    }

    fn plan(&mut self, now: Now) -> Result<Option<Plan>, SinkError> {
        match self.stage(now)? {
            Staged::Plan(bytes) => Ok(Some(Plan(bytes))),
            Staged::Empty | Staged::Nothing => Ok(None),
        }
    }

    fn deliver(&mut self, now: Now) -> impl Future<Output = Result<Delivered, SinkError>> + Send {
        // The store's calls are made on this thread.
        ready(self.flush(now))
    }

    fn keep(&mut self, now: Now) -> Result<(), SinkError> {
        if let Some(error) = self.lake_mut().take_trouble() {
            tracing::warn!(%error, "the marks of the lake could not be made; a new journal reads all files");
        }
        Ok(Self::keep(self, now.wall)?)
    }

    fn close(&mut self, now: Now) {
        self.write_catalog(now);
        if let Err(error) = self.lake_mut().release(now.wall.0) {
            tracing::warn!(%error, "the lease on the lake could not be ended; it ends by itself");
        }
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let (rows, totals) = (self.counters(), &self.totals);
        let mut counts = vec![
            ("lake_samples_total", rows.samples),
            ("lake_gaps_total", rows.gaps),
            ("lake_quarantined_total", rows.quarantined),
            ("lake_log_lines_total", rows.log_lines),
            ("lake_samples_committed_total", totals.samples),
            ("lake_files_total", totals.files),
            ("lake_bytes_total", totals.bytes),
            ("lake_flushes_total", totals.flushes),
            ("lake_waiting_bytes", self.waiting_bytes() as u64),
        ];
        counts.extend(self.lake().store().requests());
        counts
    }
}

impl<S: Store> LakeSink<S> {
    fn flush(&mut self, now: Now) -> Result<Delivered, SinkError> {
        let committed = self.publish()?;
        let is_due = |at: Millis| now.mono.since(at) >= CATALOG_MS;
        if self.catalog_at.is_none_or(is_due) {
            self.write_catalog(now);
        }
        Ok(committed.map_or_else(
            || Delivered {
                through: self.cursor(),
                streams: Vec::new(),
            },
            |committed| Delivered {
                through: committed.through,
                streams: committed.streams,
            },
        ))
    }

    fn write_catalog(&mut self, now: Now) {
        self.catalog_at = Some(now.mono);
        if let Err(error) = self.lake_mut().write_catalog() {
            tracing::warn!(%error, "the catalog could not be written");
        }
    }
}

impl From<LakeSinkError> for SinkError {
    fn from(error: LakeSinkError) -> Self {
        let of_store = match &error {
            LakeSinkError::Lake(error) => error.of_store(),
            LakeSinkError::Plan(_) | LakeSinkError::Row { .. } => None,
        };
        let cause = chain(&error);
        let is_denied = |source: &std::io::Error| {
            matches!(
                source.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            )
        };
        match of_store {
            Some(StoreError::Denied {
                action,
                path,
                cause,
                remedy,
            }) => {
                return Self::Denied {
                    cause: format!("cannot {action} {path}: {cause}"),
                    remedy: remedy.clone(),
                };
            }
            Some(StoreError::Io { source, .. }) if is_denied(source) => {
                let remedy = "let the collector's user write the lake".to_owned();
                return Self::Denied { cause, remedy };
            }
            _ => {}
        }
        if matches!(
            error,
            LakeSinkError::Lake(LakeError::Fenced { .. } | LakeError::Lost { .. })
                | LakeSinkError::Row { .. }
        ) {
            return Self::Fatal { cause };
        }
        if error.is_transient() {
            let retry_after = None;
            return Self::Busy { retry_after, cause };
        }
        Self::Broken { cause }
    }
}
