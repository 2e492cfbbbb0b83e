//! The batch codec beside what people ship today: bytes, CPU time, heap, and whether every bit survives.
//!
//! # What is compared
//! Each set's last three quarters, in batches of 1 to 10,000 rows, all of them (of single rows at most
//! 2,000, spread evenly); the last batch may be shorter. A set takes part in a size that is at most five
//! times its rows. The first quarter is what both ends may learn from beforehand: it fits the parameters of
//! our schema, and it trains the dictionary of postcard.
//!
//! Bytes are those of one message's payload: ours with frame, batch header and CRC-32C; gzip, zstd, LZ4,
//! Arrow and Parquet in their own containers ([`wrap`], [`arrow`]). No competitor but gzip (CRC-32) and
//! LZ4's header has a checksum, and none is charged for lacking it. What travels once per session is
//! charged to nobody and listed apart: our schema, the dictionary, Sparkplug's birth message, the schema
//! that postcard and pco rely on. MQTT's own bytes and our bundle header (who sends what) are left out.
//!
//! JSON, line protocol, SenML, MessagePack, Arrow and Parquet carry names and labels; postcard, pco,
//! Sparkplug and ours carry numbers that the session explains.
//!
//! # Best shipped
//! Every codec of [`codecs`] but ours counts as shipped: a released library or format that can be had
//! today. The best of them is picked **per set and size**, by an oracle that no deployment has, and only
//! among those that gave every bit back. In practice that is postcard with zstd 9 and a trained dictionary
//! (or without, for single rows) in small batches and pco, mostly with zstd, from a hundred rows on.
//! Ours is what the agent sends: the range coder, or up to 4 rows Rice codes where they are shorter.
//!
//! # CPU and heap
//! CPU is the thread's own time, warm, the median of several rounds; within a round every codec has its
//! turn, so that a change of the machine's pace meets all. Encoding starts from the same rows in memory
//! (typed columns; ours from the codec's own row buffer) and decoding ends in the same typed columns. All
//! are built with one profile; see the root `Cargo.toml` for overflow checks.
//!
//! Heap is the peak above what was held before: a new encoder and its first batch with the output, or the
//! first batch that a decoder reads, without the decoded values. zstd's contexts are added by zstd's own
//! account; those within Parquet are not seen.

mod arrow;
mod codecs;
mod columns;
mod json;
mod line;
mod markdown;
mod measure;
mod ours;
mod rows;
mod senml;
mod sparkplug;
mod summary;
mod svg;
mod wrap;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::data::Set;
use crate::table::{Batch, Table};
use measure::Results;

pub(crate) use codecs::{Session, Spec};

/// One way to make a batch a message and back; keeps its memory from batch to batch.
pub(crate) trait Codec {
    /// Replaces what `out` holds by the message.
    fn encode(&mut self, batch: &Batch, out: &mut Vec<u8>) -> anyhow::Result<()>;
    /// Replaces the rows that `table` holds by those of the message.
    fn decode(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()>;
    /// Memory of a C library that Rust's allocator does not see: (encoding, decoding).
    fn hidden_bytes(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// A serialisation, before any compressor.
trait Format {
    /// Appends the rows to `out`.
    fn write(&mut self, table: &Table, out: &mut Vec<u8>) -> anyhow::Result<()>;
    /// Appends the rows to `table`.
    fn read(&mut self, bytes: &[u8], table: &mut Table) -> anyhow::Result<()>;
}

/// What to compare, and where to write it.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these sets, of both groups.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    sets: Vec<String>,
    /// Rows per batch.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000,10000")]
    sizes: Vec<usize>,
    /// Rounds of CPU measurement; 0 leaves CPU out, bytes stay exact.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seed of the held-out sets.
    #[arg(long, default_value_t = crate::held_out::SEED)]
    seed: u64,
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
    /// Write the tables to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the chart to this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Replace the summary between the markers of this file.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

/// Which sets a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// The sets that the codec was developed on.
    Known,
    /// Generated sets that it was not.
    HeldOut,
}

impl Group {
    const ALL: [Self; 2] = [Self::Known, Self::HeldOut];

    const fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::HeldOut => "held-out",
        }
    }
}

