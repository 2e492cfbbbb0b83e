//! The registry: every kind of source, one line each. The configuration, the examination of the machine
//! and the start of sources follow from it.

use super::kind::{Kind, Start};
use super::supervisor::SourceError;
use headwater_program::findings::Findings;

/// The table. `host => Host(HostSource)`: sources written as `[[host]]` are a `SourceKind::Host`, whose
/// settings are a `HostSource`. Faults are told in the order of the lines.
///
/// - `$make`: a macro that is given all lines.
macro_rules! kinds {
    ($make:ident) => {
        $make! {
            host => Host(crate::source::host::HostSource),
            lines => Lines(crate::source::lines::LinesSource),
            exec => Exec(crate::source::exec::ExecSource),
            file => File(crate::source::file::FileSource),
            nodes => Nodes(crate::source::nodes::NodesSource),
            replay => Replay(crate::source::replay::ReplaySource),
            generator => Generator(crate::source::generator::GeneratorSource),
        }
    };
}
pub(crate) use kinds;

macro_rules! source_kind {
    ($($key:ident => $Variant:ident($Settings:ty),)*) => {
        /// What a source reads: the checked settings of its kind.
        #[derive(Debug, Clone, PartialEq)]
        pub enum SourceKind {
            $(
                #[doc = concat!("Written as `[[", stringify!($key), "]]`.")]
                $Variant($Settings),
            )*
        }

        $(
            impl From<$Settings> for SourceKind {
                fn from(settings: $Settings) -> Self {
                    Self::$Variant(settings)
                }
            }
        )*

        impl SourceKind {
            /// Whether it can begin again from a cursor.
            #[must_use]
            pub const fn resumes(&self) -> bool {
                match self {
                    $(Self::$Variant(_) => <$Settings as Kind>::RESUMES,)*
                }
            }

            /// Whether a reading that was not durable at a kill is lost.
            #[must_use]
            pub const fn loses(&self) -> bool {
                match self {
                    $(Self::$Variant(_) => <$Settings as Kind>::LOSES,)*
                }
            }

            /// Looks for what its settings name on this machine; `name` is the source's.
            pub fn examine(&self, name: &str, found: &mut Findings) {
                match self {
                    $(Self::$Variant(settings) => settings.examine(name, found),)*
                }
            }

            /// Runs it once.
            ///
            /// # Errors
            /// [`SourceError`].
            pub async fn run(self, start: Start) -> Result<(), SourceError> {
                match self {
                    $(Self::$Variant(settings) => settings.run(start).await,)*
                }
            }
        }
    };
}
kinds!(source_kind);
