//! Core: the items of a call that carries many: part of them as a call of its own, and one answer made
//! of several.
//!
//! | operation | list of the answer | number that failed | an item that failed |
//! |---|---|---|---|
//! | `PutRecords` | `Records` | `FailedRecordCount` | `ErrorCode`, `ErrorMessage` |
//! | `PutRecordBatch` | `RequestResponses` | `FailedPutCount` | `ErrorCode`, `ErrorMessage` |
//! | `BatchWriteItem` | none | none | its request again, in `UnprocessedItems` |

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::bits::{from_base64, identity, md5};
use super::call::{Call, Operation};

/// Largest `PutRecords` that the emulator takes: it has the limit of before October 2025. A larger
/// call goes to it in pieces.
const MAX_PIECE_BYTES: usize = 5 << 20;
/// Code of an item, a record or a call that finds no room in what was provisioned.
pub const THROUGHPUT_EXCEEDED: &str = "ProvisionedThroughputExceededException";

/// One item of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Kinesis: the partition key. DynamoDB: the table. Firehose: nothing.
    pub key: String,
    /// Where Kinesis puts it: the MD5 of its key, or the explicit hash key.
    pub hash: u128,
    /// Data and partition key, before base64. DynamoDB: the request's JSON.
    pub bytes: usize,
    /// See [`identity`]; for DynamoDB of the table and the request's JSON without spaces.
    pub identity: u64,
}

/// Why an item failed, or a whole call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For example `ProvisionedThroughputExceededException`.
    pub code: String,
    /// For people.
    pub message: String,
}

impl Failure {
    /// From both of its parts.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// Which of the three calls it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    PutRecords,
    PutRecordBatch,
    BatchWriteItem,
}

const SHAPES: [(Operation, Shape); 3] = [
    (Operation::PutRecords, Shape::PutRecords),
    (Operation::PutRecordBatch, Shape::PutRecordBatch),
    (Operation::BatchWriteItem, Shape::BatchWriteItem),
];

/// A call with many items.
#[derive(Debug, Clone)]
pub struct Batch {
    shape: Shape,
    request: Value,
    /// In the order of the request; DynamoDB: table by table.
    items: Vec<Item>,
}

/// What the client is told, and what is true.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The body of the answer.
    pub answer: Value,
    /// For each item whether the service has it.
    pub stored: Vec<bool>,
}

impl Batch {
    /// The items of a call; `None` if it is of another kind, or malformed.
    #[must_use]
    pub fn of(call: &Call, request: Value) -> Option<Self> {
        let (_, shape) = SHAPES
            .into_iter()
            .find(|(operation, _)| *operation == call.operation)?;
        let items = match shape {
            Shape::PutRecords | Shape::PutRecordBatch => request["Records"]
                .as_array()?
                .iter()
                .map(record)
                .collect::<Option<_>>()?,
            Shape::BatchWriteItem => {
                let writes = writes(&request)?;
                writes
                    .into_iter()
                    .map(|(table, write)| written(table, write))
                    .collect()
            }
        };
        Some(Self {
            shape,
            request,
            items,
        })
    }

    /// Its items.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Cuts the items that do not fail into calls that the emulator takes, by their indexes.
    #[must_use]
    pub fn pieces(&self, failures: &[Option<Failure>]) -> Vec<Vec<usize>> {
        let mut pieces: Vec<Vec<usize>> = Vec::new();
        let mut room = 0;
        for (index, item) in self.items.iter().enumerate() {
            if failures[index].is_some() {
                continue;
            }
            match pieces.last_mut() {
                Some(piece) if item.bytes <= room || self.shape != Shape::PutRecords => {
                    piece.push(index);
                }
                _ => {
                    pieces.push(vec![index]);
                    room = MAX_PIECE_BYTES;
                }
            }
            room = room.saturating_sub(item.bytes);
        }
        pieces
    }

    /// The call with these items alone.
    #[must_use]
    pub fn request_of(&self, indexes: &[usize]) -> Vec<u8> {
        let mut request = self.request.clone();
        if self.shape == Shape::BatchWriteItem {
            let all = writes(&self.request).unwrap_or_default();
            request["RequestItems"] = by_table(indexes.iter().filter_map(|index| all.get(*index)));
        } else {
            let kept = indexes
                .iter()
                .map(|index| self.request["Records"][*index].clone());
            request["Records"] = kept.collect();
        }
        request.to_string().into_bytes()
    }

