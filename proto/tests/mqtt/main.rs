//! The MQTT codec against the standard, against itself and against rumqtt's codecs. One binary, so
//! that the peers are linked once.

mod bounds;
mod differential;
mod generate;
mod golden;
mod properties;
mod refusals;
