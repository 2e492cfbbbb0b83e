//! Core: streams that are over: let go of once the index has them, and found there again.
//!
//! ```text
//! Hello, or a record that names a stream ──► nobody here knows it: wanted ──► Output::Find ──► another thread
//!     it is back in the ledger, or new, or it cannot be told ◄── Event::Found ◄──┘
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use headwater_proto::delivery::End;
use headwater_proto::ids::{Lane, SeqRange, Stream};
use headwater_proto::time::{Millis, Now};

use super::Streams;
use crate::done::{
    DoneEpochs, DoneError, Epochs, Filling, Finding, Keeping, Looked, MAX_DONE_BYTES,
};
use crate::pipeline::ledger::Track;
use crate::pipeline::snapshot;

/// How often closed streams are looked through,
const EXPIRY_EVERY_MS: u64 = 60_000;
/// and how often while one found no room, or more are over than can be let go of at once.
const HURRIED_EVERY_MS: u64 = 1_000;
/// Most streams that are let go of at once: each is a write to the index.
const MAX_EXPIRED: usize = 4_096;
/// Most streams that are looked up at once.
const MAX_FOUND: usize = 4_096;
/// Most streams of which it is remembered that the index has them not. Beyond it they are looked up again.
const MAX_ABSENT: usize = 65_536;

/// The index of closed epochs, and when it gets more.
pub(super) struct Index {
    done: Arc<dyn DoneEpochs>,
    /// It is being given epochs: it is given no others meanwhile.
    is_keeping: bool,
    /// It was emptied while it was given some: it may have them no more.
    was_emptied: bool,
    /// It did not tell what it has of an epoch that was read again.
    has_failed: bool,
    next_expiry: Millis,
    /// To be looked up: records name them.
    named: BTreeSet<Stream>,
    /// Some are being looked up: no others are meanwhile.
    is_finding: bool,
    /// It was filled anew meanwhile: what was found may not hold any more.
    was_filled: bool,
    /// It was emptied, and a lake fills it: it is asked for nothing and given nothing else meanwhile.
    filling: Weak<()>,
    /// It has these not.
    absent: BTreeSet<Stream>,
    /// Nobody can say whether it has these, as the last look showed.
    untold: BTreeSet<Stream>,
}

impl Index {
    pub(super) fn new(done: Box<dyn DoneEpochs>) -> Self {
        Self {
            done: Arc::from(done),
            is_keeping: false,
            was_emptied: false,
            has_failed: false,
            next_expiry: Millis(0),
            named: BTreeSet::new(),
            is_finding: false,
            was_filled: false,
            filling: Weak::new(),
            absent: BTreeSet::new(),
            untold: BTreeSet::new(),
        }
    }

    /// A lake fills it anew, and did not fail.
    fn is_filling(&self) -> bool {
        self.filling.strong_count() > 0
    }

    fn hurry(&mut self, now: Millis) {
        self.next_expiry = self.next_expiry.min(now.plus(HURRIED_EVERY_MS));
    }
}

/// Why nothing can be said of an epoch: it must not be taken for new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unknown {
    /// The index failed.
    Failed,
    /// Its bytes are damaged.
    Damaged,
}

/// What came of giving epochs to the index.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Kept {
    /// It has these, and the ledger no more.
    Gone(Vec<Stream>),
    /// It could not take them; they stay.
    Failed,
}

/// Streams, where they leave the ledger for the index.
pub(in super::super) struct Expiry<'a>(&'a mut Streams);