    /// One answer for the whole call, from those for its pieces.
    ///
    /// # Errors
    /// When an answer is not one for the items of its piece.
    pub fn merge(
        &self,
        failures: &[Option<Failure>],
        answered: &[(Vec<usize>, Value)],
    ) -> Result<Merged> {
        match self.list() {
            Some((name, count)) => self.merge_records(name, count, failures, answered),
            None => self.merge_writes(answered),
        }
    }

    /// The failure of the whole call, if there is one for these of its items: DynamoDB refuses a call
    /// of which nothing fits into the table's throughput.
    #[must_use]
    pub fn failure_of_all(&self, failures: &[Option<Failure>]) -> Option<Failure> {
        let is_refused = self.shape == Shape::BatchWriteItem
            && failures.iter().all(|failure| {
                failure
                    .as_ref()
                    .is_some_and(|failure| failure.code == THROUGHPUT_EXCEEDED)
            });
        failures.first().filter(|_| is_refused)?.clone()
    }

    /// Takes one entry out of the list of an answer; `draw` chooses it. Whether there was one.
    pub fn shorten(&self, answer: &mut Value, draw: u64) -> bool {
        let list = self
            .list()
            .and_then(|(name, _)| answer[name].as_array_mut());
        let Some(list) = list.filter(|list| !list.is_empty()) else {
            return false;
        };
        let entries = u64::try_from(list.len()).unwrap_or(1);
        list.remove(usize::try_from(draw % entries).unwrap_or(0));
        true
    }

    /// Names of the list and of the number that failed.
    const fn list(&self) -> Option<(&'static str, &'static str)> {
        match self.shape {
            Shape::PutRecords => Some(("Records", "FailedRecordCount")),
            Shape::PutRecordBatch => Some(("RequestResponses", "FailedPutCount")),
            Shape::BatchWriteItem => None,
        }
    }

    fn merge_records(
        &self,
        name: &str,
        count: &str,
        failures: &[Option<Failure>],
        answered: &[(Vec<usize>, Value)],
    ) -> Result<Merged> {
        let mut entries = vec![Value::Null; self.items.len()];
        let mut answer = json!({});
        for (indexes, part) in answered {
            let list = part[name]
                .as_array()
                .with_context(|| format!("no {name} in the answer"))?;
            ensure!(
                list.len() == indexes.len(),
                "{} answers for {}",
                list.len(),
                indexes.len()
            );
            for (index, entry) in indexes.iter().zip(list) {
                entries[*index] = entry.clone();
            }
            answer = part.clone();
        }
        for (entry, failure) in entries.iter_mut().zip(failures) {
            if let Some(Failure { code, message }) = failure {
                *entry = json!({ "ErrorCode": code, "ErrorMessage": message });
            }
        }
        ensure!(
            !entries.contains(&Value::Null),
            "an item has neither an answer nor a failure"
        );
        let stored: Vec<bool> = entries
            .iter()
            .map(|entry| entry["ErrorCode"].is_null())
            .collect();
        answer[count] = stored
            .iter()
            .filter(|is_stored| !**is_stored)
            .count()
            .into();
        answer[name] = entries.into();
        Ok(Merged { answer, stored })
    }

    fn merge_writes(&self, answered: &[(Vec<usize>, Value)]) -> Result<Merged> {
        let all = writes(&self.request).context("no items")?;
        let mut stored = vec![false; all.len()];
        let mut answer = json!({});
        for (indexes, part) in answered {
            for index in indexes {
                let (table, write) = all[*index];
                let left = part["UnprocessedItems"][table].as_array();
                stored[*index] = !left.is_some_and(|left| left.contains(write));
            }
            answer = part.clone();
        }
        let left = all
            .iter()
            .zip(&stored)
            .filter(|(_, is_stored)| !**is_stored);
        answer["UnprocessedItems"] = by_table(left.map(|(write, _)| write));
        Ok(Merged { answer, stored })
    }
}

fn record(record: &Value) -> Option<Item> {
    let key = record["PartitionKey"].as_str().unwrap_or_default();
    let explicit = record["ExplicitHashKey"]
        .as_str()
        .and_then(|hash| hash.parse().ok());
    let data = from_base64(record["Data"].as_str()?)?;
    Some(Item {
        hash: explicit.unwrap_or_else(|| u128::from_be_bytes(md5(key.as_bytes()))),
        bytes: data.len() + key.len(),
        identity: identity(key, &data),
        key: key.to_owned(),
    })
}

