//! Core: which device and metric a plain topic names.
//!
//! A pattern is a topic whose levels may be `{device}`, `{metric}`, `+` (any one level) or, at the
//! end, `#` (any rest). `{metric#}` at the end takes the rest as the metric, its levels joined by
//! `.`. The first pattern that fits decides.

use headwater_proto::ids::DeviceId;

use super::envelope::Decoder;
use crate::interpret::rules::PlainRule;

/// Most patterns of one collector: each publish on a plain topic may try all of them.
pub const MAX_PATTERNS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Any,
    Device,
    Metric,
    Rest,
    MetricRest,
}

/// One rule for plain topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    levels: Vec<Level>,
    rule: PlainRule,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The device comes from the topic alone.
    #[error("it names no {{device}}, and the device comes from the topic alone")]
    NoDevice,
    /// Twice the same.
    #[error("it names {{{0}}} twice")]
    Twice(&'static str),
    /// `#` or `{metric#}` before the end.
    #[error("'#' and {{metric#}} stand only at its end")]
    RestInside,
    /// A level that mixes text with wildcards.
    #[error("level {0:?} mixes text with a wildcard")]
    Mixed(String),
    /// The agents' own tree.
    #[error("topics under hw/ belong to agents")]
    Reserved,
}

/// Where a publish belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The device.
    pub device: DeviceId,
    /// The metric, or empty when the topic names none.
    pub metric: String,
    /// Place of the pattern that says so: of its rule in the rule set.
    pub rule: u16,
}

impl Pattern {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`PatternError`] says what is wrong with it.
    pub fn new(text: &str, decoder: Decoder) -> Result<Self, PatternError> {
        let mut levels = Vec::new();
        let count = text.split('/').count();
        for (index, level) in text.split('/').enumerate() {
            let last = index + 1 == count;
            levels.push(match level {
                "{device}" if levels.contains(&Level::Device) => {
                    return Err(PatternError::Twice("device"));
                }
                "{device}" => Level::Device,
                "{metric}" | "{metric#}" if levels.contains(&Level::Metric) => {
                    return Err(PatternError::Twice("metric"));
                }
                "{metric}" => Level::Metric,
                "+" => Level::Any,
                "#" | "{metric#}" if !last => return Err(PatternError::RestInside),
                "#" => Level::Rest,
                "{metric#}" => Level::MetricRest,
                text if text.contains(['+', '#', '{', '}']) => {
                    return Err(PatternError::Mixed(text.to_owned()));
                }
                text => Level::Literal(text.to_owned()),
            });
        }
        if !levels.contains(&Level::Device) {
            return Err(PatternError::NoDevice);
        }
        if levels.first() == Some(&Level::Literal("hw".to_owned())) {
            return Err(PatternError::Reserved);
        }
        Ok(Self {
            levels,
            rule: PlainRule::new(decoder),
        })
    }

    /// The same topics, read by `rule`.
    #[must_use]
    pub fn read_by(self, rule: PlainRule) -> Self {
        Self { rule, ..self }
    }

    /// How its publishes are read.
    #[must_use]
    pub const fn rule(&self) -> &PlainRule {
        &self.rule
    }

    /// The device and metric that `topic` names, if this pattern fits it and its device level is a
    /// device id.
    #[must_use]
    pub fn target(&self, topic: &str) -> Option<(DeviceId, String)> {
        let mut device = None;
        let mut metric = String::new();
        let mut parts = topic.split('/');
        for level in &self.levels {
            match level {
                Level::Rest => return Some((device?, metric)),
                Level::MetricRest => {
                    let mut rest = parts.by_ref().peekable();
                    rest.peek()?;
                    metric = rest.collect::<Vec<_>>().join(".");
                }
                Level::Literal(text) => {
                    if parts.next()? != text {
                        return None;
                    }
                }
                Level::Any => {
                    parts.next()?;
                }
                Level::Device => device = Some(DeviceId::new(parts.next()?).ok()?),
                Level::Metric => parts.next()?.clone_into(&mut metric),
            }
        }
        if parts.next().is_some() {
            return None;
        }
        Some((device?, metric))
    }
}

/// What the first fitting of `patterns` says of `topic`.
#[must_use]
pub fn find(patterns: &[Pattern], topic: &str) -> Option<Target> {
    (0..).zip(patterns).find_map(|(rule, pattern)| {
        let (device, metric) = pattern.target(topic)?;
        Some(Target {
            device,
            metric,
            rule,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(pattern: &str, topic: &str) -> Option<(String, String)> {
        Pattern::new(pattern, Decoder::Json)
            .unwrap()
            .target(topic)
            .map(|(device, metric)| (device.to_string(), metric))
    }

    #[test]
    fn levels_in_braces_name_device_and_metric() {
        let found = |d: &str, m: &str| Some((d.to_owned(), m.to_owned()));
        assert_eq!(
            target("sensors/{device}/{metric}", "sensors/p1/temp"),
            found("p1", "temp")
        );
        assert_eq!(target("+/{device}/#", "site/p1/a/b"), found("p1", ""));
        assert_eq!(
            target("x/{device}/{metric#}", "x/p1/a/b"),
            found("p1", "a.b")
        );
    }

    #[test]
    fn the_first_pattern_that_fits_says_which_rule_reads_the_payload() {
        let new = |text| Pattern::new(text, Decoder::Json).unwrap();
        let patterns = [
            new("a/{device}/x"),
            new("a/{device}/+"),
            new("a/{device}/x"),
        ];
        assert_eq!(find(&patterns, "a/d/x").unwrap().rule, 0);
        assert_eq!(find(&patterns, "a/d/y").unwrap().rule, 1);
    }

    #[test]
    fn a_topic_that_does_not_fit_names_nothing() {
        assert_eq!(target("sensors/{device}", "sensors/p1/temp"), None);
        assert_eq!(target("sensors/{device}/{metric}", "sensors/p1"), None);
        assert_eq!(target("sensors/{device}", "sensors/not a device"), None);
    }

    #[test]
    fn a_pattern_without_device_or_in_the_agents_tree_is_refused() {
        let new = |text| Pattern::new(text, Decoder::Json).err();
        assert_eq!(new("a/b"), Some(PatternError::NoDevice));
        assert_eq!(new("#/{device}"), Some(PatternError::RestInside));
        assert_eq!(new("hw/{device}"), Some(PatternError::Reserved));
        assert_eq!(
            new("a{device}"),
            Some(PatternError::Mixed("a{device}".into()))
        );
        assert_eq!(
            new("{device}/{device}"),
            Some(PatternError::Twice("device"))
        );
    }
}
