//! Core: the results as one JSON object. Fields are added, never changed.

use serde_json::{Value, json};

use super::Group;
use super::measure::Results;
use super::summary::summaries;

/// `summary` per group and size, `sets`, and `cells`: one per set, size and codec.
pub(super) fn object(results: &Results) -> Value {
    let summary: Vec<Value> = Group::ALL
        .into_iter()
        .flat_map(|group| {
            summaries(results, group).into_iter().map(move |s| {
                json!({
                    "group": group.name(),
                    "rows": s.rows,
                    "sets": s.sets,
                    "bytes_per_sample": s.bytes_per_sample,
                    "best_shipped_bytes_per_sample": s.best_bytes_per_sample,
                    "ratio": s.ratio,
                    "worst_ratio": s.worst.0,
                    "worst_set": s.worst.1,
                    "best_shipped": s.best.iter().map(|(codec, sets)| json!({"codec": codec, "sets": sets})).collect::<Vec<_>>(),
                    "encode_cpu_over_postcard_zstd": s.encode_ratio,
                    "decode_cpu_over_json_zstd": s.decode_ratio,
                    "fit_in_encodes": s.fit_encodes,
                })
            })
        })
        .collect();
    let sets: Vec<Value> = results
        .sets
        .iter()
        .map(|set| {
            json!({
                "set": set.name,
                "group": set.group.name(),
                "rows": set.rows,
                "columns": set.columns,
                "schema_bytes": set.schema_bytes,
                "dictionary_bytes": set.dictionary_bytes,
            })
        })
        .collect();
    let cells: Vec<Value> = results
        .cells
        .iter()
        .map(|cell| {
            json!({
                "set": results.sets[cell.set].name,
                "group": results.sets[cell.set].group.name(),
                "rows": cell.rows,
                "codec": cell.codec,
                "batches": cell.batches,
                "samples": cell.samples,
                "bytes": cell.bytes,
                "bytes_per_sample": cell.bytes_per_sample(),
                "encode_ns": cell.encode_ns,
                "decode_ns": cell.decode_ns,
                "encode_heap_bytes": cell.encode_heap,
                "decode_heap_bytes": cell.decode_heap,
                "exact": cell.lost.is_none(),
                "lost": cell.lost,
            })
        })
        .collect();
    json!({"summary": summary, "sets": sets, "cells": cells})
}
