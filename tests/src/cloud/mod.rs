//! A proxy between clients of AWS and an emulator on this machine. It breaks what a test says, holds
//! the limits that the emulator does not, and writes down what clients were told.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use headwater_tests::cloud::{Fault, Match, Operation, Proxy, Script, Service, When};
//!
//! let half = Fault::SomeFail { probability: 0.5, code: "InternalFailure".to_owned() };
//! let records = Match::operation(Operation::PutRecords);
//! let script = Script::new(7)
//!     .with(records.clone(), When::Always, half)
//!     .with(records, When::Nth(3), Fault::DropAfter);
//! let proxy = Proxy::start(([127, 0, 0, 1], 4566).into(), script)?;
//! // A client with `proxy.url()` as its endpoint works here.
//! proxy.set(Script::new(7)); // From here on without faults.
//! let ledger = proxy.ledger();
//! assert_eq!(ledger.faults("drop_after"), 1, "{}", ledger.table());
//! assert!(ledger.items(Service::Kinesis).failed > 0);
//! # Ok(())
//! # }
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `faults` | the faults, and the calls that they can be for |
//! | `script` | which fault meets which call, from a seed |
//! | `call` | the service and the operation of a request |
//! | `items` | calls with many items: parts, merged answers |
//! | `limits` | limits of AWS that the emulator does not hold |
//! | `flow` | token buckets, and a slow link |
//! | `ledger` | what passed |
//! | `answers`, `http`, `bits` | formats |
//! | `shared`, `exchange`, `proxy` | sockets and threads |

pub mod answers;
pub mod bits;
pub mod call;
mod exchange;
pub mod faults;
pub mod flow;
pub mod http;
pub mod items;
pub mod ledger;
pub mod limits;
pub mod proxy;
pub mod script;
mod shared;

pub use bits::{identity, shard_of};
pub use call::{Call, Condition, Operation, Service};
pub use faults::{Fault, Match, When};
pub use flow::Rates;
pub use ledger::Ledger;
pub use proxy::Proxy;
pub use script::Script;
