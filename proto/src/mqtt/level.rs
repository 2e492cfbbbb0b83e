//! The two levels that packets hold as numbers: of the protocol, and of delivery (QoS).

/// The version of the protocol, as CONNECT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5, protocol level 5.
    V5,
}

impl Version {
    /// The protocol level on the wire.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V5 => 5,
        }
    }
}

/// How often a message may arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: fire and forget.
    AtMostOnce = 0,
    /// QoS 1: acknowledged, may double.
    AtLeastOnce = 1,
    /// QoS 2: four packets, once.
    ExactlyOnce = 2,
}

impl Qos {
    /// Its two bits.
    #[must_use]
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The level of a number; `None` above 2.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}
