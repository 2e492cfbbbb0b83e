//! Side-by-side benchmarks. `headwater-bench codec` prints bytes and time per sample of the batch
//! codec over the typed CSV sets of the folder that `HEADWATER_DATA` names.

mod codec;
mod data;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("codec") => codec::run(&data::sets()?),
        _ => anyhow::bail!("usage: HEADWATER_DATA=<folder> headwater-bench codec"),
    }
}
