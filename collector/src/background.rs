//! Shell: threads whose work may wait.

/// How much nicer a thread in the background is than the others.
const NICER: i32 = 10;

/// Lets the calling thread, and those that it starts, have what processor time the others leave: a sink
/// that the journal does not wait for catches up when the fleet is quiet, and costs it no acknowledgement
/// when it is not. A system that refuses it is as good as one with time to spare.
pub(crate) fn enter() {
    // On Linux each thread has a niceness of its own.
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::debug!(%error, "a thread stays in the foreground");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_back_with_those_that_it_starts_and_no_other() {
        let own = || rustix::process::nice(0).unwrap();
        let before = own();
        let seen = std::thread::spawn(move || {
            enter();
            (own(), std::thread::spawn(own).join().unwrap())
        });
        assert_eq!(seen.join().unwrap(), (before + NICER, before + NICER));
        assert_eq!(own(), before);
    }
}
