//! MQTT 3.1.1 and 5, both roles, as a codec that borrows: nothing is allocated, nothing is copied
//! on the way in, and no byte from outside can make it panic.
//!
//! | file | what |
//! |---|---|
//! | `packet.rs`, `level.rs` | the packets as values; protocol version and QoS |
//! | `list.rs`, `property.rs`, `property_id.rs` | properties and topic filters: raw bytes or a slice, read one by one |
//! | `reason.rs`, `error.rs` | reason codes; why bytes are refused, and the code to answer with |
//! | `decode.rs`, `encode.rs` | values from bytes and back |
//! | `check.rs` | the rules of both directions: [`decode`] accepts every packet that [`encode`] writes |
//! | `filter.rs` | topic names, topic filters and their match |
//! | `wire.rs` | integers, strings and the variable length |
//!
//! The codec is strict: it refuses a packet that the standard calls malformed or a protocol error. Rules
//! over several packets (a packet id in use, the order of CONNECT and CONNACK, a topic alias never set)
//! are checked by the session.
//!
//! # Source
//! MQTT Version 3.1.1 (OASIS Standard, 29 October 2014) and MQTT Version 5.0 (OASIS Standard,
//! 7 March 2019).

mod check;
mod decode;
mod encode;
mod error;
mod filter;
mod level;
mod list;
mod packet;
mod property;
mod property_id;
mod reason;
mod wire;

pub use decode::{connect_version, decode};
pub use encode::{encode, encoded_len};
pub use error::{DecodeError, EncodeError};
pub use filter::{filter_is_valid, share, topic_is_valid, topic_matches};
pub use level::{Qos, Version};
pub use list::{Item, Items, List};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, Publish, RetainHandling, SubAck, Subscribe,
    Subscription, UnsubAck, Unsubscribe, Will,
};
pub use property::{Properties, Property};
pub use reason::Reason;

/// Largest remaining length that the four bytes of its field can hold.
pub const MAX_REMAINING_BYTES: usize = 268_435_455;
/// Most bytes of a string, of binary data and of a topic: their length has two bytes.
pub const MAX_TEXT_BYTES: usize = 65_535;
