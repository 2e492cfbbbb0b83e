//! Core: the configuration: what is written (`Raw*`), what is valid, and every fault at once.

use std::net::SocketAddr;
use std::path::PathBuf;

use headwater_gate::Limits;
use headwater_gate::acl::{Acl, Gateway, TopicPattern};
use headwater_program::faults::{self, Faults, Renamed, within};
use headwater_program::findings::{Findings, possible_folder};
use headwater_program::listen::{self, Protocol};
use headwater_program::log::Log;

use crate::pipeline::credit::CreditLimits;
use crate::pipeline::custody::{self, Mode};
use crate::pipeline::pattern::{MAX_PATTERNS, Pattern, rules_of};
use crate::pipeline::rules::{
    Decoder, MAX_RULES_BYTES, PlainRule, PlainTime, PlainTimeFormat, PlainUnit, RuleSet, TimeWindow,
};
use crate::sink::lake::LakeKind;
use crate::sink::registry::{Declared, SinkKind};

mod raw;
mod sinks;

pub use sinks::{MAX_SINK_NAME_BYTES, MAX_SINKS};

/// Every setting with its default and what it means, as `--print-config` shows it.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Keys that settings had in earlier versions.
const RENAMED: &[Renamed] = &[
    renamed("lake.dir", "dir in [[sink]] with kind = \"lake\""),
    renamed("lake.flush_s", "flush_s in [[sink]] with kind = \"lake\""),
    renamed(
        "lake.flush_mib",
        "flush_mib in [[sink]] with kind = \"lake\"",
    ),
    renamed(
        "lake.flush_rows",
        "flush_rows in [[sink]] with kind = \"lake\"",
    ),
    renamed("lake.encoding", "encoding in [[sink]] with kind = \"lake\""),
    renamed("lake.max_late_days", "time.max_late_days"),
    renamed("lake.max_future_s", "time.max_future_s"),
    renamed(
        "hot.enabled",
        "[[sink]] with kind = \"hot\", or sinks without it",
    ),
    renamed(
        "hot.keep_hours",
        "keep_hours in [[sink]] with kind = \"hot\"",
    ),
    renamed("hot.max_mib", "max_mib in [[sink]] with kind = \"hot\""),
    renamed(
        "hot.freshness_s",
        "freshness_s in [[sink]] with kind = \"hot\"",
    ),
];

const fn renamed(old: &'static str, new: &'static str) -> Renamed {
    Renamed { old, new }
}

const MIB: u64 = 1 << 20;

/// A configuration that was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the journal.
    pub journal_dir: PathBuf,
    /// Folder of keyed state.
    pub state_dir: PathBuf,
    /// Folder of the folders of dead letters.
    pub dead_dir: PathBuf,
    /// Where MQTT is taken.
    pub gate_listen: SocketAddr,
    /// Bounds of connections.
    pub limits: Limits,
    /// Who may publish what.
    pub acl: Acl,
    /// The journal and what rests on it.
    pub custody: custody::Settings,
    /// Where records come to rest.
    pub sinks: Vec<Declared>,
    /// Where HTTP is served, if anywhere.
    pub http_listen: Option<SocketAddr>,
    /// How much is logged, and in which form.
    pub log: Log,
}

impl Config {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// [`Faults`]: what TOML itself refuses, or else every setting that is wrong.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        faults::parse(text, RENAMED, |raw: raw::RawConfig, problems| {
            raw.check(text, problems)
        })
    }

    /// Looks for what the settings name on this machine: folders, addresses.
    #[must_use]
    pub fn examine(&self) -> Findings {
        let mut found = Findings::default();
        if let Some(data_dir) = self.journal_dir.parent()
            && let Err(error) = possible_folder(data_dir)
        {
            found.fault("data_dir", data_dir.display(), &error);
        }
        let http = self.http_listen.map(|address| ("http.listen", address));
        for (key, address) in [("gate.listen", self.gate_listen)].into_iter().chain(http) {
            let (host, shown) = (address.ip().to_string(), address.to_string());
            listen::examine(
                key,
                Protocol::Tcp,
                (&host, address.port()),
                &shown,
                &mut found,
            );
        }
        for sink in &self.sinks {
            sink.kind.examine(&sink.name, &mut found);
        }
        found
    }

    /// The lake beside which the journal is opened: a checked configuration has one.
    #[must_use]
    pub fn lake(&self) -> Option<&LakeKind> {
        self.sinks.iter().find_map(|sink| {
            if let SinkKind::Lake(lake) = &sink.kind {
                return Some(lake);
            }
            None
        })
    }
}

