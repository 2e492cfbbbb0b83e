//! Core: dates and instants as texts, in UTC.

use crate::schema::DAY_US;

/// UTC date of `time_us` as days since 1970-01-01.
#[must_use]
pub const fn day_of(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}

/// `YYYY-MM-DD` of a day number.
///
/// # Source
/// Howard Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`.
#[must_use]
pub fn date_text(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}")
}

/// Day number of `YYYY-MM-DD`, `None` if the text is no such date.
#[must_use]
pub fn day_of_date(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let (year, month, date) = (part()?, part()?, part()?);
    if !(0..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&date) {
        return None;
    }
    let year_shifted = year - i64::from(month <= 2);
    let era = year_shifted.div_euclid(400);
    let year_of_era = year_shifted.rem_euclid(400);
    let month_shifted = (month + 9) % 12;
    let day_of_year = (153 * month_shifted + 2) / 5 + date - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let day = era * 146_097 + day_of_era - 719_468;
    (date_text(day) == text).then_some(day)
}

/// RFC 3339 with microseconds: `2026-11-22T10:11:12.000345Z`.
#[must_use]
pub fn instant_text(time_us: i64) -> String {
    let seconds = time_us.rem_euclid(DAY_US) / 1_000_000;
    format!(
        "{}T{:02}:{:02}:{:02}.{:06}Z",
        date_text(day_of(time_us)),
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        time_us.rem_euclid(1_000_000)
    )
}

/// Unix microseconds of an RFC 3339 text in UTC, years 0 to 9999; a fraction has at most nine
/// digits, and is cut to microseconds. `None` if the text is no such instant.
#[must_use]
pub fn instant_of(text: &str) -> Option<i64> {
    let (date, clock) = text.strip_suffix(['Z', 'z'])?.split_once(['T', 't'])?;
    let day = day_of_date(date)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(digits);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // A leap second is the one after.
    if hour > 23 || minute > 59 || second > 60 || fraction.len() > 9 {
        return None;
    }
    let micros = format!("{fraction:0<6}").get(..6).and_then(digits)?;
    Some(day * DAY_US + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Digits only: `+1` and `-1` are no parts of a time.
fn digits(text: &str) -> Option<i64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::MAX_TIME_US;

    #[test]
    fn dates_match_days_both_ways() {
        assert_eq!(date_text(0), "1970-01-01");
        assert_eq!(date_text(day_of(1_795_305_600_000_000)), "2026-11-22");
        assert_eq!(date_text(day_of(1_795_305_599_999_999)), "2026-11-21");
        assert_eq!(date_text(day_of(MAX_TIME_US - 1)), "9999-12-31");
        for day in (-1_000..2_900_000).step_by(17) {
            assert_eq!(day_of_date(&date_text(day)), Some(day));
        }
        for wrong in [
            "2026-02-29",
            "2026-2-01",
            "x",
            "2026-13-01",
            "",
            "2026-01-01-1",
        ] {
            assert_eq!(day_of_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn known_instants_are_read_and_written() {
        for (text, us) in [
            ("1970-01-01T00:00:00.000000Z", 0),
            ("2000-02-29T12:34:56.789000Z", 951_827_696_789_000),
            ("2026-11-22T08:00:00.000001Z", 1_795_334_400_000_001),
        ] {
            assert_eq!(instant_of(text), Some(us), "{text}");
            assert_eq!(instant_text(us), text);
        }
        let whole = Some(1_795_334_400_000_000);
        assert_eq!(instant_of("2026-11-22T08:00:00Z"), whole);
        assert_eq!(instant_of("2026-11-22t08:00:00.0z"), whole);
        let half = whole.map(|us| us + 500_000);
        assert_eq!(instant_of("2026-11-22T08:00:00.5Z"), half);
        assert_eq!(instant_of("2026-11-22T08:00:00.500000999Z"), half);
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-22",
            "2026-11-22T08:00:00",
            "2026-11-22T+8:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T9223372036854775807:00:00Z",
            "2026-11-22T08:00:00.\u{e9}Z",
        ] {
            assert_eq!(instant_of(text), None, "{text}");
        }
    }
}
