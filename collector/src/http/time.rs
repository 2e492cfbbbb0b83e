//! Core: times in queries.

use headwater_lake::date::instant_of;

/// Unix microseconds of a text: Unix milliseconds, or RFC 3339 in UTC.
pub(super) fn parse(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(ms) => ms.checked_mul(1_000),
        Err(_) => instant_of(text),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn milliseconds_and_instants_are_read() {
        assert_eq!(parse("1700000000000"), Some(1_700_000_000_000_000));
        assert_eq!(parse("2026-11-22T08:00:00Z"), Some(1_795_334_400_000_000));
        for text in ["", "yesterday", "2026-11-22", "9223372036854775807"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
