//! Core: what passed through the proxy: calls and their outcome, faults, and what clients were told
//! is stored.

use std::collections::BTreeMap;

use super::call::{Call, Condition, Operation, Service};
use super::items::Item;

/// Most items, and most objects, that a ledger lists; of more it only has the number.
pub const MAX_LISTED: usize = 1_000_000;

/// One call that has ended.
#[derive(Debug, Clone)]
pub struct Entry<'c> {
    /// The call.
    pub call: &'c Call,
    /// HTTP status that the client was told; `None` if it was told nothing whole.
    pub told: Option<u16>,
    /// HTTP status of the service; `None` if it was not asked, or did not answer.
    pub upstream: Option<u16>,
    /// Names of the faults.
    pub injected: &'c [&'static str],
    /// Bytes of the request's body.
    pub bytes_in: usize,
    /// Bytes of the answer, as far as they were written.
    pub bytes_out: usize,
    /// Items of the call.
    pub items: &'c [Item],
    /// For each item whether the service has it.
    pub stored: &'c [bool],
    /// Whether the client was told this item by item.
    pub tells_items: bool,
}

/// Calls of one kind with one outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// How many.
    pub calls: u64,
    /// Bytes of their requests' bodies.
    pub bytes_in: u64,
    /// Bytes of their answers.
    pub bytes_out: u64,
}

/// What became of the items of a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Items {
    /// In requests, each time anew.
    pub sent: u64,
    /// The service has them, whatever the client was told.
    pub stored: u64,
    /// Of these, the client was told so.
    pub acknowledged: u64,
    /// The client was told that they failed.
    pub failed: u64,
}

/// One write of an object: `PutObject`, `CopyObject` or `CompleteMultipartUpload`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
    /// Under which condition.
    pub condition: Condition,
    /// HTTP status that the client was told, if any.
    pub told: Option<u16>,
    /// HTTP status of the service, if it was asked.
    pub upstream: Option<u16>,
}

/// Service, name of the operation, and status that the client was told (0: none).
type Kind = (Service, String, u16);

/// What passed through the proxy, from its start on. A call is in it once it has ended: a late one
/// after it was forwarded.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    calls: BTreeMap<Kind, Calls>,
    faults: BTreeMap<&'static str, u64>,
    items: BTreeMap<Service, Items>,
    acknowledged: Vec<u64>,
    puts: Vec<Put>,
    unlisted: u64,
    broken: u64,
}

impl Ledger {
    /// Adds a call.
    pub fn add(&mut self, entry: &Entry<'_>) {
        let Entry {
            call,
            told,
            upstream,
            ..
        } = *entry;
        let kind = (call.service, call.name.clone(), told.unwrap_or(0));
        let calls = self.calls.entry(kind).or_default();
        calls.calls += 1;
        calls.bytes_in += entry.bytes_in as u64;
        calls.bytes_out += entry.bytes_out as u64;
        for name in entry.injected {
            *self.faults.entry(name).or_default() += 1;
        }
        if !entry.items.is_empty() {
            self.add_items(entry);
        }
        let writes = [
            Operation::PutObject,
            Operation::CopyObject,
            Operation::CompleteMultipartUpload,
        ];
        if writes.contains(&call.operation) {
            if self.puts.len() == MAX_LISTED {
                self.unlisted += 1;
                return;
            }
            self.puts.push(Put {
                bucket: call.bucket.clone(),
                key: call.key.clone(),
                condition: call.condition,
                told,
                upstream,
            });
        }
    }

    fn add_items(&mut self, entry: &Entry<'_>) {
        let counts = self.items.entry(entry.call.service).or_default();
        counts.sent += entry.items.len() as u64;
        for (index, item) in entry.items.iter().enumerate() {
            let is_stored = entry.stored.get(index) == Some(&true);
            counts.stored += u64::from(is_stored);
            if !entry.tells_items {
                continue;
            }
            counts.acknowledged += u64::from(is_stored);
            counts.failed += u64::from(!is_stored);
            if is_stored && self.acknowledged.len() < MAX_LISTED {
                self.acknowledged.push(item.identity);
            } else if is_stored {
                self.unlisted += 1;
            }
        }
    }

