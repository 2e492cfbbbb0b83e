//! Core: errors in the words of each service, and dates of HTTP.

use serde_json::json;

use super::call::{Call, Service};
use super::http::Answer;
use super::items::Failure;

/// An error of the service that `call` asked. `content_type`: that of the request, which JSON
/// services answer with. `id`: a number that names the answer.
#[must_use]
pub fn refusal(
    call: &Call,
    status: u16,
    failure: &Failure,
    content_type: Option<&str>,
    id: u64,
) -> Answer {
    let Failure { code, message } = failure;
    let id = format!("proxy-{id:016x}");
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let is_json = match call.service {
        Service::Kinesis | Service::Firehose | Service::DynamoDb => true,
        Service::S3 => false,
        Service::Other => content_type.is_some_and(|kind| kind.contains("json")),
    };
    let (headers, body) = if is_json {
        let kind = content_type.unwrap_or("application/x-amz-json-1.1");
        let headers = vec![
            header("content-type", kind),
            header("x-amzn-requestid", &id),
            header("x-amzn-errortype", code),
        ];
        (
            headers,
            json!({ "__type": code, "message": message }).to_string(),
        )
    } else {
        let resource = escape(&format!("/{}/{}", call.bucket, call.key));
        let (code, message) = (escape(code), escape(message));
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>{message}</Message><Resource>{resource}</Resource><RequestId>{id}</RequestId></Error>"
        );
        (
            vec![
                header("content-type", "application/xml"),
                header("x-amz-request-id", &id),
            ],
            body,
        )
    };
    Answer {
        status,
        reason: reason(status).to_owned(),
        headers,
        body: body.into_bytes(),
        length: None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        412 => "Precondition Failed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Injected",
    }
}

/// A date as HTTP writes it, for example `Sun, 06 Nov 1994 08:49:37 GMT`. `unix_s`: seconds since
/// 1970.
#[must_use]
pub fn http_date(unix_s: i64) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index)
            .ok()
            .and_then(|index| names.get(index).copied())
            .unwrap_or("?")
    };
    let (days, second) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let weekday = name(&WEEKDAYS, days.rem_euclid(7));
    let month = name(&MONTHS, month - 1);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month and day of a number of days since 1970 (Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", `civil_from_days`).
const fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::super::http::Head;
    use super::*;

    fn call(headers: &[(&str, &str)]) -> Call {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Call::of(&Head {
            method: "GET".to_owned(),
            target: "/b/a&b".to_owned(),
            headers: headers.collect(),
            ..Head::default()
        })
    }

    #[test]
    fn s3_says_an_error_in_xml_and_the_streams_in_json_and_a_header() {
        let failure = Failure::new("SlowDown", "a < b");
        let answer = refusal(&call(&[]), 503, &failure, None, 7);
        let body = String::from_utf8(answer.body).unwrap();
        assert!(
            body.contains("<Code>SlowDown</Code><Message>a &lt; b</Message><Resource>/b/a&amp;b</"),
            "{body}"
        );
        assert_eq!(
            (answer.status, &answer.reason[..]),
            (503, "Service Unavailable")
        );
        let kinesis = call(&[("x-amz-target", "Kinesis_20131202.PutRecords")]);
        let answer = refusal(
            &kinesis,
            400,
            &failure,
            Some("application/x-amz-json-1.1"),
            7,
        );
        assert_eq!(answer.header("x-amzn-errortype"), Some("SlowDown"));
        assert_eq!(
            answer.header("content-type"),
            Some("application/x-amz-json-1.1")
        );
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body, json!({ "__type": "SlowDown", "message": "a < b" }));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix_s, date) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix_s), date);
        }
    }
}
