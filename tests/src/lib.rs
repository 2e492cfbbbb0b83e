//! What the tests of the whole system share.

pub mod cloud;
pub mod dice;
pub mod lake;
pub mod mqtt;
pub mod node;
pub mod process;
pub mod signals;
pub mod site;
pub mod trace;
pub mod world;
