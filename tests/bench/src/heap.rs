//! A global allocator that counts what each thread holds: peak heap per batch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator with a count beside it.
struct Counting;

fn grown(bytes: usize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    // What another thread allocated may be freed here; the count is then far beyond any peak.
    if held.cast_signed() > PEAK.get().cast_signed() {
        PEAK.set(held);
    }
}

#[expect(unsafe_code, reason = "a global allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Both may exist for a moment.
        grown(new_size);
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What `work` returns, and the bytes by which this thread's heap grew at most meanwhile.
///
/// Only what goes through Rust's allocator is seen: a C library's own memory is not.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get().wrapping_sub(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_counts_what_was_held_at_once_and_not_what_was_freed_before() {
        let ((), peak) = peak_of(|| {
            for _ in 0..10 {
                drop(std::hint::black_box(vec![1u8; 1_000]));
            }
            let kept = std::hint::black_box(vec![0u8; 5_000]);
            drop(std::hint::black_box(vec![0u8; 2_000]));
            drop(kept);
        });
        assert!((7_000..7_500).contains(&peak), "{peak}");
    }
}
