//! The lake's half of a meeting with the journal, after which both agree on what is committed; custody's
//! half is in `pipeline/custody/join.rs`.

use std::sync::Arc;

use headwater_lake::audit::StreamMark;
use headwater_lake::{Beyond, Claim, EpochState, Found, Store, Swept};
use headwater_proto::delivery::End;
use headwater_proto::ids::{JournalId, Lane, SeqRange, Stream};
use headwater_proto::time::UnixMicros;
use headwater_spool::Disk;

use super::others::place_of;
use super::there::stream_of;
use super::{LakeSettings, LakeSink, LakeSinkError, NAME};
use crate::done::DoneError;
use crate::pipeline::custody::{
    Agreed, Custody, JournalSide, Lacking, LakeSide, MeetError, Meeting, Needs, Opened, Past,
    Proof, Proven, Told as Committed, over,
};
use crate::pipeline::ledger::MAX_STREAMS;
use crate::pipeline::numbers::Numbers;

/// Why journal and lake could not be brought to agree.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The lake.
    #[error(transparent)]
    Sink(#[from] LakeSinkError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] MeetError),
    /// The index of epochs that are over took them not, and memory has no room for them.
    #[error(
        "the lake has more than {MAX_UNINDEXED} epochs that are over, and their index in the folder of the state \
         cannot take them: see to its disk, then start again"
    )]
    Index(#[source] DoneError),
}

/// Most epochs that are over and stand in memory because the index cannot take them: as many as a journal
/// has streams.
const MAX_UNINDEXED: usize = MAX_STREAMS;
/// Epochs that are given to the index at once.
const INDEXED_AT_ONCE: usize = 4_096;

impl JoinError {
    /// Whether it says that the lake cannot be reached, and nothing of what is in it.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Sink(error) => error.is_outage(),
            Self::Journal(_) | Self::Index(_) => false,
        }
    }
}

/// How a lake is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The name under which the journal goes on if its disk shows an earlier time than the lake has seen.
    pub name: JournalId,
    /// Whether there must be a lake: where there is none, none is begun.
    pub is_known: bool,
    /// The present time; the lease on the lake begins with it.
    pub at: UnixMicros,
}

/// A lake that was opened beside a journal and does not agree with it yet: nothing may be taken.
pub struct Met<S: Store> {
    sink: LakeSink<S>,
    is_alone: bool,
    renamed: Option<JournalId>,
    proof: Option<Told>,
    /// The lake was brought back older than the journal knows it.
    is_older: bool,
    lacking: Arc<[Lacking]>,
}

impl<S: Store> Met<S> {
    /// Opens the lake for the journal and finds out what became of it while the journal was away.
    ///
    /// # Errors
    /// [`LakeSinkError`].
    pub fn open(
        journal: &JournalSide,
        store: S,
        settings: LakeSettings,
        call: Call,
    ) -> Result<Self, LakeSinkError> {
        let Call { name, at, .. } = call;
        let claim = Claim {
            take_over: settings.take_over,
            is_known: call.is_known,
            committed_to: journal.known,
            ..Claim::new(journal.journal, at.0)
        };
        let plan = journal.plan.as_deref();
        let mut sink = LakeSink::open(store, settings, &claim, plan, journal.known)?;
        let at = UnixMicros(at.0.max(sink.lake().owner().since_us));
        // An old copy may also be from before another journal's time.
        // Nor does a snapshot of before know what another journal has brought.
        let (went_on, term) = (sink.lake().opened().went_on, sink.lake().owner().term);
        let mut is_alone = went_on && journal.lake_term == term;
        let mut renamed = None;
        let (has, is_older) = (sink.cursor(), sink.is_older());
        if is_older {
            sink.go_back(journal.oldest, at)?;
            is_alone = false;
            tell_older(journal, has, sink.cursor());
        } else if sink.cursor() > journal.since {
            // Somebody brought back an old copy of the journal. Its positions and the numbers of plain
            // devices were used for other records since.
            sink.begin_anew(name, journal.since, at)?;
            (renamed, is_alone) = (Some(name), false);
        }
        sink.know_others(&journal.sinks);
        if renamed.is_some() || journal.past == Past::Nothing {
            sink.begin_without_lease(at)?;
        }
        let mut swept = sink.lake_mut().take_withdrawn();
        let start = sink.lake().opened();
        if !start.went_on && start.found != Found::New {
            // Readers that list folders would see them beside what devices send again.
            swept.merge(sink.lake_mut().sweep().map_err(LakeSinkError::from)?);
        }
        tell_swept(&swept);
        let beyond = sink.lake().beyond().map_err(LakeSinkError::from)?;
        Ok(Self {
            sink,
            is_alone,
            renamed,
            proof: None,
            is_older,
            lacking: beyond.iter().map(lacking).collect(),
        })
    }

