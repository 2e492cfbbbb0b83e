//! Core: the seeded world. Devices, links, a collector and its lake run on one virtual clock, in one
//! thread, with the very cores that the programs run; every choice comes from a seed.
//!
//! ```text
//! generator → device (Engine on a FakeDisk) → link → collector (Custody on a FakeDisk → sinks'
//! workers → a MemStore, a destination and a service in memory) → check: audit, rows against the
//! generator, receipts and PUBACKs against the lake, the other sinks against the lake
//! ```
//!
//! | fault | where |
//! |---|---|
//! | messages lost, repeated, overtaken; connections cut | `link.rs` |
//! | death of a process or loss of power, between any two commands | `fleet.rs`, `site.rs` |
//! | death at any operation of a disk or of the store | `faults.rs` |
//! | an operation or a sync that fails once, a disk without room | `faults.rs` |
//! | a spool so small that the oldest gives way, a journal that fills up | `plan.rs` |
//! | a cloned SD card, a restored backup, a new disk in an old device | `fleet.rs` |
//! | the collector's disk is lost, the lake remains | `site.rs` |
//! | bits of the journal flip, an old copy of it is brought back | `site.rs` |
//! | the second sink is busy, away, refuses records, or its answers are lost | `copy.rs` |
//! | the stream's service is busy, away, refuses items of a batch, or its answers are lost | `stream.rs` |
//! | orderly ends of the collector, after which no batch may come again | `site.rs` |
//! | wall clocks set forward and back, of devices and of the collector | `faults.rs` |
//! | wall clocks of devices that begin in 1970 at each boot, stand in 2040, are set right late | `device.rs` |
//! | rules that change from start to start, so that sinks read what arrived under other ones | `collector.rs` |
//! | a collector that is stopped anywhere, taken over from, and wakes | `takeover.rs` |
//! | two gateways with a part each of a node's backlog, one of them away for long | `fleet.rs` |
//! | packets between nodes and their agents lost, repeated, overtaken, lines cut | `behind.rs` |
//! | agents that die with what nodes have just handed them, nodes that restart, nodes that change their agent | `behind.rs` |
//!
//! | part | holds |
//! |---|---|
//! | `course.rs` | what all share: plan, dice, clock, trace, and how often things were seen (`seen.rs`) |
//! | `fleet.rs` | devices, their links, the gateway, plain devices, copies of their disks |
//! | `behind.rs` | nodes behind agents, their lines, and what they made |
//! | `site.rs` | the collector, copies of its journal, whether its lake can be reached |
//! | `run.rs` | the world, in which the two meet: `steps.rs`, what breaks (`faults.rs`), `drain.rs` |
//! | `found.rs`, `given.rs` | what the lake holds, and what a sink was given of a record, in one form |
//! | `judge.rs` | what is held against each other at the end, by the rules of `check.rs` |
//!
//! Some devices reach the collector through a gateway, some log lines as well as numbers, some have nodes
//! behind them that keep their own records until their agent has them; in some
//! runs a second sink and a stream read the journal, with and without the journal waiting for them, and
//! tables get checkpoints. The sum of many runs says how often each thing happened.
//!
//! After the faults a run drains: everybody comes back, everything is sent, the writers stop. Then
//! the lake is judged. A run that fails names its seed; `HEADWATER_SEED=n` runs that one alone and
//! prints what happened.

mod behind;
pub mod bugs;
pub mod check;
pub mod collector;
pub mod copy;
mod course;
pub mod device;
pub mod dice;
mod drain;
mod faults;
mod fleet;
pub mod found;
pub mod generator;
pub mod given;
mod hands;
mod hole;
mod judge;
mod letters;
pub mod link;
pub mod plain;
pub mod plan;
mod present;
mod receipts;
pub mod run;
mod seen;
mod site;
mod steps;
pub mod stream;
mod takeover;

pub use bugs::seeds_until_noticed;
pub use run::{Failure, run, run_many};
pub use seen::{Seen, Summary};
