//! The wire of headwater: formats and protocol between devices, agents and collectors.
//!
//! Everything here is core: no clock, no socket, no file, and no allocation unless the `alloc`
//! feature is on. Layers, from the inside out:
//!
//! | layer | module | unit |
//! |---|---|---|
//! | schema | [`schema`] | columns, series, tags, and how the columns are coded |
//! | batch | [`codec`] | rows of one schema, losslessly compressed |
//! | frame | [`frame`] | kind, length, payload, CRC-32C |
//! | bundle | [`bundle`] | one publish: a head frame and the frames it numbers |
//! | message | [`message`] | messages about records: Hello, Welcome, Ack, Gap ... |
//! | refused | [`refused`] | parts of an input that could not be read |
//! | delivery | [`delivery`] | which records are sent when, and who may forget them |
//! | serial | [`serial`] | packets of frames on a byte stream |
//! | MQTT | [`mqtt`] | the carrier, 3.1.1 and 5, both roles |
#![cfg_attr(not(feature = "std"), no_std)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod bundle;
pub mod codec;
pub mod delivery;
pub mod frame;
pub mod ids;
pub mod message;
pub mod mqtt;
pub mod portion;
pub mod refused;
pub mod sabotage;
pub mod sample;
pub mod schema;
pub mod serial;
pub mod text;
pub mod time;
pub mod topic;
pub mod varint;