/// Measures, then writes and prints what was asked for.
pub(crate) fn run(known: Vec<Set>, options: &Options) -> anyhow::Result<()> {
    let mut sets: Vec<(Group, Set)> = known.into_iter().map(|s| (Group::Known, s)).collect();
    let held_out = crate::held_out::sets(options.seed)?;
    sets.extend(held_out.into_iter().map(|s| (Group::HeldOut, s)));
    for wanted in &options.sets {
        ensure!(
            sets.iter().any(|(_, set)| set.name == *wanted),
            "no set is called {wanted}; there are: {}",
            sets.iter()
                .map(|(_, set)| set.name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        );
    }
    sets.retain(|(_, set)| options.sets.is_empty() || options.sets.contains(&set.name));
    ensure!(
        options.sizes.iter().all(|rows| (1..=10_000).contains(rows)),
        "a batch has from 1 to 10000 rows"
    );

    let specs = codecs::all();
    let mut results = Results::new(&specs, &options.sizes);
    for (at, (group, set)) in sets.iter().enumerate() {
        let progress = format!("[{}/{}] {}", at + 1, sets.len(), set.name);
        measure::set(*group, set, &specs, options, &mut results, &|rows| {
            let _ = writeln!(std::io::stderr(), "{progress}, {rows} rows per batch");
        })
        .with_context(|| set.name.clone())?;
    }
    let tables = markdown::tables(&results);
    if let Some(path) = &options.markdown {
        std::fs::write(path, &tables).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.svg {
        std::fs::write(path, svg::chart(&results)).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.readme {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let text = markdown::replace_summary(&text, &results).with_context(place)?;
        std::fs::write(path, text).with_context(place)?;
    }
    let mut out = std::io::stdout();
    if options.json {
        writeln!(out, "{}", json::object(&results))?;
    } else {
        write!(out, "{tables}")?;
    }
    Ok(())
}

/// Encodes or decodes one batch of `rows` rows again and again, for a tool that counts instructions;
/// prints how many samples were coded.
pub(crate) fn count(
    set: &Set,
    codec: &str,
    rows: usize,
    decode: bool,
    rounds: u64,
) -> anyhow::Result<()> {
    let specs = codecs::all();
    let spec = specs.iter().find(|spec| spec.name == codec);
    let names: Vec<&str> = specs.iter().map(|spec| spec.name).collect();
    let spec = spec.with_context(|| format!("no codec {codec:?}; there are: {names:?}"))?;
    let session = Session::new(set)?;
    let start = set.rows.len() / 4;
    let end = set.rows.len().min(start + rows);
    let batch = Batch::new(set, &session.shape, &session.schema, start..end)?;
    let mut codec = (spec.make)(&session)?;
    let mut table = Table::new(&session.shape);
    let mut out = Vec::new();
    codec.encode(&batch, &mut out)?;
    codec.decode(&out, &mut table)?;
    for _ in 0..rounds {
        if decode {
            codec.decode(&out, &mut table)?;
        } else {
            codec.encode(&batch, &mut out)?;
        }
    }
    writeln!(std::io::stdout(), "{}", batch.samples * rounds)?;
    Ok(())
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::held_out;

    #[test]
    fn every_codec_gives_back_every_bit_of_sets_with_words_labels_gaps_and_flags() {
        for set in held_out::sets(held_out::SEED).unwrap() {
            let session = Session::new(&set).unwrap();
            for spec in codecs::all() {
                let mut codec = (spec.make)(&session).unwrap();
                let mut table = Table::new(&session.shape);
                let mut message = Vec::new();
                for rows in [1usize, 7, 300] {
                    let start = set.rows.len() / 2 + rows;
                    let batch =
                        Batch::new(&set, &session.shape, &session.schema, start..start + rows)
                            .unwrap();
                    codec.encode(&batch, &mut message).unwrap();
                    let same = codec
                        .decode(&message, &mut table)
                        .and_then(|()| batch.table.same(&table));
                    assert!(
                        same.is_ok(),
                        "{}, {}, {rows}: {same:?}",
                        set.name,
                        spec.name
                    );
                }
            }
        }
    }

    #[test]
    fn a_changed_bit_is_seen_in_times_labels_values_and_missing_values() {
        let sets = held_out::sets(held_out::SEED).unwrap();
        let set = sets.iter().find(|set| set.name == "gps_track").unwrap();
        let session = Session::new(set).unwrap();
        let batch = Batch::new(set, &session.shape, &session.schema, 0..50).unwrap();
        let changed = |change: fn(&mut Table)| {
            let mut table = batch.table.clone();
            change(&mut table);
            batch.table.same(&table).is_err()
        };
        assert!(!changed(|_| ()));
        assert!(changed(|table| table.times[49] += 1));
        assert!(changed(|table| table.series[49] += 1));
        assert!(changed(|table| table.columns[0].present[49] = false));
        assert!(changed(|table| {
            if let crate::table::Values::F64(values) = &mut table.columns[0].values {
                values[49] = f64::from_bits(values[49].to_bits() ^ 1);
            }
        }));
    }
}