impl Expiry<'_> {
    /// Streams that were closed and committed for long enough, to be put into the index on another thread and
    /// then handed to [`Expiry::kept`]; `None` also while it is given others.
    pub(in super::super) fn due(&mut self, now: Now) -> Option<Keeping> {
        let after_ms = self.0.keep_closed_ms;
        let Streams { ledger, index, .. } = &mut *self.0;
        if index.is_keeping || index.is_filling() || index.next_expiry > now.mono {
            return None;
        }
        index.next_expiry = now.mono.plus(EXPIRY_EVERY_MS.min(after_ms));
        let mut epochs = Epochs::new();
        let mut is_cut = false;
        ledger.expired(now.wall, after_ms, |stream, track| {
            if epochs.len() >= MAX_EXPIRED {
                is_cut = true;
                return;
            }
            let bytes = bytes_of(stream, track);
            // One with so many holes stays where it is, and keeps none of the others there.
            if bytes.len() <= MAX_DONE_BYTES {
                epochs.push((stream.clone(), bytes));
            }
        });
        if is_cut {
            index.hurry(now.mono);
        }
        index.is_keeping = !epochs.is_empty();
        index
            .is_keeping
            .then(|| Keeping::new(Arc::clone(&index.done), epochs))
    }

    /// A stream found no room: those that are over should leave.
    pub(in super::super) fn hurry(&mut self, now: Millis) {
        self.0.index.hurry(now);
    }

    /// The index was given epochs. Those that are as they were then leave the ledger; others are given to it
    /// again when they are over.
    pub(in super::super) fn kept(&mut self, epochs: &Epochs, is_kept: bool) -> Kept {
        let Streams {
            ledger,
            coverage,
            index,
            ..
        } = &mut *self.0;
        index.is_keeping = false;
        let was_emptied = std::mem::take(&mut index.was_emptied);
        if !is_kept {
            return Kept::Failed;
        }
        let mut gone = Vec::new();
        for (stream, bytes) in epochs.iter().filter(|_| !was_emptied) {
            let track = ledger.track(stream);
            if track.is_some_and(|track| bytes_of(stream, track) == *bytes) {
                ledger.forget(stream);
                index.absent.remove(stream);
                coverage.forget(stream, SeqRange::new(0, u64::MAX));
                gone.push(stream.clone());
            }
        }
        Kept::Gone(gone)
    }
}

/// Streams, where the index is asked for them.
pub(in super::super) struct LookUps<'a>(&'a mut Streams);

impl LookUps<'_> {
    /// Whether it is known what a stream is: one of the ledger, new, one of which nobody can say it, or one that
    /// finds no room whatever it is. If not, it is to be looked up.
    pub(in super::super) fn is_told(&self, stream: &Stream) -> bool {
        let Streams { ledger, index, .. } = &*self.0;
        ledger.track(stream).is_some()
            || index.absent.contains(stream)
            || index.untold.contains(stream)
            || !ledger.has_room(stream)
    }

    /// Whether a stream that the ledger does not know is new, so that it may be opened.
    pub(in super::super) fn is_new(&self, stream: &Stream) -> bool {
        self.0.index.absent.contains(stream)
    }

    /// A stream was opened: the ledger knows it.
    pub(in super::super) fn opened(&mut self, stream: &Stream) {
        self.0.index.absent.remove(stream);
    }

    /// A record names a stream that is to be looked up; one that finds no room is asked for when the record comes
    /// again.
    pub(in super::super) fn name(&mut self, stream: &Stream) {
        let named = &mut self.0.index.named;
        if named.len() < MAX_FOUND {
            named.insert(stream.clone());
        }
    }

    /// Has streams looked up that records name and Hellos list, on another thread; then they are to be handed to
    /// [`LookUps::found`]. `None` if there are none, or while others are looked up.
    ///
    /// - `hellos`: how many Hellos wait, and what each lists: all get the same share.
    pub(in super::super) fn begin<I>(
        &mut self,
        hellos: (usize, impl Iterator<Item = I>),
    ) -> Option<Finding>
    where
        I: Iterator<Item = Stream>,
    {
        if self.0.index.is_finding || self.0.index.is_filling() {
            return None;
        }
        let mut wanted = std::mem::take(&mut self.0.index.named);
        let (count, hellos) = hellos;
        let share = (MAX_FOUND / count.max(1)).max(1);
        for hello in hellos {
            wanted.extend(hello.filter(|stream| !self.is_told(stream)).take(share));
            if wanted.len() >= MAX_FOUND {
                break;
            }
        }
        let index = &mut self.0.index;
        index.is_finding = !wanted.is_empty();
        let streams = wanted.into_iter().collect();
        index
            .is_finding
            .then(|| Finding::new(Arc::clone(&index.done), streams))
    }

    /// What the index says of them. Returns what became of each that it does not say to be new.
    pub(in super::super) fn found(&mut self, looked: Looked) -> Vec<Result<Stream, Unknown>> {
        let index = &mut self.0.index;
        index.is_finding = false;
        if std::mem::take(&mut index.was_filled) {
            return Vec::new();
        }
        if index.absent.len() + looked.len() > MAX_ABSENT {
            index.absent.clear();
        }
        let mut all = Vec::new();
        for (stream, found) in looked {
            let found = found.map_err(|_| Unknown::Failed);
            match found.and_then(|found| self.0.bring_back(&stream, found)) {
                Ok(true) => all.push(Ok(stream)),
                Ok(false) => drop(self.0.index.absent.insert(stream)),
                Err(why) => {
                    self.0.index.untold.insert(stream);
                    all.push(Err(why));
                }
            }
        }
        all
    }

    /// The Hellos that waited were answered: what could not be told to them is asked for again.
    pub(in super::super) fn answered(&mut self) {
        self.0.index.untold.clear();
    }
}

