//! Core: the head of a lake: one object that names the newest version of each log.
//!
//! Its owner replaces it after each commit. A start reads it, and the logs from there on: a crash
//! between a commit and the head is normal. A version that is missing at or below it is a hole, and
//! nothing is committed over that. `_headwater/head.json` is one JSON object:
//!
//! | field | what |
//! |---|---|
//! | `head_version` | 1 |
//! | `owner`, `term` | who wrote it: journal and term, as in [`crate::owner`] |
//! | `tables.<name>.version` | newest version of that log |
//! | `tables.<name>.sha256` | of the bytes of that version |
//! | `tables.<name>.checkpoint` | version of the newest checkpoint, if there is one |
//! | `tables.<name>.tally` | `files`, `bytes`, `rows`, `times_us`: sums over the table; missing: not known |

use std::collections::BTreeMap;

use headwater_proto::ids::JournalId;
use serde::{Deserialize, Serialize};

use crate::delta::{Log, LogError, Place, Tally, newest_listed, version_path};
use crate::paths::HEAD_PATH;
use crate::schema::Table;
use crate::store::{Store, StoreError};

/// Version of the head's form.
const HEAD_VERSION: u32 = 1;

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
                checkpoint: place.checkpoint,
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
        let mut bytes = serde_json::to_vec_pretty(&raw).expect("a head is plain JSON");
        bytes.push(b'\n');
        bytes
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
        let raw: RawHead = serde_json::from_slice(bytes).map_err(|_| NoHead::Damaged)?;
        let mut places = BTreeMap::new();
        for (name, raw) in raw.tables {
            let table = Table::from_name(&name).ok_or(NoHead::Damaged)?;
            let place = Place {
                version: raw.version,
                sha256: raw.sha256.parse().map_err(|_| NoHead::Damaged)?,
                checkpoint: raw.checkpoint,
                tally: raw.tally,
            };
            // No version that another follows is the last there is.
            if place.checkpoint > Some(place.version) || place.version == u64::MAX {
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
    let head = match store.get(HEAD_PATH) {
        Ok(bytes) => Head::decode(&bytes).ok(),
        Err(StoreError::Missing { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let load = |table| {
        let log = Log::load(store, table)?;
        let known = match &head {
            Some(head) => head.place(table).map(|place| place.version),
            None => newest_listed(store, table)?,
        };
        match known {
            Some(known) if log.next() <= known => Err(LogError::Hole {
                path: version_path(table, log.next()),
                known,
            }),
            Some(_) | None => Ok(log),
        }
    };
    tables.into_iter().map(load).collect()
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
    use crate::plan::Sha256;
    use proptest::prelude::*;

    fn head() -> Head {
        let place = Place {
            version: 12,
            sha256: Sha256([0xab; 32]),
            checkpoint: Some(10),
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
    fn the_form_of_version_1_never_changes() {
        let golden = include_bytes!("../tests/golden/head_1.json");
        assert_eq!(head().encode(), golden);
    }

    #[test]
    fn a_later_version_and_damage_are_told_apart() {
        let text = String::from_utf8(head().encode()).unwrap();
        let later = text.replace("\"head_version\": 1", "\"head_version\": 2");
        assert_eq!(Head::decode(later.as_bytes()), Err(NoHead::Newer(2)));
        let beyond = text.replace("\"checkpoint\": 10", "\"checkpoint\": 13");
        assert_eq!(Head::decode(beyond.as_bytes()), Err(NoHead::Damaged));
        for cut in 0..text.len() - 2 {
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
