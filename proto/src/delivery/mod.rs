//! Delivery: which records are sent when, and who may forget them. No clock, no socket, no allocation.
//!
//! # The custody contract
//!
//! A *stream* is one life of one writer: (origin, lane, epoch), its records numbered from 0. A
//! [`sender::Sender`] keeps the records of one origin until they may be forgotten; a
//! [`receiver::Receiver`] keeps the marks of one stream.
//!
//! 1. The sender publishes only records that its own disk has made durable, except those of RAM epochs,
//!    which carry a flag. It forgets only records that are `committed`.
//! 2. The receiver marks records as `received` only when its journal has made them durable, and as
//!    `committed` only when all required sinks have. `committed <= received`.
//! 3. Both marks are cumulative from the sender's own oldest record on, and idempotent. Any message may
//!    be lost, repeated or reordered.
//! 4. `received` ends resends and frees the window; it frees no space on the sender's disk, because
//!    until `committed` the receiver's disk may still be lost.
//! 5. A gap covers its range like data. A *sender's* gap counts in the marks; a gap of the *receiver*
//!    never does, because a sender that lists the range may still hold it.
//! 6. A number is never used twice for different data: every start of a writer begins a new epoch. The
//!    same number with another checksum is a conflict, and both copies are kept.
//! 7. An epoch that a complete Hello does not list is abandoned, unless its end was received and its
//!    range is covered.
//! 8. A journal has an id. When it changes, marks may fall, and the sender sends again the records that
//!    it still holds.
//!
//! # A connection
//!
//! ```text
//! sender                                   receiver
//!   Hello (pages: streams, oldest, next) ───►  records gaps for missing numbers
//!   ◄─── Welcome (pages: marks, credit, journal)
//!   bundles, within the credit ───►            journal, sync
//!   ◄─── Ack (received)                        sinks
//!   ◄─── Ack (committed)
//!   forgets
//! ```
//!
//! # Bounds
//!
//! | what | most | at the bound |
//! |---|---|---|
//! | ranges of a receiver's stream | 65, so 64 holes | the record is refused, and the oldest go first |
//! | ranges in one mark | 8 | the sender does not learn of further ones, and may send them again |
//! | epochs of a sender | its parameter | `add_epoch` refuses; the Hello is not complete |
//! | bundles in flight | its parameter | it waits for an ack |
//! | bytes in flight | the credit, and one bundle when nothing is in flight | it waits |
//! | refused ranges that wait for the shell | 8 | the reject is forgotten, and comes again |

#[cfg(feature = "alloc")]
pub mod answers;
mod command;
pub mod epoch;
mod held;
pub mod ranges;
pub mod receiver;
pub mod rto;
pub mod sender;
pub mod snapshot;

pub use command::{
    Command, DeliveryError, HeldEpoch, HelloFacts, Input, RecordRef, SenderCounters, SenderLimits,
};
pub use epoch::End;
pub use ranges::{Ranges, TooManyRanges};
pub use receiver::{Receiver, Verdict};
pub use rto::{Jitter, Rto, RtoLimits};
pub use sender::Sender;
