//! The Hello of a connection: its pages, its Welcome, and when to repeat it.

use crate::delivery::command::SenderLimits;
use crate::message::MAX_PAGES;
use crate::time::Millis;

/// A Hello that is going out, or waits for its Welcome.
#[derive(Debug, Clone, Copy)]
struct Hello {
    nonce: u64,
    next_page: u8,
    pages: u8,
    /// When to repeat it; `None` while pages are left to send.
    due: Option<Millis>,
    /// One bit per page of the Welcome that came.
    seen: u64,
}

/// Bookkeeping of the running Hello.
#[derive(Debug, Clone)]
pub(super) struct Greeter {
    running: Option<Hello>,
    /// Hellos in a row without a whole Welcome.
    unanswered: u32,
}

impl Greeter {
    pub(super) const fn new() -> Self {
        Self {
            running: None,
            unanswered: 0,
        }
    }

    /// Begins a Hello of `pages` pages; a running one is replaced.
    pub(super) const fn begin(&mut self, nonce: u64, pages: u8) {
        self.running = Some(Hello {
            nonce,
            next_page: 0,
            pages,
            due: None,
            seen: 0,
        });
    }

    /// Forgets the running Hello, and that earlier ones were not answered.
    pub(super) const fn reset(&mut self) {
        *self = Self::new();
    }

    /// Whether a Hello runs.
    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Nonce and pages of the running Hello.
    pub(super) fn nonce_and_pages(&self) -> Option<(u64, u8)> {
        self.running.map(|hello| (hello.nonce, hello.pages))
    }

    /// The next page to send. After the last one the Welcome is awaited: each unanswered Hello doubles
    /// the wait, and `lengthen` adds jitter to it.
    pub(super) fn next_page(
        &mut self,
        now: Millis,
        limits: &SenderLimits,
        lengthen: impl FnOnce(u64) -> u64,
    ) -> Option<u8> {
        let hello = self.running.as_mut()?;
        if hello.next_page >= hello.pages {
            return None;
        }
        let page = hello.next_page;
        hello.next_page += 1;
        if hello.next_page == hello.pages {
            let doubled = limits.welcome_wait_ms << self.unanswered.min(16);
            let wait_ms = doubled.min(limits.welcome_wait_max_ms);
            hello.due = Some(now.plus(lengthen(wait_ms)));
        }
        Some(page)
    }

    /// When the running Hello counts as unanswered.
    pub(super) fn due(&self) -> Option<Millis> {
        self.running.and_then(|hello| hello.due)
    }

    /// Whether the running Hello is due; it then counts as unanswered.
    pub(super) fn is_late(&mut self, now: Millis) -> bool {
        let late = self.due().is_some_and(|due| due <= now);
        self.unanswered += u32::from(late);
        late
    }

    /// Whether a Welcome with this nonce answers the running Hello, all pages of which were sent.
    pub(super) fn awaits(&self, nonce: u64) -> bool {
        self.running
            .is_some_and(|hello| hello.nonce == nonce && hello.next_page >= hello.pages)
    }

    /// Takes in a page of the awaited Welcome; true if it was the last one missing: the Hello has ended.
    pub(super) fn answered(&mut self, page: u8, pages: u8) -> bool {
        let Some(hello) = &mut self.running else {
            return false;
        };
        hello.seen |= 1u64.wrapping_shl(u32::from(page));
        let wanted = u64::MAX >> (64 - u32::from(pages.clamp(1, MAX_PAGES)));
        let whole = hello.seen & wanted == wanted;
        if whole {
            self.reset();
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SenderLimits = SenderLimits::DEFAULT;

    fn page(greeter: &mut Greeter, now: Millis) -> Option<u8> {
        greeter.next_page(now, &LIMITS, |wait_ms| wait_ms)
    }

    #[test]
    fn a_welcome_counts_when_all_pages_of_both_are_through() {
        let mut greeter = Greeter::new();
        greeter.begin(7, 2);
        assert_eq!(page(&mut greeter, Millis(0)), Some(0));
        assert!(!greeter.awaits(7), "a page of the Hello is left");
        assert_eq!(page(&mut greeter, Millis(0)), Some(1));
        assert_eq!(page(&mut greeter, Millis(0)), None);
        assert!(greeter.awaits(7) && !greeter.awaits(8));
        assert!(!greeter.answered(1, 2));
        assert!(!greeter.answered(1, 2), "a repeated page is one page");
        assert!(greeter.answered(0, 2));
        assert!(!greeter.is_running());
    }

    #[test]
    fn a_welcome_of_most_pages_is_counted_page_by_page() {
        let mut greeter = Greeter::new();
        greeter.begin(7, MAX_PAGES);
        let sent = core::iter::from_fn(|| page(&mut greeter, Millis(0)));
        assert_eq!(sent.count(), usize::from(MAX_PAGES));
        for page in 0..MAX_PAGES - 1 {
            assert!(!greeter.answered(page, MAX_PAGES));
        }
        assert!(greeter.answered(MAX_PAGES - 1, MAX_PAGES));
    }

    #[test]
    fn each_unanswered_hello_doubles_the_wait_up_to_the_limit() {
        let mut greeter = Greeter::new();
        let mut now = Millis(0);
        let mut waits = std::vec::Vec::new();
        for _ in 0..8 {
            greeter.begin(7, 1);
            page(&mut greeter, now).unwrap();
            let due = greeter.due().unwrap();
            assert!(!greeter.is_late(Millis(due.0 - 1)));
            assert!(greeter.is_late(due));
            waits.push(due.since(now));
            now = due;
        }
        let most = LIMITS.welcome_wait_max_ms;
        assert_eq!(waits[..4], [5_000, 10_000, 20_000, 40_000]);
        assert_eq!(waits[5..], [most, most, most]);
    }
}
