//! The collector: takes custody of readings, and brings each into the lake once.
//!
//! | module | what |
//! |---|---|
//! | [`pipeline`] | core: what happens to a record between its arrival and the sinks |
//! | [`ledger`] | core: what is held of every stream |
//! | [`sink`] | where records come to rest |
//! | [`clock`] | the one place that reads clocks and entropy |

pub mod clock;
pub mod ledger;
pub mod pipeline;
pub mod sink;
