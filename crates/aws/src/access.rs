//! Core: whose credentials, and where.

use crate::NOT_BUILT;

/// Whose credentials, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// `None`: as the environment or the profile says.
    pub region: Option<String>,
    /// `None`: AWS itself, unless the environment names another.
    pub endpoint: Option<String>,
    /// `None`: as the environment says.
    pub profile: Option<String>,
}

impl Access {
    /// As it is written for the sink `name`; what is empty is not written. Adds a line to `problems` for each fault.
    #[must_use]
    pub fn check(
        name: &str,
        region: String,
        endpoint: String,
        profile: String,
        problems: &mut Vec<String>,
    ) -> Self {
        if !cfg!(feature = "sdk") {
            problems.push(format!("sink {name}: {NOT_BUILT}"));
        }
        if let Some(problem) = endpoint_problem(&endpoint) {
            problems.push(format!("sink {name}: endpoint = {endpoint:?} {problem}"));
        }
        Self {
            region: written(region),
            endpoint: written(endpoint),
            profile: written(profile),
        }
    }
}

/// A setting that is not empty.
pub(crate) fn written(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The fault of an endpoint, if it has one: readings and signatures leave this machine encrypted, or not at all.
pub(crate) fn endpoint_problem(endpoint: &str) -> Option<&'static str> {
    if endpoint.is_empty() || endpoint.starts_with("https://") {
        return None;
    }
    let Some(rest) = endpoint.strip_prefix("http://") else {
        return Some("must begin with https://");
    };
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    if rest.contains('@') {
        return Some("must not name a user");
    }
    let is_loopback = ["127.0.0.1", "localhost"].contains(&host) || rest.starts_with("[::1]");
    (!is_loopback).then_some("must begin with https://: plain http is for this machine alone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_this_machine() {
        for good in [
            "",
            "https://vpce-1.kinesis.eu-west-1.vpce.amazonaws.com",
            "http://127.0.0.1:4566",
            "http://localhost/",
            "http://[::1]:4566",
        ] {
            assert_eq!(endpoint_problem(good), None, "{good}");
        }
        for bad in [
            "kinesis",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org:80/",
            "ftp://127.0.0.1",
            "http://localhost:x@evil.example/",
        ] {
            assert!(endpoint_problem(bad).is_some(), "{bad}");
        }
    }
}
