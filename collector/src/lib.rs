//! The collector: takes custody of readings, and brings each into the lake once.
//!
//! ```text
//! gate ──► owner (custody: judge, append, sync, answer) ──► journal ──► sinks: lake · hot
//!   ◄── PUBACK, Ack, Welcome ──┘        ◄── plan, committed ──────────────┘
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`pipeline`] | core: what happens to a record between its arrival and the sinks |
//! | [`interpret`] | core: from a journal record to what every sink sees of it |
//! | [`done`] | core: epochs that are over and were let go of; [`done_store`]: on disk |
//! | [`sink`] | where records come to rest |
//! | [`quarantine`] | core: lists what is not believed, and puts it among the samples |
//! | [`config`] | core: what the operator decides |
//! | [`run`] | starts all parts, stops them in order |
//! | [`metrics`], [`http`] | what others may see |
//! | [`state`] | keyed state on sled: an index, never the authority |
//! | [`commands`], [`demo`] | the other commands |

mod background;
pub mod commands;
pub mod config;
pub mod demo;
pub mod done;
pub mod done_store;
pub mod http;
pub mod interpret;
pub mod metrics;
mod owner;
pub mod pipeline;
pub mod quarantine;
pub mod run;
pub mod sink;
pub mod state;
