//! Core: times as payloads write them: RFC 3339, or a Unix time in one of four units.

use headwater_proto::time::UnixMicros;

use crate::part::Cause;

/// 2000-01-01 and 2100-01-01 in Unix microseconds. Between them a Unix time tells its unit by its
/// magnitude, and a number that is no time is not taken for one.
const OUR_DAYS: core::ops::Range<i64> = 946_684_800_000_000..4_102_444_800_000_000;
/// Digits of a decimal number that are looked at: more than any time has in any unit.
const MAX_DIGITS: usize = 30;

/// Names of a time without a rule, in order of precedence.
const KEYS: [&str; 6] = ["ts", "time", "timestamp", "Time", "datetime", "date_time"];

/// Rank and unit of a name that may be that of a time, without a rule. `more` names rank last.
pub(crate) fn key(name: &str, more: &[&str]) -> Option<(usize, Option<Unit>)> {
    if more.contains(&name) {
        return Some((KEYS.len(), None));
    }
    KEYS.iter().enumerate().find_map(|(rank, known)| {
        let suffix = name.strip_prefix(known)?;
        match suffix.strip_prefix('_') {
            Some(unit) => Unit::from_name(unit).map(|unit| (rank, Some(unit))),
            None => suffix.is_empty().then_some((rank, None)),
        }
    })
}

/// The unit of a Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds; fractions of a microsecond are cut off.
    Nanos,
}

impl Unit {
    const ALL: [Self; 4] = [Self::Seconds, Self::Millis, Self::Micros, Self::Nanos];

    /// The unit of a short name: `s`, `ms`, `us` or `ns`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "s" => Some(Self::Seconds),
            "ms" => Some(Self::Millis),
            "us" => Some(Self::Micros),
            "ns" => Some(Self::Nanos),
            _ => None,
        }
    }

    /// A microsecond is ten to the power of this many units, negated.
    const fn exponent(self) -> i32 {
        match self {
            Self::Seconds => 6,
            Self::Millis => 3,
            Self::Micros => 0,
            Self::Nanos => -3,
        }
    }
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    /// RFC 3339, or a Unix time between 2000 and 2100 whose magnitude tells its unit.
    Auto,
    /// RFC 3339: `2026-11-29T09:00:00.5+01:00`. A space may stand for the `T`.
    Rfc3339,
    /// A Unix time, as a number or a text, also with a fraction.
    Unix(Unit),
}

/// A fixed offset from UTC, in seconds east of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone(i32);

impl Zone {
    /// The zone of `+02:00`, `-0330`, `+01` or `Z`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (sign, clock) = match bytes {
            [b'Z' | b'z'] => return Some(Self(0)),
            [b'+', clock @ ..] => (1, clock),
            [b'-', clock @ ..] => (-1, clock),
            _ => return None,
        };
        let (hours, minutes) = match clock {
            [a, b] => (two(*a, *b)?, 0),
            [a, b, c, d] | [a, b, b':', c, d] => (two(*a, *b)?, two(*c, *d)?),
            _ => return None,
        };
        (hours <= 23 && minutes <= 59).then(|| Self(sign * (hours * 3600 + minutes * 60)))
    }
}

/// Reads a time that a rule has named.
///
/// # Errors
/// Which format it does not have, or that it lies before 1970.
pub(crate) fn read(
    text: &str,
    format: TimeFormat,
    zone: Option<Zone>,
) -> Result<UnixMicros, Cause> {
    let time = match format {
        TimeFormat::Auto => rfc3339(text, zone).map_or_else(|| by_magnitude(text), Ok)?,
        TimeFormat::Rfc3339 => {
            rfc3339(text, zone).ok_or(Cause::Not("a time of RFC 3339 with its offset"))?
        }
        TimeFormat::Unix(unit) => unix(text, unit)?,
    };
    if time.0 < 0 {
        return Err(Cause::Before1970);
    }
    Ok(time)
}

/// Reads a time that nobody has named: only one between 2000 and 2100 is taken for one.
pub(crate) fn guess(text: &str, unit: Option<Unit>) -> Option<UnixMicros> {
    let time = match unit {
        Some(unit) => unix(text, unit).ok()?,
        None => rfc3339(text, None).or_else(|| by_magnitude(text).ok())?,
    };
    OUR_DAYS.contains(&time.0).then_some(time)
}

