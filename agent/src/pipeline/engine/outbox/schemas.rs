//! Core: the schemas that the collector needs to read what is sent: those at hand, where the others
//! stand in the spool, and which went out on this connection.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::text;
use headwater_proto::time::Millis;
use sha2::{Digest as _, Sha256};

use super::Shelf;

/// Most schemas kept in memory for sending; more are read again from the spool.
const MAX_CACHED_SCHEMAS: usize = 256;
/// Most schemas remembered as sent on this connection; beyond it they are sent again.
const MAX_SENT_SCHEMAS: usize = 4096;
/// Most schemas remembered as not to be found; beyond it they are looked for again.
const MAX_NOWHERE: usize = 256;
/// How soon a schema is sent again that was asked for before.
const ANSWER_AGAIN_MS: u64 = 10_000;

/// Names a schema: its epoch and its number there.
pub(super) type SchemaName = (Epoch, u32);

/// Schemas at hand, and what this connection knows of them.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    pub(super) cached: BTreeMap<SchemaName, Vec<u8>>,
    pub(super) sent: BTreeSet<SchemaName>,
    /// Looked for on this connection and not found: their batches go without.
    pub(super) nowhere: BTreeSet<SchemaName>,
    /// Asked for and answered on this connection, and when.
    answered: BTreeMap<SchemaName, Millis>,
}

impl Schemas {
    /// Keeps a schema that was come across while number `wanted` is looked for: that one always
    /// finds room, others if there is any.
    fn keep(&mut self, name: SchemaName, bytes: &[u8], wanted: u32) {
        if self.cached.len() >= MAX_CACHED_SCHEMAS && !self.cached.contains_key(&name) {
            if name.1 != wanted {
                return;
            }
            self.cached.pop_first();
        }
        self.cached.insert(name, bytes.to_vec());
    }

    pub(super) fn note_sent(&mut self, name: SchemaName) {
        if self.sent.len() >= MAX_SENT_SCHEMAS {
            self.sent.clear();
        }
        self.sent.insert(name);
    }

    fn note_nowhere(&mut self, name: SchemaName) {
        if self.nowhere.len() >= MAX_NOWHERE {
            self.nowhere.clear();
        }
        self.nowhere.insert(name);
    }

    /// A new connection knows no schema, and may have luck with those that were not found.
    pub(super) fn forget_connection(&mut self) {
        self.sent.clear();
        self.nowhere.clear();
        self.answered.clear();
    }

    /// A schema at hand.
    pub(super) fn get(&self, name: SchemaName) -> Option<&[u8]> {
        self.cached.get(&name).map(Vec::as_slice)
    }

    /// Whether it was asked for a moment ago, and answered.
    pub(super) fn is_answered(&self, name: SchemaName, now: Millis) -> bool {
        let answered = self.answered.get(&name);
        answered.is_some_and(|at| now.since(*at) < ANSWER_AGAIN_MS)
    }

    pub(super) fn note_answered(&mut self, name: SchemaName, now: Millis) {
        if self.answered.len() >= MAX_CACHED_SCHEMAS {
            self.answered.clear();
        }
        self.answered.insert(name, now);
    }

    /// Looks for the schema that record `seq` needs: in its segment, which holds it unless that is
    /// damaged, then in all of its epoch.
    pub(super) fn find(&mut self, lane: Lane, seq: u64, name: SchemaName, shelf: &mut impl Shelf) {
        if self.cached.len() >= MAX_CACHED_SCHEMAS {
            // What stands beside the wanted one is likely wanted next.
            self.cached.clear();
        }
        self.look_near(lane, Some(seq), name, shelf);
        self.look(lane, name, shelf);
        if !self.cached.contains_key(&name) {
            self.note_nowhere(name);
        }
    }

    /// Looks for a schema wherever one of its epoch may stand, unless it is at hand.
    pub(super) fn look(&mut self, lane: Lane, name: SchemaName, shelf: &mut impl Shelf) {
        if !self.cached.contains_key(&name) {
            self.look_near(lane, None, name, shelf);
        }
    }

    fn look_near(
        &mut self,
        lane: Lane,
        near: Option<u64>,
        (epoch, wanted): SchemaName,
        shelf: &mut impl Shelf,
    ) {
        let mut keep = |number, bytes: &[u8]| self.keep((epoch, number), bytes, wanted);
        shelf.schemas(lane, epoch, near, wanted, &mut keep);
    }
}

/// What is sent of a schema before anybody asks: of a dictionary its SHA-256, since another device of
/// the fleet has most often sent it already.
pub(super) fn announced(bytes: &[u8]) -> Cow<'_, [u8]> {
    if text::is_dictionary(bytes) {
        Cow::Owned(text::refer(&Sha256::digest(bytes).into()).to_vec())
    } else {
        Cow::Borrowed(bytes)
    }
}

/// The payload of a Schema frame: the number, then the schema's bytes.
pub(super) fn schema_payload(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut head = [0; headwater_proto::varint::MAX_VARINT_BYTES];
    let mut len = 0;
    headwater_proto::varint::put(&mut head, &mut len, u64::from(number))
        .expect("the buffer holds any varint");
    [&head[..len], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn name(number: u32) -> SchemaName {
        (Epoch::new(1), number)
    }

    fn numbers(most: usize) -> std::ops::Range<u32> {
        0..u32::try_from(most).unwrap()
    }

    #[test]
    fn the_schema_that_is_looked_for_finds_room_among_as_many_as_are_kept_and_others_do_not() {
        let mut schemas = Schemas::default();
        let all = numbers(MAX_CACHED_SCHEMAS);
        let (wanted, beside) = (all.end, all.end + 1);
        for number in all.clone() {
            schemas.keep(name(number), b"schema", wanted);
        }
        assert!(all.clone().all(|it| schemas.cached.contains_key(&name(it))));
        schemas.keep(name(beside), b"schema", wanted);
        assert!(!schemas.cached.contains_key(&name(beside)));
        schemas.keep(name(wanted), b"schema", wanted);
        assert!(schemas.cached.contains_key(&name(wanted)));
        assert_eq!(schemas.cached.len(), MAX_CACHED_SCHEMAS);
    }

    #[test]
    fn beyond_what_is_remembered_as_sent_schemas_are_sent_again() {
        let mut schemas = Schemas::default();
        for number in numbers(MAX_SENT_SCHEMAS) {
            schemas.note_sent(name(number));
        }
        assert_eq!(schemas.sent.len(), MAX_SENT_SCHEMAS);
        let one_more = name(numbers(MAX_SENT_SCHEMAS).end);
        schemas.note_sent(one_more);
        assert_eq!(schemas.sent, [one_more].into());
    }

    #[test]
    fn beyond_what_is_remembered_as_not_to_be_found_schemas_are_looked_for_again() {
        let mut schemas = Schemas::default();
        for number in numbers(MAX_NOWHERE) {
            schemas.note_nowhere(name(number));
        }
        assert_eq!(schemas.nowhere.len(), MAX_NOWHERE);
        let one_more = name(numbers(MAX_NOWHERE).end);
        schemas.note_nowhere(one_more);
        assert_eq!(schemas.nowhere, [one_more].into());
    }
}
