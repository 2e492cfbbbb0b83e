//! Core: what the figures add up to.

use super::Group;
use super::codecs::{JSON, POSTCARD, SENT};
use super::measure::{Cell, Results};

/// The answer for one group of sets and one size of batch.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) rows: usize,
    /// Sets that take part.
    pub(super) sets: usize,
    /// Our bytes per sample, geometric mean over sets.
    pub(super) bytes_per_sample: f64,
    /// The best shipped one's, picked per set.
    pub(super) best_bytes_per_sample: f64,
    /// How many times as many bytes the best shipped codec of each set takes: geometric mean.
    pub(super) ratio: f64,
    /// The same where it is smallest, and that set's name.
    pub(super) worst: (f64, String),
    /// Which shipped codec was best, and on how many sets; most first.
    pub(super) best: Vec<(&'static str, usize)>,
    /// Our CPU over postcard + zstd 3, encoding: geometric mean.
    pub(super) encode_ratio: Option<f64>,
    /// Our CPU over JSON + zstd 3, decoding: geometric mean.
    pub(super) decode_ratio: Option<f64>,
    /// CPU of a fit on one batch, in encodes of that batch: geometric mean.
    pub(super) fit_encodes: Option<f64>,
}

/// The smallest shipped codec of a set and size, among those that gave every bit back.
pub(super) fn best_shipped(results: &Results, set: usize, rows: usize) -> Option<&Cell> {
    let shipped = results.codecs.iter().filter(|codec| !codec.ours);
    shipped
        .filter_map(|codec| results.cell(set, rows, codec.name))
        .filter(|cell| cell.lost.is_none())
        .min_by_key(|cell| cell.bytes)
}

/// One summary per size in which a set of the group takes part.
pub(super) fn summaries(results: &Results, group: Group) -> Vec<Summary> {
    results
        .sizes
        .iter()
        .filter_map(|&rows| summary(results, group, rows))
        .collect()
}