/// A Unix time of a known unit.
///
/// # Errors
/// It is no number, or lies before 1970 or beyond 64 bits of microseconds.
pub(crate) fn unix(text: &str, unit: Unit) -> Result<UnixMicros, Cause> {
    let decimal = Decimal::parse(text).ok_or(Cause::Not("a Unix time"))?;
    if decimal.negative {
        return Err(Cause::Before1970);
    }
    let micros = decimal
        .micros(unit)
        .ok_or(Cause::Not("a time within 292,000 years of 1970"))?;
    Ok(UnixMicros(micros))
}

/// A Unix time whose unit is the one that puts it between 2000 and 2100; no two units can.
///
/// # Errors
/// No unit does.
pub(crate) fn by_magnitude(text: &str) -> Result<UnixMicros, Cause> {
    let decimal = Decimal::parse(text).ok_or(Cause::Not("a time"))?;
    if decimal.negative {
        return Err(Cause::Before1970);
    }
    Unit::ALL
        .into_iter()
        .filter_map(|unit| decimal.micros(unit))
        .find(|micros| OUR_DAYS.contains(micros))
        .map(UnixMicros)
        .ok_or(Cause::Magnitude)
}

/// `digits * 10^exponent`.
struct Decimal {
    negative: bool,
    digits: i128,
    exponent: i32,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || whole.len() + fraction.len() > MAX_DIGITS {
            return None;
        }
        let mut digits = 0i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return None;
            }
            digits = digits * 10 + i128::from(byte - b'0');
        }
        let places = i32::try_from(fraction.len()).ok()?;
        Some(Self {
            negative,
            digits,
            exponent: i32::from(exponent) - places,
        })
    }

    /// As microseconds, cut off below one; `None` beyond 64 bits.
    fn micros(&self, unit: Unit) -> Option<i64> {
        let exponent = self.exponent + unit.exponent();
        let power = 10i128.checked_pow(exponent.unsigned_abs());
        let micros = match power {
            Some(power) if exponent >= 0 => self.digits.checked_mul(power)?,
            Some(power) => self.digits / power,
            None if exponent >= 0 && self.digits != 0 => return None,
            None => 0,
        };
        i64::try_from(micros).ok()
    }
}

/// `2026-11-29T09:00:00[.fraction][offset]`; without an offset only if `zone` stands for it.
fn rfc3339(text: &str, zone: Option<Zone>) -> Option<UnixMicros> {
    let bytes = text.as_bytes();
    let (date, rest) = bytes.split_at_checked(10)?;
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *date else {
        return None;
    };
    let year = two(y0, y1)? * 100 + two(y2, y3)?;
    let (month, day) = (two(m0, m1)?, two(d0, d1)?);
    let (clock, mut rest) = rest.split_at_checked(9)?;
    let [b'T' | b't' | b' ', h0, h1, b':', i0, i1, b':', s0, s1] = *clock else {
        return None;
    };
    let (hour, minute, second) = (two(h0, h1)?, two(i0, i1)?, two(s0, s1)?);
    // A leap second is the first second of the next minute.
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day < 1 || day > days_in(year, month) {
        return None;
    }
    let mut micros = 0;
    if let [b'.' | b',', fraction @ ..] = rest {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return None;
        }
        let mut scale = 100_000;
        for byte in &fraction[..len] {
            micros += i64::from(byte - b'0') * scale;
            scale /= 10;
        }
        rest = &fraction[len..];
    }
    let offset = if rest.is_empty() {
        zone?
    } else {
        Zone::parse(core::str::from_utf8(rest).ok()?)?
    };
    let seconds = days_before(year, month, day) * 86_400
        + i64::from(hour * 3600 + minute * 60 + second)
        - i64::from(offset.0);
    Some(UnixMicros(seconds * 1_000_000 + micros))
}

