//! Core: the sinks as they are written.

use serde::Deserialize;

use super::{Encoding, Hot, HotSettings, LakeSettings, MIB, custody, folder, within};
use crate::sink::hot;
use crate::sink::lake;

/// One `[[sink]]`. A key that its kind does not have is a fault.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSink {
    kind: String,
    name: Option<String>,
    required: Option<bool>,
    dir: Option<String>,
    flush_s: Option<u64>,
    flush_mib: Option<u64>,
    flush_rows: Option<u64>,
    encoding: Option<String>,
    keep_hours: Option<u64>,
    max_mib: Option<u64>,
    freshness_s: Option<u64>,
}

/// The sinks that are there when none is written.
pub(super) fn defaults() -> Vec<RawSink> {
    let of = |kind: &str| RawSink {
        kind: kind.to_owned(),
        ..RawSink::default()
    };
    vec![of(lake::NAME), of(hot::NAME)]
}

/// The valid sinks.
pub(super) struct Sinks {
    pub(super) lake_dir: std::path::PathBuf,
    pub(super) lake: LakeSettings,
    pub(super) hot: Option<Hot>,
    pub(super) specs: Vec<custody::SinkSpec>,
}

/// The valid sinks, and a line in `problems` for each thing the operator must fix.
pub(super) fn check(sinks: &[RawSink], problems: &mut Vec<String>) -> Sinks {
    let mut valid = Sinks {
        lake_dir: std::path::PathBuf::new(),
        lake: LakeSettings::default(),
        hot: None,
        specs: Vec::new(),
    };
    let (mut lakes, mut hots) = (0, 0);
    for sink in sinks {
        let name = sink.name(problems);
        let required = match sink.kind.as_str() {
            lake::NAME => {
                lakes += 1;
                (valid.lake_dir, valid.lake) = sink.lake(&name, problems);
                true
            }
            hot::NAME => {
                hots += 1;
                valid.hot = Some(sink.hot(&name, problems));
                false
            }
            other => {
                problems.push(format!(
                    "sink {name}: kind = {other:?}: must be \"lake\" or \"hot\""
                ));
                continue;
            }
        };
        if sink.required.is_some_and(|wanted| wanted != required) {
            let why = if required {
                "a device forgets what the lake has"
            } else {
                "it is an index that is filled again from the lake"
            };
            problems.push(format!(
                "sink {name}: required must be {required} for kind = {:?}: {why}",
                sink.kind
            ));
        }
        valid.specs.push(custody::SinkSpec { name, required });
    }
    if lakes != 1 {
        problems.push(format!(
            "sink: {lakes} sinks with kind = \"lake\"; there must be one"
        ));
    }
    if hots > 1 {
        problems.push(format!(
            "sink: {hots} sinks with kind = \"hot\"; there may be one"
        ));
    }
    valid
}

impl RawSink {
    fn name(&self, problems: &mut Vec<String>) -> String {
        let kind = &self.kind;
        if let Some(name) = self.name.as_ref().filter(|name| *name != kind) {
            // The journal knows a sink's plan and cursor by its name.
            problems.push(format!(
                "sink {name}: name must be {kind:?} while there is one sink of each kind"
            ));
        }
        kind.clone()
    }

    /// A line in `problems` for each of `keys` that is written though the kind does not have it.
    fn refuse(&self, name: &str, keys: &[(&str, bool)], problems: &mut Vec<String>) {
        for (key, _) in keys.iter().filter(|(_, is_there)| *is_there) {
            problems.push(format!(
                "sink {name}: {key} is no setting of kind = {:?}",
                self.kind
            ));
        }
    }

    fn lake(&self, name: &str, problems: &mut Vec<String>) -> (std::path::PathBuf, LakeSettings) {
        let others = [
            ("keep_hours", self.keep_hours.is_some()),
            ("max_mib", self.max_mib.is_some()),
            ("freshness_s", self.freshness_s.is_some()),
        ];
        self.refuse(name, &others, problems);
        let key = |key: &str| format!("sink {name}: {key}");
        let dir = self.dir.as_deref();
        let dir = dir.unwrap_or("/var/lib/headwater-collector/lake");
        let dir = folder(&key("dir"), dir, problems);
        let why = "small files are slow to read, late ones hold up the devices' disks";
        let flush_s = self.flush_s.unwrap_or(60);
        let flush_s = within(&key("flush_s"), flush_s, 1..=3_600, why, problems);
        let why = "this is memory";
        let flush_mib = self.flush_mib.unwrap_or(64);
        let flush_mib = within(&key("flush_mib"), flush_mib, 1..=4_096, why, problems);
        let why = "each takes about 57 bytes of memory";
        let rows = self.flush_rows.unwrap_or(4_000_000);
        let rows = within(&key("flush_rows"), rows, 1_000..=64_000_000, why, problems);
        let encoding = match self.encoding.as_deref() {
            None | Some("compact") => Encoding::Compact,
            Some("compat") => Encoding::Compat,
            Some(other) => {
                problems.push(format!(
                    "sink {name}: encoding = {other:?}: must be \"compact\" or \"compat\""
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
            flush_after_ms: flush_s * 1_000,
            flush_bytes: usize::try_from(flush_mib * MIB).unwrap_or(usize::MAX),
            flush_rows: usize::try_from(rows).unwrap_or(usize::MAX),
        };
        (dir, settings)
    }

    fn hot(&self, name: &str, problems: &mut Vec<String>) -> Hot {
        let others = [
            ("dir", self.dir.is_some()),
            ("flush_s", self.flush_s.is_some()),
            ("flush_mib", self.flush_mib.is_some()),
            ("flush_rows", self.flush_rows.is_some()),
            ("encoding", self.encoding.is_some()),
        ];
        self.refuse(name, &others, problems);
        let key = |key: &str| format!("sink {name}: {key}");
        let why = "the lake keeps the rest";
        let hours = self.keep_hours.unwrap_or(24);
        let hours = within(&key("keep_hours"), hours, 1..=8_760, why, problems);
        let max = self.max_mib.unwrap_or(256);
        let max = within(&key("max_mib"), max, 16..=65_536, why, problems);
        let why = "each update is a sync of the disk";
        let freshness = self.freshness_s.unwrap_or(1);
        let freshness = within(&key("freshness_s"), freshness, 1..=3_600, why, problems);
        let hours = i64::try_from(hours).unwrap_or(i64::MAX);
        Hot {
            settings: HotSettings {
                keep_us: hours.saturating_mul(3_600_000_000),
                max_bytes: max * MIB,
                // The floor of sled's own memory is higher than a small cache would save.
                cache_bytes: (max * MIB / 16).clamp(8 * MIB, 64 * MIB),
            },
            freshness_ms: freshness * 1_000,
        }
    }
}
