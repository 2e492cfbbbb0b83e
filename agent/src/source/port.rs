//! A source's way to the engine, and the engine's word back: which of its items are durable.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use tokio::sync::{Notify, mpsc, watch};

use super::{Feed, QUEUE_READINGS, Stopped};
use crate::pipeline::receipts::Settled;

/// A source's way to the engine. Whatever goes this way has a receipt, rising by one from 0.
#[derive(Debug, Clone)]
pub struct Port {
    queue: mpsc::Sender<Feed>,
    /// The next receipt. It is given while the item enters the queue: receipts and items have one order.
    next: Arc<Mutex<u64>>,
    settled: watch::Receiver<Settled>,
    wake: Arc<Notify>,
}

/// The engine's end of a port.
#[derive(Debug)]
pub struct PortEnd {
    /// What the source gives, in the order of receipts.
    pub queue: mpsc::Receiver<Feed>,
    /// How far that is settled.
    pub settled: watch::Sender<Settled>,
}

impl Port {
    /// A port, and the engine's end of it. `wake` is told of everything that comes.
    #[must_use]
    pub fn new(wake: Arc<Notify>) -> (Self, PortEnd) {
        let (queue, inlet) = mpsc::channel(QUEUE_READINGS);
        let (tell, settled) = watch::channel(Settled::default());
        let port = Self {
            queue,
            next: Arc::default(),
            settled,
            wake,
        };
        let end = PortEnd {
            queue: inlet,
            settled: tell,
        };
        (port, end)
    }

    /// The same way, as long as the source itself holds it: a source that has ended is not kept waiting
    /// for.
    #[must_use]
    pub fn weak(&self) -> WeakPort {
        WeakPort {
            queue: self.queue.downgrade(),
            next: Arc::clone(&self.next),
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

    /// Hands over if there is room; says whether there was.
    #[must_use]
    pub fn try_give(&self, feed: Feed) -> bool {
        let room = self.queue.try_reserve();
        room.map(|room| self.enter(room, feed)).is_ok()
    }

    fn enter(&self, room: mpsc::Permit<'_, Feed>, feed: Feed) -> u64 {
        let receipt = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            room.send(feed);
            let receipt = *next;
            *next += 1;
            receipt
        };
        self.wake.notify_one();
        receipt
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
}

/// A source's way to the engine that lasts as long as the source.
#[derive(Debug, Clone)]
pub struct WeakPort {
    queue: mpsc::WeakSender<Feed>,
    next: Arc<Mutex<u64>>,
    settled: watch::Receiver<Settled>,
    wake: Arc<Notify>,
}

impl WeakPort {
    /// The way, if the source has not ended.
    #[must_use]
    pub fn upgrade(&self) -> Option<Port> {
        Some(Port {
            queue: self.queue.upgrade()?,
            next: Arc::clone(&self.next),
            settled: self.settled.clone(),
            wake: Arc::clone(&self.wake),
        })
    }
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

    const FEED: Feed = Feed::Lost(Lost::one(1, UnixMicros(0)));

    #[test]
    fn a_thread_waits_for_room_and_every_item_has_the_next_receipt() {
        let (port, mut end) = Port::new(Arc::default());
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
    fn a_source_hears_what_is_settled_and_that_nobody_is_left_to_say_so() {
        let (port, end) = Port::new(Arc::default());
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
