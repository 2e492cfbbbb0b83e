//! The log: checked with the rest of the configuration, started once, written to standard error.

use std::str::FromStr;

use serde::Deserialize;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

/// Every level, the least talkative first.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// The section `[log]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLog {
    level: String,
    format: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: "text".into(),
        }
    }
}

impl RawLog {
    /// The valid section; adds a line to `problems` for each thing the operator must fix.
    pub fn check(self, problems: &mut Vec<String>) -> Log {
        let Self { level, format } = self;
        let levels = level.parse().unwrap_or_else(|error| {
            problems.push(format!("log.level = {level:?}: {error}"));
            Levels::default()
        });
        if !["text", "json"].contains(&format.as_str()) {
            problems.push(format!(
                "log.format = {format:?}: must be \"text\" or \"json\""
            ));
        }
        Log {
            levels,
            json: format == "json",
        }
    }
}

/// The section `[log]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// How much is logged.
    pub levels: Levels,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// How much is logged: a level for all, and others for modules.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels(Targets);

impl Default for Levels {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::INFO))
    }
}

/// Why a text is no list of levels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelsError {
    /// No such level.
    #[error(
        "{0:?} is no level; there are off, error, warn, info, debug and trace, alone or as \
         module=level, separated by commas, for example \"info,headwater_spool=debug\""
    )]
    Unknown(String),
    /// Something else than a path stands before the `=`.
    #[error(
        "{0:?} names no module; write module=level, for example \"info,headwater_spool=debug\""
    )]
    Module(String),
    /// Two levels for the same.
    #[error("it has two levels for {0}")]
    Twice(String),
}

impl FromStr for Levels {
    type Err = LevelsError;

    /// Reads a list such as `info,headwater_spool=debug`. Where it names modules alone, the rest
    /// is logged at `info`.
    fn from_str(text: &str) -> Result<Self, LevelsError> {
        let mut targets = Targets::new();
        let mut named = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (module, level) = match part.split_once('=') {
                None => (None, level(part)?),
                Some((module, of_module)) => {
                    let of_path = |c: char| c.is_ascii_alphanumeric() || "_:".contains(c);
                    if module.is_empty() || !module.chars().all(of_path) {
                        return Err(LevelsError::Module(part.to_owned()));
                    }
                    (Some(module), level(of_module)?)
                }
            };
            if named.contains(&module) {
                let what = module.unwrap_or("the whole program").to_owned();
                return Err(LevelsError::Twice(what));
            }
            named.push(module);
            targets = match module {
                None => targets.with_default(level),
                Some(module) => targets.with_target(module, level),
            };
        }
        if !named.contains(&None) {
            targets = targets.with_default(LevelFilter::INFO);
        }
        Ok(Self(targets))
    }
}

fn level(text: &str) -> Result<LevelFilter, LevelsError> {
    LEVELS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, level)| *level)
        .ok_or_else(|| LevelsError::Unknown(text.to_owned()))
}

/// Begins to log to standard error.
///
/// # Errors
/// If the process logs already.
pub fn start(log: &Log) -> Result<(), TryInitError> {
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let lines = if log.json {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(log.levels.0.clone())
        .try_init()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    fn enables(text: &str, target: &str) -> Vec<Level> {
        let levels: Levels = text.parse().unwrap();
        [
            Level::ERROR,
            Level::WARN,
            Level::INFO,
            Level::DEBUG,
            Level::TRACE,
        ]
        .into_iter()
        .filter(|level| levels.0.would_enable(target, level))
        .collect()
    }

    #[test]
    fn each_level_logs_itself_and_all_that_is_worse() {
        for (count, name) in ["off", "error", "warn", "info", "debug", "trace"]
            .into_iter()
            .enumerate()
        {
            assert_eq!(enables(name, "headwater_agent").len(), count, "{name}");
        }
        assert_eq!(enables("WARN", "x"), [Level::ERROR, Level::WARN]);
    }

    #[test]
    fn a_module_can_have_a_level_of_its_own_and_errors_elsewhere_are_never_lost() {
        let text = "warn, headwater_spool=debug, headwater_spool::disk=off";
        assert_eq!(enables(text, "headwater_agent").len(), 2);
        assert_eq!(enables(text, "headwater_spool::log").len(), 4);
        assert_eq!(enables(text, "headwater_spool::disk").len(), 0);
        assert_eq!(
            enables("headwater_spool=trace", "headwater_agent"),
            [Level::ERROR, Level::WARN, Level::INFO]
        );
    }

    #[test]
    fn anything_else_is_refused_with_the_levels_there_are() {
        for text in [
            "", "warning", "5", "info,", "info,,", "verbose", "a=", "a=loud",
        ] {
            let told = text.parse::<Levels>().unwrap_err().to_string();
            assert!(
                told.contains("off, error, warn, info, debug and trace"),
                "{text:?}: {told}"
            );
        }
        for text in ["=debug", "a b=debug", "a[{x}]=debug"] {
            let told = text.parse::<Levels>().unwrap_err();
            assert_eq!(told, LevelsError::Module(text.to_owned()));
        }
        for (text, what) in [("info,debug", "the whole program"), ("a=info,a=info", "a")] {
            let told = text.parse::<Levels>().unwrap_err();
            assert_eq!(told, LevelsError::Twice(what.to_owned()));
        }
    }
}
