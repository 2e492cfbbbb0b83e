//! A bucket of S3 as the place of a lake: its settings.

use std::fmt;
use std::path::PathBuf;

use crate::access::{Access, written};

/// Where a lake's address begins that lies in S3.
pub const SCHEME: &str = "s3://";

/// Folder of files that are not in the bucket yet, unless another is named.
const STAGE_DIR: &str = "/var/lib/headwater-collector/stage";

/// Longest prefix: S3 bounds a key to 1,024 bytes, and those of the lake need 200.
pub const MAX_PREFIX_BYTES: usize = 512;

/// A bucket, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub(crate) name: String,
    /// Empty, or ends in `/`.
    pub(crate) prefix: String,
    pub(crate) access: Access,
    /// Folder of staged files on this machine; `None` for a reader.
    pub(crate) stage: Option<PathBuf>,
    /// Of data files; `None`: the bucket's own.
    pub(crate) storage_class: Option<String>,
    /// Key by which S3 encrypts; `None`: as the bucket does.
    pub(crate) kms_key: Option<String>,
}

/// What is written beside the address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawBucket {
    /// Empty: not written.
    pub region: String,
    /// Empty: not written.
    pub endpoint: String,
    /// Empty: not written.
    pub profile: String,
    /// Empty: not written.
    pub stage_dir: String,
    /// Empty: not written.
    pub storage_class: String,
    /// Empty: not written.
    pub kms_key: String,
}

impl Bucket {
    /// A reader of `s3://bucket/prefix`; region, endpoint and profile are those of the environment.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn at(url: &str) -> Result<Self, String> {
        let rest = url
            .strip_prefix(SCHEME)
            .ok_or_else(|| format!("must begin with {SCHEME}"))?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if let Some(problem) = name_problem(name) {
            return Err(problem.to_owned());
        }
        let prefix = prefix.trim_end_matches('/');
        let is_good = |part: &str| !matches!(part, "" | "." | "..");
        let is_odd = |c: char| c.is_control() || "\\{}^%`[]\"<>~#|?".contains(c);
        if !prefix.is_empty()
            && (!prefix.split('/').all(is_good)
                || prefix.contains(is_odd)
                || prefix.len() > MAX_PREFIX_BYTES)
        {
            return Err(format!(
                "the prefix {prefix:?} must be folders apart by one '/', without \\ {{ }} ^ % ` [ ] \" < > ~ # | ?, \
                 of at most {MAX_PREFIX_BYTES} bytes"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
            access: Access::default(),
            stage: None,
            storage_class: None,
            kms_key: None,
        })
    }

    /// A writer, as a configuration says. Adds a line to `problems` for each fault.
    pub fn check(
        name: &str,
        url: &str,
        raw: RawBucket,
        problems: &mut Vec<String>,
    ) -> Option<Self> {
        let key = |key: &str| format!("sink {name}: {key}");
        let access = Access::check(name, raw.region, raw.endpoint, raw.profile, problems);
        let class = &raw.storage_class;
        if !class.is_empty() && !READ_AT_ONCE.contains(&class.as_str()) {
            problems.push(format!(
                "{} = {class:?}: must be one that is read at once: {}",
                key("storage_class"),
                READ_AT_ONCE.join(", ")
            ));
        }
        match Self::at(url) {
            Ok(bucket) => Some(Self {
                access,
                stage: Some(written(raw.stage_dir).map_or_else(|| STAGE_DIR.into(), PathBuf::from)),
                storage_class: written(raw.storage_class),
                kms_key: written(raw.kms_key),
                ..bucket
            }),
            Err(problem) => {
                problems.push(format!("{} = {url:?}: {problem}", key("url")));
                None
            }
        }
    }

    /// The same objects, for a reader.
    #[must_use]
    pub fn reader(&self) -> Self {
        Self {
            stage: None,
            ..self.clone()
        }
    }

    /// The folder of staged files.
    #[must_use]
    pub const fn stage(&self) -> Option<&PathBuf> {
        self.stage.as_ref()
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.name)?;
        match self.prefix.strip_suffix('/') {
            Some(prefix) => write!(f, "/{prefix}"),
            None => Ok(()),
        }
    }
}

/// Storage classes whose objects are read without a restore.
const READ_AT_ONCE: &[&str] = &[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
];

/// Why S3 cannot have a bucket of this name, or a lake cannot lie in it.
fn name_problem(name: &str) -> Option<&'static str> {
    if name.starts_with("arn:") || name.contains(':') {
        return Some("name the bucket itself, not an ARN: s3://BUCKET/PREFIX");
    }
    if name.ends_with("--x-s3") {
        return Some(
            "a directory bucket lists without order, which a lake needs: name a general purpose bucket",
        );
    }
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let is_good = (3..=63).contains(&name.len())
        && name.chars().all(is_name)
        && is_end(name.chars().next())
        && is_end(name.chars().last());
    (!is_good).then_some("must be s3://BUCKET/PREFIX; a bucket's name is 3 to 63 of a-z 0-9 - .")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix() {
        for (url, name, prefix, shown) in [
            ("s3://fleet", "fleet", "", "s3://fleet"),
            ("s3://fleet/", "fleet", "", "s3://fleet"),
            ("s3://fleet/a/b", "fleet", "a/b/", "s3://fleet/a/b"),
            ("s3://fleet/a/b/", "fleet", "a/b/", "s3://fleet/a/b"),
        ] {
            let bucket = Bucket::at(url).unwrap();
            assert_eq!((&*bucket.name, &*bucket.prefix), (name, prefix), "{url}");
            assert_eq!(bucket.to_string(), shown);
        }
        let long = format!("s3://fleet/{}", "a".repeat(MAX_PREFIX_BYTES + 1));
        for bad in [
            "/var/lake",
            "s3:/fleet",
            "s3://",
            "s3://Fleet",
            "s3://ab",
            "s3://-fleet",
            "s3://fleet--eun1-az1--x-s3/lake",
            "s3://arn:aws:s3:::fleet",
            "s3://fleet/a//b",
            "s3://fleet/../b",
            "s3://fleet/a?b",
            &long,
        ] {
            assert!(Bucket::at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_all_at_once() {
        let raw = RawBucket {
            endpoint: "http://s3.example.org".to_owned(),
            storage_class: "DEEP_ARCHIVE".to_owned(),
            ..RawBucket::default()
        };
        let mut problems = Vec::new();
        assert_eq!(Bucket::check("lake", "s3://A", raw, &mut problems), None);
        problems.retain(|problem| cfg!(feature = "sdk") || !problem.contains("this build"));
        let begins = ["endpoint", "storage_class", "url"];
        assert_eq!(problems.len(), begins.len(), "{problems:?}");
        for (problem, begin) in problems.iter().zip(begins) {
            assert!(
                problem.starts_with(&format!("sink lake: {begin}")),
                "{problem}"
            );
        }
    }
}
