//! Core: the head of a lake: one object that names the newest version of each log.
//!
//! Its owner replaces it after each commit. A start reads it, and the logs from there on: a crash
//! between a commit and the head is normal. A version that is missing at or below it is a hole, and
//! nothing is committed over that. `_headwater/head.json` is one JSON object:
//!
//! | field | what |
//! |---|---|
//! | `head_version` | 2 |
//! | `owner`, `term` | who wrote it: journal and term, as in [`crate::owner`] |
//! | `tables.<name>.version` | newest version of that log |
//! | `tables.<name>.sha256` | of the bytes of that version |
//! | `tables.<name>.checkpoint` | version of the newest checkpoint, if there is one |
//! | `tables.<name>.checkpoint_sha256` | of its bytes |
//! | `tables.<name>.tally` | `files`, `bytes`, `rows`, `times_us`: sums over the table; missing: not known |
//! | `sha256` | of all before this line: see [`crate::digest::seal`] |

use std::collections::BTreeMap;

use headwater_proto::ids::JournalId;
use serde::{Deserialize, Serialize};

use crate::delta::{Log, LogError, Place, Tally, log_dir, newest_listed, version_path};
use crate::digest::{is_sealed, seal};
use crate::faults::Faults;
use crate::paths::{HEAD_PATH, HOT_DIR};
use crate::plan::Sha256;
use crate::schema::Table;
use crate::store::{Store, StoreError};

/// Version of the head's form.
const HEAD_VERSION: u32 = 2;

/// What the head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) owner: JournalId,
    pub(crate) term: u64,
    places: BTreeMap<Table, Place>,
}

#[derive(Serialize, Deserialize)]
struct RawHead {
    head_version: u32,
    owner: String,
    term: u64,
    tables: BTreeMap<String, RawPlace>,
}

#[derive(Serialize, Deserialize)]
struct RawPlace {
    version: u64,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checkpoint_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tally: Option<Tally>,
}

/// Why bytes are no head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoHead {
    /// Written by a later version of this program.
    Newer(u32),
    /// Damaged.
    Damaged,
}

impl Head {
    /// The head of some logs.
    pub(crate) fn of(owner: JournalId, term: u64, logs: &[Log]) -> Self {
        let place = |log: &Log| Some((log.table(), log.place()?));
        Self {
            owner,
            term,
            places: logs.iter().filter_map(place).collect(),
        }
    }