    /// Reads what the lake holds of each stream, and gives what is over to the index.
    ///
    /// # Errors
    /// [`JoinError`].
    pub fn read_marks(&mut self, needs: Needs) -> Result<(), JoinError> {
        let lake = self.sink.lake_mut();
        let told = lake.fold_marks(|| Told::new(&needs), Told::take);
        self.proof = Some(told.map_err(LakeSinkError::from)?.end()?);
        Ok(())
    }

    /// What custody is told.
    #[must_use]
    pub fn side(&self) -> LakeSide {
        LakeSide {
            cursor: self.sink.cursor(),
            term: self.sink.lake().owner().term,
            last_owned: self.sink.lake().opened().last_us.map(UnixMicros),
            is_alone: self.is_alone,
            renamed: self.renamed,
            is_older: self.is_older,
            proof: self.proof.as_ref().map(|told| Proof {
                wanted: Arc::clone(&told.needs.wanted),
                streams: told.marks.iter().filter_map(proven).collect(),
                index: told.needs.index.clone().map(drop),
            }),
            lacking: Arc::clone(&self.lacking),
        }
    }

    /// The sink, now that both agree.
    #[must_use]
    pub fn agreed(mut self, mut agreed: Agreed) -> LakeSink<S> {
        if let Some(error) = &agreed.index_failure {
            tracing::error!(%error, "the index of finished epochs cannot be filled; the journal keeps them");
        }
        if let Some(name) = self.renamed {
            tracing::warn!(
                journal = %name,
                "the journal's disk shows an earlier time than the lake has seen: it goes on under a new name"
            );
        }
        if let (Some(until), Some(told)) = (agreed.leave_out_until, &self.proof) {
            let parts = self.renamed.is_some() || self.is_older;
            self.sink.leave_out(&told.marks, until, parts);
            told.bound(&mut agreed.streams);
        }
        self.sink.restore(agreed.streams, agreed.beyond);
        tell(&self.sink);
        self.sink
    }
}

/// What the lake told of its streams: those that memory has to hold. The others are in the index.
struct Told {
    needs: Needs,
    marks: Vec<StreamMark>,
    /// Epochs that are over and whole, on their way to the index.
    over: Vec<StreamMark>,
    /// Those that it could not take.
    unindexed: usize,
}

impl Told {
    fn new(needs: &Needs) -> Self {
        Self {
            needs: needs.clone(),
            marks: Vec::new(),
            over: Vec::new(),
            unindexed: 0,
        }
    }

    /// Takes out of what custody calls committed what this lake does not have. One that was brought back older
    /// gets the rest again, or named; until then `epochs` must not say that it was handed it.
    fn bound(&self, streams: &mut [Committed]) {
        let mut has = Numbers::new();
        for mark in &self.marks {
            let Some(stream) = stream_of(mark) else {
                continue;
            };
            for range in &mark.held {
                has.insert(&stream, *range);
            }
            for seq in &mark.partial {
                has.remove(&stream, SeqRange::new(*seq, seq + 1));
            }
        }
        for known in streams {
            known.committed = has.present_of(&known.stream, &known.committed);
        }
    }

    fn take(&mut self, mark: StreamMark) {
        let Some(stream) = stream_of(&mark) else {
            // No collector wrote it.
            return;
        };
        let wanted = &self.needs.wanted;
        let is_wanted = wanted.streams.contains(&stream);
        let is_earlier = stream.lane == Lane::Plain && stream.epoch != wanted.plain;
        if is_whole(&mark) {
            if is_wanted {
                self.marks.push(mark.clone());
            }
            self.over.push(mark);
            if self.over.len() >= INDEXED_AT_ONCE {
                self.give();
            }
        } else if is_wanted || !is_earlier || !mark.partial.is_empty() {
            self.marks.push(mark);
        }
    }

