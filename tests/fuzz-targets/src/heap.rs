//! What a decoder takes from the heap. Every target runs over this allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what each thread holds.
struct Counting;

impl Counting {
    fn took(size: usize) {
        HELD.set(HELD.get().wrapping_add(size));
        PEAK.set(PEAK.get().max(HELD.get()));
    }

    fn gave(size: usize) {
        HELD.set(HELD.get().wrapping_sub(size));
    }
}

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::took(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::gave(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are held while it moves.
        Self::took(size);
        Self::gave(layout.size());
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Does `work`, which may hold at most `most` bytes of heap more than before at any moment.
///
/// # Panics
/// If it takes more.
pub fn within<T>(most: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let done = work();
    let took = PEAK.get().saturating_sub(before);
    assert!(took <= most, "took {took} bytes of heap, {most} at most");
    done
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn what_is_taken_and_given_back_counts_at_its_peak() {
        assert_eq!(within(100, || vec![1u8; 100].len()), 100);
        assert!(std::panic::catch_unwind(|| within(99, || vec![1u8; 100])).is_err());
    }
}
