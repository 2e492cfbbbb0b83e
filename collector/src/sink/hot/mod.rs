//! The embedded hot store: the latest value of every metric, and recent readings of every device.
//!
//! It follows the journal with a cursor of its own and lives in keyed state, which may be deleted
//! at any time: it is then filled again from what the journal still holds and from the lake.
//!
//! | map | key | value |
//! |---|---|---|
//! | `recent` | device, time, identity, part (`chunk.rs`) | a chunk of readings, still compressed |
//! | `latest` | device, 0, metric, 0, labels | time and value |
//! | `schemas` | device, 0, epoch, number, part | bytes of a schema |
//! | `devices` | device | [`DeviceInfo`] |
//! | `meta` | `cursor` | journal id and position |
//! | | `format` | 2 |
//!
//! It holds and shows what the interpreter believes, no more: a batch of which every row is believed
//! as it came, any other row by row.

mod chunk;
mod kind;
mod maps;
mod query;
mod read;
mod refill;
mod seam;
mod store;

pub use chunk::Point;
pub use kind::HotKind;
pub use maps::DeviceInfo;
pub use query::HotView;
pub use read::{Cursor, HotError, HotRead, MAX_PAGE, NoCursor, Page};
pub use refill::{Filled, RefillError};
pub use seam::HotSink;
pub use store::{HotSettings, HotStore, Kept};
