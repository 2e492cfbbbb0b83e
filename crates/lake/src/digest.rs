//! Core: the bytes of objects against the hashes that the lake keeps of them.
//!
//! | object | its SHA-256 stands in |
//! |---|---|
//! | a file of a table | the `add` of the log, as the tag `headwater.sha256`; in a checkpoint the same |
//! | a version of a log | the `commitInfo` of the version after it; the newest: the head |
//! | a checkpoint of a log | the `commitInfo` of the versions after it, and the head |
//! | owner, head, catalog | their own last line: see [`seal`] |
//! | marks | their own last 32 bytes |
//! | a schema or dictionary | its name |
//!
//! Pages of a Parquet file have a checksum field of their own, which the library leaves empty; a
//! hash of the whole file covers every byte, those of its footer too.

use sha2::Digest as _;

use crate::plan::Sha256;
use crate::store::{Store, StoreError};

/// Bytes that are hashed at a time, so that no file stands in memory.
const PART_BYTES: usize = 1 << 20;

/// The hash of an object, read part by part.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn of_object(store: &dyn Store, path: &str) -> Result<Sha256, StoreError> {
    let object = store.open(path)?;
    let mut hasher = sha2::Sha256::new();
    let mut at = 0;
    while at < object.size() {
        let left = usize::try_from(object.size() - at).unwrap_or(usize::MAX);
        let part = object.read_at(at, left.min(PART_BYTES));
        let part = part.map_err(|source| StoreError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        hasher.update(&part);
        at += part.len() as u64;
    }
    Ok(Sha256(hasher.finalize().into()))
}

/// Puts the hash of a JSON object into its last line.
///
/// - `json`: a pretty object with at least one field, as `serde_json` writes it.
pub(crate) fn seal(json: &str) -> String {
    let json = json.trim_end();
    let body = json.strip_suffix('}').unwrap_or(json).trim_end();
    format!("{body}{}", last_line(Sha256::of(body.as_bytes())))
}

/// Whether the bytes are an object whose last line is the hash of all before.
pub(crate) fn is_sealed(bytes: &[u8]) -> bool {
    let Some(place) = bytes.len().checked_sub(last_line(Sha256([0; 32])).len()) else {
        return false;
    };
    let (body, line) = bytes.split_at(place);
    last_line(Sha256::of(body)).as_bytes() == line
}

fn last_line(hash: Sha256) -> String {
    format!(",\n  \"sha256\": \"{hash}\"\n}}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;

    #[test]
    fn an_object_of_several_parts_has_the_hash_of_the_whole() {
        let store = MemStore::new();
        for len in [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            store.replace("x", &bytes).unwrap();
            assert_eq!(of_object(&store, "x").unwrap(), Sha256::of(&bytes));
        }
    }

    #[test]
    fn a_seal_breaks_with_any_bit() {
        let sealed = seal("{\n  \"a\": {\n    \"b\": 1\n  }\n}\n");
        assert!(serde_json::from_str::<serde_json::Value>(&sealed).is_ok());
        assert!(is_sealed(sealed.as_bytes()) && !is_sealed(b"{}"));
        for bit in 0..sealed.len() * 8 {
            let mut bytes = sealed.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_sealed(&bytes), "bit {bit}");
        }
    }
}
