//! Shared by both programs: everything between `main` and the parts that do the work.
//!
//! | module | holds |
//! |---|---|
//! | [`clock`] | the only place that reads clocks, and how far the wall clock may be off |
//! | [`entropy`] | random bits from the operating system |
//! | [`faults`] | core: reads a configuration and names every fault in it at once |
//! | [`findings`] | what `--check` finds on this machine |
//! | [`glob`] | core: patterns of ids |
//! | [`config`] | the configuration's file |
//! | [`log`] | what is logged, checked with the configuration and started once |
//! | [`listen`] | listening sockets, and who holds an address that is taken |
//! | [`shutdown`] | SIGTERM and SIGINT |
//! | [`chain`] | core: an error with its causes, on one line |
//! | [`output`] | standard output, standard error, exit codes |

pub mod chain;
pub mod clock;
pub mod config;
pub mod entropy;
pub mod faults;
pub mod findings;
pub mod glob;
pub mod listen;
pub mod log;
pub mod notices;
pub mod output;
pub mod shutdown;