fn written(table: &str, write: &Value) -> Item {
    let text = write.to_string();
    Item {
        key: table.to_owned(),
        hash: u128::from_be_bytes(md5(text.as_bytes())),
        bytes: text.len(),
        identity: identity(table, text.as_bytes()),
    }
}

/// All writes of a `BatchWriteItem`, with their tables.
fn writes(request: &Value) -> Option<Vec<(&str, &Value)>> {
    let mut all = Vec::new();
    for (table, writes) in request["RequestItems"].as_object()? {
        all.extend(
            writes
                .as_array()?
                .iter()
                .map(|write| (table.as_str(), write)),
        );
    }
    Some(all)
}

fn by_table<'w>(writes: impl Iterator<Item = &'w (&'w str, &'w Value)>) -> Value {
    let mut tables = Map::new();
    for (table, write) in writes {
        let list = tables.entry(*table).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push((*write).clone());
        }
    }
    tables.into()
}

#[cfg(test)]
mod tests {
    use super::super::call::Service;
    use super::super::http::Head;
    use super::*;

    fn batch(target: &str, request: Value) -> Batch {
        let headers = vec![("x-amz-target".to_owned(), target.to_owned())];
        let call = Call::of(&Head {
            headers,
            ..Head::default()
        });
        assert_ne!(call.service, Service::Other);
        Batch::of(&call, request).expect("a call with items")
    }

    fn kinesis(records: &[(&str, usize)]) -> Batch {
        let records: Vec<_> = records
            .iter()
            .map(|(key, quads)| json!({ "PartitionKey": key, "Data": "AAAA".repeat(*quads) }))
            .collect();
        batch(
            "Kinesis_20131202.PutRecords",
            json!({ "StreamName": "s", "Records": records }),
        )
    }

    fn firehose(records: usize, quads: usize) -> Batch {
        let records = vec![json!({ "Data": "AAAA".repeat(quads) }); records];
        batch(
            "Firehose_20150804.PutRecordBatch",
            json!({ "DeliveryStreamName": "s", "Records": records }),
        )
    }

    fn slow() -> Option<Failure> {
        Some(Failure::new("SlowDown", "no"))
    }

    #[test]
    fn a_call_above_what_the_emulator_takes_goes_in_pieces_of_at_most_that() {
        let batch = kinesis(&[("k", 300_000); 11]);
        let none = vec![None; 11];
        let pieces = batch.pieces(&none);
        assert_eq!(pieces.concat(), (0..11).collect::<Vec<_>>());
        assert!(pieces.len() > 1);
        for piece in pieces {
            let bytes: usize = piece.iter().map(|index| batch.items()[*index].bytes).sum();
            assert!(bytes <= MAX_PIECE_BYTES, "{bytes}");
        }
        assert_eq!(firehose(8, 170_000).pieces(&vec![None; 8]).len(), 1);
    }

