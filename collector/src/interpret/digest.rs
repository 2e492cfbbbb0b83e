//! Core: the digest of a record: what the lake's rows of it add up to, if they are right.
//!
//! It is made here, from what every sink is handed, and not from the rows of the lake: so the audit finds
//! out what became of them on the way to its files, too.

use headwater_lake::row_hash::{LineFields, RefusedFields, RowHasher, SampleFields};

use super::time::class_of;
use super::{Interpreted, Refused};

/// The digest of a record that has samples or log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Samples of the whole record, or its log lines.
    pub samples: u32,
    /// Of those that are believed, and of log lines.
    pub stored: u64,
    /// Of what is refused and stands for samples; `None`: nothing.
    pub quarantined: Option<u64>,
    /// The latest time of a sample or line, or that of receipt where something is refused.
    pub t_last_us: i64,
}

impl Interpreted<'_> {
    /// The digest of its samples and lines; `None` if it has neither, nor a refusal that stands for
    /// samples. Reads all of them.
    ///
    /// - `refused`: all that it refuses.
    #[must_use]
    pub fn digest(&self, refused: &[Refused<'_>]) -> Option<Digest> {
        let origin = self.origin?;
        let mut hasher = RowHasher::default();
        let (mut stored, mut quarantined) = (0, None);
        let mut t_last_us = None;
        let device = self.news.device.unwrap_or_default();
        for sample in self.samples.iter() {
            let hash = hasher.sample(&SampleFields {
                row: sample.row,
                ts_us: sample.ts_us,
                value: Some(sample.value),
                time_err_ms: sample.error_ms.map(i64::from),
                time_class: class_of(sample.class).name(),
                metric: sample.metric,
                tags: (!sample.tags.is_empty()).then_some(sample.tags),
                site: device.site,
                device_type: device.device_type,
            });
            stored = u64::wrapping_add(stored, hash);
            t_last_us = t_last_us.max(Some(sample.ts_us));
        }
        for line in self.lines.iter() {
            let hash = hasher.line(&LineFields {
                line: line.line,
                ts_us: line.ts_us,
                told_us: line.told_us,
                time_err_ms: line.clock.error_ms.map(i64::from),
                time_class: class_of(line.clock.class).name(),
                level: None,
                source: (!line.source.is_empty()).then_some(line.source),
                message: &line.message,
            });
            stored = u64::wrapping_add(stored, hash);
            t_last_us = t_last_us.max(Some(line.ts_us));
        }
        for refused in refused.iter().filter(|refused| refused.samples > 0) {
            let hash = hasher.refused(&RefusedFields {
                row: refused.row,
                at_us: origin.at.0,
                samples: i32::try_from(refused.samples).unwrap_or(i32::MAX),
                metric: refused.metric.as_deref(),
                reason: refused.reason.name(),
                payload: Some(&refused.payload),
            });
            quarantined = Some(u64::wrapping_add(quarantined.unwrap_or(0), hash));
            t_last_us = t_last_us.max(Some(origin.at.0));
        }
        t_last_us.map(|t_last_us| Digest {
            samples: self.batch_samples().saturating_add(self.lines.len()),
            stored,
            quarantined,
            t_last_us,
        })
    }
}
