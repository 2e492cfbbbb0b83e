//! Core: publishes of plain MQTT devices.
//!
//! A plain device numbers nothing, so the journal does: identity is (device, lane `plain`, epoch of the
//! journal, counter given at append). A repeat is told by the gate's rule of open entries.

use headwater_gate::repeat;
use headwater_proto::ids::DeviceId;
use headwater_proto::sabotage::{self, Bug};
use headwater_spool::Disk;

use super::super::types::nobody;
use super::super::{Leaves, Output, PlainPublish, Refused};
use super::Intake;
use crate::pipeline::envelope::{RawHead, Reason, Record, Verdict};
use crate::pipeline::pattern::{self, Target};
use crate::pipeline::snapshot::{NEW_BYTES, NUMBER_BYTES};

impl<D: Disk> Intake<'_, D> {
    pub(super) fn plain(&mut self, publish: &PlainPublish) -> Result<(), Refused> {
        if publish.token.is_some() {
            let (id, dup) = (publish.packet_id, publish.dup);
            match self
                .custody
                .journal
                .open
                .judge(&publish.client, id, dup, publish.fingerprint)
            {
                repeat::Verdict::New => {}
                repeat::Verdict::Repeat { place: _ } => {
                    // Its original is durable after the next sync at the latest.
                    self.custody.counters.plain_repeats_total += 1;
                    match publish
                        .token
                        .filter(|_| sabotage::is(Bug::AckUnsyncedRepeat))
                    {
                        Some(token) => {
                            let conn = self.conn;
                            let output = Output::PubAck { conn, token };
                            self.custody.sessions.put_out(output);
                        }
                        None => self.custody.sessions.owe_puback(self.conn, publish.token),
                    }
                    return Ok(());
                }
            }
        }
        let found = pattern::find(&self.custody.settings.patterns, &publish.topic);
        let (target, verdict) = match found {
            Some(target) if self.can_number(&target.device) => (target, Verdict::Store),
            // It cannot wait: nothing need ever make room for it, and others would wait with it.
            Some(_) => {
                self.custody.counters.plain_devices_full_total += 1;
                (to_nobody(), Verdict::Quarantine(Reason::TooManyDevices))
            }
            None => (to_nobody(), Verdict::Quarantine(Reason::UnknownTopic)),
        };
        let seq = self.custody.streams.ledger().next_plain(&target.device);
        let more = if seq == 0 { NUMBER_BYTES } else { 0 };
        let head = RawHead {
            device: target.device,
            epoch: self.custody.streams.ledger().plain_epoch(),
            seq,
            verdict,
            at: self.now.wall,
            rules: self.custody.journal.rules_id(),
            rule: target.rule,
            metric: &target.metric,
            topic: &publish.topic,
            client: &publish.client,
            packet_id: if publish.token.is_some() {
                publish.packet_id
            } else {
                0
            },
            hash: publish.fingerprint,
        };
        let place = self
            .custody
            .append(&Record::Raw(head, &publish.payload), Leaves::Three)?;
        self.custody.journal.grew(more);
        if let Some(token) = publish.token {
            let on = (self.conn, token);
            self.custody.journal.open.open(
                &publish.client,
                publish.packet_id,
                publish.fingerprint,
                place,
                on,
            );
        }
        self.custody.counters.records_stored_total += 1;
        self.custody.counters.record_bytes_stored_total += publish.payload.len() as u64;
        self.custody.sessions.owe_puback(self.conn, publish.token);
        Ok(())
    }

    /// Whether a plain device is known or finds room, in the ledger and in snapshots.
    fn can_number(&mut self, device: &DeviceId) -> bool {
        self.custody.streams.ledger().next_plain(device) > 0
            || (self.custody.streams.ledger().has_room_for_plain(device)
                && self.custody.has_state_room(NUMBER_BYTES, NEW_BYTES))
    }
}

/// What a publish is kept under that belongs to no device, and what comes of more devices than are kept
/// apart. It has room beyond that of devices.
fn to_nobody() -> Target {
    Target {
        device: nobody(),
        metric: String::new(),
        // Its verdict says that no rule reads it.
        rule: 0,
    }
}