fn two(tens: u8, ones: u8) -> Option<i32> {
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i32::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

const fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i32, month: i32) -> i32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of years 0 to 9999.
///
/// # Source
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_before(year: i32, month: i32, day: i32) -> i64 {
    let (year, month) = if month > 2 {
        (i64::from(year), i64::from(month) - 3)
    } else {
        (i64::from(year) - 1, i64::from(month) + 9)
    };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const NOON: i64 = 1_795_946_400;

    #[test]
    fn a_number_of_more_digits_than_any_time_has_is_no_time() {
        let long = |digits: usize| {
            let fraction = "0".repeat(digits - 10);
            guess(&format!("{NOON}.{fraction}"), None)
        };
        assert_eq!(long(MAX_DIGITS).unwrap().0, NOON * 1_000_000);
        assert_eq!(long(MAX_DIGITS + 1), None);
    }

    fn micros(text: &str) -> Option<i64> {
        guess(text, None).map(|time| time.0)
    }

    #[test]
    fn a_time_of_rfc_3339_is_read_with_its_offset() {
        let same = [
            "2026-11-29T09:20:00+01:00",
            "2026-11-29T08:20:00Z",
            "2026-11-29t08:20:00.000z",
            "2026-11-29 04:20:00-04:00",
            "2026-11-29T13:50:00+0530",
            "2026-11-29T10:20:00+02",
        ];
        let expected = (1_795_910_400 + 8 * 3600 + 20 * 60) * 1_000_000;
        for text in same {
            assert_eq!(micros(text), Some(expected), "{text}");
        }
        assert_eq!(
            micros("2026-11-29T08:20:00.1234567Z"),
            Some(expected + 123_456)
        );
        assert_eq!(micros("2024-02-29T00:00:00Z"), Some(1_709_164_800_000_000));
        assert_eq!(
            micros("2016-12-31T23:59:60Z"),
            micros("2017-01-01T00:00:00Z")
        );
    }

    #[test]
    fn a_date_that_does_not_exist_or_has_no_offset_is_no_time() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01",
            "1999-12-31T23:59:59Z",
            "2100-01-01T00:00:00Z",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn a_zone_stands_for_a_missing_offset() {
        let zone = Zone::parse("+01:00");
        let time = read("2026-11-29T09:20:00", TimeFormat::Rfc3339, zone).unwrap();
        assert_eq!(Some(time.0), micros("2026-11-29T08:20:00Z"));
        assert!(read("2026-11-29T09:20:00", TimeFormat::Rfc3339, None).is_err());
        for text in [
            "",
            "+1",
            "01:00",
            "+25:00",
            "+01:60",
            "+01:00:00",
            "Europe/Zurich",
        ] {
            assert_eq!(Zone::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_magnitude_of_a_unix_time_tells_its_unit() {
        for (text, expected) in [
            (NOON.to_string(), NOON * 1_000_000),
            (format!("{NOON}.512"), NOON * 1_000_000 + 512_000),
            (format!("{NOON}512"), NOON * 1_000_000 + 512_000),
            (format!("{NOON}512003"), NOON * 1_000_000 + 512_003),
            (format!("{NOON}512003999"), NOON * 1_000_000 + 512_003),
            ("1.795946400512e12".to_string(), NOON * 1_000_000 + 512_000),
        ] {
            assert_eq!(micros(&text), Some(expected), "{text}");
        }
        for text in [
            "0",
            "21.5",
            "946684799",
            "4102444800",
            "-1795946400",
            "1e300",
            "1e-300",
            "x",
        ] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn a_named_unit_reaches_beyond_our_days_but_not_before_1970() {
        let unix = |text, unit| read(text, TimeFormat::Unix(unit), None);
        assert_eq!(unix("5", Unit::Millis), Ok(UnixMicros(5000)));
        assert_eq!(
            unix("9223372036854775807", Unit::Nanos),
            Ok(UnixMicros(i64::MAX / 1000))
        );
        assert_eq!(unix("-1", Unit::Nanos), Err(Cause::Before1970));
        assert_eq!(
            read("1969-12-31T23:59:59Z", TimeFormat::Auto, None),
            Err(Cause::Before1970)
        );
        assert!(unix("9223372036854775807", Unit::Millis).is_err());
        assert!(unix("123456789012345678901234567890", Unit::Nanos).is_err());
        assert!(unix("1234567890123456789012345678901", Unit::Nanos).is_err());
        assert_eq!(guess("5", Some(Unit::Millis)), None);
    }

    proptest! {
        #[test]
        fn every_second_of_our_days_is_read_from_its_date(second in 946_684_800i64..4_102_444_800) {
            let (days, clock) = (second.div_euclid(86_400), second.rem_euclid(86_400));
            // Counting up from 2000 on knows nothing of the formula under test.
            let (mut year, mut month, mut day) = (2000, 1, days - 10_957 + 1);
            while day > i64::from(days_in(year, month)) {
                day -= i64::from(days_in(year, month));
                month += 1;
                if month == 13 {
                    (year, month) = (year + 1, 1);
                }
            }
            let (hour, minute, rest) = (clock / 3600, clock / 60 % 60, clock % 60);
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{rest:02}Z");
            prop_assert_eq!(micros(&text), Some(second * 1_000_000));
            prop_assert_eq!(micros(&second.to_string()), Some(second * 1_000_000));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}", zone in "[+-][0-9:]{0,6}") {
            let zone = Zone::parse(&zone);
            for format in [TimeFormat::Auto, TimeFormat::Rfc3339, TimeFormat::Unix(Unit::Seconds)] {
                let _ = read(&text, format, zone);
            }
        }
    }
}
