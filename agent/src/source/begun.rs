//! Where sources began that have nothing in the spool yet: noted on disk, so that what comes between the first
//! start and the first record is read, also by another life of the agent.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::pipeline::record::Cursor;

/// The file in the folder of a device's spool: it goes when that goes.
const FILE: &str = "begun";
/// Most places that are noted; the oldest are forgotten.
pub const MAX_BEGUN: usize = 256;

/// What a source reads, and how it was to begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// Its name.
    pub source: String,
    /// What it reads.
    pub path: PathBuf,
    /// It was to begin at the start of what is there.
    pub from_start: bool,
}

/// Where a source began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The place.
    pub cursor: Cursor,
    /// Others have what is before it.
    pub is_adopted: bool,
}

/// The places, oldest first. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Begun {
    /// Without, nothing is kept.
    folder: Option<PathBuf>,
    noted: Arc<Mutex<Vec<(What, Begin)>>>,
}

impl Begun {
    /// Those noted in a spool's folder. If they cannot be read, that is told, and sources begin anew.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let noted = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let noted = noted.unwrap_or_else(|error| {
            let path = path.display();
            tracing::error!(
                "cannot read {path}: {error}; a source of which nothing is stored yet begins anew, and may miss \
                 what came since it first began"
            );
            Vec::new()
        });
        Self {
            folder: Some(folder.to_owned()),
            noted: Arc::new(Mutex::new(noted)),
        }
    }

    /// Where it began.
    #[must_use]
    pub fn of(&self, what: &What) -> Option<Begin> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let found = noted.iter().find(|(of, _)| of == what);
        found.map(|(_, begin)| *begin)
    }

    /// Notes durably where it begins.
    ///
    /// # Errors
    /// The disk's; it is not noted then.
    pub fn note(&self, what: &What, begin: Begin) -> io::Result<()> {
        self.change(|noted| {
            noted.retain(|(of, _)| of != what);
            noted.push((what.clone(), begin));
            let above = noted.len().saturating_sub(MAX_BEGUN);
            noted.drain(..above);
        })
    }

    /// The spool says where these sources go on.
    ///
    /// # Errors
    /// The disk's; they are not forgotten then.
    pub fn forget(&self, sources: &[&str]) -> io::Result<()> {
        self.change(|noted| noted.retain(|(what, _)| !sources.contains(&&*what.source)))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(What, Begin)>)) -> io::Result<()> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = noted.clone();
        change(&mut changed);
        if changed != *noted {
            if let Some(folder) = &self.folder {
                replace(folder, FILE, &serde_json::to_vec(&changed)?)?;
            }
            *noted = changed;
        }
        Ok(())
    }
}

/// Replaces a file of a folder as a whole, durably.
///
/// # Errors
/// The disk's.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(source: &str) -> What {
        What {
            source: source.to_owned(),
            path: PathBuf::from("/var/log/app.log"),
            from_start: false,
        }
    }

    fn begin(minor: u64) -> Begin {
        Begin {
            cursor: Cursor {
                major: u64::MAX,
                minor,
                tag: 3,
            },
            is_adopted: minor == 2,
        }
    }

    #[test]
    fn what_is_noted_is_there_after_a_restart_until_the_spool_has_more() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun::open(folder.path());
        begun.note(&what("a"), begin(1)).unwrap();
        begun.clone().note(&what("b"), begin(2)).unwrap();
        begun.note(&what("b"), begin(3)).unwrap();
        let mut begun = Begun::open(folder.path());
        assert_eq!(begun.of(&what("a")), Some(begin(1)));
        assert_eq!(begun.of(&what("b")), Some(begin(3)));
        let from_start = What {
            from_start: true,
            ..what("a")
        };
        assert_eq!(begun.of(&from_start), None);
        begun.forget(&["a", "c"]).unwrap();
        for _ in 0..2 {
            assert_eq!(begun.of(&what("a")), None);
            assert_eq!(begun.of(&what("b")), Some(begin(3)));
            begun = Begun::open(folder.path());
        }
    }

    #[test]
    fn no_more_are_kept_than_the_bound_and_damage_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "[{").unwrap();
        let begun = Begun::open(folder.path());
        for n in 0..=MAX_BEGUN as u64 {
            begun.note(&what(&n.to_string()), begin(n)).unwrap();
        }
        let begun = Begun::open(folder.path());
        assert_eq!(begun.of(&what("0")), None);
        assert_eq!(begun.of(&what("1")), Some(begin(1)));
        assert_eq!(begun.of(&what("256")), Some(begin(256)));
    }

    #[test]
    fn what_cannot_be_written_is_not_noted() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun::open(&folder.path().join("none"));
        begun.note(&what("a"), begin(1)).unwrap_err();
        assert_eq!(begun.of(&what("a")), None);
    }
}