fn summary(results: &Results, group: Group, rows: usize) -> Option<Summary> {
    let name = SENT;
    let mut ratios = Vec::new();
    let (mut own_bytes, mut best_bytes) = (Vec::new(), Vec::new());
    let mut best: Vec<(&'static str, usize)> = Vec::new();
    let (mut encode, mut decode, mut fits) = (Vec::new(), Vec::new(), Vec::new());
    for set in results.sets_of(group, rows) {
        let own = results.cell(set, rows, name)?;
        let shipped = best_shipped(results, set, rows)?;
        let ratio = shipped.bytes_per_sample() / own.bytes_per_sample();
        ratios.push((ratio, results.sets[set].name.clone()));
        own_bytes.push(own.bytes_per_sample());
        best_bytes.push(shipped.bytes_per_sample());
        match best.iter_mut().find(|(codec, _)| *codec == shipped.codec) {
            Some((_, count)) => *count += 1,
            None => best.push((shipped.codec, 1)),
        }
        let ns = |codec, of: fn(&Cell) -> Option<f64>| {
            Some(of(own)? / of(results.cell(set, rows, codec)?)?)
        };
        encode.extend(ns(POSTCARD, |cell| cell.encode_ns));
        decode.extend(ns(JSON, |cell| cell.decode_ns));
        let fit = results.sets[set].fits.iter().find(|(of, _)| *of == rows);
        if let (Some((_, fit_ns)), Some(encode_ns)) = (fit, own.encode_ns) {
            let samples = own.samples as f64 / own.batches as f64;
            fits.push(fit_ns / (encode_ns * samples));
        }
    }
    best.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let worst = ratios.iter().min_by(|a, b| a.0.total_cmp(&b.0))?.clone();
    let ratios: Vec<f64> = ratios.into_iter().map(|(ratio, _)| ratio).collect();
    Some(Summary {
        rows,
        sets: ratios.len(),
        bytes_per_sample: geometric_mean(&own_bytes)?,
        best_bytes_per_sample: geometric_mean(&best_bytes)?,
        ratio: geometric_mean(&ratios)?,
        worst,
        best,
        encode_ratio: geometric_mean(&encode),
        decode_ratio: geometric_mean(&decode),
        fit_encodes: geometric_mean(&fits),
    })
}

/// The geometric mean of a codec's figure over the sets that take part; none if a set has none.
pub(super) fn mean_of(
    results: &Results,
    group: Group,
    rows: usize,
    codec: &str,
    figure: impl Fn(&Cell) -> Option<f64>,
) -> Option<f64> {
    let sets = results.sets_of(group, rows);
    let figures = sets
        .into_iter()
        .map(|set| figure(results.cell(set, rows, codec)?));
    geometric_mean(&figures.collect::<Option<Vec<f64>>>()?)
}

/// None of none.
pub(super) fn geometric_mean(values: &[f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let logs: f64 = values.iter().map(|value| value.ln()).sum();
    Some((logs / values.len() as f64).exp())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::measure::{CodecInfo, SetInfo};
    use super::*;

    /// Two sets of both groups; bytes by codec.
    pub(in super::super) fn results(figures: &[(&'static str, [u64; 2])]) -> Results {
        let codecs = figures.iter().map(|&(name, _)| CodecInfo {
            name,
            ours: name == SENT,
            note: "",
        });
        let set = |name: &str, group| SetInfo {
            name: name.to_owned(),
            group,
            rows: 1_000,
            columns: 3,
            schema_bytes: 100,
            dictionary_bytes: 200,
            fits: vec![(100, 60_000.0)],
        };
        let mut cells = Vec::new();
        for at in 0..2 {
            for &(codec, bytes) in figures {
                cells.push(Cell {
                    set: at,
                    rows: 100,
                    codec,
                    batches: 10,
                    samples: 3_000,
                    bytes: bytes[at],
                    encode_ns: Some(if codec == SENT { 20.0 } else { 40.0 }),
                    decode_ns: Some(if codec == SENT { 30.0 } else { 20.0 }),
                    encode_heap: 10,
                    decode_heap: 20,
                    lost: None,
                });
            }
        }
        Results {
            codecs: codecs.collect(),
            sizes: vec![100],
            sets: vec![set("one", Group::Known), set("two", Group::Known)],
            cells,
            machine: String::new(),
        }
    }

    #[test]
    fn the_best_shipped_codec_is_picked_per_set_and_the_worst_set_is_named() {
        let results = results(&[
            (SENT, [1_000, 1_000]),
            ("pco", [4_000, 1_500]),
            (POSTCARD, [2_000, 9_000]),
            (JSON, [9_000, 9_000]),
        ]);
        let summary = &summaries(&results, Group::Known)[0];
        assert!((summary.ratio - 3f64.sqrt()).abs() < 1e-9, "{summary:?}");
        assert_eq!(summary.worst, (1.5, "two".to_owned()));
        assert_eq!(summary.best, [(POSTCARD, 1), ("pco", 1)]);
        assert_eq!(summary.encode_ratio, Some(0.5));
        assert_eq!(summary.decode_ratio, Some(1.5));
        // One batch of 300 samples at 20 ns.
        assert_eq!(summary.fit_encodes.map(f64::round), Some(10.0));
        assert!(summaries(&results, Group::HeldOut).is_empty());
    }

    #[test]
    fn a_codec_that_lost_a_bit_is_not_the_best() {
        let mut results = results(&[
            (SENT, [1_000, 1_000]),
            ("pco", [1_500, 1_500]),
            (POSTCARD, [2_000, 2_000]),
            (JSON, [9_000, 9_000]),
        ]);
        for cell in &mut results.cells {
            if cell.codec == "pco" {
                cell.lost = Some("row 3".to_owned());
            }
        }
        assert_eq!(summaries(&results, Group::Known)[0].best, [(POSTCARD, 2)]);
    }
}
