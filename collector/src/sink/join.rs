//! Opens the lake beside a journal, and makes both agree on what is committed.

use headwater_lake::audit::StreamMark;
use headwater_lake::{Claim, EpochState, Found, Store};
use headwater_proto::delivery::End;
use headwater_proto::ids::{Epoch, JournalId, Lane, SeqRange};
use headwater_proto::time::UnixMicros;
use headwater_spool::Disk;

use super::there::stream_of;
use crate::done::DoneError;
use crate::pipeline::custody::{Custody, OpenError, Opened, Past};
use crate::sink::lake::{LakeSettings, LakeSink, LakeSinkError, NAME};

/// Why journal and lake could not be brought to agree.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The lake.
    #[error(transparent)]
    Sink(#[from] LakeSinkError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] OpenError),
}

/// Opens the lake beside a journal that was just opened, and makes both agree on what is committed;
/// before the first Welcome. `entropy` names a journal that has to begin anew, `now` begins the lease
/// on the lake.
///
/// # Errors
/// [`JoinError`].
pub fn join<D: Disk, S: Store>(
    custody: &mut Custody<D>,
    opened: &Opened,
    store: S,
    settings: LakeSettings,
    now: UnixMicros,
    entropy: &mut dyn FnMut() -> u64,
) -> Result<LakeSink<S>, JoinError> {
    let plan = custody.plan(NAME).map(|plan| plan.bytes.clone());
    let known = custody.cursor(NAME).unwrap_or_default();
    let plan = plan.as_deref();
    let claim = Claim {
        take_over: settings.take_over,
        ..Claim::new(custody.journal(), now.0)
    };
    let mut sink = LakeSink::open(store, settings, &claim, plan, known)?;
    // An old copy may also be from before another journal's time.
    // Nor does a snapshot of before know what another journal has brought.
    let is_alone = sink.lake().opened().went_on && custody.lake_term() == sink.lake().owner().term;
    let end = custody.log().next();
    let mut past = opened.past;
    if sink.cursor() > end {
        // Somebody brought back an old copy of the journal. Its positions and the numbers of plain
        // devices were used for other records since.
        custody.rename(JournalId(entropy()));
        sink.begin_anew(custody.journal(), end, now)?;
        past = Past::Nothing;
    }
    if past == Past::Nothing {
        sink.begin_without_lease(now)?;
    }
    let start = sink.lake().opened();
    if !start.went_on && start.found != Found::New {
        // Readers that list folders would see them beside what devices send again.
        let swept = sink.lake_mut().sweep().map_err(LakeSinkError::from)?;
        if swept.orphans > 0 {
            let (orphans, left) = (swept.orphans, swept.left.len());
            tracing::warn!(
                orphans,
                left,
                "files that an earlier collector published and did not commit are set aside, as far \
                 as the store can"
            );
        }
    }
    let missing = custody.resume(NAME, sink.cursor())?;
    let is_sure = past == Past::Snapshot && opened.damaged + missing == 0 && is_alone;
    if !is_sure || !custody.index_is_whole() {
        let marks = sink.lake_mut().marks().map_err(LakeSinkError::from)?;
        if !is_alone {
            sink.leave_out(&marks, end);
        }
        let indexed = fill_index(custody, &marks);
        if let Err(error) = &indexed {
            tracing::error!(%error, "the index of finished epochs cannot be filled; the journal keeps them");
        }
        seed(custody, past, &marks, indexed.is_ok());
    }
    custody.seeded(sink.lake().owner().term);
    if opened.damaged_to > sink.cursor() {
        custody.doubt_plain_devices();
    }
    custody.watch();
    sink.restore(custody.ledger(), custody.beyond_others(NAME));
    Ok(sink)
}

/// Whether an epoch is over, and the lake has all of it or names it: such a one is in the index.
fn is_whole(mark: &StreamMark) -> bool {
    let over = matches!(mark.state, Some(EpochState::Closed | EpochState::Abandoned));
    let holds = |range: &SeqRange| range.first <= mark.first && range.next >= mark.next;
    over && mark.partial.is_empty() && mark.held.iter().any(holds)
}

fn end_of(mark: &StreamMark) -> End {
    End {
        first: mark.first,
        next: mark.next,
        clean: false,
    }
}

/// Puts every epoch that the lake shows to be over into the index.
fn fill_index<D: Disk>(custody: &mut Custody<D>, marks: &[StreamMark]) -> Result<(), DoneError> {
    let whole = marks.iter().filter(|mark| is_whole(mark));
    custody.fill_index(whole.filter_map(|mark| Some((stream_of(mark)?, end_of(mark)))))
}

/// Gives custody the marks that the lake proves. Epochs that are over, and new to it, are left to the
/// index where it has them.
fn seed<D: Disk>(custody: &mut Custody<D>, past: Past, marks: &[StreamMark], is_indexed: bool) {
    let own = Epoch::new(custody.journal().0);
    for mark in marks {
        let Some(stream) = stream_of(mark) else {
            continue;
        };
        let is_new = custody.ledger().track(&stream).is_none();
        if stream.lane == Lane::Plain {
            // A plain device counts under each journal anew.
            if stream.epoch == own {
                let held = custody.to_be_seeded(NAME, &stream, &mark.held);
                custody.seed_plain(stream.device, &held, mark.next);
            }
            continue;
        }
        let ended = match mark.state {
            Some(EpochState::Ended | EpochState::Closed | EpochState::Abandoned) => true,
            Some(EpochState::Open) | None => false,
        };
        // What the index has is found there when it comes back.
        if is_indexed && is_new && is_whole(mark) {
            continue;
        }
        // Under the same name nothing was cut off between two tables: its last plan was carried out.
        let partial = match past {
            Past::Nothing => mark.partial.as_slice(),
            Past::Snapshot | Past::Records => &[],
        };
        let held = custody.to_be_seeded(NAME, &stream, &mark.held);
        custody.seed(stream, &held, partial, ended.then(|| end_of(mark)));
    }
}