    /// A call that the emulator did not answer as HTTP has it, or answered with nothing that fits.
    pub fn add_broken(&mut self) {
        self.broken += 1;
    }

    /// Calls of an operation, by its name (`PutRecords`), whatever their outcome.
    #[must_use]
    pub fn calls(&self, name: &str) -> u64 {
        self.count(|(_, other, _)| other == name)
    }

    /// Calls of an operation that were answered with an HTTP status; 0: not answered.
    #[must_use]
    pub fn answered(&self, name: &str, status: u16) -> u64 {
        self.count(|(_, other, told)| other == name && *told == status)
    }

    fn count(&self, fits: impl Fn(&Kind) -> bool) -> u64 {
        self.calls
            .iter()
            .filter(|(kind, _)| fits(kind))
            .map(|(_, calls)| calls.calls)
            .sum()
    }

    /// Calls by service, name of the operation, and status (0: none).
    #[must_use]
    pub const fn by_outcome(&self) -> &BTreeMap<Kind, Calls> {
        &self.calls
    }

    /// Calls that met a fault, by [`Fault::name`](super::faults::Fault::name).
    #[must_use]
    pub fn faults(&self, name: &str) -> u64 {
        self.faults.get(name).copied().unwrap_or(0)
    }

    /// What became of the items of a service.
    #[must_use]
    pub fn items(&self, service: Service) -> Items {
        self.items.get(&service).copied().unwrap_or_default()
    }

    /// [Identities](super::bits::identity) of items that a client was told are stored, in this order;
    /// one as often as it was told so.
    #[must_use]
    pub fn acknowledged(&self) -> &[u64] {
        &self.acknowledged
    }

    /// Writes of objects, in the order in which they ended.
    #[must_use]
    pub fn puts(&self) -> &[Put] {
        &self.puts
    }

    /// Items and objects beyond [`MAX_LISTED`].
    #[must_use]
    pub const fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// Calls that the emulator did not answer in a way that fits: it was stopped, for example.
    #[must_use]
    pub const fn broken(&self) -> u64 {
        self.broken
    }

    /// All counts as a text for people.
    #[must_use]
    pub fn table(&self) -> String {
        let calls = self.calls.iter().map(|((service, name, status), calls)| {
            let status = if *status == 0 {
                "none".to_owned()
            } else {
                status.to_string()
            };
            let numbers = [calls.calls, calls.bytes_in, calls.bytes_out].map(|n| n.to_string());
            [
                &[service.name().to_owned(), name.clone(), status][..],
                &numbers,
            ]
            .concat()
        });
        let items = self.items.iter().map(|(service, items)| {
            let Items {
                sent,
                stored,
                acknowledged,
                failed,
            } = *items;
            let numbers = [sent, stored, acknowledged, failed].map(|n| n.to_string());
            [&[service.name().to_owned()][..], &numbers].concat()
        });
        let faults = self
            .faults
            .iter()
            .map(|(name, calls)| vec![(*name).to_owned(), calls.to_string()]);
        let broken =
            (self.broken > 0).then(|| vec!["(broken)".to_owned(), self.broken.to_string()]);
        let calls_head = [
            "service",
            "operation",
            "status",
            "calls",
            "bytes in",
            "bytes out",
        ];
        let items_head = ["items of", "sent", "stored", "acknowledged", "failed"];
        [
            aligned(&calls_head, 3, calls),
            aligned(&items_head, 1, items),
            aligned(&["fault", "calls"], 1, faults.chain(broken)),
        ]
        .concat()
    }
}

