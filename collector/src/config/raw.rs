//! Core: the configuration as it is written.

use std::collections::BTreeMap;

use headwater_payload::Zone;
use headwater_program::log::RawLog;
use headwater_spool::format::MAX_SNAPSHOT_BYTES;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::sinks;
use super::{
    Acl, Config, CreditLimits, Decoder, Gateway, Limits, MAX_PATTERNS, MAX_RULES_BYTES, MIB, Mode,
    Pattern, PlainRule, PlainTime, PlainTimeFormat, PlainUnit, RuleSet, TimeWindow, TopicPattern,
    custody, folder, loopback, rules_of, within,
};

const DAY_US: i64 = 86_400_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    data_dir: String,
    custody: String,
    gate: RawGate,
    plain: Vec<RawPlain>,
    journal: RawJournal,
    /// Read apart, by the kind of each.
    sink: Vec<BTreeMap<String, IgnoredAny>>,
    time: RawTime,
    http: RawHttp,
    log: RawLog,
}

impl Default for RawConfig {
    fn default() -> Self {
        let plain = |topic: &str, decoder: &str| RawPlain {
            topic: topic.into(),
            decoder: decoder.into(),
            time: None,
            time_format: None,
            time_zone: None,
            precision: None,
            tags: None,
            keep_values: false,
            delimiter: None,
            header: None,
        };
        Self {
            data_dir: "/var/lib/headwater-collector".into(),
            custody: "sinks".into(),
            gate: RawGate::default(),
            plain: vec![
                plain("devices/{device}", "json"),
                plain("devices/{device}/{metric#}", "auto"),
            ],
            journal: RawJournal::default(),
            sink: Vec::new(),
            time: RawTime::default(),
            http: RawHttp::default(),
            log: RawLog::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGate {
    listen: String,
    max_connections: u64,
    max_connections_per_ip: Option<u64>,
    credit_kib: u64,
    credit_total_mib: u64,
    gateways: Vec<RawGateway>,
}

impl Default for RawGate {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:1883".into(),
            max_connections: 10_000,
            max_connections_per_ip: None,
            credit_kib: 1024,
            credit_total_mib: 64,
            gateways: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGateway {
    client: String,
    devices: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlain {
    topic: String,
    decoder: String,
    /// Name of the time in JSON and CSV; `None` finds it, empty takes the time of receipt.
    time: Option<String>,
    time_format: Option<String>,
    time_zone: Option<String>,
    /// Unit of the times in line protocol.
    precision: Option<String>,
    tags: Option<String>,
    #[serde(default)]
    keep_values: bool,
    delimiter: Option<char>,
    header: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawJournal {
    max_mib: u64,
    segment_mib: Option<u64>,
}

impl Default for RawJournal {
    fn default() -> Self {
        Self {
            max_mib: 4096,
            segment_mib: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawTime {
    max_late_days: u64,
    max_future_s: u64,
}

impl Default for RawTime {
    fn default() -> Self {
        Self {
            max_late_days: 0,
            max_future_s: 3600,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawHttp {
    listen: String,
}

impl Default for RawHttp {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".into(),
        }
    }
}

impl RawConfig {
    /// The valid configuration, and a line in `problems` for each thing the operator must fix.
    ///
    /// - `text`: where it was read from, for the sinks.
    pub(super) fn check(self, text: &str, problems: &mut Vec<String>) -> Option<Config> {
        let data = folder("data_dir", &self.data_dir, problems);
        let gate_listen = loopback("gate.listen", &self.gate.listen, problems);
        let http_listen = (!self.http.listen.is_empty())
            .then(|| loopback("http.listen", &self.http.listen, problems))
            .flatten();
        let (patterns, plain) = patterns(&self.plain, problems);
        let mode = match self.custody.as_str() {
            "sinks" => Mode::Sinks,
            "journal" => Mode::Journal,
            other => {
                problems.push(format!(
                    "custody = {other:?}: must be \"sinks\" or \"journal\""
                ));
                Mode::Sinks
            }
        };
        let log = self.journal.check(problems);
        let gateways = self.gate.gateways(problems);
        let (limits, credit) = self.gate.check(problems);
        let window = self.time.check(problems);
        let (journal_dir, state_dir) = (data.join("journal"), data.join("state"));
        let sinks = sinks::check(text, &journal_dir, &state_dir, problems);
        let custody = custody::Settings {
            log,
            credit,
            mode,
            patterns,
            window,
            sinks: sinks::specs(&sinks),
            gateways: gateways.clone(),
            ..custody::Settings::default()
        };
        Some(Config {
            journal_dir,
            state_dir,
            dead_dir: data.join("dead"),
            gate_listen: gate_listen?,
            limits,
            acl: Acl {
                gateways,
                plain,
                ..Acl::default()
            },
            custody,
            sinks,
            http_listen,
            log: self.log.check(problems),
        })
    }
}

impl RawPlain {
    /// How its payloads are read, or lines in `problems`.
    fn rule(&self, problems: &mut Vec<String>) -> Option<PlainRule> {
        let topic = &self.topic;
        let before = problems.len();
        let mut fault = |key: &str, value: &str, wants: &str| {
            problems.push(format!(
                "plain {topic:?}: {key} = {value:?} must be {wants}"
            ));
        };
        let decoder = match self.decoder.as_str() {
            "json" => Decoder::Json,
            "number" => Decoder::Number,
            "line" => Decoder::Line,
            "csv" => Decoder::Csv,
            "auto" => Decoder::Detect,
            other => {
                let wants = "\"json\", \"number\", \"line\", \"csv\" or \"auto\"";
                fault("decoder", other, wants);
                Decoder::Json
            }
        };
        let format = match self.time_format.as_deref() {
            None | Some("auto") => PlainTimeFormat::Auto,
            Some("rfc3339") => PlainTimeFormat::Rfc3339,
            Some(unit) => PlainUnit::from_name(unit).map_or_else(
                || {
                    let wants = "\"auto\", \"rfc3339\", \"s\", \"ms\", \"us\" or \"ns\"";
                    fault("time_format", unit, wants);
                    PlainTimeFormat::Auto
                },
                PlainTimeFormat::Unix,
            ),
        };
        let precision = self.precision.as_deref();
        let unit = precision.and_then(PlainUnit::from_name);
        if let (Some(precision), None) = (precision, unit) {
            fault("precision", precision, "\"s\", \"ms\", \"us\" or \"ns\"");
        }
        let zone = self.time_zone.as_deref();
        if let Some(zone) = zone.filter(|zone| Zone::parse(zone).is_none()) {
            fault("time_zone", zone, "an offset such as \"+01:00\", or \"Z\"");
        }
        let named = self.time.as_deref().is_some_and(|name| !name.is_empty());
        if !named && (self.time_format.is_some() || zone.is_some()) {
            fault(
                "time",
                "",
                "the name that time_format and time_zone are for",
            );
        }
        let delimiter = self.delimiter.unwrap_or(',');
        if !delimiter.is_ascii() || matches!(delimiter, '"' | '\n' | '\r') {
            fault(
                "delimiter",
                &delimiter.to_string(),
                "one ASCII character, no quote, no line end",
            );
        }
        if problems.len() > before {
            return None;
        }
        let time = match self.time.as_deref() {
            None => PlainTime::Auto,
            Some("") => PlainTime::Ignore,
            Some(name) => PlainTime::Key {
                name: name.to_owned(),
                format,
                zone: self.time_zone.clone(),
            },
        };
        Some(PlainRule {
            time,
            precision: unit,
            keep_values: self.keep_values,
            tags: self.tags.clone(),
            delimiter: u8::try_from(delimiter).unwrap_or(b','),
            header: self.header.clone(),
            ..PlainRule::new(decoder)
        })
    }
}

impl RawGate {
    fn check(&self, problems: &mut Vec<String>) -> (Limits, CreditLimits) {
        let why = "each takes about 10 KB when idle, and a file descriptor";
        let all = within(
            "gate.max_connections",
            self.max_connections,
            1..=100_000,
            why,
            problems,
        );
        let per_ip = within(
            "gate.max_connections_per_ip",
            self.max_connections_per_ip.unwrap_or(all.min(2_000)),
            1..=all,
            "no more than gate.max_connections",
            problems,
        );
        let why = "one bundle of 256 KiB must fit, and more is memory for one sender";
        let credit = within(
            "gate.credit_kib",
            self.credit_kib,
            256..=65_536,
            why,
            problems,
        );
        let total = within(
            "gate.credit_total_mib",
            self.credit_total_mib,
            credit.div_ceil(1024)..=16_384,
            "at least the credit of one connection",
            problems,
        );
        let limits = Limits {
            connections: usize::try_from(all).unwrap_or(usize::MAX),
            connections_per_ip: usize::try_from(per_ip).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        let credit = CreditLimits {
            per_connection_bytes: credit * 1024,
            total_bytes: total * MIB,
        };
        (limits, credit)
    }

    fn gateways(&self, problems: &mut Vec<String>) -> Vec<Gateway> {
        let mut gateways = Vec::new();
        for gateway in &self.gateways {
            if gateway.client.is_empty() || gateway.devices.is_empty() {
                problems.push(format!(
                    "gate.gateways: {:?} needs a client id and at least one device",
                    gateway.client
                ));
            }
            gateways.push(Gateway {
                client: gateway.client.clone(),
                devices: gateway.devices.clone(),
            });
        }
        gateways
    }
}

/// Least size of a segment, in MiB: each begins with what the journal knows of the fleet. One that has less room
/// for records than for that would soon be given up for the next, and a quota of a few such never comes to rest.
const LEAST_SEGMENT_MIB: u64 = 2 * (MAX_SNAPSHOT_BYTES as u64).div_ceil(MIB);

impl RawJournal {
    fn check(&self, problems: &mut Vec<String>) -> headwater_spool::Config {
        let why = "room for eight segments and for what the fleet sends while the lake is away";
        let least = 8 * LEAST_SEGMENT_MIB;
        let max = within(
            "journal.max_mib",
            self.max_mib,
            least..=1 << 20,
            why,
            problems,
        );
        // What is said of a quota that is refused already is said once.
        let most = if max == self.max_mib { max / 8 } else { 1024 };
        let segment = within(
            "journal.segment_mib",
            self.segment_mib.unwrap_or(most.min(64)),
            LEAST_SEGMENT_MIB..=most.min(1024),
            "room for all that a segment says of the fleet first and for as much of records, and at most an \
             eighth of journal.max_mib, so that releasing one frees little",
            problems,
        );
        headwater_spool::Config {
            segment_bytes: segment * MIB,
            quota_bytes: max * MIB,
            reserve_bytes: segment * MIB,
            ..custody::Settings::default().log
        }
    }
}

impl RawTime {
    fn check(&self, problems: &mut Vec<String>) -> TimeWindow {
        let why = "longer than any device sleeps";
        let late = within(
            "time.max_late_days",
            self.max_late_days,
            0..=36_500,
            why,
            problems,
        );
        let why = "a clock that is further ahead is wrong";
        let future = within(
            "time.max_future_s",
            self.max_future_s,
            0..=31_536_000,
            why,
            problems,
        );
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        TimeWindow {
            max_late_us: (late > 0).then(|| signed(late).saturating_mul(DAY_US)),
            max_ahead_us: signed(future).saturating_mul(1_000_000),
        }
    }
}

/// The patterns twice: as the gate lets publishes in, and as custody reads their topics.
fn patterns(plain: &[RawPlain], problems: &mut Vec<String>) -> (Vec<Pattern>, Vec<TopicPattern>) {
    let (mut read, mut let_in) = (Vec::new(), Vec::new());
    if plain.len() > MAX_PATTERNS {
        problems.push(format!(
            "plain: {} patterns; at most {MAX_PATTERNS}",
            plain.len()
        ));
    }
    for raw in plain {
        let topic = &raw.topic;
        let Some(rule) = raw.rule(problems) else {
            continue;
        };
        match Pattern::new(topic, rule.decoder) {
            Ok(pattern) => {
                let_in.push(pattern.topic().clone());
                read.push(pattern.read_by(rule));
            }
            Err(error) => problems.push(format!("plain {topic:?}: {error}")),
        }
    }
    let bytes = RuleSet::new(rules_of(&read), TimeWindow::default())
        .encode()
        .len();
    if bytes > MAX_RULES_BYTES {
        problems.push(format!(
            "plain: the rules take {bytes} bytes, {MAX_RULES_BYTES} at most: they stand in each segment \
             of the journal; shorten names and headers"
        ));
    }
    (read, let_in)
}
