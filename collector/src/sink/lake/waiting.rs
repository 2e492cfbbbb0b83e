//! The thread of the lake's sink while the lake is away from the start on: carries out what [`Late`]
//! decides.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use headwater_lake::{Store, StoreError};
use headwater_program::entropy::random;
use headwater_spool::Disk;

use super::LakeSink;
use super::late::{Late, Turn};
use crate::owner::Command;
use crate::pipeline::custody::{JournalSide, LakeSide, Meeting};
use crate::sink::SinkError;
use crate::sink::worker::{Context, EndedEarly, Voice, Worker};

/// Tries until the lake is there. `None`: the end came first. `store` reaches its place.
///
/// # Errors
/// [`EndedEarly`].
pub(crate) fn wait_for_lake<S: Store + 'static, D: Disk>(
    mut late: Late<D>,
    mut store: impl FnMut() -> Result<S, StoreError>,
    context: &Context,
) -> Result<Option<Worker<LakeSink<S>, D>>, EndedEarly> {
    let mut voice = Voice::default();
    let mut ask = |journal: &JournalSide, lake: &LakeSide| ask(context, journal, lake);
    while !context.stop.is_cancelled() {
        let now = late.clock_book().now(context.clock.now());
        let trouble = late.trouble();
        let trouble = Some((trouble.code(), trouble.to_string()));
        context.board.post_sink(&context.name, late.look());
        voice.say(&context.name, trouble, now.mono);
        match late.next(now.mono) {
            Turn::Try => {
                let agreed = late.attempt(now, &mut store, &mut ask, &mut random);
                if let Some((met, agreed)) = agreed {
                    return Ok(Some(late.worker(met, agreed)));
                }
            }
            Turn::Wait(until) => context.wait(Some(until), now),
            Turn::Fatal(error) => return Err(EndedEarly::Sink(error)),
        }
    }
    Ok(None)
}

/// Custody's half, on its owner's thread.
fn ask(context: &Context, journal: &JournalSide, lake: &LakeSide) -> Result<Meeting, SinkError> {
    let gone = || SinkError::Fatal {
        cause: "the owner of the journal is gone".to_owned(),
    };
    let (reply, answer) = sync_channel(1);
    let meet = Command::Meet {
        sink: Arc::clone(&context.name),
        journal: Box::new(journal.clone()),
        lake: lake.clone(),
        reply,
    };
    if !context.mailbox.send(meet) {
        return Err(gone());
    }
    let met = answer.recv().map_err(|_| gone())?;
    met.map_err(|cause| SinkError::Busy {
        retry_after: None,
        cause,
    })
}
