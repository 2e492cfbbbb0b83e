//! Core: the schemas that the collector needs to read what is sent: those at hand, where the others
//! stand in the spool, and which went out on this connection.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use headwater_proto::bundle::BundleWriter;
use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, Lane};
use headwater_proto::message::SchemaRequest;
use headwater_proto::text;
use headwater_proto::time::{Millis, Now};
use headwater_spool::{Disk, Log};
use sha2::{Digest as _, Sha256};

use super::Engine;
use crate::pipeline::record::{self, Envelope, Snapshot};

/// Most schemas kept in memory for sending; more are read again from the spool.
const MAX_CACHED_SCHEMAS: usize = 256;
/// Most schemas remembered as sent on this connection; beyond it they are sent again.
const MAX_SENT_SCHEMAS: usize = 4096;
/// Most schemas remembered as not to be found; beyond it they are looked for again.
const MAX_NOWHERE: usize = 256;
/// How soon a schema is sent again that was asked for before.
const ANSWER_AGAIN_MS: u64 = 10_000;
/// Bytes read at once when schemas are looked for.
const CHUNK_BYTES: usize = 256 * 1024;

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
}

impl<D: Disk> Engine<D> {
    /// A new connection knows no schema, and may have luck with those that were not found.
    pub(super) fn forget_sent_schemas(&mut self) {
        self.schemas.sent.clear();
        self.schemas.nowhere.clear();
        self.schemas.answered.clear();
    }

    /// Looks for the schema that record `seq` needs: in its segment, which holds it unless that is
    /// damaged, then in all of its epoch.
    pub(super) fn find_schema(&mut self, at: usize, seq: u64, name: SchemaName) {
        let (epoch, wanted) = name;
        if self.schemas.cached.len() >= MAX_CACHED_SCHEMAS {
            // What stands beside the wanted one is likely wanted next.
            self.schemas.cached.clear();
        }
        self.find_in_segment(at, epoch, seq, wanted);
        if !self.schemas.cached.contains_key(&name) {
            self.find_everywhere(at, epoch, wanted);
        }
        if !self.schemas.cached.contains_key(&name) {
            self.schemas.note_nowhere(name);
        }
    }

    fn find_in_segment(&mut self, at: usize, epoch: Epoch, seq: u64, wanted: u32) {
        let lane = &self.lanes[at];
        if let Some(ram) = lane.ram_of(epoch) {
            for (number, bytes) in &ram.schemas {
                self.schemas.keep((epoch, *number), bytes, wanted);
            }
            return;
        }
        let Some(position) = lane.stored(epoch).map(|stored| stored.base + seq) else {
            return;
        };
        let Some(log) = self.spool.log_mut(at) else {
            return;
        };
        let segment = log
            .segments()
            .find(|info| info.positions().contains(&position))
            .copied();
        let Some(info) = segment else { return };
        let schemas = &mut self.schemas;
        let snapshot = log.snapshot_of(info.id).ok().flatten();
        if let Some(snapshot) = snapshot.and_then(|bytes| Snapshot::decode(&bytes).ok()) {
            for (number, bytes) in &snapshot.schemas {
                schemas.keep((epoch, *number), bytes, wanted);
            }
        }
        let mut from = info.first;
        while from <= position {
            let read = log.read(from, CHUNK_BYTES, |found, _, payload| {
                if let Ok(Envelope {
                    schema: Some((number, bytes)),
                    ..
                }) = record::decode(payload)
                {
                    schemas.keep((epoch, number), bytes, wanted);
                }
                if found >= position {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            match read {
                Ok(chunk) if chunk.next > from => from = chunk.next,
                _ => break,
            }
        }
    }

    /// Looks for a schema in every segment of an epoch.
    fn find_everywhere(&mut self, at: usize, epoch: Epoch, wanted: u32) {
        let lane = &self.lanes[at];
        let Some(stored) = lane.stored(epoch).copied() else {
            self.find_in_segment(at, epoch, 0, wanted);
            return;
        };
        let range = stored.base + stored.first..stored.base + stored.next;
        let lasts: Vec<u64> = self.spool.log(at).map_or_else(Vec::new, |log: &Log<D>| {
            log.segments()
                .filter(|info| range.contains(&info.first) && info.next > info.first)
                .map(|info| info.next - 1 - stored.base)
                .collect()
        });
        for seq in lasts {
            self.find_in_segment(at, epoch, seq, wanted);
            if self.schemas.cached.contains_key(&(epoch, wanted)) {
                return;
            }
        }
    }

    /// Answers with a bundle that holds the schema and no record.
    pub(super) fn send_schema(&mut self, request: &SchemaRequest, now: Now) -> bool {
        let SchemaRequest {
            origin,
            lane,
            epoch,
            schema,
        } = request;
        if *origin != self.settings.device || !Lane::AGENT.contains(lane) {
            return false;
        }
        let at = self.index_of(*lane);
        let name = (*epoch, *schema);
        let answered = self.schemas.answered.get(&name);
        if answered.is_some_and(|at| now.mono.since(*at) < ANSWER_AGAIN_MS) {
            // The answer is on its way; over a slow link it takes longer than the next request.
            return true;
        }
        if !self.schemas.cached.contains_key(&name) {
            let found = self.lanes[at]
                .batcher
                .schemas()
                .find(|(number, _)| number == schema);
            let found = found
                .filter(|_| self.lanes[at].epoch == *epoch)
                .map(|(_, b)| b.to_vec());
            match found {
                Some(bytes) => self.schemas.keep(name, &bytes, *schema),
                None => self.find_everywhere(at, *epoch, *schema),
            }
        }
        let Some(bytes) = self.schemas.cached.get(&name) else {
            return false;
        };
        let head = self.head(at, *epoch, 0, now);
        let payload = schema_payload(*schema, bytes);
        let mut out = vec![0; payload.len() + 512];
        let Ok(mut writer) = BundleWriter::new(head, &mut out) else {
            return false;
        };
        if writer.push(Kind::Schema, &payload).is_err() {
            return false;
        }
        let len = writer.finish();
        out.truncate(len);
        self.schemas.note_sent(name);
        if self.schemas.answered.len() >= MAX_CACHED_SCHEMAS {
            self.schemas.answered.clear();
        }
        self.schemas.answered.insert(name, now.mono);
        self.outputs.push_back(out);
        true
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
