//! Core: publishes of plain devices.

use std::collections::BTreeMap;

use headwater_payload::{Part, Tally};
use headwater_proto::ids::Lane;

use super::Origin;
use super::batch::{Buffer, Span};
use crate::pipeline::envelope::{Clock, RawHead, Reason, TimeClass, Verdict};
use crate::pipeline::rules::{PlainRule, RuleSet, TimeWindow};

/// Reads a publish into `buffer`; says what it held, if it could be read at all.
///
/// - `slack_ms`: most that its time of receipt may be off.
pub(super) fn read(
    head: &RawHead<'_>,
    body: &[u8],
    rules: Option<&RuleSet>,
    slack_ms: u32,
    buffer: &mut Buffer,
) -> Option<Tally> {
    // Where nothing of it can be read, one row stands for the publish: its only sample is that.
    let whole = (Some(1), 1);
    let topic = (!head.topic.is_empty()).then_some(head.topic);
    if let Verdict::Quarantine(reason) = head.verdict {
        buffer.refuse(reason, "", whole, topic);
        return None;
    }
    let found = rules.and_then(|rules| {
        let rule = rules.plain.get(usize::from(head.rule))?;
        Some((rule, rules.window.widened(slack_ms)))
    });
    let Some((rule, window)) = found else {
        let cause = format!("rule {} of set {} is not known", head.rule, head.rules);
        buffer.refuse(Reason::Undecodable, &cause, whole, topic);
        return None;
    };
    buffer.set_clock(clock());
    buffer.set_receipt_error((slack_ms > 0).then_some(slack_ms));
    Some(parts(head, body, (rule, window), buffer))
}

fn parts(
    head: &RawHead<'_>,
    body: &[u8],
    (rule, window): (&PlainRule, TimeWindow),
    buffer: &mut Buffer,
) -> Tally {
    let judge = (window, head.at);
    let topic = (!head.topic.is_empty()).then(|| buffer.text(head.topic));
    // The samples of a row follow each other and have the same tags.
    let mut row: Option<(u32, Span)> = None;
    let rules = rule.rules(head.metric);
    headwater_payload::read(rule.format(), &rules, body, &mut |part| match part {
        Part::Sample(sample) => {
            let tags = match row {
                Some((number, tags)) if number == sample.row => tags,
                Some(_) | None => buffer.text(&json_of(sample.tags)),
            };
            row = Some((sample.row, tags));
            let time = sample.time.map_or((head.at.0, true), |own| (own.0, false));
            buffer.push(sample.row, time, sample.metric, tags, sample.value, judge);
        }
        Part::Refused(refused) => {
            let cause = format!("{}: {}", refused.place, refused.cause);
            let bytes = refused.bytes;
            buffer.refuse_part(Reason::BadPayload, &cause, bytes, (None, topic));
        }
    })
}

fn json_of(tags: &[(&str, &str)]) -> String {
    if tags.is_empty() {
        return String::new();
    }
    let sorted: BTreeMap<&str, &str> = tags.iter().copied().collect();
    serde_json::to_string(&sorted).expect("a map of texts is JSON")
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
        epoch: head.epoch,
        seq: head.seq,
        at: head.at,
        clock: clock(),
        via: None,
    }
}