impl Streams {
    /// Where streams leave the ledger for the index.
    pub(in super::super) const fn expiry(&mut self) -> Expiry<'_> {
        Expiry(self)
    }

    /// Where the index is asked for streams.
    pub(in super::super) const fn look_ups(&mut self) -> LookUps<'_> {
        LookUps(self)
    }

    /// Brings a stream that was let go of back from the index, before anything is said of it. Whether it
    /// was there. For a start, which may wait for the index.
    ///
    /// # Errors
    /// [`Unknown`].
    pub(in super::super) fn recall(&mut self, stream: &Stream) -> Result<bool, Unknown> {
        if stream.lane == Lane::Plain || self.ledger.track(stream).is_some() {
            return Ok(false);
        }
        let found = self.index.done.find(stream).map_err(|_| Unknown::Failed)?;
        self.bring_back(stream, found)
    }

    /// Brings a stream back into the ledger if the index had it. Whether it had.
    fn bring_back(&mut self, stream: &Stream, found: Option<Vec<u8>>) -> Result<bool, Unknown> {
        let found = found.filter(|_| self.ledger.track(stream).is_none());
        let Some(bytes) = found else {
            return Ok(false);
        };
        let read = snapshot::read_track(&bytes).filter(|(named, ..)| named == stream);
        let Some((_, mut track, _)) = read else {
            return Err(Unknown::Damaged);
        };
        track.closed_at = None;
        self.ledger.restore(stream.clone(), track);
        Ok(true)
    }

    /// The index did not tell what it has of an epoch whose records were read again: the lake, which fills
    /// it anew, knows.
    pub(in super::super) const fn doubt_index(&mut self) {
        self.index.has_failed = true;
    }

    /// Whether the index has all that the lake knew when it was made, and told it.
    pub(in super::super) fn index_is_whole(&self) -> bool {
        self.index.done.is_whole() && !self.index.has_failed
    }

    /// The index, where a lake fills it.
    pub(in super::super) const fn index_filled(&mut self) -> Filled<'_> {
        Filled(self)
    }
}

/// The index, where a lake fills it with the epochs that it shows to be over ([`over`]).
pub(in super::super) struct Filled<'a>(&'a mut Streams);