    /// Gives the index what waits for it; what it does not take stays here.
    fn give(&mut self) {
        let over = std::mem::take(&mut self.over);
        let epochs: Vec<_> = over.iter().filter_map(indexed).collect();
        let index = self.needs.index.clone();
        if let Err(error) = index.and_then(|index| index.keep(&epochs)) {
            let wanted = &self.needs.wanted.streams;
            let is_new = |mark: &StreamMark| stream_of(mark).is_some_and(|s| !wanted.contains(&s));
            self.unindexed += over.len();
            if self.unindexed <= MAX_UNINDEXED {
                self.marks.extend(over.into_iter().filter(is_new));
            }
            self.needs.index = Err(error);
        }
    }

    fn end(mut self) -> Result<Self, JoinError> {
        self.give();
        match &self.needs.index {
            Err(error) if self.unindexed > MAX_UNINDEXED => Err(JoinError::Index(error.clone())),
            Ok(_) | Err(_) => Ok(self),
        }
    }
}

/// What the index keeps of an epoch that is over and whole.
fn indexed(mark: &StreamMark) -> Option<(Stream, Vec<u8>)> {
    let (stream, end) = (stream_of(mark)?, end_of(mark)?);
    let bytes = over(&stream, end);
    Some((stream, bytes))
}

/// Logs that the lake is not the one that the journal knows.
fn tell_older(journal: &JournalSide, has: u64, from: u64) {
    tracing::error!(
        journal = journal.known,
        lake = has,
        read_again_from = from,
        "the lake is older than the journal: was a backup brought back? Records from there on are read \
         once more, and those that the journal has let go of are named as gaps"
    );
}

/// Logs which files a start has moved: the first one's name leads to all.
fn tell_swept(swept: &Swept) {
    if swept.orphans == 0 {
        return;
    }
    tracing::warn!(
        orphans = swept.orphans,
        first = swept.set_aside.first().map_or("", String::as_str),
        "files that were published and never committed are set aside in _headwater/orphans"
    );
}

/// Logs what a start found.
fn tell<S: Store>(sink: &LakeSink<S>) {
    let (owner, start) = (sink.lake().owner(), sink.lake().opened());
    tracing::info!(term = owner.term, found = ?start.found, "lake open");
    if let Some(before) = start
        .before
        .filter(|before| before.journal != owner.journal)
    {
        tracing::warn!(
            before = %before.journal,
            term = owner.term,
            "the lake was another journal's; that one can commit no more"
        );
    }
    if start.found == Found::Adopted {
        tracing::warn!("the lake had no readable head; its logs were read and are whole");
    }
}

/// Opens the lake beside a journal that was just opened, and makes both agree on what is committed;
/// before the first Welcome. `name` is for a journal that has to go on under another one, `now` begins the lease
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
    name: JournalId,
) -> Result<LakeSink<S>, JoinError> {
    let journal = JournalSide::of(custody, opened, NAME);
    let call = Call {
        name,
        is_known: journal.has_met_lake() && !settings.new_lake,
        at: now,
    };
    let mut met = Met::open(&journal, store, settings, call)?;
    loop {
        match custody.meet_lake(NAME, &journal, &met.side(), now)? {
            Meeting::Agreed(agreed) => return Ok(met.agreed(agreed)),
            Meeting::NeedsMarks(needs) => met.read_marks(needs)?,
        }
    }
}

/// What a sink of an earlier journal may lack, in custody's words.
fn lacking(beyond: &Beyond) -> Lacking {
    let numbers = beyond.streams.iter();
    let numbers = numbers.filter_map(|mark| Some((stream_of(mark)?, mark.held.clone())));
    Lacking {
        sink: beyond.sink.clone(),
        numbers: numbers.collect(),
        place: place_of(beyond.journal, &beyond.sink),
        through: beyond.through,
    }
}

