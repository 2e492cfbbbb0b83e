//! The plans of a schema under a back end.

use alloc::vec::Vec;

use super::header::BackEnd;
use crate::codec::model::Plan;
use crate::schema::Schema;
use crate::schema::params::Corrections;

/// The plans of a schema's columns under a back end.
pub(super) fn plans(schema: &Schema, back_end: BackEnd) -> Vec<Plan> {
    let plan = |column: &crate::schema::Column| {
        let mut params = column.params;
        if back_end == BackEnd::Varint {
            // Whole bytes gain nothing from a memory, nor from a correction per value.
            params.memory = 0;
            params.corrections = Corrections::Rare;
        }
        let texts = u32::try_from(column.dictionary.len()).unwrap_or(u32::MAX);
        Plan::new(column.kind, column.nullable, params, texts).with_levels(&column.levels)
    };
    schema.columns.iter().map(plan).collect()
}
