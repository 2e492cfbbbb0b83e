//! Core: numbers that are held exactly, and words that stand for a missing value.
//!
//! JSON does not tell 21 from 21.0, and a sensor that sends both must not be torn over two columns.
//! A number in digits alone is a double if a double holds it exactly, otherwise an `i64`, otherwise
//! refused. A number with a point or an exponent is written as doubles are, and is the double
//! nearest to it: 0.1 has no exact one. It is refused where no double is near: 1e400, 1e-400.

use core::fmt::{self, Write as _};

use headwater_proto::sample::Value;

use crate::part::Cause;

/// How a word is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Whole,
    Double,
}

/// The exact value of a JSON number; `None` if `text` is none.
pub(crate) fn json(text: &str) -> Option<Result<Value<'static>, Cause>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1
        && digits.starts_with('0')
        && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if text.starts_with('+') || leading_zero {
        return None;
    }
    let shape = shape(text, true)?;
    Some(exact(text, shape))
}

/// The exact value of a number as people write it, also `+5`, `05`, `.5` and `5.`; `None` if `text`
/// is none.
pub(crate) fn plain(text: &str) -> Option<Result<Value<'static>, Cause>> {
    let shape = shape(text, false)?;
    Some(exact(text, shape))
}

/// The double nearest to a number as people write it.
pub(crate) fn double(text: &str) -> Option<Result<f64, Cause>> {
    shape(text, false)?;
    Some(nearest(text))
}

/// The single-precision number nearest to a number as people write it.
pub(crate) fn single(text: &str) -> Option<Result<f32, Cause>> {
    shape(text, false)?;
    let near = nearest(text).ok();
    let single = text.parse().ok().filter(|single: &f32| single.is_finite());
    let both = near
        .zip(single)
        .filter(|(near, single)| (*near == 0.0) == (*single == 0.0));
    Some(both.map(|(_, single)| single).ok_or(Cause::Number))
}

/// Whether a word stands for a missing number.
pub(crate) fn is_missing(word: &str) -> bool {
    let bare = word.strip_prefix(['-', '+']).unwrap_or(word);
    ["nan", "infinity", "inf"]
        .iter()
        .any(|missing| bare.eq_ignore_ascii_case(missing))
        || word.eq_ignore_ascii_case("null")
}

/// Whether a single value stands for none.
pub(crate) fn is_missing_single(word: &str) -> bool {
    is_missing(word)
        || word.is_empty()
        || ["none", "unavailable", "unknown"]
            .iter()
            .any(|missing| word.eq_ignore_ascii_case(missing))
}

/// `strict`: digits must stand on both sides of a point.
fn shape(text: &str, strict: bool) -> Option<Shape> {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes();
    let digits = |rest: &mut &[u8]| {
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        *rest = &rest[len..];
        len
    };
    let before = digits(&mut rest);
    let mut shape = Shape::Whole;
    let mut after = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        rest = fraction;
        shape = Shape::Double;
        after = digits(&mut rest);
        if strict && (before == 0 || after == 0) {
            return None;
        }
    }
    if before + after == 0 {
        return None;
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        rest = match exponent {
            [b'-' | b'+', unsigned @ ..] => unsigned,
            _ => exponent,
        };
        shape = Shape::Double;
        if digits(&mut rest) == 0 {
            return None;
        }
    }
    rest.is_empty().then_some(shape)
}

fn exact(text: &str, shape: Shape) -> Result<Value<'static>, Cause> {
    match shape {
        Shape::Double => nearest(text).map(Value::F64),
        Shape::Whole => {
            let double = nearest(text)?;
            if holds(double, text) {
                return Ok(Value::F64(double));
            }
            text.parse().map(Value::I64).map_err(|_| Cause::Number)
        }
    }
}

fn nearest(text: &str) -> Result<f64, Cause> {
    let double: f64 = text.parse().map_err(|_| Cause::Number)?;
    let mantissa = text.split(['e', 'E']).next().unwrap_or(text);
    let lost = double == 0.0 && mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    if double.is_finite() && !lost {
        Ok(double)
    } else {
        Err(Cause::Number)
    }
}