    pub(crate) fn place(&self, table: Table) -> Option<&Place> {
        self.places.get(&table)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let tables = self.places.iter().map(|(table, place)| {
            let raw = RawPlace {
                version: place.version,
                sha256: place.sha256.to_string(),
                checkpoint: place.checkpoint.map(|(version, _)| version),
                checkpoint_sha256: place.checkpoint.map(|(_, hash)| hash.to_string()),
                tally: place.tally,
            };
            (table.name().to_owned(), raw)
        });
        let raw = RawHead {
            head_version: HEAD_VERSION,
            owner: self.owner.to_string(),
            term: self.term,
            tables: tables.collect(),
        };
        let json = serde_json::to_string_pretty(&raw).expect("a head is plain JSON");
        seal(&json).into_bytes()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NoHead> {
        #[derive(Deserialize)]
        struct Version {
            head_version: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(|_| NoHead::Damaged)?;
        if version.head_version > HEAD_VERSION {
            return Err(NoHead::Newer(version.head_version));
        }
        if version.head_version != HEAD_VERSION || !is_sealed(bytes) {
            return Err(NoHead::Damaged);
        }
        let raw: RawHead = serde_json::from_slice(bytes).map_err(|_| NoHead::Damaged)?;
        let mut places = BTreeMap::new();
        for (name, raw) in raw.tables {
            let table = Table::from_name(&name).ok_or(NoHead::Damaged)?;
            let hash = |text: String| text.parse::<Sha256>().map_err(|_| NoHead::Damaged);
            let place = Place {
                version: raw.version,
                sha256: hash(raw.sha256)?,
                checkpoint: match (raw.checkpoint, raw.checkpoint_sha256) {
                    (Some(version), Some(text)) => Some((version, hash(text)?)),
                    (None, None) => None,
                    (Some(_), None) | (None, Some(_)) => return Err(NoHead::Damaged),
                },
                tally: raw.tally,
            };
            // No version that another follows is the last there is.
            let checkpoint = place.checkpoint.map(|(version, _)| version);
            if checkpoint > Some(place.version) || place.version == u64::MAX {
                return Err(NoHead::Damaged);
            }
            places.insert(table, place);
        }
        Ok(Self {
            owner: JournalId(u64::from_str_radix(&raw.owner, 16).map_err(|_| NoHead::Damaged)?),
            term: raw.term,
            places,
        })
    }
}

/// Reads logs for whoever only looks: up to their ends, which the head of the lake must not lie
/// beyond. In a lake without a readable head they have to go as far as versions are listed.
///
/// # Errors
/// [`LogError`]; [`LogError::Hole`] if a version is missing that the head names, or that later ones stand behind.
pub(crate) fn load_logs(
    store: &dyn Store,
    tables: impl IntoIterator<Item = Table>,
) -> Result<Vec<Log>, LogError> {
    // Before the logs: they are further then.
    let head = store.find(HEAD_PATH)?;
    let head = head.and_then(|bytes| Head::decode(&bytes).ok());
    let tables = tables.into_iter();
    tables
        .map(|t| load_known(store, t, head.as_ref()))
        .collect()
}

/// The newest version of a table's log that its folder lists; `None` if there is no table.
///
/// # Errors
/// [`LogError::NoLog`] if there are files of it nevertheless.
pub(crate) fn newest_of(store: &dyn Store, table: Table) -> Result<Option<u64>, LogError> {
    let newest = newest_listed(store, table)?;
    let files = format!("{}/{HOT_DIR}", table.name());
    if newest.is_none() && !store.list_some(&files, 1)?.is_empty() {
        return Err(LogError::NoLog {
            table: table.name(),
        });
    }
    Ok(newest)
}

fn load_known(store: &dyn Store, table: Table, head: Option<&Head>) -> Result<Log, LogError> {
    let log = Log::load(store, table)?;
    let known = match head {
        Some(head) => head.place(table).map(|place| place.version),
        None => newest_of(store, table)?,
    };
    match known {
        Some(known) if log.next() <= known => Err(LogError::Hole {
            path: version_path(table, log.next()),
            known,
        }),
        Some(_) | None => Ok(log),
    }
}

/// As [`load_logs`] for who tells all that is wrong: a head or a log that cannot be read is a fault,
/// and its table left out.
///
/// # Errors
/// [`LogError`] if the store cannot be reached.
pub(crate) fn load_readable(
    store: &dyn Store,
    tables: impl IntoIterator<Item = Table>,
    faults: &mut Faults,
) -> Result<(Option<Head>, Vec<Log>), LogError> {
    let mut fault = |what: &str| faults.add(HEAD_PATH, what);
    let mut is_missing = false;
    let head = match store.get(HEAD_PATH) {
        Ok(bytes) => match Head::decode(&bytes) {
            Ok(head) => Some(head),
            Err(NoHead::Damaged) => {
                fault("cannot be read");
                None
            }
            Err(NoHead::Newer(version)) => {
                fault(&format!("is of version {version}, a later one"));
                None
            }
        },
        Err(StoreError::Missing { .. }) => {
            is_missing = true;
            None
        }
        Err(error) => return Err(error.into()),
    };
    let mut logs = Vec::new();
    for table in tables {
        match load_known(store, table, head.as_ref()) {
            Ok(log) => logs.push(log),
            Err(error) if error.is_outage() => return Err(error),
            Err(error) => faults.add(&log_dir(table), error.to_string()),
        }
    }
    // A lake whose first writer was killed before it wrote one has its owner's version and one flush at most.
    let is_young = |log: &Log| log.version().is_none_or(|version| version <= 1);
    if is_missing && !logs.iter().all(is_young) {
        let what = "is missing, so that nobody can say how far the tables go";
        faults.add(HEAD_PATH, what);
    }
    Ok((head, logs))
}

/// As [`load_logs`], of one table.
///
/// # Errors
/// As [`load_logs`].
pub(crate) fn load_log(store: &dyn Store, table: Table) -> Result<Log, LogError> {
    let mut logs = load_logs(store, [table])?;
    Ok(logs.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head() -> Head {
        let place = Place {
            version: 12,
            sha256: Sha256([0xab; 32]),
            checkpoint: Some((10, Sha256([0xcd; 32]))),
            tally: Some(Tally {
                files: 1,
                bytes: 2,
                rows: 3,
                times_us: Some((-4, 5)),
            }),
        };
        let bare = Place {
            checkpoint: None,
            tally: None,
            ..place
        };
        Head {
            owner: JournalId(0xabc),
            term: 7,
            places: [(Table::Samples, place), (Table::Gaps, bare)].into(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(Head::decode(&head().encode()), Ok(head()));
    }

    #[test]
    fn the_form_of_version_2_never_changes() {
        let golden = include_bytes!("../tests/golden/head_2.json");
        assert_eq!(head().encode(), golden);
    }

    #[test]
    fn a_later_version_and_damage_are_told_apart() {
        let text = String::from_utf8(head().encode()).unwrap();
        let later = text.replace("\"head_version\": 2", "\"head_version\": 3");
        assert_eq!(Head::decode(later.as_bytes()), Err(NoHead::Newer(3)));
        let beyond = text.replace("\"checkpoint\": 10", "\"checkpoint\": 13");
        assert_eq!(Head::decode(beyond.as_bytes()), Err(NoHead::Damaged));
        let open = beyond.split(",\n  \"sha256\"").next().unwrap();
        let sealed = seal(&format!("{open}\n}}\n"));
        assert_eq!(Head::decode(sealed.as_bytes()), Err(NoHead::Damaged));
        for cut in 0..text.len() {
            assert_eq!(Head::decode(&text.as_bytes()[..cut]), Err(NoHead::Damaged));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Head::decode(&bytes);
        }
    }
}