impl Filled<'_> {
    /// Gives the index to the lake, which may fill it on another thread.
    ///
    /// - `anew`: it is emptied, since what it has may be wrong. It is asked for nothing then before
    ///   [`Filled::end`].
    ///
    /// # Errors
    /// [`DoneError`].
    pub(in super::super) fn begin(&mut self, anew: bool) -> Result<Filling, DoneError> {
        let index = &mut self.0.index;
        if anew {
            index.was_emptied |= index.is_keeping;
            index.was_filled |= index.is_finding;
            index.absent.clear();
            index.done.clear()?;
        }
        let filling = Filling::new(Arc::clone(&index.done));
        if anew {
            index.filling = filling.goes_on();
        }
        Ok(filling)
    }

    /// Whether the ledger has a stream now that is in the index, and was not when the lake was asked for the
    /// `known` ones: the lake knows more of it than either.
    ///
    /// # Errors
    /// [`DoneError`].
    pub(in super::super) fn came_back(&self, known: &BTreeSet<Stream>) -> Result<bool, DoneError> {
        let mut new = self.0.ledger.streams().map(|(stream, _)| stream);
        while let Some(stream) = new.find(|stream| !known.contains(stream)) {
            if self.0.index.done.find(stream)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The lake has told all that it knows.
    ///
    /// - `filled`: whether the index took it.
    ///
    /// # Errors
    /// [`DoneError`].
    pub(in super::super) fn end(&mut self, filled: Result<(), DoneError>) -> Result<(), DoneError> {
        let index = &mut self.0.index;
        index.was_filled |= index.is_finding;
        index.absent.clear();
        index.filling = Weak::new();
        filled?;
        index.done.set_whole()?;
        index.has_failed = false;
        Ok(())
    }
}

/// What the index keeps of an epoch that a lake shows to be over, whole up to its end.
#[must_use]
pub fn over(stream: &Stream, end: End) -> Vec<u8> {
    let mut track = Track::default();
    // A single range always fits.
    let _ = track.receiver.seed(SeqRange::new(0, end.next));
    track.receiver.end(end);
    track.receiver.synced();
    bytes_of(stream, &track)
}

/// What is kept of a stream.
fn bytes_of(stream: &Stream, track: &Track) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot::write_track(stream, track, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use headwater_proto::delivery::receiver::Namer;
    use headwater_proto::ids::{DeviceId, Epoch};
    use headwater_proto::time::{Millis, UnixMicros};
    use headwater_spool::FakeDisk;

    use super::super::super::{Custody, Settings};
    use super::*;
    use crate::done::{DoneEpochs, DoneInMemory};
    use crate::pipeline::ledger::MAX_STREAMS_PER_DEVICE;

    /// An index that notes how many epochs it is given at once.
    #[derive(Debug, Clone, Default)]
    struct Noting {
        kept: DoneInMemory,
        at_once: Arc<Mutex<Vec<usize>>>,
    }

    impl DoneEpochs for Noting {
        fn keep(&self, epochs: &[(Stream, Vec<u8>)]) -> Result<(), DoneError> {
            self.at_once.lock().unwrap().push(epochs.len());
            self.kept.keep(epochs)
        }
        fn find(&self, stream: &Stream) -> Result<Option<Vec<u8>>, DoneError> {
            self.kept.find(stream)
        }
        fn is_whole(&self) -> bool {
            self.kept.is_whole()
        }
        fn clear(&self) -> Result<(), DoneError> {
            self.kept.clear()
        }
        fn set_whole(&self) -> Result<(), DoneError> {
            self.kept.set_whole()
        }
    }

    impl Noting {
        fn at_once(&self) -> Vec<usize> {
            std::mem::take(&mut self.at_once.lock().unwrap())
        }
    }

    fn custody() -> (Custody<FakeDisk>, Noting) {
        let settings = Settings {
            keep_closed_ms: 0,
            ..Settings::small()
        };
        let index = Noting::default();
        let done = Box::new(index.clone());
        let opened = Custody::open(FakeDisk::new(), settings, done, &mut || 7);
        (opened.unwrap().0, index)
    }

    fn now(ms: u64) -> Now {
        Now {
            mono: Millis(ms),
            wall: UnixMicros(1),
        }
    }

    fn stream(device: &str, epoch: u64) -> Stream {
        Stream {
            device: DeviceId::new(device).unwrap(),
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
        }
    }

    const END: End = End {
        first: 0,
        next: 1,
        clean: true,
    };

    /// What is due is put into the index, and the ledger is told.
    fn let_go(custody: &mut Custody<FakeDisk>, ms: u64) -> Kept {
        let keeping = custody.streams.expiry().due(now(ms)).unwrap();
        let (epochs, kept) = keeping.keep();
        custody.streams.expiry().kept(&epochs, kept.is_ok())
    }

    #[test]
    fn a_stream_leaves_the_ledger_only_once_the_index_says_that_it_has_it() {
        let (mut custody, _) = custody();
        for epoch in 0..2 {
            let whole = [SeqRange::new(0, END.next)];
            custody.seed(stream("d", epoch), &whole, &[], Some(END));
        }
        let due = |custody: &mut Custody<FakeDisk>, ms| custody.streams.expiry().due(now(ms));
        let (epochs, _) = due(&mut custody, 1).unwrap().failed("full".to_owned());
        assert_eq!((epochs.len(), custody.ledger().len()), (2, 2));
        // Nothing more is asked for meanwhile.
        assert_eq!(due(&mut custody, 100_000), None);
        let kept = custody.streams.expiry().kept(&epochs, false);
        assert_eq!((kept, custody.ledger().len()), (Kept::Failed, 2));
        let (epochs, _) = due(&mut custody, 200_000).unwrap().keep();
        // One of them changed meanwhile: what the index has of it is not the last word.
        let mut other = custody.ledger().track(&stream("d", 1)).unwrap().clone();
        other.boot += 1;
        custody.streams.ledger.restore(stream("d", 1), other);
        let kept = custody.streams.expiry().kept(&epochs, true);
        assert_eq!(kept, Kept::Gone(vec![stream("d", 0)]));
        // An index that was filled anew in between may have lost it.
        let (epochs, _) = due(&mut custody, 300_000).unwrap().keep();
        fill(&mut custody.streams, &[]);
        let kept = custody.streams.expiry().kept(&epochs, true);
        assert_eq!((kept, custody.ledger().len()), (Kept::Gone(Vec::new()), 1));
        let_go(&mut custody, 400_000);
        assert_eq!(custody.ledger().len(), 0);
    }

    #[test]
    fn streams_that_are_over_leave_at_once_where_one_device_has_too_many() {
        let (mut custody, _) = custody();
        custody.streams.keep_closed_ms = 7 * 24 * 3_600_000;
        let half = MAX_STREAMS_PER_DEVICE as u64 / 2;
        let whole = [SeqRange::new(0, END.next)];
        for epoch in 0..half {
            custody.seed(stream("d", epoch), &whole, &[], Some(END));
            custody.seed(stream("other", epoch), &whole, &[], Some(END));
        }
        assert_eq!(custody.streams.expiry().due(now(1)), None);
        custody.seed(stream("d", half), &whole, &[], None);
        // It is looked at again at its time, or sooner when somebody found no room.
        assert_eq!(custody.streams.expiry().due(now(2)), None);
        custody.streams.expiry().hurry(Millis(2));
        assert_eq!(custody.streams.expiry().due(now(HURRIED_EVERY_MS)), None);
        let (epochs, kept) = custody
            .streams
            .expiry()
            .due(now(2 + HURRIED_EVERY_MS))
            .unwrap()
            .keep();
        custody.streams.expiry().kept(&epochs, kept.is_ok());
        let left = |device: &str| {
            let device = DeviceId::new(device).unwrap();
            custody.ledger().streams_of(&device).count() as u64
        };
        assert_eq!((left("d"), left("other")), (1, half));
    }

    #[test]
    fn streams_are_let_go_of_a_bounded_number_at_a_time() {
        let (mut custody, index) = custody();
        let count = MAX_EXPIRED as u64 + 1;
        for epoch in 0..count {
            let whole = [SeqRange::new(0, END.next)];
            custody.seed(stream("d", epoch), &whole, &[], Some(END));
        }
        let_go(&mut custody, 1);
        assert_eq!(
            (custody.ledger().len(), index.at_once()),
            (1, vec![MAX_EXPIRED])
        );
        let_go(&mut custody, 2);
        assert_eq!((custody.ledger().len(), index.at_once()), (0, vec![1]));
    }

    /// A lake fills the index anew.
    fn fill(streams: &mut Streams, all: &[(Stream, End)]) {
        let filling = streams.index_filled().begin(true).unwrap();
        // Nothing may be taken for new before all is in.
        assert_eq!(look_up(streams, 500..501), None);
        let all = all.iter();
        let all: Epochs = all.map(|(s, end)| (s.clone(), over(s, *end))).collect();
        filling.keep(&all).unwrap();
        streams.index_filled().end(Ok(())).unwrap();
    }

    #[test]
    fn a_lake_that_fails_while_it_fills_the_index_holds_nobody_up() {
        let (mut custody, _) = custody();
        let filling = custody.streams.index_filled().begin(true).unwrap();
        let another = filling.clone();
        drop(filling);
        assert_eq!(look_up(&mut custody.streams, 1..2), None);
        drop(another);
        assert!(look_up(&mut custody.streams, 1..2).is_some());
    }

    #[test]
    fn a_stream_that_came_back_while_a_lake_told_its_streams_is_noticed() {
        let (mut custody, _) = custody();
        let streams = &mut custody.streams;
        let known =
            |streams: &Streams| streams.ledger().streams().map(|(s, _)| s.clone()).collect();
        fill(streams, &[(stream("d", 1), END)]);
        let before = known(streams);
        streams.seed(stream("d", 2), &[], &[], None);
        assert!(!streams.index_filled().came_back(&before).unwrap());
        streams.seed(stream("d", 1), &[], &[], None);
        assert!(streams.index_filled().came_back(&before).unwrap());
        let now = known(streams);
        assert!(!streams.index_filled().came_back(&now).unwrap());
    }

    /// A stream that is over, with so many holes so far apart that what is kept of it takes exactly
    /// `bytes`.
    fn holey(letter: &str, bytes: usize) -> (Stream, Track) {
        const HOLES: u64 = 62;
        const FAR: u64 = 1 << 42;
        let mut track = Track {
            closed_at: Some(now(0).wall),
            ..Track::default()
        };
        let receiver = &mut track.receiver;
        for hole in 0..HOLES {
            let at = hole * 3 * FAR;
            receiver.seed(SeqRange::new(at, at + FAR)).unwrap();
            let named = [
                (Namer::Sender, SeqRange::new(at + FAR, at + 2 * FAR)),
                (Namer::Receiver, SeqRange::new(at + 2 * FAR, at + 3 * FAR)),
            ];
            for (namer, range) in named {
                receiver.cover(range, namer).unwrap();
            }
            receiver.commit(SeqRange::new(at + FAR, at + 2 * FAR));
        }
        let next = HOLES * 3 * FAR;
        receiver.end(End { next, ..END });
        receiver.synced();
        assert!(receiver.is_done());
        let len = |stream: &Stream| {
            let mut out = Vec::new();
            snapshot::write_track(stream, &track, &mut out);
            out.len()
        };
        let name = |letters: usize| stream(&letter.repeat(letters), 0);
        let letters = 1 + bytes - len(&name(1));
        assert_eq!(len(&name(letters)), bytes);
        (name(letters), track)
    }

    #[test]
    fn a_stream_too_large_for_the_index_stays_and_keeps_none_of_the_others() {
        let (mut custody, index) = custody();
        let (largest, track) = holey("b", MAX_DONE_BYTES);
        custody.streams.ledger.restore(largest.clone(), track);
        let (too_large, track) = holey("a", MAX_DONE_BYTES + 1);
        for epoch in 0..MAX_EXPIRED as u64 {
            let stream = Stream {
                epoch: Epoch::new(epoch),
                ..too_large.clone()
            };
            custody.streams.ledger.restore(stream, track.clone());
        }
        let_go(&mut custody, 1);
        assert_eq!(index.at_once(), [1]);
        assert!(custody.ledger().track(&largest).is_none());
        assert_eq!(custody.ledger().len(), MAX_EXPIRED);
        assert_eq!(custody.streams.recall(&largest), Ok(true));
        let known = custody.ledger().track(&largest);
        assert!(known.is_some_and(|track| track.receiver.is_done()));
    }

    /// Looks up what one Hello lists.
    fn look_up(streams: &mut Streams, epochs: std::ops::Range<u64>) -> Option<Finding> {
        let listed = epochs.map(|epoch| stream("d", epoch));
        streams.look_ups().begin((1, std::iter::once(listed)))
    }

    #[test]
    fn a_bounded_number_of_streams_is_looked_up_at_once_and_remembered() {
        let (mut custody, _) = custody();
        let streams = &mut custody.streams;
        let most = MAX_FOUND as u64;
        for pass in 0..(MAX_ABSENT / MAX_FOUND) as u64 {
            let finding = look_up(streams, pass * most..(pass + 2) * most).unwrap();
            assert_eq!(look_up(streams, 0..u64::MAX), None, "one at a time");
            let found = finding.find();
            assert_eq!(found.len(), MAX_FOUND);
            assert_eq!(streams.look_ups().found(found), []);
        }
        assert!(streams.look_ups().is_new(&stream("d", 0)));
        // One more, and those before are asked for again when they come.
        let last = MAX_ABSENT as u64;
        let found = look_up(streams, last..last + 1).unwrap().find();
        assert_eq!(streams.look_ups().found(found), []);
        assert!(streams.look_ups().is_new(&stream("d", last)));
        assert!(!streams.look_ups().is_told(&stream("d", 0)));
    }

    #[test]
    fn every_hello_that_waits_gets_a_share_of_a_look_and_so_do_records() {
        let (mut custody, _) = custody();
        let streams = &mut custody.streams;
        for epoch in 0..MAX_FOUND as u64 + 1 {
            streams.look_ups().name(&stream("named", epoch));
        }
        let list = |device: &'static str| (0..100_000).map(move |epoch| stream(device, epoch));
        let hellos = ["a", "b"].map(list);
        assert_eq!(
            streams
                .look_ups()
                .begin((2, hellos.clone().into_iter()))
                .unwrap()
                .find()
                .len(),
            MAX_FOUND + MAX_FOUND / 2
        );
        streams.look_ups().found(Looked::new());
        let found = streams
            .look_ups()
            .begin((2, hellos.into_iter()))
            .unwrap()
            .find();
        let of = |device: &str| {
            found
                .iter()
                .filter(|it| it.0.device.as_str() == device)
                .count()
        };
        assert_eq!((of("a"), of("b")), (MAX_FOUND / 2, MAX_FOUND / 2));
    }

    #[test]
    fn what_was_looked_up_while_the_index_was_filled_anew_is_looked_up_again() {
        let (mut custody, _) = custody();
        let streams = &mut custody.streams;
        let over = stream("d", 1);
        let finding = look_up(streams, 1..2).unwrap();
        let found = finding.find();
        fill(streams, &[(over.clone(), END)]);
        assert_eq!(streams.look_ups().found(found), []);
        assert!(!streams.look_ups().is_told(&over));
        let found = look_up(streams, 1..2).unwrap().find();
        assert_eq!(streams.look_ups().found(found), [Ok(over.clone())]);
        assert!(streams.ledger().track(&over).is_some());
    }

    #[test]
    fn what_the_index_does_not_tell_is_asked_for_again_by_the_next_hello() {
        let (mut custody, _) = custody();
        let streams = &mut custody.streams;
        let one = stream("d", 1);
        let finding = look_up(streams, 1..2).unwrap();
        let found = streams.look_ups().found(finding.failed("away"));
        assert_eq!(found, [Err(Unknown::Failed)]);
        let mut look_ups = streams.look_ups();
        assert!(
            look_ups.is_told(&one) && !look_ups.is_new(&one),
            "no more can be said"
        );
        look_ups.answered();
        assert!(!look_ups.is_told(&one));
        let found = look_up(streams, 1..2).unwrap().find();
        assert_eq!(streams.look_ups().found(found), []);
        assert!(streams.look_ups().is_new(&one));
    }
}
