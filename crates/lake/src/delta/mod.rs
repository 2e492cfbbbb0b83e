//! The commit log of a table, in the format of Delta Lake (reader version 1, writer version 2).
//!
//! A version is one JSON file of actions below `_delta_log`, created only if absent, so that two
//! writers never both get it: the loser reads the version of the winner and takes the next one, or
//! stops for good if that one bears a later term than its own. `txn(journal, last position)` in the
//! same version makes a repeated commit recognisable: exactly once.
//!
//! Each version names the hash of the one before it, and those of the newest checkpoint: `Chain`.
//!
//! In memory are the newest version, the numbers that `txn` actions carry, the place of the newest
//! checkpoint, the sums over the files, and the actions since that checkpoint as far as they are
//! few. The list of all files is read from the store when someone needs it.

mod checkpoint;
mod error;
mod log;
mod tail;
mod version;

pub(crate) use checkpoint::{
    Hint, checkpoint_path, files as checkpoint_files, find_again, read_txns as checkpoint_txns,
};
pub use error::LogError;
pub use log::{CHECKPOINT_VERSIONS, Committed, Log, Tally};
pub(crate) use log::{Place, REPLAY_APP, is_replay_cut};
pub use version::{Actions, Add, Stats};
pub(crate) use version::{
    Chain, TERM_APP, actions_text, creation_text, log_dir, newest_listed, parse as parse_version,
    stats_text, timestamp_ms, version_path,
};