    #[test]
    fn part_of_the_records_goes_on_and_one_answer_comes_back_in_the_order_of_the_request() {
        let batch = kinesis(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        let failures = [slow(), None, slow(), None];
        let pieces = batch.pieces(&failures);
        assert_eq!(pieces, [[1, 3]]);
        let sent: Value = serde_json::from_slice(&batch.request_of(&pieces[0])).unwrap();
        assert_eq!(sent["StreamName"], "s");
        assert_eq!(sent["Records"][0]["PartitionKey"], "b");
        assert_eq!(sent["Records"][1]["PartitionKey"], "d");
        assert_eq!(sent["Records"].as_array().map(Vec::len), Some(2));
        let part = json!({ "FailedRecordCount": 1, "EncryptionType": "NONE", "Records": [
            { "SequenceNumber": "7" }, { "ErrorCode": "InternalFailure", "ErrorMessage": "own" } ] });
        let merged = batch
            .merge(&failures, &[(pieces[0].clone(), part)])
            .unwrap();
        let no = json!({ "ErrorCode": "SlowDown", "ErrorMessage": "no" });
        let own = json!({ "ErrorCode": "InternalFailure", "ErrorMessage": "own" });
        assert_eq!(
            merged.answer,
            json!({ "FailedRecordCount": 3, "EncryptionType": "NONE",
            "Records": [no, { "SequenceNumber": "7" }, no, own] })
        );
        assert_eq!(merged.stored, [false, true, false, false]);
    }

    #[test]
    fn when_all_records_fail_nothing_is_sent_and_all_are_answered() {
        let batch = firehose(2, 1);
        let failures = [slow(), slow()];
        assert!(batch.pieces(&failures).is_empty());
        let merged = batch.merge(&failures, &[]).unwrap();
        assert_eq!(merged.answer["FailedPutCount"], 2);
        assert_eq!(
            merged.answer["RequestResponses"].as_array().map(Vec::len),
            Some(2)
        );
        assert_eq!(merged.stored, [false, false]);
    }

    #[test]
    fn an_answer_of_another_length_is_not_merged() {
        let batch = kinesis(&[("a", 1), ("b", 1)]);
        let part = json!({ "Records": [{ "SequenceNumber": "7" }] });
        assert!(
            batch
                .merge(&[None, None], &[(vec![0, 1], part.clone())])
                .is_err()
        );
        assert!(batch.merge(&[None, None], &[(vec![0], part)]).is_err());
        let long = json!({ "Records": [{ "SequenceNumber": "7" }, { "SequenceNumber": "8" }] });
        assert!(batch.merge(&[None, slow()], &[(vec![0], long)]).is_err());
    }

    #[test]
    fn writes_that_fail_come_back_as_unprocessed_items_of_their_tables() {
        let put = |n: u64| json!({ "PutRequest": { "Item": { "id": { "N": n.to_string() } } } });
        let tables = json!({ "t": [put(1), put(2)], "u": [put(3)] });
        let batch = batch(
            "DynamoDB_20120810.BatchWriteItem",
            json!({ "RequestItems": tables }),
        );
        let failures = [slow(), None, None];
        let sent: Value = serde_json::from_slice(&batch.request_of(&[1, 2])).unwrap();
        assert_eq!(
            sent["RequestItems"],
            json!({ "t": [put(2)], "u": [put(3)] })
        );
        let part = json!({ "UnprocessedItems": { "u": [put(3)] } });
        let merged = batch.merge(&failures, &[(vec![1, 2], part)]).unwrap();
        assert_eq!(
            merged.answer["UnprocessedItems"],
            json!({ "t": [put(1)], "u": [put(3)] })
        );
        assert_eq!(merged.stored, [false, true, false]);
    }

    #[test]
    fn a_wrong_length_takes_one_entry_out_and_keeps_the_rest() {
        let batch = kinesis(&[("a", 1)]);
        let mut answer = json!({ "FailedRecordCount": 0, "Records": [0, 1, 2] });
        assert!(batch.shorten(&mut answer, 4));
        assert_eq!(answer, json!({ "FailedRecordCount": 0, "Records": [0, 2] }));
        assert!(!batch.shorten(&mut json!({ "Records": [] }), 4));
        assert!(!firehose(1, 1).shorten(&mut answer, 4));
    }

    #[test]
    fn dynamodb_refuses_a_call_of_which_nothing_fits() {
        let tables = json!({ "t": [{ "PutRequest": 1 }, { "PutRequest": 2 }] });
        let batch = batch(
            "DynamoDB_20120810.BatchWriteItem",
            json!({ "RequestItems": tables }),
        );
        let full = Some(Failure::new(THROUGHPUT_EXCEEDED, "no"));
        assert_eq!(batch.failure_of_all(&[full.clone(), full.clone()]), full);
        assert_eq!(batch.failure_of_all(&[full.clone(), None]), None);
        assert_eq!(batch.failure_of_all(&[slow(), slow()]), None);
        assert_eq!(kinesis(&[("a", 1)]).failure_of_all(&[full]), None);
    }

    #[test]
    fn a_records_identity_is_of_its_key_and_data_and_its_shard_of_an_explicit_hash() {
        let request = json!({ "Records": [
            { "PartitionKey": "k", "Data": "TWFu" },
            { "PartitionKey": "k", "Data": "TWFu", "ExplicitHashKey": "0" },
            { "PartitionKey": "l", "Data": "TWFu" } ] });
        let batch = batch("Kinesis_20131202.PutRecords", request);
        let [first, second, third] = batch.items() else {
            panic!("three items")
        };
        assert_eq!((first.identity, first.bytes), (identity("k", b"Man"), 4));
        assert_eq!(first.identity, second.identity);
        assert_ne!(first.identity, third.identity);
        assert_eq!(second.hash, 0);
        assert_ne!(first.hash, 0);
    }
}
