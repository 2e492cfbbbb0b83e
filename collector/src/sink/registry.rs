//! The registry: every kind of sink, one line each. The configuration, the examination of the machine and
//! the start of sinks follow from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_program::faults::Part;
use headwater_program::findings::Findings;

use super::crew::Crew;
use super::kind::{Kind, Replay, Rule, Site, Start};
use super::letters::Replayed;

/// Makes [`SinkKind`] of a table. `lake => Lake(LakeKind)`: sinks written with `kind = "lake"` are a
/// `SinkKind::Lake`, whose settings are a `LakeKind`. Sinks start in the order of the lines.
macro_rules! sink_kinds {
    ($($key:ident => $Variant:ident($Settings:ty),)*) => {
        /// The checked settings of a sink's kind.
        #[derive(Debug, Clone)]
        pub enum SinkKind {
            $(
                #[doc = concat!("Written with `kind = \"", stringify!($key), "\"`.")]
                $Variant($Settings),
            )*
        }

        impl SinkKind {
            /// Their names, in the order of their lines.
            pub(crate) const NAMES: &[&str] = &[$(stringify!($key),)*];

            /// The rule of a kind; `None` if there is none of that name.
            pub(crate) fn rule(kind: &str) -> Option<Rule> {
                $(if kind == stringify!($key) {
                    return Some(<$Settings as Kind>::RULE);
                })*
                None
            }

            /// Reads and checks what a sink of `kind` is written with; `None` if that cannot be read.
            pub(crate) fn check(
                kind: &str,
                name: &str,
                part: Part<'_>,
                problems: &mut Vec<String>,
            ) -> Option<Self> {
                $(if kind == stringify!($key) {
                    let raw = part.read::<<$Settings as Kind>::Raw>(problems)?;
                    return Some(Self::$Variant(<$Settings>::check(name, raw, problems)));
                })*
                None
            }

            /// Its kind's name.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$Variant(_) => stringify!($key),)*
                }
            }

            /// The folder or file that it has for itself; `state_dir` is that of keyed state.
            pub(crate) fn place(&self, state_dir: &Path) -> Option<PathBuf> {
                match self {
                    $(Self::$Variant(settings) => settings.place(state_dir),)*
                }
            }

            /// Looks for what its settings name on this machine; `name` is the sink's.
            pub fn examine(&self, name: &str, found: &mut Findings) {
                match self {
                    $(Self::$Variant(settings) => settings.examine(name, found),)*
                }
            }

            /// Gives a sink its dead letters once more.
            pub(crate) fn replay(self, replay: Replay<'_>) -> anyhow::Result<Replayed> {
                match self {
                    $(Self::$Variant(settings) => settings.replay(replay),)*
                }
            }

            fn start(self, start: Start<'_>) -> anyhow::Result<()> {
                match self {
                    $(Self::$Variant(settings) => settings.start(start),)*
                }
            }
        }
    };
}

sink_kinds! {
    lake => Lake(crate::sink::lake::LakeKind),
    hot => Hot(crate::sink::hot::HotKind),
    kinesis => Kinesis(crate::sink::aws::KinesisKind),
    firehose => Firehose(crate::sink::aws::FirehoseKind),
}

/// A sink as a configuration declares it.
#[derive(Debug, Clone)]
pub struct Declared {
    /// Its name, unique.
    pub name: Arc<str>,
    /// Whether the journal waits for it.
    pub required: bool,
    /// Its kind, with the settings of that kind.
    pub kind: SinkKind,
}

/// Starts all sinks, in the order of the registry.
///
/// # Errors
/// When one cannot be opened.
pub(crate) fn start_all(
    sinks: &[Declared],
    site: &mut Site,
    crew: &mut Crew,
) -> anyhow::Result<()> {
    for kind in SinkKind::NAMES {
        for sink in sinks.iter().filter(|sink| sink.kind.name() == *kind) {
            let Declared {
                name,
                required,
                kind,
            } = sink.clone();
            let start = Start {
                name,
                required,
                site,
                crew,
            };
            kind.start(start)
                .map_err(|error| error.context(format!("sink {} cannot be opened", sink.name)))?;
        }
    }
    Ok(())
}
