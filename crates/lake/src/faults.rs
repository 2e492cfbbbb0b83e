//! Core: what is wrong with a lake, object by object, and the first thing that may be: a file that is
//! not what was committed.

use serde::Serialize;

use crate::delta::Add;
use crate::digest::of_object;
use crate::schema::Table;
use crate::store::Store;

/// Faults that a report lists at most; more are counted.
pub const MAX_FAULTS: usize = 1_000;

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The object, from the root of the lake.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

/// Faults, the first [`MAX_FAULTS`] of them by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Faults {
    pub(crate) list: Vec<Fault>,
    pub(crate) count: u64,
}

impl Faults {
    pub(crate) fn add(&mut self, path: &str, what: impl Into<String>) {
        self.count += 1;
        if self.list.len() < MAX_FAULTS {
            self.list.push(Fault {
                path: path.to_owned(),
                what: what.into(),
            });
        }
    }
}

/// Holds the bytes of a file against its entry in the log. A file without a hash is as bad as one
/// with another: every commit of this program tells one, so that somebody took it away.
///
/// # Errors
/// What is wrong with it, in words.
pub(crate) fn check_file(store: &dyn Store, table: Table, add: &Add) -> Result<(), String> {
    let path = add.full_path(table);
    match store.size(&path) {
        Err(error) => return Err(words(&error)),
        Ok(None) => return Err("is missing".to_owned()),
        Ok(Some(bytes)) if bytes != add.bytes => {
            return Err(format!("has {bytes} bytes, the log says {}", add.bytes));
        }
        Ok(Some(_)) => {}
    }
    let Some(expected) = add.sha256 else {
        return Err("has no hash in the log, so that nobody can say whether it changed".to_owned());
    };
    match of_object(store, &path) {
        Err(error) => Err(words(&error)),
        Ok(hash) if hash == expected => Ok(()),
        Ok(_) => Err("has other bytes than were committed".to_owned()),
    }
}

/// An error with its cause.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    if let Some(source) = error.source().map(ToString::to_string)
        && !text.ends_with(&source)
    {
        text = format!("{text}: {source}");
    }
    text
}
