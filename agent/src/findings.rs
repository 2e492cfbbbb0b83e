//! What `--check` finds on this machine, told by those who own the settings.

use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// The findings, a line each, beginning with the key that it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Settings that cannot work.
    pub faults: Vec<String>,
    /// Settings that do not work now.
    pub warnings: Vec<String>,
}

impl Findings {
    /// `key = "value"` cannot work, and why.
    pub(crate) fn fault(&mut self, key: &str, value: impl Display, why: &(impl Display + ?Sized)) {
        self.faults.push(format!("{key} = \"{value}\": {why}"));
    }

    /// `key = "value"` does not work now, and why.
    pub(crate) fn warn(&mut self, key: &str, value: impl Display, why: &(impl Display + ?Sized)) {
        self.warnings.push(format!("{key} = \"{value}\": {why}"));
    }
}

/// Whether `path` leads to a file that this user may read.
pub(crate) fn readable_file(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::other("is a folder; name a file in it"));
    }
    File::open(path).map(|_| ())
}
