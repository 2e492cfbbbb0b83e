//! Topic names, topic filters, and whether they match.

use super::MAX_TEXT_BYTES;

/// Whether `topic` may stand in a PUBLISH: not empty, no wildcards, no U+0000, not too long.
#[must_use]
pub fn topic_is_valid(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= MAX_TEXT_BYTES
        && !topic.bytes().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

/// Whether `filter` is a topic filter: `+` and `#` fill a level each, and `#` is the last one.
///
/// A filter that begins with `$share/` is judged as in version 5: a group name without wildcards,
/// then a filter.
#[must_use]
pub fn filter_is_valid(filter: &str) -> bool {
    if !filter.starts_with("$share/") {
        return plain_filter_is_valid(filter);
    }
    filter.len() <= MAX_TEXT_BYTES
        && share(filter)
            .is_some_and(|(group, rest)| topic_is_valid(group) && plain_filter_is_valid(rest))
}

/// Group name and filter of a shared subscription, `$share/<group>/<filter>`.
#[must_use]
pub fn share(filter: &str) -> Option<(&str, &str)> {
    filter.strip_prefix("$share/")?.split_once('/')
}

/// Whether a valid `topic` falls under a valid `filter`. Wildcards at the start never match topics
/// that begin with `$`. Of a shared subscription, pass the filter that [`share`] returns.
#[must_use]
pub fn topic_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true; // also the level above: "a/#" matches "a"
        }
        match topic_levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

/// As 3.1.1 sees it, where `$share` is a level like any other.
pub(super) fn plain_filter_is_valid(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > MAX_TEXT_BYTES || filter.bytes().any(|byte| byte == 0) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let good = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !good {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard_match_as_it_says() {
        for (filter, topic, matches) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/ranking",
                true,
            ),
            (
                "sport/tennis/player1/#",
                "sport/tennis/player1/score/wimbledon",
                true,
            ),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis", true),
            ("ACCOUNTS", "Accounts", false),
            ("/finance", "finance", false),
            ("a/b", "a/b", true),
            ("a/b", "a/b/", false),
        ] {
            assert_eq!(topic_matches(filter, topic), matches, "{filter} {topic}");
        }
    }

    #[test]
    fn wildcards_at_the_start_do_not_see_topics_of_the_server() {
        assert!(!topic_matches("#", "$SYS/uptime"));
        assert!(!topic_matches("+/monitor/Clients", "$SYS/monitor/Clients"));
        assert!(topic_matches("$SYS/#", "$SYS/uptime"));
        assert!(topic_matches("$SYS/monitor/+", "$SYS/monitor/Clients"));
        assert!(topic_matches("a/+", "a/$b"));
    }

    #[test]
    fn a_wildcard_fills_its_level_and_the_hash_is_last() {
        for good in [
            "#",
            "+",
            "a/#",
            "+/tennis/#",
            "/",
            "//",
            " ",
            "a/+/b",
            "$SYS/#",
            "$share",
        ] {
            assert!(filter_is_valid(good), "{good:?}");
        }
        for bad in ["", "a#", "a/#/b", "sport+", "+a/b", "##", "#/", "a\0b"] {
            assert!(!filter_is_valid(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_shared_subscription_has_a_plain_group_and_a_filter() {
        for good in ["$share/g/a", "$share/g/#", "$share/g//a", "$share/g/+/b"] {
            assert!(filter_is_valid(good), "{good:?}");
        }
        for bad in [
            "$share/",
            "$share/g",
            "$share/g/",
            "$share//a",
            "$share/+/a",
            "$share/g/a#",
        ] {
            assert!(!filter_is_valid(bad), "{bad:?}");
        }
        assert_eq!(share("$share/g/a/b"), Some(("g", "a/b")));
        assert_eq!(share("a/b"), None);
    }

    #[test]
    fn a_topic_name_has_no_wildcards_and_is_not_empty() {
        assert!(topic_is_valid("/"));
        assert!(topic_is_valid("a b/ü"));
        for bad in ["", "a/+", "#", "a\0"] {
            assert!(!topic_is_valid(bad), "{bad:?}");
        }
    }
}
