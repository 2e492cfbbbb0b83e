//! Writes the seeds of every target to a folder of its own below the folder named:
//! `cargo run -p headwater-fuzz --example seeds -- FOLDER`.

use std::path::Path;

use headwater_fuzz::TARGETS;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or_else(|| std::io::Error::other("name a folder"))?;
    for target in TARGETS {
        let corpus = Path::new(&folder).join(target.name);
        std::fs::create_dir_all(&corpus)?;
        for (at, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{at:02}")), seed)?;
        }
    }
    Ok(())
}
