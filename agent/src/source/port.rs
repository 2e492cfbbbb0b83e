//! A source's way to the engine, and the engine's word back: which of its items are durable.

use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use tokio::sync::{Notify, mpsc, watch};

use super::health::{Health, Notice, Report};
use super::held::HeldPlaces;
use super::{Feed, QUEUE_READINGS, Stop, Stopped};
use crate::clock::Clock;
use crate::pipeline::receipts::{RefusedValues, Settled};
use crate::pipeline::record::{Cursor, SaidBy, Stray};

/// A source's way to the engine. Whatever goes this way has a receipt, rising by one from 0.
#[derive(Debug, Clone)]
pub struct Port {
    queue: mpsc::Sender<Feed>,
    shared: Arc<Shared>,
    settled: watch::Receiver<Settled>,
    wake: Arc<Notify>,
}

/// What both ends of a port know of its source.
#[derive(Debug)]
struct Shared {
    name: String,
    clock: Clock,
    given: Mutex<Given>,
    refused: Mutex<RefusedValues>,
    health: Mutex<Health>,
}

/// Both change while the item enters the queue: receipts and items have one order.
#[derive(Debug, Default)]
struct Given {
    /// The next receipt.
    next: u64,
    /// Where the source goes on.
    resume: Option<Cursor>,
    /// Where sources with other names stopped.
    strays: Vec<Stray>,
    /// Who says how far the collector holds what the source reads.
    held: Option<HeldPlaces>,
}

/// The engine's end of a port.
#[derive(Debug)]
pub struct PortEnd {
    /// What the source gives, in the order of receipts.
    pub queue: mpsc::Receiver<Feed>,
    /// How far that is settled.
    pub settled: watch::Sender<Settled>,
    shared: Arc<Shared>,
}

impl PortEnd {
    /// How the source is doing.
    #[must_use]
    pub fn report(&self) -> Report {
        lock(&self.shared.health).report().clone()
    }

    /// The engine refused so many values of the item with this receipt: known to the source before the
    /// item is settled.
    pub fn refused(&self, receipt: u64, values: u64) {
        lock(&self.shared.refused).add(receipt, values);
    }
}