/// Whether the double's exact decimal digits are those of the whole number `text`.
fn holds(double: f64, text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let mut same = Same { left: digits };
    // Zero fraction digits print a whole double in full, without rounding.
    write!(same, "{:.0}", double.abs()).is_ok() && same.left.is_empty()
}

/// A writer that compares its output with a text.
struct Same<'a> {
    left: &'a str,
}

impl fmt::Write for Same<'_> {
    fn write_str(&mut self, written: &str) -> fmt::Result {
        self.left = self.left.strip_prefix(written).ok_or(fmt::Error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn read(text: &str) -> Value<'static> {
        json(text).unwrap().unwrap()
    }

    #[test]
    fn a_whole_number_is_a_double_where_one_holds_it_and_an_integer_where_none_does() {
        assert_eq!(read("21"), Value::F64(21.0));
        assert_eq!(
            read("9007199254740992"),
            Value::F64(9_007_199_254_740_992.0)
        );
        assert_eq!(read("9007199254740993"), Value::I64(9_007_199_254_740_993));
        assert_eq!(
            read("-9007199254740993"),
            Value::I64(-9_007_199_254_740_993)
        );
        assert_eq!(read("9223372036854775807"), Value::I64(i64::MAX));
        assert_eq!(
            read("-9223372036854775808"),
            Value::F64(-9_223_372_036_854_775_808.0)
        );
        assert!(read("-0").same_bits(&Value::F64(-0.0)));
    }

    #[test]
    fn a_number_that_nothing_holds_is_refused_and_never_rounded() {
        for text in [
            "18446744073709551615",
            "9223372036854775809",
            "1e400",
            "-1e400",
            "1e-400",
        ] {
            assert_eq!(json(text), Some(Err(Cause::Number)), "{text}");
        }
        // 2^64 and 10^22 are doubles.
        assert_eq!(
            read("18446744073709551616"),
            Value::F64(18_446_744_073_709_551_616.0)
        );
        assert_eq!(read("10000000000000000000000"), Value::F64(1e22));
    }

    #[test]
    fn a_number_with_a_point_or_an_exponent_is_the_nearest_double() {
        assert_eq!(read("1.185"), Value::F64(1.185));
        assert_eq!(
            read("1.152921504606847e+18"),
            Value::F64(1_152_921_504_606_846_976.0)
        );
        assert_eq!(read("0e5"), Value::F64(0.0));
    }

    #[test]
    fn json_numbers_are_stricter_than_those_of_people() {
        for text in ["+5", "05", ".5", "5.", "5e", "1_000", "0x1f", "-", ""] {
            assert_eq!(json(text), None, "{text}");
        }
        for text in ["+5", "05", ".5", "5."] {
            assert!(matches!(plain(text), Some(Ok(Value::F64(_)))), "{text}");
        }
        for text in [".", "e5", "5e", "1,5", "inf", "NaN"] {
            assert_eq!(plain(text), None, "{text}");
        }
    }

    #[test]
    fn words_for_a_missing_value_are_known() {
        for word in ["null", "NaN", "nan", "-nan", "Infinity", "-Infinity", "inf"] {
            assert!(is_missing(word) && is_missing_single(word), "{word}");
        }
        for word in ["None", "unavailable", "unknown", ""] {
            assert!(!is_missing(word) && is_missing_single(word), "{word}");
        }
        assert!(!is_missing_single("off"));
    }

    proptest! {
        #[test]
        fn every_whole_number_of_64_bits_is_read_exactly(number: i64) {
            match read(&number.to_string()) {
                Value::I64(read) => prop_assert_eq!(read, number),
                Value::F64(read) => prop_assert_eq!(format!("{read:.0}"), number.to_string()),
                other @ (Value::Bool(_) | Value::F32(_) | Value::Str(_)) => {
                    prop_assert!(false, "{:?}", other);
                }
            }
        }

        #[test]
        fn every_double_is_read_back_as_it_was_printed(double in proptest::num::f64::NORMAL) {
            prop_assert_eq!(read(&format!("{double:?}")), Value::F64(double));
            prop_assert_eq!(read(&format!("{double:e}")), Value::F64(double));
        }
    }
}
