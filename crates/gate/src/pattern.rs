//! Core: patterns of topics, for the access list and for whoever reads what a topic names.
//!
//! A pattern is a topic whose levels may be `{device}`, `{metric}`, `+` (any one level) or, at the
//! end, `#` (any rest, or none). `{metric#}` at the end takes the rest as the metric, `{device#}` as the
//! device. A leading slash is a level of its own, as in MQTT.

/// A pattern that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
    tail: Tail,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Any,
    Device,
    Metric,
}

/// The end of a pattern, after its levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    Nothing,
    Any,
    Device,
    Metric,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing, or an empty level after the first one.
    #[error("it has an empty level; only the first may be empty, which is a leading slash")]
    Empty,
    /// A level that mixes text with wildcards, or an unknown name in braces.
    #[error(
        "level {0:?} mixes text with a wildcard; '+', '#', {{device}}, {{device#}}, {{metric}} and \
         {{metric#}} stand alone"
    )]
    Mixed(String),
    /// `#`, `{device#}` or `{metric#}` before the end.
    #[error("'#', {{device#}} and {{metric#}} stand only at its end")]
    RestInside,
    /// Twice the same.
    #[error("it names {{{0}}} twice")]
    Twice(&'static str),
    /// It would take what belongs to agents or to a broker.
    #[error("topics under hw/ belong to agents, and those under $ to brokers")]
    Reserved,
}

/// The device and metric that a topic names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'t> {
    /// The level that is the device, or the levels with slashes between them, as it is written.
    pub device: Option<&'t str>,
    /// The level that is the metric, or the levels, with slashes between them.
    pub metric: Option<&'t str>,
}

