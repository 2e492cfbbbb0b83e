//! The whole chain with real processes: what a user is promised, seen from outside.
//!
//! Each test has a site of its own: a collector, agents, their disks and a lake in one folder. It
//! waits for conditions under a deadline and ends exactly the processes it started.
//!
//! | variable | meaning |
//! |---|---|
//! | `HEADWATER_BIN` | folder of the two programs; set by `tests/run` |
//! | `HEADWATER_CASES` | folder of inputs from the field; without it, what reads them is left out |
//! | `HEADWATER_PYTHON` | interpreter with the lake's readers; set by `tests/run` |
//! | `HEADWATER_KILLS` | processes that `kill` kills; default 10 |
//! | `HEADWATER_OUTAGE_MB` | bytes that `outage` buffers, in MB; default 12 |
//! | `HEADWATER_SEED` | repeats the random choices of a run |

mod clock;
mod dead_letters;
mod dictionary;
mod faults;
mod full_disk;
mod happy_path;
mod kill;
mod lake_repair;
mod late_lake;
mod nodes;
mod outage;
mod quarantine;
mod readers;
mod renamed;
mod restored;
mod s3;
mod slow_client;
mod start;
mod state_loss;
mod stock_client;
mod streams;

/// A number from the environment, or the default for a short run.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
