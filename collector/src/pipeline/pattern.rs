//! Core: which device and metric a plain topic names. The first pattern that fits decides.

use headwater_gate::pattern::{PatternError as TopicError, TopicPattern};
use headwater_proto::ids::DeviceId;

use super::rules::{Decoder, PlainRule};

/// Most patterns of one collector: each publish on a plain topic may try all of them.
pub const MAX_PATTERNS: usize = 256;

/// One rule for plain topics. The levels of `{metric#}` are joined by `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    topic: TopicPattern,
    rule: PlainRule,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No pattern of topics at all.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// `{device}` is missing.
    #[error("it names no {{device}}, and the device comes from the topic alone")]
    NoDevice,
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
        let topic = TopicPattern::parse(text)?;
        if !topic.names_device() {
            return Err(PatternError::NoDevice);
        }
        Ok(Self {
            topic,
            rule: PlainRule::new(decoder),
        })
    }

    /// The same topics, read by `rule`.
    #[must_use]
    pub fn read_by(self, rule: PlainRule) -> Self {
        Self { rule, ..self }
    }

    /// The topics that it fits, for the gate's access list.
    #[must_use]
    pub const fn topic(&self) -> &TopicPattern {
        &self.topic
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
        let named = self.topic.read(topic)?;
        if self.topic.names_metric() && named.metric.is_none() {
            return None;
        }
        let device = DeviceId::new(named.device?).ok()?;
        let metric = named.metric.unwrap_or_default().replace('/', ".");
        Some((device, metric))
    }
}

/// How the publishes of each of `patterns` are read.
#[must_use]
pub fn rules_of(patterns: &[Pattern]) -> Vec<PlainRule> {
    patterns.iter().map(Pattern::rule).cloned().collect()
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
        assert_eq!(target("sensors/{device}", "sensors/\u{7}"), None);
        assert_eq!(target("sensors/{device}", "sensors/"), None);
        assert_eq!(target("sensors/{device#}", "sensors"), None);
    }

    #[test]
    fn a_device_level_of_any_characters_is_a_device_under_its_own_name() {
        for id in [
            "entr\u{e9}e",
            "Living Room Lamp",
            "00:11:22:33:44:55",
            "urn:dev:ow:10e2",
        ] {
            let found = target("zigbee2mqtt/{device}", &format!("zigbee2mqtt/{id}"));
            assert_eq!(found, Some((id.to_owned(), String::new())));
        }
        let found = target("zigbee2mqtt/{device#}", "zigbee2mqtt/kitchen/floor_light");
        assert_eq!(
            found,
            Some(("kitchen/floor_light".to_owned(), String::new()))
        );
        let found = target("/neuron/{device}", "/neuron/modbus");
        assert_eq!(found, Some(("modbus".to_owned(), String::new())));
    }

    #[test]
    fn a_topic_that_ends_before_its_metric_names_nothing() {
        assert_eq!(target("x/{device}/{metric#}", "x/p1"), None);
        assert_eq!(target("x/{device}/{metric}", "x/p1"), None);
    }

    #[test]
    fn a_pattern_without_device_or_in_the_agents_tree_is_refused() {
        let new = |text| Pattern::new(text, Decoder::Json).err();
        assert_eq!(new("a/b"), Some(PatternError::NoDevice));
        assert_eq!(new("hw/{device}"), Some(TopicError::Reserved.into()));
    }
}
