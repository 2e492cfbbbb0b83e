//! Numbers of the properties with rules of their own.

/// Number of the topic alias, whose bad values have their own reason code.
pub(super) const TOPIC_ALIAS: u8 = 35;
/// Number of the user property, which may stand often.
pub(super) const USER_PROPERTY: u8 = 38;
/// Number of the subscription identifier, which may stand often in PUBLISH.
pub(super) const SUBSCRIPTION_IDENTIFIER: u8 = 11;
