//! The lake as a kind of sink: its settings.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use headwater_aws::{Bucket, RawBucket};
use headwater_lake::{Encoding, Store as _, StoreError};
use headwater_program::chain::chain;
use headwater_program::faults::within;
use headwater_program::findings::{Findings, possible_folder};
use headwater_spool::RealDisk;
use serde::Deserialize;

use super::late::Late;
use super::place::{LakePlace, LakeStore};
use super::waiting::wait_for_lake;
use super::{LakeSettings, LakeSink};
use crate::interpret::Depth;
use crate::sink::kind::{Kind, Rule, Start};
use crate::sink::worker::Worker;

const MIB: u64 = 1 << 20;

/// Where the lake lies and when rows go there.
#[derive(Debug, Clone)]
pub struct LakeKind {
    /// Where the tables are.
    pub place: LakePlace,
    /// When rows go out.
    pub settings: LakeSettings,
}

/// The lake when the journal was opened.
pub(crate) enum AtStart {
    /// It agrees with the journal.
    There(Box<LakeSink<LakeStore>>),
    /// It is away: devices are served meanwhile.
    Away(Box<Late<RealDisk>>),
}

/// Folder of the lake unless another place is named.
const DIR: &str = "/var/lib/headwater-collector/lake";

/// As it is written in a configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawLake {
    dir: Option<String>,
    url: Option<String>,
    region: String,
    endpoint: String,
    profile: String,
    stage_dir: String,
    storage_class: String,
    kms_key: String,
    flush_s: u64,
    flush_mib: u64,
    flush_rows: u64,
    encoding: String,
}

impl Default for RawLake {
    fn default() -> Self {
        Self {
            dir: None,
            url: None,
            region: String::new(),
            endpoint: String::new(),
            profile: String::new(),
            stage_dir: String::new(),
            storage_class: String::new(),
            kms_key: String::new(),
            flush_s: 60,
            flush_mib: 64,
            flush_rows: 4_000_000,
            encoding: "compact".into(),
        }
    }
}

impl RawLake {
    /// Where the lake lies. Adds a line to `problems` for each fault.
    fn place(self, name: &str, problems: &mut Vec<String>) -> LakePlace {
        let key = |key: &str| format!("sink {name}: {key}");
        let bucket = RawBucket {
            region: self.region,
            endpoint: self.endpoint,
            profile: self.profile,
            stage_dir: self.stage_dir,
            storage_class: self.storage_class,
            kms_key: self.kms_key,
        };
        match (self.dir, self.url) {
            (dir, None) => {
                if bucket != RawBucket::default() {
                    problems.push(format!(
                        "sink {name}: region, endpoint, profile, stage_dir, storage_class and kms_key are of a lake \
                         in S3: name its url, or leave them out"
                    ));
                }
                let dir = dir.unwrap_or_else(|| DIR.to_owned());
                if dir.is_empty() {
                    problems.push(format!("{} is empty: name a folder", key("dir")));
                }
                LakePlace::Folder(dir.into())
            }
            (dir, Some(url)) => {
                if dir.is_some() {
                    let (dir, url) = (key("dir"), key("url"));
                    problems.push(format!(
                        "{dir} and {url}: a lake lies in one place, leave one out"
                    ));
                }
                Bucket::check(name, &url, bucket, problems).map_or_else(
                    || LakePlace::Folder(DIR.into()),
                    |it| LakePlace::Bucket(Box::new(it)),
                )
            }
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
        let flush_rows = usize::try_from(rows).unwrap_or(usize::MAX);
        let settings = LakeSettings {
            lake: headwater_lake::Settings {
                encoding,
                ..headwater_lake::Settings::default()
            },
            take_over: false,
            new_lake: false,
            flush_after_ms: flush_s * 1_000,
            flush_bytes: usize::try_from(flush_mib * MIB).unwrap_or(usize::MAX),
            flush_rows,
        };
        let place = raw.place(name, problems);
        Self { place, settings }
    }

    fn place(&self, _: &Path) -> Option<PathBuf> {
        self.place.folder().map(Path::to_path_buf)
    }

    fn examine(&self, name: &str, found: &mut Findings) {
        let key = |key: &str| format!("sink {name}: {key}");
        let of_folder = match &self.place {
            LakePlace::Folder(_) => "dir",
            LakePlace::Bucket(_) => "stage_dir",
        };
        if let Some(folder) = self.place.folder()
            && let Err(error) = possible_folder(folder)
        {
            found.fault(&key(of_folder), folder.display(), &error);
        }
        if let LakePlace::Bucket(bucket) = &self.place {
            // A harmless request: what a start would meet.
            let listed =
                headwater_aws::open(&bucket.reader()).and_then(|store| store.list_some("", 1));
            match listed {
                Ok(_) => {}
                Err(error @ StoreError::Denied { .. }) => found.fault(&key("url"), bucket, &error),
                Err(error) => found.warn(&key("url"), bucket, &chain(&error)),
            }
        }
    }

    /// The journal was opened beside it, and both agree on what is committed; or the lake is waited for.
    fn start(self, mut start: Start<'_>) -> Result<()> {
        let opened = start.site().take::<AtStart>();
        match opened.ok_or_else(|| anyhow!("the journal was opened without a lake"))? {
            AtStart::There(lake) => {
                start.site().leave(self.place);
                start.run(lake.position(), Depth::Samples, move |feed| {
                    Worker::new(*lake, feed)
                });
            }
            AtStart::Away(late) => start.run_late(move |context| {
                wait_for_lake(*late, || self.place.open_existing(), context)
            }),
        }
        Ok(())
    }
}
