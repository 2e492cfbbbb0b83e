//! Core: what a connection was asked for, and what it said of dictionaries.

use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::time::Millis;

use crate::pipeline::envelope::SchemaHead;
use crate::pipeline::schemas::SchemaId;

/// Most schemas of a connection that are remembered as asked for, as referred to, as not taken. Where more
/// come, one is asked for again that need not be.
pub const MAX_ASKED: usize = 256;
/// How long an answer to a request may take before it is made again: the request may be lost.
const ASK_AGAIN_MS: u64 = 5_000;

/// Schemas of one connection that are not settled yet.
#[derive(Debug, Default)]
pub(in super::super) struct Asked {
    /// Those that it was asked for, and when.
    asked: BTreeMap<SchemaHead, Millis>,
    /// Numbers that stand for dictionaries which were not kept when they were told.
    referred: BTreeMap<SchemaHead, SchemaId>,
    /// Numbers of dictionaries that were not taken: lines that need them never will be.
    untaken: BTreeSet<SchemaHead>,
}

impl Asked {
    /// Whether to ask now.
    pub(super) fn ask(&mut self, schema: &SchemaHead, now: Millis) -> bool {
        let asked = self.asked.get(schema);
        if asked.is_some_and(|at| now.since(*at) < ASK_AGAIN_MS) {
            return false;
        }
        if self.asked.len() >= MAX_ASKED {
            self.asked.clear();
        }
        self.asked.insert(schema.clone(), now);
        true
    }

    /// A number stands for a dictionary that is not kept.
    pub(super) fn refer(&mut self, schema: SchemaHead, id: SchemaId) {
        if self.referred.len() < MAX_ASKED {
            self.referred.insert(schema, id);
        }
    }

    /// The dictionary that a number was said to stand for.
    pub(in super::super) fn referred(&self, schema: &SchemaHead) -> Option<SchemaId> {
        self.referred.get(schema).copied()
    }

    /// A dictionary is not taken.
    pub(super) fn refuse(&mut self, schema: SchemaHead) {
        // Those before are asked for again, and refused again; this one must not wait for ever.
        if self.untaken.len() >= MAX_ASKED {
            self.untaken.clear();
        }
        self.untaken.insert(schema);
    }

    /// Whether a number stands for a dictionary that was refused.
    pub(in super::super) fn is_refused(&self, schema: &SchemaHead) -> bool {
        self.untaken.contains(schema)
    }
}