/// A loopback address, or a line in `problems`.
fn loopback(key: &str, text: &str, problems: &mut Vec<String>) -> Option<SocketAddr> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => return Some(address),
        Ok(_) => problems.push(format!(
            "{key} = {text:?}: must be a loopback address such as 127.0.0.1: without TLS nothing \
             leaves this machine"
        )),
        Err(_) => problems.push(format!(
            "{key} = {text:?}: must be ADDRESS:PORT, for example 127.0.0.1:1883"
        )),
    }
    None
}

/// A folder, or a line in `problems`.
fn folder(key: &str, text: &str, problems: &mut Vec<String>) -> PathBuf {
    if text.is_empty() {
        problems.push(format!("{key} is empty: name a folder"));
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use headwater_spool::format::MAX_SNAPSHOT_BYTES;

    use super::*;
    use crate::sink::lake::LakePlace;

    #[test]
    fn an_empty_file_and_the_printed_one_are_the_same() {
        let empty = Config::parse("").unwrap();
        let printed = Config::parse(DEFAULTS).unwrap();
        assert_eq!(format!("{empty:?}"), format!("{printed:?}"));
    }

    #[test]
    fn all_faults_come_at_once_and_say_what_to_do() {
        let text = "custody = \"maybe\"\n[gate]\nlisten = \"0.0.0.0:1883\"\n[journal]\nsegment_mib = \
                    4096\n[[sink]]\nkind = \"lake\"\nflush_s = 0\n[[plain]]\ntopic = \"a/b\"\ndecoder = \"json\"\n";
        let faults = Config::parse(text).unwrap_err();
        assert_eq!(faults.0.len(), 5, "{faults}");
        for part in [
            "custody",
            "loopback",
            "journal.segment_mib",
            "sink lake: flush_s",
            "{device}",
        ] {
            assert!(faults.to_string().contains(part), "{part} in:\n{faults}");
        }
    }

    #[test]
    fn each_key_of_before_names_the_one_that_took_its_place() {
        let text =
            "[lake]\ndir = \"x\"\nmax_late_days = 3\n[hot]\nenabled = false\nfreshness_s = 2\n";
        let told = Config::parse(text).unwrap_err().to_string();
        for line in [
            "lake.dir is now dir in [[sink]] with kind = \"lake\"",
            "lake.max_late_days is now time.max_late_days",
            "hot.enabled is now [[sink]] with kind = \"hot\", or sinks without it",
            "hot.freshness_s is now freshness_s in [[sink]] with kind = \"hot\"",
        ] {
            assert!(told.contains(line), "{line} in:\n{told}");
        }
    }

    fn names(config: &Config) -> Vec<(&str, bool)> {
        let sinks = config.custody.sinks.iter();
        sinks
            .map(|sink| (sink.name.as_str(), sink.required))
            .collect()
    }

    fn told(text: &str) -> Vec<String> {
        Config::parse(text).unwrap_err().0
    }

    #[test]
    fn sinks_that_are_written_replace_the_default_ones() {
        let both = [("lake", true), ("hot", false)];
        assert_eq!(names(&Config::parse("").unwrap()), both);
        let config = Config::parse("[[sink]]\nkind = \"lake\"\ndir = \"here\"\n").unwrap();
        assert_eq!(names(&config), both[..1]);
        assert_eq!(
            config.lake().unwrap().place,
            LakePlace::Folder("here".into())
        );
    }

    const LAKE: &str = "[[sink]]\nkind = \"lake\"\n";

    #[test]
    fn there_may_be_several_sinks_of_a_kind_each_required_or_not() {
        let text = format!(
            "{LAKE}[[sink]]\nkind = \"hot\"\nrequired = true\n[[sink]]\nkind = \"hot\"\nname = \
             \"hot-2\"\ndir = \"there\"\n"
        );
        let config = Config::parse(&text).unwrap();
        let all = [("lake", true), ("hot", true), ("hot-2", false)];
        assert_eq!(names(&config), all);
    }

    #[test]
    fn sinks_that_would_share_a_name_or_a_folder_are_told() {
        let hot = |more: &str| format!("[[sink]]\nkind = \"hot\"\n{more}");
        let named = |name: &str, dir: &str| hot(&format!("name = {name:?}\ndir = {dir:?}\n"));
        let text = format!(
            "{LAKE}{}{}{}",
            named("a", "x"),
            named("b", "x"),
            named("a", "y")
        );
        let expected = [
            "sink b: x is sink a's already: name another",
            "sink a: the name is taken already",
        ];
        assert_eq!(told(&text), expected);
        // Both in the folder of keyed state.
        let text = format!("{LAKE}{}{}", hot(""), named("b", ""));
        let state = "/var/lib/headwater-collector/state";
        let expected = format!("sink b: {state} is sink hot's already: name another");
        assert_eq!(told(&text), [expected]);
    }

    #[test]
    fn a_folder_is_the_same_under_each_of_its_spellings() {
        let hot = |name: &str, dir: &str| {
            format!("[[sink]]\nkind = \"hot\"\nname = {name:?}\ndir = {dir:?}\n")
        };
        let data = "data_dir = \"/srv/hw\"\n[[sink]]\nkind = \"lake\"\ndir = \"/srv/lake\"\n";
        let here = std::env::current_dir().unwrap();
        let here = here.join("x").display().to_string();
        for (one, other) in [
            ("/srv/hot", "/srv/hot/"),
            ("/srv/hot", "/srv//./hot"),
            ("x", "./x"),
            ("x", here.as_str()),
            ("", "/srv/hw/state/"),
        ] {
            let told = told(&format!("{data}{}{}", hot("a", one), hot("b", other)));
            assert_eq!(told.len(), 1, "{one} and {other}: {told:?}");
            assert!(told[0].contains("is sink a's already"), "{told:?}");
        }
        for (dir, owner) in [
            ("/srv/lake/", "sink lake"),
            ("/srv/hw/./journal", "the journal"),
        ] {
            let told = told(&format!("{data}{}", hot("a", dir)));
            assert_eq!(told.len(), 1, "{dir}: {told:?}");
            assert!(
                told[0].contains(&format!("is {owner}'s already")),
                "{told:?}"
            );
        }
        let apart = format!("{data}{}{}", hot("a", "x"), hot("b", "x/y"));
        assert!(Config::parse(&apart).is_ok());
    }

    #[test]
    fn every_fault_of_a_sink_is_told_with_the_sink() {
        let text = "[[sink]]\nkind = \"hot\"\nflush_s = 3\nmax_mib = 1\n[[sink]]\nkind = \"cold\"\n[[sink]]\nkind \
                    = \"lake\"\nname = \"archive\"\nrequired = false\n[[sink]]\nkind = \"lake\"\nencoding = \
                    \"small\"\nflsh_s = 1\n[[sink]]\nkind = 7\nname = \"a b\"\n";
        let told = told(text);
        for part in [
            "line 3: sink.flush_s: unknown; there are dir, keep_hours, max_mib, freshness_s",
            "sink hot: max_mib = 1",
            "line 5: sink cold: kind = \"cold\": must be \"lake\" or \"hot\"",
            "sink archive: name must be \"lake\"",
            "sink archive: required must be true",
            "sink lake: encoding = \"small\"",
            "line 14: sink.flsh_s: unknown; did you mean sink.flush_s?",
            "2 sinks with kind = \"lake\"",
            "line 16: sink.kind: invalid type",
        ] {
            let is_told = told.iter().any(|line| line.contains(part));
            assert!(is_told, "{part} in:\n{told:#?}");
        }
    }

    #[test]
    fn sinks_and_their_names_are_taken_up_to_their_bounds() {
        let sinks = |count: usize| -> String {
            let hot = |n| format!("[[sink]]\nkind = \"hot\"\nname = \"h{n}\"\ndir = \"d{n}\"\n");
            let hots = (1..count).map(hot);
            std::iter::once(LAKE.to_owned()).chain(hots).collect()
        };
        let config = Config::parse(&sinks(MAX_SINKS)).unwrap();
        assert_eq!(config.sinks.len(), MAX_SINKS);
        let expected = format!("sink: {} sinks; at most {MAX_SINKS}", MAX_SINKS + 1);
        assert_eq!(told(&sinks(MAX_SINKS + 1)), [expected]);
        let named = |name: &str| format!("{LAKE}[[sink]]\nkind = \"hot\"\nname = {name:?}\n");
        assert!(Config::parse(&named(&"n".repeat(MAX_SINK_NAME_BYTES))).is_ok());
        for name in ["", "a b", "a\"", &"n".repeat(MAX_SINK_NAME_BYTES + 1)] {
            let told = told(&named(name));
            assert!(told[0].contains("sink: name = "), "{told:?}");
        }
    }

    #[test]
    fn what_sinks_need_of_this_machine_is_examined() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let lake = |dir: &std::path::Path| {
            let text = format!(
                "data_dir = {:?}\n[gate]\nlisten = \"127.0.0.1:0\"\n[http]\nlisten = \"\"\n[[sink]]\nkind = \
                 \"lake\"\ndir = {dir:?}\n",
                folder.path().join("data")
            );
            Config::parse(&text).unwrap().examine()
        };
        assert_eq!(lake(&folder.path().join("new")), Findings::default());
        let found = lake(&file.join("lake"));
        assert_eq!(found.faults.len(), 1);
        assert!(
            found.faults[0].starts_with("sink lake: dir = "),
            "{found:?}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_and_addresses_that_are_taken_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap();
        let text = format!(
            "data_dir = {:?}\n[gate]\nlisten = \"{taken}\"\n[http]\nlisten = \"{taken}\"\n[[sink]]\nkind = \
             \"lake\"\ndir = {:?}\n",
            file.join("data"),
            folder.path().join("lake"),
        );
        let found = Config::parse(&text).unwrap().examine();
        assert!(found.faults[0].starts_with("data_dir = "), "{found:?}");
        assert_eq!((found.faults.len(), found.warnings.len()), (1, 2));
        for (told, key) in found.warnings.iter().zip(["gate.listen", "http.listen"]) {
            assert!(told.starts_with(key), "{told}");
            assert!(told.contains("holds it now"), "{told}");
        }
    }

    #[test]
    fn every_journal_that_is_taken_is_emptied_before_its_credit_is_spent() {
        let parse = |max: u64, segment: u64| {
            let text = format!("[journal]\nmax_mib = {max}\nsegment_mib = {segment}\n");
            Config::parse(&text)
        };
        for (max, segment) in [(256, 32), (300, 37), (8_192, 1_024), (1 << 20, 1_024)] {
            let log = parse(max, segment).unwrap().custody.log;
            // Above half of the quota segments are given back; three are kept, and a sender needs
            // one batch of credit.
            let kept = 3 * log.segment_bytes + (32 << 10);
            assert!(log.quota_bytes / 2 >= kept, "{max} of {segment}");
            // Half of each is for records, however large the fleet is.
            assert!(log.segment_bytes >= 2 * MAX_SNAPSHOT_BYTES as u64);
        }
        for (max, segment) in [(256, 33), (256, 31), (255, 31), (64, 1), (8_192, 1_025)] {
            let faults = parse(max, segment).unwrap_err().to_string();
            assert!(faults.contains("journal."), "{faults}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let faults = Config::parse("[gate]\nlisen = \"127.0.0.1:1\"\n")
            .unwrap_err()
            .to_string();
        assert!(
            faults.contains("lisen") && faults.contains("line 2"),
            "{faults}"
        );
    }

    #[test]
    fn a_level_that_would_silence_the_log_is_refused_with_those_there_are() {
        let told = Config::parse("[log]\nlevel = \"warning\"\n").unwrap_err();
        let told = told.to_string();
        assert!(
            told.starts_with("log.level = \"warning\": ")
                && told.contains("off, error, warn, info, debug and trace"),
            "{told}"
        );
    }

    #[test]
    fn a_pattern_with_a_leading_slash_is_let_in_and_read() {
        let text = "[[plain]]\ntopic = \"/neuron/{device}\"\ndecoder = \"json\"\n";
        let config = Config::parse(text).unwrap();
        assert!(config.acl.publish("any", "/neuron/modbus").is_some());
        let (device, _) = config.custody.patterns[0].target("/neuron/modbus").unwrap();
        assert_eq!(device.as_str(), "modbus");
    }

    #[test]
    fn patterns_are_taken_up_to_their_bound() {
        let plain = |count: usize| -> String {
            let one = |n| format!("[[plain]]\ntopic = \"t{n}/{{device}}\"\ndecoder = \"json\"\n");
            (0..count).map(one).collect()
        };
        let config = Config::parse(&plain(MAX_PATTERNS)).unwrap();
        assert_eq!(config.custody.patterns.len(), MAX_PATTERNS);
        let told = Config::parse(&plain(MAX_PATTERNS + 1)).unwrap_err().0;
        assert_eq!(
            told,
            [format!(
                "plain: {} patterns; at most {MAX_PATTERNS}",
                MAX_PATTERNS + 1
            )]
        );
    }

    #[test]
    fn own_patterns_replace_the_default_ones() {
        let text = "[[plain]]\ntopic = \"plant/{device}/{metric}\"\ndecoder = \"number\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.custody.patterns.len(), 1);
        assert!(config.acl.publish("any", "plant/pump/level").is_some());
        assert!(config.acl.publish("any", "devices/pump").is_none());
    }
}
