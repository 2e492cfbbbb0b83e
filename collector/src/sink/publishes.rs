//! Publishes of plain devices, as the tests of sinks hand them to a sink.

use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::time::UnixMicros;

use crate::interpret::{Depth, Interpreted, Interpreter};
use crate::pipeline::envelope::{RawHead, Record, Verdict};
use crate::pipeline::rules::{Decoder, PlainRule, RuleSet, RulesId, TimeWindow};

/// A journal of publishes in JSON.
pub(super) struct Publishes {
    interpreter: Interpreter,
    rules: RulesId,
    epoch: Epoch,
    at: UnixMicros,
    /// The position of the next record.
    pub(super) position: u64,
}

impl Publishes {
    /// It begins with its rule set, which `take` gets.
    ///
    /// - `at`: when all of it was received.
    pub(super) fn new<T>(
        depth: Depth,
        epoch: u64,
        at: UnixMicros,
        take: impl FnOnce(&Interpreted<'_>) -> T,
    ) -> (Self, T) {
        let plain = vec![PlainRule::new(Decoder::Json)];
        let rules = RuleSet::new(plain, TimeWindow::default()).encode();
        let mut publishes = Self {
            interpreter: Interpreter::new(depth),
            rules: RulesId::of(&rules),
            epoch: Epoch::new(epoch),
            at,
            position: 0,
        };
        let taken = publishes.give(&Record::Rules(&rules), take);
        (publishes, taken)
    }

    /// Gives `take` a publish of a device.
    pub(super) fn publish<T>(
        &mut self,
        device: &str,
        seq: u64,
        body: &str,
        take: impl FnOnce(&Interpreted<'_>) -> T,
    ) -> T {
        let head = RawHead {
            device: DeviceId::new(device).unwrap(),
            epoch: self.epoch,
            seq,
            verdict: Verdict::Store,
            at: self.at,
            rules: self.rules,
            rule: 0,
            metric: "",
            topic: "t",
            client: "c",
            packet_id: 1,
            hash: seq,
        };
        self.give(&Record::Raw(head, body.as_bytes()), take)
    }

    fn give<T>(&mut self, record: &Record<'_>, take: impl FnOnce(&Interpreted<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let kind = record.kind().to_u8();
        let item = self.interpreter.read(self.position, kind, &bytes).unwrap();
        self.position += 1;
        take(&item)
    }
}
