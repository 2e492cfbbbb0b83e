//! Runs every codec over a set: bytes and exactness once over all rows, then CPU time in rounds.

use std::ops::Range;

use anyhow::Context;
use headwater_proto::codec::fit;

use super::{Codec, Group, Options, Session, Spec};
use crate::clock::cpu_ns;
use crate::data::Set;
use crate::heap::peak_of;
use crate::table::{Batch, Table};

/// CPU time that a codec gets per round and direction, unless one batch takes longer.
const ROUND_NS: u64 = 8_000_000;
/// Single rows that are taken of a set: enough for an exact mean, few enough for Parquet.
const MAX_SINGLE_ROWS: usize = 2_000;
/// A set takes part in a size that is at most this many times its rows.
const MAX_STRETCH: usize = 5;
/// A fit is measured this many times at most: it takes long, and only its order matters.
const MAX_FITS: usize = 3;

/// Everything that was measured.
pub(crate) struct Results {
    /// The names of the codecs, ours first, with their notes.
    pub(super) codecs: Vec<CodecInfo>,
    pub(super) sizes: Vec<usize>,
    pub(super) sets: Vec<SetInfo>,
    pub(super) cells: Vec<Cell>,
    /// The processor's name, for who reads the CPU figures.
    pub(super) machine: String,
}

/// One codec as the tables name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct CodecInfo {
    pub(super) name: &'static str,
    pub(super) ours: bool,
    pub(super) note: &'static str,
}

/// What is known of a set.
pub(super) struct SetInfo {
    pub(super) name: String,
    pub(super) group: Group,
    /// Rows that were coded: the last three quarters.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Sent once per session.
    pub(super) schema_bytes: usize,
    /// Shipped once, for the codecs that use it.
    pub(super) dictionary_bytes: usize,
    /// (rows per batch, CPU of a fit on one such batch in ns)
    pub(super) fits: Vec<(usize, f64)>,
}

/// One codec on one set in batches of one size.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// Place in [`Results::sets`].
    pub(super) set: usize,
    pub(super) rows: usize,
    pub(super) codec: &'static str,
    pub(super) batches: usize,
    pub(super) samples: u64,
    pub(super) bytes: u64,
    /// Per sample; none if no round was run.
    pub(super) encode_ns: Option<f64>,
    pub(super) decode_ns: Option<f64>,
    /// Peak heap of one batch.
    pub(super) encode_heap: usize,
    pub(super) decode_heap: usize,
    /// What came back wrong, if anything did.
    pub(super) lost: Option<String>,
}

impl Cell {
    pub(super) fn bytes_per_sample(&self) -> f64 {
        self.bytes as f64 / self.samples as f64
    }
}

impl Results {
    pub(super) fn new(specs: &[Spec], sizes: &[usize]) -> Self {
        let codecs = specs.iter().map(|spec| CodecInfo {
            name: spec.name,
            ours: spec.ours,
            note: spec.note,
        });
        let mut sizes = sizes.to_vec();
        sizes.sort_unstable();
        sizes.dedup();
        Self {
            codecs: codecs.collect(),
            sizes,
            sets: Vec::new(),
            cells: Vec::new(),
            machine: machine(),
        }
    }

    /// The figures of one codec on one set at one size.
    pub(super) fn cell(&self, set: usize, rows: usize, codec: &str) -> Option<&Cell> {
        self.cells
            .iter()
            .find(|cell| cell.set == set && cell.rows == rows && cell.codec == codec)
    }

    /// The sets of a group that take part in a size.
    pub(super) fn sets_of(&self, group: Group, rows: usize) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|&set| self.sets[set].group == group)
            .filter(|&set| self.cells.iter().any(|c| c.set == set && c.rows == rows))
            .collect()
    }
}

/// A codec at work on one set.
struct Running<'a> {
    codec: Box<dyn Codec + 'a>,
    messages: Vec<Vec<u8>>,
    table: Table,
    out: Vec<u8>,
    /// CPU of the pass over all batches, to know how many fill a round.
    pass_ns: [u64; 2],
    /// Per round, per sample: encode, decode.
    rounds: [Vec<f64>; 2],
    cell: Cell,
}

