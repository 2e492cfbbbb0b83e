//! Where records come to rest. Each sink reads the journal at its own pace, with its own cursor.
//!
//! ```text
//! journal ──offer──► sink buffers ──stage──► plan ──► journal, synced ──publish──► committed
//! ```

pub mod lake;
pub mod rows;