impl Port {
    /// The port of the source `name`, and the engine's end of it. `wake` is told of everything that comes.
    #[must_use]
    pub fn new(name: &str, wake: Arc<Notify>) -> (Self, PortEnd) {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            clock: Clock::start(),
            given: Mutex::default(),
            refused: Mutex::default(),
            health: Mutex::default(),
        });
        let (queue, inlet) = mpsc::channel(QUEUE_READINGS);
        let (tell, settled) = watch::channel(Settled::default());
        let port = Self {
            queue,
            shared: Arc::clone(&shared),
            settled,
            wake,
        };
        let end = PortEnd {
            queue: inlet,
            settled: tell,
            shared,
        };
        (port, end)
    }

    /// The same way, as long as the source itself holds it: a source that has ended is not kept waiting
    /// for.
    #[must_use]
    pub fn weak(&self) -> WeakPort {
        WeakPort {
            queue: self.queue.downgrade(),
            shared: Arc::clone(&self.shared),
            settled: self.settled.clone(),
            wake: Arc::clone(&self.wake),
        }
    }

    /// Hands over from a thread; waits for room. Returns the receipt.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn give_blocking(&self, feed: Feed) -> Result<u64, Stopped> {
        wait_for(self.give(feed))
    }

    /// Hands over from a task; waits for room. Returns the receipt.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn give(&self, feed: Feed) -> Result<u64, Stopped> {
        let room = self.queue.reserve().await.map_err(|_| Stopped)?;
        Ok(self.enter(room, feed))
    }

    /// Waits until there is room. Another may take it first. Cancel-safe.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn room(&self) -> Result<(), Stopped> {
        self.queue.reserve().await.map(drop).map_err(|_| Stopped)
    }

    /// Hands over if there is room; says whether there was.
    #[must_use]
    pub fn try_give(&self, feed: Feed) -> bool {
        let room = self.queue.try_reserve();
        room.map(|room| self.enter(room, feed)).is_ok()
    }

    fn enter(&self, room: mpsc::Permit<'_, Feed>, feed: Feed) -> u64 {
        let receipt = {
            let mut given = lock(&self.shared.given);
            given.resume = feed.cursor().or(given.resume);
            room.send(feed);
            let receipt = given.next;
            given.next += 1;
            receipt
        };
        self.wake.notify_one();
        receipt
    }

    /// Where the source goes on: after what it gave last.
    #[must_use]
    pub fn resume(&self) -> Option<Cursor> {
        lock(&self.shared.given).resume
    }

    /// Sets where the source goes on, before it has given anything.
    #[must_use]
    pub fn resuming_at(self, resume: Option<Cursor>) -> Self {
        lock(&self.shared.given).resume = resume;
        self
    }

    /// The source goes on there, as one that gave what is before it.
    pub fn stands_at(&self, cursor: Cursor) {
        lock(&self.shared.given).resume = Some(cursor);
    }

    /// Sets where sources with other names stopped.
    #[must_use]
    pub fn with_strays(self, strays: &[Stray]) -> Self {
        lock(&self.shared.given).strays = strays.to_vec();
        self
    }

    /// Sets who says how far the collector holds what the source reads.
    #[must_use]
    pub fn with_held(self, held: &HeldPlaces) -> Self {
        lock(&self.shared.given).held = Some(held.clone());
        self
    }

    /// Where the source goes on: where it stopped, or further on: where one with another name did, or behind what
    /// the collector holds. `find` says which of those cursors is a place in what it reads.
    ///
    /// # Errors
    /// That of `find`.
    pub fn resume_or_adopt<E>(
        &self,
        stop: &Stop,
        find: impl FnOnce(&[Stray]) -> Result<Option<Stray>, E>,
    ) -> Result<Option<Cursor>, E>
    where
        E: From<Stopped>,
    {
        let (own, mut strays, held) = {
            let given = lock(&self.shared.given);
            (given.resume, given.strays.clone(), given.held.clone())
        };
        strays.extend(held.into_iter().flat_map(|held| held.wait(stop)));
        strays.retain(|stray| {
            let is_for_another = matches!(stray.said_by, SaidBy::Collector { is_taken: true, .. })
                && stray.name != self.name();
            !is_for_another && own.is_none_or(|own| !own.covers(stray.cursor))
        });
        if strays.is_empty() {
            return Ok(own);
        }
        let Some(stray) = find(&strays)? else {
            return Ok(own);
        };
        if stray.said_by != SaidBy::Spool {
            tracing::info!(
                source = self.name(),
                "goes on behind what the collector holds of its content: this spool knows less of it"
            );
        } else {
            tracing::info!(
                source = self.name(),
                "goes on where the source {} stopped, which read the same content under another name",
                stray.name
            );
        }
        self.give_blocking(Feed::Adopted(stray.cursor))?;
        Ok(Some(stray.cursor))
    }

    /// The name of its source.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The source reads.
    pub fn up(&self) {
        self.say(|health, shared| health.up(shared.clock.now()));
    }

    /// The source cannot read, for this cause; it goes on trying, or is started again.
    pub fn failing(&self, cause: &str) {
        self.say(|health, shared| health.failing(cause, shared.clock.now()));
    }

    /// So many connections are open, and one more waits for a place.
    pub fn crowded(&self, most: usize) {
        let cause =
            format!("{most} connections are open, and one more waits until one of them ends");
        self.say(|health, shared| health.crowded(&cause, shared.clock.now()));
    }

    /// The source's input has ended.
    pub fn ended(&self) {
        self.say(|health, shared| health.ended(shared.clock.now()));
    }

    fn say(&self, take: impl FnOnce(&mut Health, &Shared) -> Option<Notice>) {
        let mut health = lock(&self.shared.health);
        let Some(notice) = take(&mut health, &self.shared) else {
            return;
        };
        let source = &*self.shared.name;
        let cause = health.report().last_error.as_deref().unwrap_or_default();
        match notice {
            Notice::Fails => tracing::warn!(source, "the source fails: {cause}"),
            Notice::Recovered => tracing::info!(source, "the source reads again"),
            Notice::Ended => tracing::info!(source, "the source's input has ended"),
        }
    }

    /// Waits until all receipts below `end` are settled, and says how.
    ///
    /// # Errors
    /// [`Stopped`] if the engine went before.
    pub async fn settled(&self, end: u64) -> Result<Settled, Stopped> {
        let mut settled = self.settled.clone();
        let told = settled.wait_for(|settled| settled.durable >= end).await;
        told.map(|told| told.clone()).map_err(|_| Stopped)
    }

    /// How many values the engine refused of items that are [settled](Self::settled), as
    /// [`RefusedValues::of`].
    #[must_use]
    pub fn refused(&self, receipts: &[Range<u64>]) -> u64 {
        lock(&self.shared.refused).of(receipts)
    }
}

