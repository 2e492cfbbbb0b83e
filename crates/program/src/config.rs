//! The configuration's file.

use std::io;
use std::path::{Path, PathBuf};

use crate::faults::Faults;

/// Why there is no configuration to run with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It has faults.
    #[error("{name} must be changed before anything runs:\n{faults}")]
    Faults {
        /// The file, or "the defaults".
        name: String,
        /// A line for each.
        faults: Faults,
    },
}

/// The configuration in `path`, or the defaults, read and checked by `parse`.
///
/// # Errors
/// [`ConfigError`].
pub fn load<Valid>(
    path: Option<&Path>,
    parse: impl FnOnce(&str) -> Result<Valid, Faults>,
) -> Result<Valid, ConfigError> {
    let text = match path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?,
    };
    parse(&text).map_err(|faults| ConfigError::Faults {
        name: path.map_or_else(|| "the defaults".into(), |path| path.display().to_string()),
        faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    #[test]
    fn a_file_that_cannot_be_read_and_one_with_faults_are_told_apart_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let missing = load(Some(&path), |_| Ok(())).unwrap_err();
        let told = chain(&missing);
        assert!(
            told.starts_with("cannot read the configuration /"),
            "{told}"
        );
        assert!(told.contains("a.toml: No such file"), "{told}");

        std::fs::write(&path, "x = 1\n").unwrap();
        let parse = |text: &str| {
            assert_eq!(text, "x = 1\n");
            Err::<(), _>(Faults(vec!["x is wrong".into(), "y lacks".into()]))
        };
        let told = load(Some(&path), parse).unwrap_err().to_string();
        assert!(
            told.ends_with("a.toml must be changed before anything runs:\nx is wrong\ny lacks")
        );

        let text = load(None, |text| Ok(text.to_owned())).unwrap();
        assert_eq!(text, "");
    }
}
