//! The window: how many bytes the next bundle may have.

use super::MIN_WINDOW_BYTES;
use crate::time::Millis;

/// Credit of the connection, and all else that holds bundles back.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// Most bytes in flight, as the receiver last granted it.
    credit: u32,
    /// Most bytes of a bundle: the lower of both sides' limits.
    max_bundle: u32,
    /// Bytes that other senders of the connection have in flight.
    in_flight_elsewhere: u32,
    /// The record at the head is larger than the window was.
    held_back: bool,
    /// No bundle before this time, after a reject; 0 if there is no pause.
    paused_until: Millis,
}

impl Window {
    pub(super) const fn new(max_bundle: u32) -> Self {
        Self {
            credit: 0,
            max_bundle,
            in_flight_elsewhere: 0,
            held_back: false,
            paused_until: Millis(0),
        }
    }

    /// The connection is gone. Credit and bundle size stay as they are: the next Welcome sets both before
    /// anything is published.
    pub(super) const fn reset(&mut self) {
        self.held_back = false;
        self.paused_until = Millis(0);
    }

    pub(super) const fn credit(&self) -> u32 {
        self.credit
    }

    pub(super) const fn set_credit(&mut self, credit: u32) {
        self.credit = credit;
    }

    pub(super) const fn max_bundle(&self) -> u32 {
        self.max_bundle
    }

    pub(super) const fn set_max_bundle(&mut self, bytes: u32) {
        self.max_bundle = bytes;
    }

    /// Room that others leave may be what was waited for.
    pub(super) const fn set_in_flight_elsewhere(&mut self, bytes: u32) {
        if bytes < self.in_flight_elsewhere {
            self.held_back = false;
        }
        self.in_flight_elsewhere = bytes;
    }

    /// Holds bundles back until something in flight has landed.
    pub(super) const fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Something in flight has landed, or was given up.
    pub(super) const fn go_on(&mut self) {
        self.held_back = false;
    }

    pub(super) const fn pause(&mut self, until: Millis) {
        self.paused_until = until;
    }

    /// When the pause ends, if there is one.
    pub(super) fn pause_ends(&self) -> Option<Millis> {
        (self.paused_until > Millis(0)).then_some(self.paused_until)
    }

    /// Ends a pause whose time has come.
    pub(super) fn tick(&mut self, now: Millis) {
        if self.paused_until <= now {
            self.paused_until = Millis(0);
        }
    }

    /// Most bytes of the next bundle with `in_flight` bytes of this sender in flight; `None`: wait.
    pub(super) fn bytes(&self, in_flight: u32, now: Millis) -> Option<u32> {
        if self.paused_until > now || self.credit == 0 {
            return None;
        }
        let in_flight = in_flight.saturating_add(self.in_flight_elsewhere);
        if in_flight == 0 {
            // One bundle always goes, or a record larger than the credit would never go.
            return Some(self.max_bundle);
        }
        let window = self.credit.saturating_sub(in_flight);
        (!self.held_back && window >= MIN_WINDOW_BYTES).then(|| window.min(self.max_bundle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_rest_of_the_credit_is_waited_out() {
        let mut window = Window::new(10_000);
        window.set_credit(5_000);
        let sent = 5_000 - MIN_WINDOW_BYTES;
        assert_eq!(window.bytes(sent, Millis(0)), Some(MIN_WINDOW_BYTES));
        assert_eq!(window.bytes(sent + 1, Millis(0)), None);
        window.hold_back();
        assert_eq!(window.bytes(1, Millis(0)), None);
        window.go_on();
        assert_eq!(window.bytes(1, Millis(0)), Some(4_999));
    }

    #[test]
    fn a_pause_ends_at_its_time() {
        let mut window = Window::new(10_000);
        window.set_credit(5_000);
        window.pause(Millis(7));
        assert_eq!(window.bytes(0, Millis(6)), None);
        assert_eq!(window.pause_ends(), Some(Millis(7)));
        window.tick(Millis(6));
        assert_eq!(window.pause_ends(), Some(Millis(7)));
        window.tick(Millis(7));
        assert_eq!(window.pause_ends(), None);
        assert_eq!(window.bytes(0, Millis(7)), Some(10_000));
    }

    #[test]
    fn a_record_that_waits_for_room_is_tried_again_where_another_sender_leaves_some() {
        let mut window = Window::new(8_000);
        window.set_credit(10_000);
        window.set_in_flight_elsewhere(6_000);
        window.hold_back();
        assert_eq!(window.bytes(0, Millis(0)), None);
        window.set_in_flight_elsewhere(6_000);
        assert_eq!(window.bytes(0, Millis(0)), None);
        window.set_in_flight_elsewhere(3_000);
        assert_eq!(window.bytes(0, Millis(0)), Some(7_000));
    }

    proptest! {
        #[test]
        fn only_a_single_bundle_may_pass_the_credit(
            credit: u32, max_bundle: u32, own in 0u32..1 << 21, other in 0u32..1 << 21,
        ) {
            let mut window = Window::new(max_bundle);
            window.set_credit(credit);
            window.set_in_flight_elsewhere(other);
            if let Some(bytes) = window.bytes(own, Millis(0)) {
                prop_assert!(credit > 0 && bytes <= max_bundle);
                prop_assert!(own + other == 0 || own + other + bytes <= credit);
            }
        }
    }
}
