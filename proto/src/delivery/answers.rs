//! A receiver's marks as answers, none larger than the sender takes.

use alloc::vec;
use alloc::vec::Vec;

use crate::frame::MAX_OVERHEAD_BYTES;
use crate::ids::DeviceId;
use crate::message::{MAX_MARKS, Mark};

/// Marks of one answer.
pub type Page = heapless::Vec<Mark, MAX_MARKS>;

/// Most bytes of an answer beside its marks and the origin's id: a frame around a Welcome.
const ANSWER_BYTES: usize = MAX_OVERHEAD_BYTES + 1 + 1 + 2 + 10 + 2 + 10 + 5 + 5 + 10 + 1;

/// Most bytes of a mark in an answer.
fn mark_bytes(mark: &Mark) -> usize {
    1 + 10 + 10 + 10 + 1 + mark.ranges.len() * (10 + 10 + 1)
}

/// Marks as the pages of a Welcome or as Acks, at least one. Where one mark alone would be too large, its
/// ranges go: they only spare repeats.
///
/// - `origin`: the sender that they are for.
/// - `max_bytes`: the largest answer that it takes.
#[must_use]
pub fn pages(marks: Vec<Mark>, origin: &DeviceId, max_bytes: usize) -> Vec<Page> {
    let room = max_bytes.saturating_sub(ANSWER_BYTES + origin.as_str().len());
    let mut pages = vec![Page::new()];
    let mut used = 0;
    for mut mark in marks {
        let mut bytes = mark_bytes(&mark);
        if bytes > room {
            mark.ranges.clear();
            bytes = mark_bytes(&mark);
        }
        let is_full = pages
            .last()
            .is_none_or(|page| page.is_full() || (used + bytes > room && !page.is_empty()));
        if is_full {
            pages.push(Page::new());
            used = 0;
        }
        used += bytes;
        if let Some(page) = pages.last_mut() {
            let _ = page.push(mark);
        }
    }
    pages
}
