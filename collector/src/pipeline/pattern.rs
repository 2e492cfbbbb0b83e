//! Core: which device and metric a plain topic names.
//!
//! A pattern is a topic whose levels may be `{device}`, `{metric}`, `+` (any one level) or, at the
//! end, `#` (any rest). `{metric#}` at the end takes the rest as the metric, its levels joined by
//! `.`; `{device#}` takes it as the device, as it stands. The first pattern that fits decides.

use headwater_proto::ids::DeviceId;

use super::envelope::Decoder;

/// Most patterns of one collector: each publish on a plain topic may try all of them.
pub const MAX_PATTERNS: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Any,
    Device,
    DeviceRest,
    Metric,
    Rest,
    MetricRest,
}

/// One rule for plain topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    levels: Vec<Level>,
    decoder: Decoder,
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
    /// `#`, `{device#}` or `{metric#}` before the end.
    #[error("'#', {{device#}} and {{metric#}} stand only at its end")]
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
    /// What reads the payload.
    pub decoder: Decoder,
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
                "{device}" | "{device#}" if levels.contains(&Level::Device) => {
                    return Err(PatternError::Twice("device"));
                }
                "{device}" => Level::Device,
                "{metric}" | "{metric#}" if levels.contains(&Level::Metric) => {
                    return Err(PatternError::Twice("metric"));
                }
                "{metric}" => Level::Metric,
                "+" => Level::Any,
                "#" | "{device#}" | "{metric#}" if !last => return Err(PatternError::RestInside),
                "#" => Level::Rest,
                "{device#}" => Level::DeviceRest,
                "{metric#}" => Level::MetricRest,
                text if text.contains(['+', '#', '{', '}']) => {
                    return Err(PatternError::Mixed(text.to_owned()));
                }
                text => Level::Literal(text.to_owned()),
            });
        }
        if !levels.contains(&Level::Device) && !levels.contains(&Level::DeviceRest) {
            return Err(PatternError::NoDevice);
        }
        if levels.first() == Some(&Level::Literal("hw".to_owned())) {
            return Err(PatternError::Reserved);
        }
        Ok(Self { levels, decoder })
    }

    /// What `topic` names, if this pattern fits it and its device level is a device id.
    #[must_use]
    pub fn target(&self, topic: &str) -> Option<Target> {
        let mut device = None;
        let mut metric = String::new();
        let mut parts = topic.split('/');
        for level in &self.levels {
            match level {
                Level::Rest => return Some((device?, metric)).map(|found| self.found(found)),
                Level::MetricRest => {
                    let mut rest = parts.by_ref().peekable();
                    rest.peek()?;
                    metric = rest.collect::<Vec<_>>().join(".");
                }
                Level::DeviceRest => {
                    let mut rest = parts.by_ref().peekable();
                    rest.peek()?;
                    let rest = rest.collect::<Vec<_>>().join("/");
                    device = Some(DeviceId::new(&rest).ok()?);
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
        Some(self.found((device?, metric)))
    }

    fn found(&self, (device, metric): (DeviceId, String)) -> Target {
        Target {
            device,
            metric,
            decoder: self.decoder,
        }
    }
}

/// What the first fitting of `patterns` says of `topic`.
#[must_use]
pub fn find(patterns: &[Pattern], topic: &str) -> Option<Target> {
    patterns.iter().find_map(|pattern| pattern.target(topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(pattern: &str, topic: &str) -> Option<(String, String)> {
        Pattern::new(pattern, Decoder::Json)
            .unwrap()
            .target(topic)
            .map(|found| (found.device.to_string(), found.metric))
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
        assert_eq!(new("a/{device#}/b"), Some(PatternError::RestInside));
    }
}
