//! The link to the collector: carries bytes, decides nothing about custody.

pub mod mqtt;

/// What the link tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// Connected and subscribed: messages can pass both ways.
    Up,
    /// The connection is gone.
    Down,
    /// A publish came on the down topic.
    Message(Vec<u8>),
}

/// Down publishes between link and engine.
pub const LINK_EVENTS: usize = 32;

#[cfg(test)]
mod tests;