/// Measures one set and adds it to `results`.
pub(super) fn set(
    group: Group,
    set: &Set,
    specs: &[Spec],
    options: &Options,
    results: &mut Results,
    progress: &dyn Fn(usize),
) -> anyhow::Result<()> {
    let session = Session::new(set)?;
    let place = results.sets.len();
    let test = set.rows.len() / 4..set.rows.len();
    let mut info = SetInfo {
        name: set.name.clone(),
        group,
        rows: test.len(),
        columns: set.schema.columns.len(),
        schema_bytes: session.schema_bytes,
        dictionary_bytes: session.dictionary.len(),
        fits: Vec::new(),
    };
    for rows in results.sizes.clone() {
        if rows > test.len() * MAX_STRETCH {
            continue;
        }
        progress(rows);
        let batches: Vec<Batch> = ranges(&test, rows)
            .into_iter()
            .map(|range| Batch::new(set, &session.shape, &session.schema, range))
            .collect::<anyhow::Result<_>>()?;
        let mut running = Vec::new();
        for spec in specs {
            let one = start(spec, &session, &batches, place, rows)
                .with_context(|| format!("{}, {rows} rows", spec.name))?;
            running.push(one);
        }
        let order = shuffled(batches.len());
        for _ in 0..options.rounds {
            for one in &mut running {
                one.round(&batches, &order)?;
            }
        }
        if rows > 1 && options.rounds > 0 {
            let ns = (0..options.rounds.min(MAX_FITS)).map(|_| {
                let mut schema = set.schema.clone();
                let before = cpu_ns();
                fit(&batches[0].rows, &mut schema);
                (cpu_ns() - before) as f64
            });
            info.fits.push((rows, median(ns.collect()).unwrap_or(0.0)));
        }
        results.cells.extend(running.into_iter().map(|one| {
            let [encode, decode] = one.rounds.map(median);
            Cell {
                encode_ns: encode,
                decode_ns: decode,
                ..one.cell
            }
        }));
    }
    results.sets.push(info);
    Ok(())
}

/// The batches of a size.
fn ranges(test: &Range<usize>, rows: usize) -> Vec<Range<usize>> {
    if rows == 1 {
        let count = test.len().min(MAX_SINGLE_ROWS);
        return (0..count)
            .map(|at| test.start + at * test.len() / count)
            .map(|row| row..row + 1)
            .collect();
    }
    test.clone()
        .step_by(rows)
        .map(|start| start..test.end.min(start + rows))
        .collect()
}

/// Encodes and decodes every batch once, and takes the peaks of a new codec's first batch.
fn start<'a>(
    spec: &Spec,
    session: &'a Session,
    batches: &[Batch],
    set: usize,
    rows: usize,
) -> anyhow::Result<Running<'a>> {
    let mut codec = (spec.make)(session)?;
    let mut messages = Vec::new();
    let mut out = Vec::new();
    let before = cpu_ns();
    for batch in batches {
        codec.encode(batch, &mut out)?;
        messages.push(out.clone());
    }
    let encoded = cpu_ns();
    let mut table = Table::new(&session.shape);
    let mut lost = None;
    let mut checking = 0;
    for (batch, message) in batches.iter().zip(&messages) {
        let came_back = codec.decode(message, &mut table);
        let decoded = cpu_ns();
        let same = came_back.and_then(|()| batch.table.same(&table));
        if let (None, Err(error)) = (&lost, same) {
            lost = Some(format!("{error:#}"));
        }
        checking += cpu_ns() - decoded;
    }
    let pass_ns = [encoded - before, cpu_ns() - encoded - checking];

    let (made, encode_heap) = peak_of(|| -> anyhow::Result<_> {
        let mut fresh = (spec.make)(session)?;
        let mut out = Vec::new();
        fresh.encode(&batches[0], &mut out)?;
        Ok(fresh.hidden_bytes().0)
    });
    let encode_heap = encode_heap + made?;
    let mut fresh = (spec.make)(session)?;
    let (_, decode_heap) = peak_of(|| fresh.decode(&messages[0], &mut table));
    let decode_heap = decode_heap + fresh.hidden_bytes().1;
    drop(fresh);
    Ok(Running {
        codec,
        table,
        out,
        pass_ns,
        rounds: [Vec::new(), Vec::new()],
        cell: Cell {
            set,
            rows,
            codec: spec.name,
            batches: batches.len(),
            samples: batches.iter().map(|batch| batch.samples).sum(),
            bytes: messages.iter().map(|message| message.len() as u64).sum(),
            encode_ns: None,
            decode_ns: None,
            encode_heap,
            decode_heap,
            lost,
        },
        messages,
    })
}

impl Running<'_> {
    /// One round: as many batches as fill it, the same ones in every round.
    fn round(&mut self, batches: &[Batch], order: &[usize]) -> anyhow::Result<()> {
        let [encode_batches, decode_batches] = self.pass_ns.map(|ns| {
            let one_ns = (ns / batches.len() as u64).max(1);
            usize::try_from(ROUND_NS / one_ns).unwrap_or(1).max(1)
        });
        let mut samples = 0;
        let before = cpu_ns();
        for &at in order.iter().cycle().take(encode_batches) {
            self.codec.encode(&batches[at], &mut self.out)?;
            samples += batches[at].samples;
        }
        self.rounds[0].push((cpu_ns() - before) as f64 / samples as f64);
        if self.cell.lost.is_some() {
            return Ok(());
        }
        samples = 0;
        let before = cpu_ns();
        for &at in order.iter().cycle().take(decode_batches) {
            self.codec.decode(&self.messages[at], &mut self.table)?;
            samples += batches[at].samples;
        }
        self.rounds[1].push((cpu_ns() - before) as f64 / samples as f64);
        Ok(())
    }
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let name = lines.find(|(key, _)| key.trim() == "model name");
    name.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

/// The numbers below `count` in an order that spreads every beginning of it evenly.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    order
}

/// The middle one; none of none.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
