//! Core: limits of AWS that the emulator does not hold, or holds at another number.

use super::call::Operation;
use super::items::{Failure, Item};

/// Most records of a call, for both kinds of streams.
pub const MAX_RECORDS: usize = 500;
/// Largest `PutRecords`, keys included (AWS, since October 2025).
pub const MAX_KINESIS_CALL_BYTES: usize = 10 << 20;
/// Largest record of Kinesis, its key included, unless the stream was told otherwise.
pub const MAX_KINESIS_RECORD_BYTES: usize = 1 << 20;
/// Largest `PutRecordBatch`, before base64.
pub const MAX_FIREHOSE_CALL_BYTES: usize = 4 << 20;
/// Largest record of Firehose, before base64: 1,000 KiB.
pub const MAX_FIREHOSE_RECORD_BYTES: usize = 1_024_000;

/// The limit of AWS that a call with these items breaks, in the words of AWS (as cited in
/// osquery/osquery#3568 and aws/amazon-kinesis-streams-for-fluent-bit#21).
#[must_use]
pub fn breach(operation: Operation, items: &[Item]) -> Option<Failure> {
    let (most, largest) = if operation == Operation::PutRecords {
        (MAX_KINESIS_CALL_BYTES, MAX_KINESIS_RECORD_BYTES)
    } else if operation == Operation::PutRecordBatch {
        (MAX_FIREHOSE_CALL_BYTES, MAX_FIREHOSE_RECORD_BYTES)
    } else {
        return None;
    };
    let invalid = |member: &str, bound: &str| {
        let place = format!("1 validation error detected: Value at '{member}' failed to satisfy");
        let text = format!("{place} constraint: Member must have length {bound}");
        Some(Failure::new("ValidationException", text))
    };
    if items.is_empty() {
        return invalid("records", "greater than or equal to 1");
    }
    if items.len() > MAX_RECORDS {
        return invalid("records", &format!("less than or equal to {MAX_RECORDS}"));
    }
    if let Some(at) = items.iter().position(|item| item.bytes > largest) {
        let member = format!("records.{}.member.data", at + 1);
        return invalid(&member, &format!("less than or equal to {largest}"));
    }
    let bytes: usize = items.iter().map(|item| item.bytes).sum();
    (bytes > most).then(|| {
        let message = format!("Records size exceeds {} MB limit", most >> 20);
        Failure::new("InvalidArgumentException", message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(operation: Operation, records: usize, bytes: usize) -> Option<String> {
        let item = Item {
            key: String::new(),
            hash: 0,
            bytes,
            identity: 0,
        };
        breach(operation, &vec![item; records]).map(|failure| failure.code)
    }

    #[test]
    fn the_limits_hold_to_the_byte() {
        let invalid = Some("ValidationException".to_owned());
        let too_much = Some("InvalidArgumentException".to_owned());
        for (operation, record_bytes, call_bytes) in [
            (
                Operation::PutRecords,
                MAX_KINESIS_RECORD_BYTES,
                MAX_KINESIS_CALL_BYTES,
            ),
            (
                Operation::PutRecordBatch,
                MAX_FIREHOSE_RECORD_BYTES,
                MAX_FIREHOSE_CALL_BYTES,
            ),
        ] {
            assert_eq!(code(operation, 1, record_bytes), None);
            assert_eq!(code(operation, 1, record_bytes + 1), invalid);
            assert_eq!(code(operation, 16, call_bytes / 16), None);
            assert_eq!(code(operation, 16, call_bytes / 16 + 1), too_much);
            assert_eq!(code(operation, MAX_RECORDS, 1), None);
            assert_eq!(code(operation, MAX_RECORDS + 1, 1), invalid);
            assert_eq!(code(operation, 0, 0), invalid);
        }
        assert_eq!(
            code(Operation::BatchWriteItem, MAX_RECORDS + 1, 1 << 30),
            None
        );
    }

    #[test]
    fn a_refusal_has_the_words_of_aws() {
        let item = |bytes| Item {
            key: String::new(),
            hash: 0,
            bytes,
            identity: 0,
        };
        let large = [item(1), item(MAX_FIREHOSE_RECORD_BYTES + 1)];
        let failure = breach(Operation::PutRecordBatch, &large).unwrap();
        let text = "1 validation error detected: Value at 'records.2.member.data' failed to satisfy \
                    constraint: Member must have length less than or equal to 1024000";
        assert_eq!(failure.message, text);
        let many = vec![item(MAX_KINESIS_RECORD_BYTES); 11];
        let failure = breach(Operation::PutRecords, &many).unwrap();
        assert_eq!(failure.message, "Records size exceeds 10 MB limit");
    }
}
