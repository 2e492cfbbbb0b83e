//! Parts of a payload as lines of text.

use headwater_payload::{Format, Part, Rules, Tally, read};
use headwater_proto::sample::Value;

/// A value with its type: doubles always show a point or an exponent.
pub(crate) fn value(value: Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::I64(value) => format!("{value}i"),
        Value::F32(value) => format!("{value:?}f32"),
        Value::F64(value) => format!("{value:?}"),
        Value::Str(value) => format!("{value:?}"),
    }
}

/// `row metric=value`, with `@time`, `device:`, `{tags}` and `[unit]` where there are such; or
/// `refused PLACE: CAUSE: BYTES`.
pub(crate) fn part(part: &Part<'_>) -> String {
    match part {
        Part::Sample(sample) => {
            let device = sample.device.map_or(String::new(), |d| format!("{d}: "));
            let tags: Vec<_> = sample
                .tags
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect();
            let tags = match tags.as_slice() {
                [] => String::new(),
                some => format!("{{{}}}", some.join(",")),
            };
            let unit = sample
                .unit
                .map_or(String::new(), |unit| format!(" [{unit}]"));
            let time = sample
                .time
                .map_or(String::new(), |time| format!(" @{}", time.0));
            let (row, metric, value) = (sample.row, sample.metric, value(sample.value));
            format!("{row} {device}{metric}{tags}={value}{unit}{time}")
        }
        Part::Refused(refused) => format!(
            "refused {}: {}: {}",
            refused.place,
            refused.cause,
            refused.bytes.escape_ascii()
        ),
    }
}

pub(crate) fn tally(format: Format, rules: &Rules<'_>, bytes: &[u8]) -> (Vec<String>, Tally) {
    let mut parts = Vec::new();
    let tally = read(format, rules, bytes, &mut |seen| parts.push(part(&seen)));
    let samples = parts
        .iter()
        .filter(|part| !part.starts_with("refused"))
        .count();
    assert_eq!(
        (tally.samples as usize, tally.refused as usize),
        (samples, parts.len() - samples)
    );
    (parts, tally)
}

pub(crate) fn parts(format: Format, rules: &Rules<'_>, bytes: &[u8]) -> Vec<String> {
    tally(format, rules, bytes).0
}