/// A source's way to the engine that lasts as long as the source.
#[derive(Debug, Clone)]
pub struct WeakPort {
    queue: mpsc::WeakSender<Feed>,
    shared: Arc<Shared>,
    settled: watch::Receiver<Settled>,
    wake: Arc<Notify>,
}

impl WeakPort {
    /// The way, if the source has not ended.
    #[must_use]
    pub fn upgrade(&self) -> Option<Port> {
        Some(Port {
            queue: self.queue.upgrade()?,
            shared: Arc::clone(&self.shared),
            settled: self.settled.clone(),
            wake: Arc::clone(&self.wake),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a future that needs no runtime, on a thread that has none.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return done;
        }
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::engine::Lost;
    use headwater_proto::time::UnixMicros;

    const FEED: Feed = Feed::Lost(Lost::one(1, UnixMicros(0)), None);

    #[test]
    fn a_thread_waits_for_room_and_every_item_has_the_next_receipt() {
        let (port, mut end) = Port::new("x", Arc::default());
        let given = QUEUE_READINGS as u64;
        let giving = std::thread::spawn(move || {
            let receipts: Vec<_> = (0..2 * given)
                .map(|_| port.give_blocking(FEED).unwrap())
                .collect();
            (port, receipts)
        });
        for _ in 0..2 * given {
            assert!(end.queue.blocking_recv().is_some());
        }
        let (port, receipts) = giving.join().unwrap();
        assert_eq!(receipts, (0..2 * given).collect::<Vec<_>>());
        for _ in 0..given {
            assert!(port.try_give(FEED));
        }
        // What found no room has no receipt.
        assert!(!port.try_give(FEED));
        assert!(end.queue.try_recv().is_ok());
        assert_eq!(port.give_blocking(FEED), Ok(3 * given));
        drop(end);
        assert_eq!(port.give_blocking(FEED), Err(Stopped));
    }

    #[test]
    fn a_source_is_asked_of_its_own_places_and_of_those_that_no_other_source_has() {
        let held = HeldPlaces::default();
        let cursor = |minor| Cursor {
            major: 0,
            minor,
            tag: 7,
        };
        let said = |name: &str, minor, is_taken| Stray {
            name: name.to_owned(),
            cursor: cursor(minor),
            said_by: SaidBy::Collector {
                is_last: true,
                is_taken,
            },
        };
        held.tell(vec![
            said("own", 9, true),
            said("own", 3, true),
            said("another", 9, true),
            said("gone", 8, false),
        ]);
        let (port, mut end) = Port::new("own", Arc::default());
        let port = port.resuming_at(Some(cursor(5))).with_held(&held);
        let mut asked = Vec::new();
        let resume = port.resume_or_adopt(&Stop::default(), |strays| {
            asked.extend_from_slice(strays);
            Ok::<_, Stopped>(Some(strays[0].clone()))
        });
        assert_eq!(asked, [said("own", 9, true), said("gone", 8, false)]);
        assert_eq!(resume, Ok(Some(cursor(9))));
        let given = end.queue.try_recv().unwrap();
        assert!(
            matches!(given, Feed::Adopted(at) if at == cursor(9)),
            "{given:?}"
        );
    }

    #[test]
    fn a_source_hears_what_is_settled_and_that_nobody_is_left_to_say_so() {
        let (port, end) = Port::new("x", Arc::default());
        let settled = Settled {
            durable: 3,
            not_durable: vec![0..1, 2..3],
        };
        end.settled.send_replace(settled.clone());
        assert_eq!(wait_for(port.settled(3)), Ok(settled));
        let waiting = std::thread::spawn(move || wait_for(port.settled(4)));
        drop(end);
        assert_eq!(waiting.join().unwrap(), Err(Stopped));
    }
}