impl TopicPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut levels = Vec::new();
        let mut tail = Tail::Nothing;
        let has_metric = |levels: &[Level]| levels.contains(&Level::Metric);
        for (at, level) in text.split('/').enumerate() {
            if tail != Tail::Nothing {
                return Err(PatternError::RestInside);
            }
            match level {
                "" if at > 0 || text.is_empty() => return Err(PatternError::Empty),
                "+" => levels.push(Level::Any),
                "#" => tail = Tail::Any,
                "{device}" | "{device#}" if levels.contains(&Level::Device) => {
                    return Err(PatternError::Twice("device"));
                }
                "{device}" => levels.push(Level::Device),
                "{device#}" => tail = Tail::Device,
                "{metric}" | "{metric#}" if has_metric(&levels) => {
                    return Err(PatternError::Twice("metric"));
                }
                "{metric}" => levels.push(Level::Metric),
                "{metric#}" => tail = Tail::Metric,
                _ if level.contains(['+', '#', '{', '}']) => {
                    return Err(PatternError::Mixed(level.to_owned()));
                }
                _ => levels.push(Level::Literal(level.to_owned())),
            }
        }
        match levels.first() {
            Some(Level::Literal(first)) if first == "hw" || first.starts_with('$') => {
                Err(PatternError::Reserved)
            }
            _ => Ok(Self { levels, tail }),
        }
    }

    /// Whether its topics name a device.
    #[must_use]
    pub fn names_device(&self) -> bool {
        self.tail == Tail::Device || self.levels.contains(&Level::Device)
    }

    /// Whether its topics name a metric.
    #[must_use]
    pub fn names_metric(&self) -> bool {
        self.tail == Tail::Metric || self.levels.contains(&Level::Metric)
    }

    /// Reads `topic`; `None` if the pattern does not fit it. A topic that ends where `{metric#}` would
    /// begin fits, and names no metric.
    #[must_use]
    pub fn read<'t>(&self, topic: &'t str) -> Option<Named<'t>> {
        let mut named = Named {
            device: None,
            metric: None,
        };
        let mut rest = Some(topic);
        for level in &self.levels {
            let here = rest?;
            let (part, after) = match here.split_once('/') {
                Some((part, after)) => (part, Some(after)),
                None => (here, None),
            };
            match level {
                Level::Literal(literal) if literal != part => return None,
                Level::Literal(_) | Level::Any => {}
                Level::Device => named.device = Some(part),
                Level::Metric => named.metric = Some(part),
            }
            rest = after;
        }
        match self.tail {
            Tail::Nothing if rest.is_some() => return None,
            Tail::Nothing | Tail::Any => {}
            Tail::Device => named.device = rest,
            Tail::Metric => named.metric = rest,
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<'t>(pattern: &str, topic: &'t str) -> Option<(Option<&'t str>, Option<&'t str>)> {
        let named = TopicPattern::parse(pattern).unwrap().read(topic)?;
        Some((named.device, named.metric))
    }

    #[test]
    fn levels_in_braces_name_device_and_metric() {
        let topic = "sensors/p1/temp";
        let found = Some((Some("p1"), Some("temp")));
        assert_eq!(read("sensors/{device}/{metric}", topic), found);
        assert_eq!(read("sensors/{device}/{metric#}", topic), found);
        assert_eq!(read("+/{device}/#", topic), Some((Some("p1"), None)));
        assert_eq!(read("+/+/temp", topic), Some((None, None)));
        assert_eq!(
            read("x/{device}/{metric#}", "x/p1/a/b"),
            Some((Some("p1"), Some("a/b")))
        );
        assert_eq!(
            read("x/{metric}/{device#}", "x/t/kitchen/lamp"),
            Some((Some("kitchen/lamp"), Some("t")))
        );
        assert_eq!(read("x/{device#}", "x"), Some((None, None)));
    }

    #[test]
    fn a_rest_may_be_empty_and_a_level_may_not_be_missing() {
        assert_eq!(read("x/{device}/#", "x/p1"), Some((Some("p1"), None)));
        assert_eq!(
            read("x/{device}/{metric#}", "x/p1"),
            Some((Some("p1"), None))
        );
        assert_eq!(read("x/{device}/{metric}", "x/p1"), None);
        assert_eq!(read("x/{device}", "x/p1/temp"), None);
        assert_eq!(read("x/{device}", "y/p1"), None);
        assert_eq!(read("#", "a/b"), Some((None, None)));
    }

    #[test]
    fn a_leading_slash_is_a_level() {
        assert_eq!(
            read("/neuron/{device}", "/neuron/modbus"),
            Some((Some("modbus"), None))
        );
        assert_eq!(read("/neuron/{device}", "neuron/modbus"), None);
        assert_eq!(
            read("+/neuron/{device}", "/neuron/x"),
            Some((Some("x"), None))
        );
    }

    #[test]
    fn a_pattern_says_what_is_wrong_with_it() {
        use PatternError as E;
        let parse = |text| TopicPattern::parse(text).unwrap_err();
        assert_eq!(parse(""), E::Empty);
        assert_eq!(parse("a//b"), E::Empty);
        assert_eq!(parse("a/"), E::Empty);
        assert_eq!(parse("a/#/b"), E::RestInside);
        assert_eq!(parse("{metric#}/{device}"), E::RestInside);
        assert_eq!(parse("a+/b"), E::Mixed("a+".into()));
        assert_eq!(parse("a/{tag}"), E::Mixed("{tag}".into()));
        assert_eq!(parse("{device}/{device}"), E::Twice("device"));
        assert_eq!(parse("{device}/{device#}"), E::Twice("device"));
        assert_eq!(parse("{device#}/b"), E::RestInside);
        assert_eq!(parse("{metric}/{metric#}"), E::Twice("metric"));
        assert_eq!(parse("hw/1/#"), E::Reserved);
        assert_eq!(parse("$SYS/#"), E::Reserved);
    }

    proptest! {
        /// The matcher as the standard words it: level by level over whole lists.
        #[test]
        fn it_fits_what_a_list_of_levels_fits(
            pattern in "[ab+/]{1,6}(/#)?",
            topic in "[ab/]{1,8}",
        ) {
            if let Ok(parsed) = TopicPattern::parse(&pattern) {
                let (head, has_rest) = match pattern.strip_suffix("/#") {
                    Some(head) => (head, true),
                    None => (pattern.as_str(), false),
                };
                let (levels, parts): (Vec<_>, Vec<_>) =
                    (head.split('/').collect(), topic.split('/').collect());
                let long_enough = parts.len() == levels.len()
                    || has_rest && parts.len() > levels.len();
                let fits = levels.iter().zip(&parts).all(|(l, p)| *l == "+" || l == p);
                prop_assert_eq!(parsed.read(&topic).is_some(), long_enough && fits);
            }
        }
    }
}
