//! Core: how many records go into one call. Halved when the service throttles, and grown again with each call that
//! it takes whole: pressure is answered at once, and capacity that comes back is used.

/// Records of the first call.
const FIRST: usize = 64;
/// Of a call that succeeds whole, the window grows by one part in so many, and by one record at least.
const GROWTH: usize = 4;

/// The records that may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    records: usize,
    most: usize,
}

impl Window {
    /// - `most`: records that the service takes in a call.
    pub(super) fn new(most: usize) -> Self {
        Self {
            records: FIRST.min(most).max(1),
            most: most.max(1),
        }
    }

    pub(super) const fn records(self) -> usize {
        self.records
    }

    /// The service throttled some or all of a call's `sent` records.
    pub(super) fn throttled(&mut self, sent: usize) {
        self.records = (self.records.min(sent) / 2).max(1);
    }

    /// The service took a call of `sent` records whole.
    pub(super) fn taken(&mut self, sent: usize) {
        // A call that did not fill the window proves nothing about a larger one.
        if sent >= self.records {
            self.records = (self.records + (self.records / GROWTH).max(1)).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_halves_it_and_it_comes_back() {
        let mut window = Window::new(500);
        assert_eq!(window.records(), FIRST);
        for expected in [32, 16, 8, 4, 2, 1, 1] {
            window.throttled(window.records());
            assert_eq!(window.records(), expected);
        }
        let mut calls = 0;
        while window.records() < 500 {
            window.taken(window.records());
            calls += 1;
        }
        assert!(calls < 40, "{calls}");
        window.taken(10);
        assert_eq!(window.records(), 500);
        window.throttled(20);
        assert_eq!(
            window.records(),
            10,
            "half of what was sent, not of the window"
        );
    }
}
