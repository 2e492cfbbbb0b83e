//! Core: publishes of plain devices.

use headwater_proto::ids::{Epoch, Lane};

use super::Origin;
use super::batch::Buffer;
use super::rules::RuleSet;
use crate::pipeline::envelope::{Clock, RawHead, Reason, TimeClass, Verdict};
use crate::pipeline::payload;

/// Reads a publish into `buffer`.
pub(super) fn read(head: &RawHead<'_>, body: &[u8], rules: Option<&RuleSet>, buffer: &mut Buffer) {
    // Where nothing of it can be read, one row stands for the publish: its only sample is that.
    let whole = (Some(1), 1);
    let topic = (!head.topic.is_empty()).then_some(head.topic);
    if let Verdict::Quarantine(reason) = head.verdict {
        buffer.refuse(reason, "", whole, topic);
        return;
    }
    let rule = rules.and_then(|rules| rules.plain.get(usize::from(head.rule)).copied());
    let (Some(rules), Some(rule)) = (rules, rule) else {
        let cause = format!("rule {} of set {} is not known", head.rule, head.rules);
        buffer.refuse(Reason::Undecodable, &cause, whole, topic);
        return;
    };
    buffer.set_clock(clock());
    let judge = (rules.window, head.at);
    let read = payload::read(rule.decoder, head.metric, body, &mut |part| {
        let time = part.time_us.map_or((head.at.0, true), |own| (own, false));
        buffer.push(part.row, time, part.metric, part.tags, part.value, judge);
    });
    if let Err(error) = read {
        buffer.refuse(Reason::BadPayload, &error.to_string(), whole, topic);
    }
}

/// A device's own times are taken as they are; nobody knows how good its clock is.
const fn clock() -> Clock {
    Clock {
        class: TimeClass::Wall,
        offset_us: 0,
        error_ms: None,
    }
}

/// The numbered record that a publish is.
pub(super) fn origin(head: &RawHead<'_>) -> Origin {
    Origin {
        device: head.device.clone(),
        lane: Lane::Plain,
        epoch: Epoch::new(head.journal.0),
        seq: head.seq,
        at: head.at,
        clock: clock(),
        via: None,
    }
}
