//! `headwater-collector map`: what the collector would make of a publish of a plain device.

use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use headwater_gate::repeat::fingerprint;
use headwater_lake::date::instant_text;
use headwater_program::clock::Clock;
use headwater_program::config;
use headwater_program::output::print;
use headwater_proto::ids::Epoch;
use headwater_proto::time::UnixMicros;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::interpret::told::{kind_name, value_json};
use crate::interpret::{Depth, Interpreted, Interpreter, Refused, Sample};
use crate::pipeline::envelope::{RawHead, Record, TimeClass, Verdict};
use crate::pipeline::pattern::{self, Target};
use crate::pipeline::rules::{RuleSet, RulesId};

/// Most bytes of a refused part that the text shows.
const MAX_SHOWN_BYTES: usize = 80;

/// What `map` takes.
#[derive(Debug, clap::Args)]
pub struct MapArgs {
    /// Configuration file (TOML) with the rules. Without one, the default rules apply.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The topic that the payload would be published on.
    #[arg(long = "try", value_name = "TOPIC")]
    topic: String,
    /// File with the payload; standard input without one.
    payload: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &MapArgs, clock: &Clock) -> Result<bool> {
    let config = config::load(args.config.as_deref(), Config::parse)?;
    let payload = payload(args, config.limits.packet_bytes)?;
    let patterns = &config.custody.patterns;
    let Some(target) = pattern::find(patterns, &args.topic) else {
        bail!(
            "no [[plain]] rule of this configuration fits the topic {:?}; a publish on it is refused",
            args.topic
        );
    };
    let rules = RuleSet::new(pattern::rules_of(patterns), config.custody.window);
    let at = clock.now().wall;
    let said = with_meaning(&args.topic, &target, &rules, &payload, at, |item| {
        let text = if args.json {
            format!("{}\n", as_json(&target, item))
        } else {
            as_text(&target, item)
        };
        (text, item.refused().next().is_none())
    })?;
    print(&said.0)?;
    Ok(said.1)
}

/// The payload, which the gate would refuse beyond `most_bytes`.
fn payload(args: &MapArgs, most_bytes: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = most_bytes as u64 + 1;
    match &args.payload {
        Some(path) => {
            let cannot = || format!("cannot read {}", path.display());
            let file = std::fs::File::open(path).with_context(cannot)?;
            file.take(most)
                .read_to_end(&mut bytes)
                .with_context(cannot)?;
        }
        None => {
            let from = std::io::stdin().lock();
            from.take(most).read_to_end(&mut bytes)?;
        }
    }
    if bytes.len() > most_bytes {
        bail!("the payload is larger than {most_bytes} bytes: the gate takes no such publish");
    }
    Ok(bytes)
}

/// Hands `show` what the interpreter says of the publish: the same code on the same records as in
/// the collector.
fn with_meaning<T>(
    topic: &str,
    target: &Target,
    rules: &RuleSet,
    payload: &[u8],
    at: UnixMicros,
    show: impl FnOnce(&Interpreted<'_>) -> T,
) -> Result<T> {
    let set = rules.encode();
    let head = RawHead {
        device: target.device.clone(),
        epoch: Epoch::new(0),
        seq: 0,
        verdict: Verdict::Store,
        at,
        rules: RulesId::of(&set),
        rule: target.rule,
        metric: &target.metric,
        topic,
        client: "",
        packet_id: 0,
        hash: fingerprint(topic, payload),
    };
    let mut interpreter = Interpreter::new(Depth::Samples);
    interpreter.learn_rules(&set);
    let (record, mut bytes) = (Record::Raw(head, payload), Vec::new());
    record.encode(&mut bytes);
    let item = interpreter.read(0, record.kind().to_u8(), &bytes)?;
    Ok(show(&item))
}

fn as_text(target: &Target, item: &Interpreted<'_>) -> String {
    let mut out = format!("device  {}\n", target.device);
    for sample in item.samples.iter() {
        let time = instant_text(sample.ts_us);
        let received = if sample.class == TimeClass::Received {
            " (of receipt)"
        } else {
            ""
        };
        let Sample { metric, tags, .. } = sample;
        let (kind, value) = (kind_name(sample.value), value_json(sample.value));
        let _ = writeln!(
            out,
            "sample  {time}{received}  {metric} = {value} ({kind}) {tags}"
        );
    }
    for refused in item.refused() {
        let Refused { cause, reason, .. } = &refused;
        let bytes = &refused.payload[..refused.payload.len().min(MAX_SHOWN_BYTES)];
        let bytes = String::from_utf8_lossy(bytes);
        let _ = writeln!(out, "refused {}: {cause}: {bytes:?}", reason.name());
    }
    let (samples, missing) = (item.samples.len(), item.missing);
    let refused = item.refused().count();
    let _ = writeln!(
        out,
        "{samples} samples, {refused} refused, {missing} missing"
    );
    out
}

fn as_json(target: &Target, item: &Interpreted<'_>) -> Json {
    let refused = |refused: Refused<'_>| {
        json!({
            "reason": refused.reason.name(),
            "cause": refused.cause,
            "payload": String::from_utf8_lossy(&refused.payload),
        })
    };
    json!({
        "device": target.device.as_str(),
        "samples": item.samples.iter().map(sample_json).collect::<Vec<_>>(),
        "refused": item.refused().map(refused).collect::<Vec<_>>(),
        "missing": item.missing,
    })
}

/// A sample as JSON.
pub(super) fn sample_json(sample: Sample<'_>) -> Json {
    let (kind, value) = (kind_name(sample.value), value_json(sample.value));
    let tags: Option<Json> = serde_json::from_str(sample.tags).ok();
    json!({
        "row": sample.row,
        "ts": instant_text(sample.ts_us),
        "received": sample.class == TimeClass::Received,
        "metric": sample.metric,
        "tags": tags,
        "kind": kind,
        "value": value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::pattern::Pattern;
    use crate::pipeline::rules::{Decoder, TimeWindow};

    fn shown(topic: &str, payload: &str) -> (String, Json) {
        let patterns = [Pattern::new("plant/{device}/{metric#}", Decoder::Detect).unwrap()];
        let rules = RuleSet::new(pattern::rules_of(&patterns), TimeWindow::default());
        let target = pattern::find(&patterns, topic).unwrap();
        let at = UnixMicros(1_763_071_000_000_000);
        with_meaning(topic, &target, &rules, payload.as_bytes(), at, |item| {
            (as_text(&target, item), as_json(&target, item))
        })
        .unwrap()
    }

    #[test]
    fn each_part_of_a_publish_is_shown_as_the_lake_would_have_it() {
        let payload =
            r#"{"ts":1763070000,"temp":21.5,"count":9007199254740993,"bad":1e400,"gone":null}"#;
        let (text, json) = shown("plant/p1/box", payload);
        assert!(text.contains("2025-11-13T21:40:00"), "{text}");
        assert!(text.contains("= 21.5 (f64)"), "{text}");
        assert!(text.contains("= 9007199254740993 (i64)"), "{text}");
        assert!(text.contains("refused bad_payload"), "{text}");
        assert!(text.contains("2 samples, 1 refused, 1 missing"), "{text}");
        assert_eq!(json["samples"][0]["received"], false);
        assert_eq!(json["missing"], 1);
    }

    #[test]
    fn a_value_without_a_time_has_that_of_its_receipt() {
        let (text, json) = shown("plant/p1/temp", "21.5");
        assert!(text.contains("(of receipt)"), "{text}");
        assert_eq!(json["device"], "p1");
        assert_eq!(json["samples"][0]["metric"], "temp");
    }
}
