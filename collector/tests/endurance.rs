//! What custody endures: failures in the middle of a group, hostile senders, long outages.

mod common;

use common::{Rig, SAMPLES, bundle, hello, listed};

fn greet(rig: &mut Rig) {
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 10_000)]), 0);
}

/// A device that said Hello and was answered.
fn greeted() -> Rig {
    let mut rig = Rig::new();
    greet(&mut rig);
    assert!(rig.sync());
    rig.sent.clear();
    rig
}

#[test]
fn what_a_new_segment_made_durable_stands_when_the_rest_of_its_group_fails() {
    // Each group is larger than a segment, so that it begins at least one.
    for nth in 0..6 {
        let mut rig = greeted();
        rig.disk.fail_sync(nth);
        let mut failures = 0;
        for first in (0..1_000).step_by(250) {
            rig.up(bundle(1, first, first + 250), 1);
            rig.plain("plain/m1/temp", "20.5", 7, false, 2);
            while !rig.sync() {
                // The process goes on, and the device comes again.
                failures += 1;
                greet(&mut rig);
                rig.up(bundle(1, 0, first + 250), 3);
            }
        }
        greet(&mut rig);
        rig.up(bundle(1, 0, 1_000), 4);
        assert!(rig.sync());
        assert_eq!(rig.mark(1).unwrap().received, 1_000);
        rig.flush().unwrap();
        let audit = rig.audit();
        assert!(audit.totals.is_good(), "sync {nth}: {:?}", audit.totals);
        let plain = 4;
        let samples = audit.totals.counts.samples;
        assert!(
            samples >= 1_000 * SAMPLES && samples <= 1_000 * SAMPLES + plain,
            "sync {nth}, {failures} failures: {samples}"
        );
    }
}
