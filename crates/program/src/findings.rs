//! What `--check` finds on this machine, told by those who own the settings.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Access, access};

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
    pub fn fault(&mut self, key: &str, value: impl Display, why: &(impl Display + ?Sized)) {
        self.faults.push(format!("{key} = \"{value}\": {why}"));
    }

    /// `key = "value"` does not work now, and why.
    pub fn warn(&mut self, key: &str, value: impl Display, why: &(impl Display + ?Sized)) {
        self.warnings.push(format!("{key} = \"{value}\": {why}"));
    }
}

/// Whether `path` leads to a file that this user may read.
///
/// # Errors
/// Why not.
pub fn readable_file(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_dir() {
        return Err(io::Error::other("is a folder; name a file in it"));
    }
    File::open(path).map(|_| ())
}

/// Whether `path` is a folder in which this user may write, or can become one: the first thing above it that
/// is there is such a folder.
///
/// # Errors
/// Why not.
pub fn possible_folder(path: &Path) -> io::Result<()> {
    for above in path.ancestors().filter(|above| *above != Path::new("")) {
        match fs::metadata(above) {
            Ok(there) if there.is_dir() => return writable(above),
            Ok(_) => {
                let why = format!("{} is no folder", above.display());
                return Err(io::Error::other(why));
            }
            // What is in the way stands further up.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => return Err(error),
        }
    }
    // A relative path, in the folder where the program runs.
    writable(Path::new("."))
}

/// The folder in which `path` stands, which must be there.
///
/// # Errors
/// That it is not.
pub fn existing_folder_of(path: &Path) -> io::Result<&Path> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    let parent = parent.unwrap_or(Path::new("."));
    if parent.is_dir() {
        return Ok(parent);
    }
    let why = format!("there is no folder {}", parent.display());
    Err(io::Error::other(why))
}

fn writable(folder: &Path) -> io::Result<()> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(
            error.kind(),
            format!("cannot write in {}: {error}", folder.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_possible_unless_a_file_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(possible_folder(folder.path()).is_ok());
        assert!(possible_folder(&folder.path().join("a/b")).is_ok());
        assert!(possible_folder(Path::new("relative")).is_ok());
        let error = possible_folder(&file.join("a/b")).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
