//! Side-by-side benchmarks of the batch codec over the typed CSV sets of the folder that
//! `HEADWATER_DATA` names, and over generated ones.
//!
//! `codec` prints bytes and time per sample of our back ends; `compare` sets them beside what people ship
//! today; `count` codes one batch again and again under a tool that counts instructions (`callgrind`,
//! beside this package's manifest).

mod clock;
mod codec;
mod compare;
mod data;
mod heap;
mod held_out;
mod table;

use std::io::Write as _;

use anyhow::Context;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Side-by-side benchmarks of headwater's batch codec")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bytes and CPU time per sample of our back ends.
    Codec,
    /// Bytes, CPU time, heap and exactness beside what people ship today.
    Compare(compare::Options),
    /// Codes one batch again and again; prints how many samples that were.
    Count {
        /// A set's name.
        #[arg(long, default_value = "house_power")]
        set: String,
        /// A codec's name, as in the tables of `compare`.
        #[arg(long)]
        codec: String,
        /// Rows of the batch.
        #[arg(long, default_value_t = 100)]
        rows: usize,
        /// Decode instead of encode.
        #[arg(long)]
        decode: bool,
        /// How many times, after one that warms up.
        #[arg(long, default_value_t = 1)]
        rounds: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Codec => codec::run(&data::sets()?),
        Command::Compare(options) => {
            let known = match std::env::var_os(data::FOLDER) {
                Some(_) => data::sets()?,
                None => {
                    let line = format!("{} is not set: held-out sets only", data::FOLDER);
                    writeln!(std::io::stderr(), "{line}")?;
                    Vec::new()
                }
            };
            compare::run(known, &options)
        }
        Command::Count {
            set,
            codec,
            rows,
            decode,
            rounds,
        } => {
            let mut sets = held_out::sets(held_out::SEED)?;
            if !sets.iter().any(|one| one.name == set) {
                sets = data::sets()?;
            }
            let set = sets
                .iter()
                .find(|one| one.name == set)
                .with_context(|| format!("no set {set:?}"))?;
            compare::count(set, &codec, rows, decode, rounds)
        }
    }
}
