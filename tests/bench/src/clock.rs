//! CPU time of this thread: other work on the machine does not count.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds that this thread has computed so far.
pub(crate) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}