/// What a mark proves; nothing if no collector wrote its stream.
fn proven(mark: &StreamMark) -> Option<Proven> {
    Some(Proven {
        stream: stream_of(mark)?,
        held: mark.held.clone(),
        partial: mark.partial.clone(),
        next: mark.next,
        end: end_of(mark),
        is_whole: is_whole(mark),
    })
}

/// The end of an epoch that is over.
fn end_of(mark: &StreamMark) -> Option<End> {
    let is_over = match mark.state {
        Some(EpochState::Ended | EpochState::Closed | EpochState::Abandoned) => true,
        Some(EpochState::Claimed | EpochState::Open) | None => false,
    };
    is_over.then_some(End {
        first: mark.first,
        next: mark.next,
        clean: false,
    })
}

/// Whether an epoch is over, and the lake has all of it or names it: such a one is in the index.
fn is_whole(mark: &StreamMark) -> bool {
    let over = matches!(mark.state, Some(EpochState::Closed | EpochState::Abandoned));
    let holds = |range: &SeqRange| range.first <= mark.first && range.next >= mark.next;
    over && mark.partial.is_empty() && mark.held.iter().any(holds)
}

#[cfg(test)]
mod tests {
    use headwater_proto::ids::{DeviceId, Epoch};

    use super::*;
    use crate::done::{DoneEpochs, DoneInMemory, Filling};
    use crate::pipeline::custody::Wanted;

    fn mark(epoch: u64, next: u64, state: EpochState) -> StreamMark {
        let all = vec![SeqRange::new(0, 5)];
        StreamMark {
            device_id: "d".to_owned(),
            lane: "normal".to_owned(),
            epoch,
            first: 0,
            held: all.clone(),
            there: all,
            partial: Vec::new(),
            state: Some(state),
            next,
        }
    }

    fn stream(epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new("d").unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        }
    }

    fn needs(index: Result<Filling, DoneError>) -> Needs {
        Needs {
            wanted: Arc::new(Wanted {
                streams: [stream(3)].into(),
                plain: Epoch::new(9),
            }),
            index,
        }
    }

    fn told_by(index: &DoneInMemory) -> Told {
        Told::new(&needs(Ok(Filling::new(Arc::new(index.clone())))))
    }

    #[test]
    fn of_a_lake_with_many_epochs_memory_holds_those_that_go_on_and_those_that_the_journal_knows() {
        let index = DoneInMemory::default();
        let mut told = told_by(&index);
        let many = 10 * INDEXED_AT_ONCE as u64;
        for epoch in 0..many {
            let (next, state) = match epoch {
                1 => (5, EpochState::Open),
                // Its end is not there.
                2 => (7, EpochState::Closed),
                _ => (5, EpochState::Closed),
            };
            told.take(mark(epoch, next, state));
            assert!(told.over.len() < INDEXED_AT_ONCE);
        }
        let earlier = StreamMark {
            lane: "plain".to_owned(),
            ..mark(8, 5, EpochState::Open)
        };
        told.take(earlier.clone());
        told.take(StreamMark {
            epoch: 9,
            ..earlier
        });
        let told = told.end().unwrap();
        let kept: Vec<_> = told.marks.iter().map(|mark| mark.epoch).collect();
        assert_eq!(kept, [1, 2, 3, 9]);
        assert_eq!(index.len() as u64, many - 2);
        assert!(index.find(&stream(3)).unwrap().is_some());
        assert!(index.find(&stream(2)).unwrap().is_none());
    }

    #[test]
    fn as_many_epochs_as_a_journal_has_streams_stand_in_memory_where_the_index_fails_and_no_more() {
        let fails = || Err(DoneError("its disk is full".to_owned()));
        let mut told = Told::new(&needs(fails()));
        let most = MAX_UNINDEXED as u64;
        (0..most).for_each(|epoch| told.take(mark(epoch, 5, EpochState::Closed)));
        let all = told.end().unwrap();
        assert_eq!(all.marks.len() as u64, most);
        let mut told = Told::new(&needs(fails()));
        (0..=most).for_each(|epoch| told.take(mark(epoch, 5, EpochState::Closed)));
        let error = told.end().err().unwrap();
        assert!(matches!(error, JoinError::Index(_)));
    }
}
