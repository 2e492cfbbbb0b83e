//! Core: a payload that is one value.
//!
//! | payload | value |
//! |---|---|
//! | a number, also `+5`, `05`, `.5` or `5.` | held exactly, as [`crate::Cause::Number`] says |
//! | `true`, `false` | a truth value |
//! | nothing, `None`, `null`, `nan`, `inf`, `Infinity`, `unavailable`, `unknown`, in any case | missing |
//! | anything else | a text |

use headwater_proto::sample::Value;

use crate::out::Out;
use crate::part::{Cause, Place, Sample};
use crate::text::Places;
use crate::{MAX_METRIC_BYTES, Rules, number};

/// Reads the value.
pub(crate) fn read(places: &mut Places<'_>, rules: &Rules<'_>, out: &mut Out<'_>) {
    let bytes = places.bytes();
    let word = match core::str::from_utf8(bytes) {
        Ok(word) => word,
        Err(error) => {
            let place = places.place(error.valid_up_to());
            return out.refused(place, Cause::NotUtf8, bytes);
        }
    };
    if number::is_missing_single(word) {
        return out.missing(1);
    }
    let value = match word {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        _ => number::plain(word).unwrap_or(Ok(Value::Str(word))),
    };
    let metric = if rules.metric.is_empty() {
        "value"
    } else {
        rules.metric
    };
    let named = if metric.len() > MAX_METRIC_BYTES {
        Err(Cause::Name(metric.len()))
    } else {
        value
    };
    match named {
        Ok(value) => {
            let row = out.begin_row();
            out.sample(Sample {
                row,
                line: places.line(0),
                device: None,
                time: None,
                tags: &[],
                metric,
                value,
                unit: None,
            });
        }
        Err(cause) => out.refused(Place::Payload, cause, bytes),
    }
}