/// Columns of equal width: the first `texts` to the left, numbers to the right. Nothing without rows.
fn aligned(head: &[&str], texts: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines: Vec<Vec<String>> = vec![head.iter().map(|&name| name.to_owned()).collect()];
    lines.extend(rows);
    if lines.len() == 1 {
        return String::new();
    }
    let width = |column: usize| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            text += &if column < texts {
                format!("{gap}{cell:<width$}")
            } else {
                format!("{gap}{cell:>width$}")
            };
        }
        out += text.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(service: Service, operation: Operation) -> Call {
        Call {
            service,
            operation,
            name: format!("{operation:?}"),
            condition: Condition::None,
            bucket: "b".to_owned(),
            key: "k".to_owned(),
            is_head: false,
        }
    }

    fn entry(call: &Call) -> Entry<'_> {
        Entry {
            call,
            told: Some(200),
            upstream: Some(200),
            injected: &[],
            bytes_in: 10,
            bytes_out: 1_000,
            items: &[],
            stored: &[],
            tells_items: true,
        }
    }

    fn items(identities: &[u64]) -> Vec<Item> {
        let item = |identity: &u64| Item {
            key: String::new(),
            hash: 0,
            bytes: 1,
            identity: *identity,
        };
        identities.iter().map(item).collect()
    }

    #[test]
    fn only_what_a_client_was_told_counts_as_acknowledged() {
        let call = call(Service::Kinesis, Operation::PutRecords);
        let items = items(&[7, 8, 9]);
        let told = Entry {
            items: &items,
            stored: &[true, false, true],
            ..entry(&call)
        };
        let mut ledger = Ledger::default();
        ledger.add(&told);
        ledger.add(&Entry {
            told: None,
            tells_items: false,
            injected: &["drop_after"],
            ..told
        });
        assert_eq!(ledger.acknowledged(), [7, 9]);
        let counts = Items {
            sent: 6,
            stored: 4,
            acknowledged: 2,
            failed: 1,
        };
        assert_eq!(ledger.items(Service::Kinesis), counts);
        assert_eq!(
            (ledger.calls("PutRecords"), ledger.answered("PutRecords", 0)),
            (2, 1)
        );
        assert_eq!(ledger.faults("drop_after"), 1);
    }

    #[test]
    fn a_write_of_an_object_is_listed_with_both_of_its_outcomes() {
        let mut ledger = Ledger::default();
        ledger.add(&Entry {
            told: None,
            ..entry(&call(Service::S3, Operation::PutObject))
        });
        ledger.add(&entry(&call(Service::S3, Operation::GetObject)));
        let [put] = ledger.puts() else {
            panic!("{:?}", ledger.puts())
        };
        assert_eq!(
            (&put.key[..], put.told, put.upstream),
            ("k", None, Some(200))
        );
    }

    #[test]
    fn the_lists_end_at_their_bound_and_the_rest_is_counted() {
        let records = call(Service::Firehose, Operation::PutRecordBatch);
        let many = items(&vec![1; MAX_LISTED - 1]);
        let mut ledger = Ledger::default();
        let stored = vec![true; MAX_LISTED];
        ledger.add(&Entry {
            items: &many,
            stored: &stored,
            ..entry(&records)
        });
        ledger.add(&Entry {
            items: &many[..3],
            stored: &stored[..3],
            ..entry(&records)
        });
        assert_eq!(
            (ledger.acknowledged().len(), ledger.unlisted()),
            (MAX_LISTED, 2)
        );
        assert_eq!(
            ledger.items(Service::Firehose).acknowledged,
            MAX_LISTED as u64 + 2
        );
    }

    #[test]
    fn the_table_is_aligned_and_has_no_empty_part() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.table(), "");
        let call = call(Service::S3, Operation::PutObject);
        ledger.add(&entry(&call));
        ledger.add(&Entry {
            told: None,
            injected: &["late"],
            ..entry(&call)
        });
        let expected = "\
service  operation  status  calls  bytes in  bytes out
s3       PutObject  none        1        10       1000
s3       PutObject  200         1        10       1000
fault  calls
late       1
";
        assert_eq!(ledger.table(), expected);
    }
}
