//! Core: which topics a client may write and read, and which client ids there are.
//!
//! | topic | who may publish | who may subscribe |
//! |---|---|---|
//! | `hw/1/<shard>/<device>/up` | the device itself, or a gateway that has it on its list | nobody |
//! | `hw/1/<shard>/<device>/down` | nobody | the device itself |
//! | what a plain pattern matches | any client, or the device alone if `plain_bound` | nobody |
//! | everything else | nobody | nobody |

use headwater_program::glob;
use headwater_proto::ids::DeviceId;
use headwater_proto::topic::{Direction, Topic};

pub use crate::pattern::TopicPattern;

/// A gateway: a client that speaks for other devices too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its client id.
    pub client: String,
    /// Device ids, or globs with `*` for any run of characters.
    pub devices: Vec<String>,
}

impl Gateway {
    /// Whether the gateway speaks for `device`.
    #[must_use]
    pub fn speaks_for(&self, device: &DeviceId) -> bool {
        self.devices
            .iter()
            .any(|glob| glob::matches(glob, device.as_str()))
    }
}

/// Whether `client` is a gateway that speaks for `device`.
#[must_use]
pub fn speaks_for(gateways: &[Gateway], client: &str, device: &DeviceId) -> bool {
    gateways
        .iter()
        .any(|gateway| gateway.client == client && gateway.speaks_for(device))
}

/// Where a publish goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The wire of headwater, for this device.
    Agent(DeviceId),
    /// A plain device's message.
    Plain,
}

/// The rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {
    /// Clients that may publish for other devices.
    pub gateways: Vec<Gateway>,
    /// Topics of plain devices; the first that matches counts.
    pub plain: Vec<TopicPattern>,
    /// Whether the `{device}` of a plain topic must be the client's own id.
    pub plain_bound: bool,
    /// Client ids that nobody may use from outside, such as a local link's.
    pub reserved: Vec<String>,
}

impl Acl {
    /// Whether a client may have this id: no `+ $ # /`, which have broken brokers behind a gate,
    /// no control characters, and none of the reserved ones.
    #[must_use]
    pub fn client_id_is_allowed(&self, id: &str) -> bool {
        !id.is_empty()
            && !id
                .chars()
                .any(|c| matches!(c, '+' | '$' | '#' | '/') || c.is_control())
            && !self.reserved.iter().any(|reserved| reserved == id)
    }

    /// Where a publish of `client` goes; `None` if it may not.
    #[must_use]
    pub fn publish(&self, client: &str, topic: &str) -> Option<Target> {
        if let Ok(Topic {
            device,
            direction: Direction::Up,
            ..
        }) = Topic::parse(topic)
        {
            let own = device.as_str() == client || speaks_for(&self.gateways, client, &device);
            return own.then_some(Target::Agent(device));
        }
        if topic.starts_with("hw/") || topic.starts_with('$') {
            return None;
        }
        let named = self.plain.iter().find_map(|pattern| pattern.read(topic))?;
        let allowed = match named.device {
            Some(device) => !self.plain_bound || device == client,
            None => true,
        };
        allowed.then_some(Target::Plain)
    }

    /// Whether `client` may subscribe to `filter`: to its own down topic, no wildcards.
    #[must_use]
    pub fn subscribe(&self, client: &str, filter: &str) -> bool {
        Topic::parse(filter).is_ok_and(|topic| {
            topic.direction == Direction::Down && topic.device.as_str() == client
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl() -> Acl {
        Acl {
            gateways: vec![Gateway {
                client: "gw-1".into(),
                devices: vec!["node-*".into(), "pump".into()],
            }],
            plain: ["sensors/{device}/#", "plant/+/raw"]
                .map(|p| TopicPattern::parse(p).unwrap())
                .into(),
            plain_bound: false,
            reserved: vec!["console".into()],
        }
    }

    fn agent(device: &str) -> Option<Target> {
        Some(Target::Agent(DeviceId::new(device).unwrap()))
    }

    #[test]
    fn an_agent_publishes_for_itself_alone_and_only_upwards() {
        let acl = acl();
        assert_eq!(acl.publish("pi-1", "hw/1/0f/pi-1/up"), agent("pi-1"));
        for topic in [
            "hw/1/0f/pi-2/up",
            "hw/1/0f/pi-1/down",
            "hw/1/0f/pi-1/up/x",
            "hw/1/0F/pi-1/up",
            "hw/1/40/pi-1/up",
            "hw/1/0/pi-1/up",
            "hw/2/0f/pi-1/up",
            "hw/1/0f//up",
        ] {
            assert_eq!(acl.publish("pi-1", topic), None, "{topic}");
        }
    }

    #[test]
    fn a_gateway_publishes_for_the_devices_on_its_list() {
        let acl = acl();
        assert_eq!(acl.publish("gw-1", "hw/1/00/node-12/up"), agent("node-12"));
        assert_eq!(acl.publish("gw-1", "hw/1/00/pump/up"), agent("pump"));
        assert_eq!(acl.publish("gw-1", "hw/1/00/gw-1/up"), agent("gw-1"));
        assert_eq!(acl.publish("gw-1", "hw/1/00/pump2/up"), None);
        assert_eq!(acl.publish("gw-2", "hw/1/00/pump/up"), None);
    }

    #[test]
    fn a_plain_device_publishes_where_a_pattern_allows() {
        let acl = acl();
        assert_eq!(acl.publish("x", "sensors/m1/temp"), Some(Target::Plain));
        assert_eq!(acl.publish("x", "sensors/m1"), Some(Target::Plain));
        assert_eq!(acl.publish("x", "plant/a/raw"), Some(Target::Plain));
        for topic in [
            "plant/a/raw/b",
            "plant/raw",
            "other",
            "$SYS/x",
            "hw/9",
            "sensors",
        ] {
            assert_eq!(acl.publish("x", topic), None, "{topic}");
        }
    }

    #[test]
    fn a_bound_plain_topic_names_its_own_client() {
        let acl = Acl {
            plain_bound: true,
            ..acl()
        };
        assert_eq!(acl.publish("m1", "sensors/m1/temp"), Some(Target::Plain));
        assert_eq!(acl.publish("m2", "sensors/m1/temp"), None);
    }

    #[test]
    fn a_wide_pattern_reaches_neither_agents_nor_system_topics() {
        let acl = Acl {
            plain: vec![TopicPattern::parse("#").unwrap()],
            ..Acl::default()
        };
        assert_eq!(acl.publish("x", "a/b/c"), Some(Target::Plain));
        assert_eq!(acl.publish("x", "hw/1/00/y/up"), None);
        assert_eq!(acl.publish("x", "$SYS/broker"), None);
    }

    #[test]
    fn only_the_own_down_topic_can_be_subscribed() {
        let acl = acl();
        assert!(acl.subscribe("pi-1", "hw/1/3c/pi-1/down"));
        for filter in [
            "hw/1/3c/pi-2/down",
            "hw/1/+/pi-1/down",
            "hw/1/3c/+/down",
            "#",
            "hw/1/3c/pi-1/up",
        ] {
            assert!(!acl.subscribe("pi-1", filter), "{filter}");
        }
    }

    #[test]
    fn client_ids_that_break_brokers_are_refused() {
        let acl = acl();
        assert!(acl.client_id_is_allowed("pi-1"));
        for id in ["", "a+b", "$link", "a#", "a/b", "a\nb", "console"] {
            assert!(!acl.client_id_is_allowed(id), "{id:?}");
        }
    }
}
