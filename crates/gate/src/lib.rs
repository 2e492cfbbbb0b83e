//! The gate: MQTT in, durable before PUBACK.
//!
//! Telemetry ends here. A publish goes to the owner through [`ingest`]; its PUBACK leaves only when
//! the owner says that it is durable. The gate keeps no message and forwards none.
//!
//! | file | what |
//! |---|---|
//! | `session.rs` | core: one connection's protocol state, bytes in, events and bytes out |
//! | `acl.rs`, `identity.rs` | core: who is it, and what may it write and read |
//! | `pattern.rs` | core: what topics name |
//! | `limits.rs`, `close.rs`, `metrics.rs` | core: every bound; why connections end; what is counted |
//! | `repeat.rs` | core: which publish of a plain device is a repeat, for the owner's journal |
//! | `ingest.rs`, `handle.rs` | events up through one bounded queue; PUBACKs and messages down |
//! | `listener.rs`, `conn.rs` | shell: sockets and tasks |
//! | `store.rs` | the sessions that outlive a connection, kept by the owner |

pub mod acl;
pub mod close;
mod conn;
mod handle;
pub mod identity;
pub mod ingest;
pub mod limits;
mod listener;
pub mod metrics;
pub mod pattern;
pub mod repeat;
pub mod session;
pub mod store;

pub use close::CloseReason;
pub use handle::{DownError, GateHandle};
pub use headwater_program::clock;
pub use ingest::{Arrival, Arrivals, Body, ConnId, GateEvent, Token};
pub use limits::Limits;
pub use listener::{Gate, Settings};
pub use metrics::Metrics;
