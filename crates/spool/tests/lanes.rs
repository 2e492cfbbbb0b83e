//! Several logs in one folder.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use headwater_spool::{FakeDisk, LaneConfig, Lanes, LanesConfig, fsck};

mod common;
use common::{config, no_snapshot};

#[test]
fn lanes_share_the_quota_and_the_urgent_one_has_its_own() {
    let disk = FakeDisk::new();
    let lane = |name: &str, kib: u64, exclusive| LaneConfig {
        name: name.to_owned(),
        max_bytes: kib << 10,
        exclusive,
    };
    let config = LanesConfig {
        quota_bytes: 320 << 10,
        each: config(),
        lanes: vec![
            lane("alarm", 64, true),
            lane("normal", 256, false),
            lane("bulk", 96, false),
        ],
    };
    let (mut lanes, _) = Lanes::open(&disk, &config).unwrap();
    let fill = |lanes: &mut Lanes<FakeDisk>, lane: usize| loop {
        match lanes.append(lane, 1, &[0; 1000], &no_snapshot) {
            Ok(_) => lanes.log_mut(lane).unwrap().sync().unwrap(),
            Err(error) => break error,
        };
    };
    fill(&mut lanes, 2);
    assert!(lanes.log(2).unwrap().used_bytes() <= 96 << 10);
    fill(&mut lanes, 1);
    assert_eq!(
        lanes.victim(1, &|_, _| false).unwrap().lane,
        2,
        "bulk gives way to normal"
    );
    let own = |lane: usize, s: &headwater_spool::SegmentInfo| lane == 1 && s.id == 3;
    assert_eq!(
        lanes.victim(2, &own).unwrap().segment.id,
        3,
        "acknowledged ones go first"
    );
    // The alarm lane's room is still there.
    for _ in 0..40 {
        lanes.append(0, 1, &[0; 1000], &no_snapshot).unwrap();
        lanes.log_mut(0).unwrap().sync().unwrap();
    }
    fill(&mut lanes, 0);
    assert_eq!(lanes.victim(0, &|_, _| false).unwrap().lane, 0);
    assert!(lanes.used_bytes() <= 320 << 10);
    // Full → name the loss in the reserve → release → go on.
    let victim = lanes.victim(1, &|_, _| false).unwrap();
    lanes.append_reserved(1, 2, b"gap", &no_snapshot).unwrap();
    lanes.log_mut(1).unwrap().sync().unwrap();
    while lanes.append(1, 1, &[0; 1000], &no_snapshot).is_err() {
        let victim = lanes.victim(1, &|_, _| false).unwrap();
        assert!(lanes.release(victim.lane, victim.segment.id).unwrap());
    }
    assert_eq!(victim.lane, 2);
    drop(lanes);
    let report = fsck::check(&disk).unwrap();
    let names: Vec<_> = report.logs.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(
        (names, report.sound),
        (vec!["alarm", "bulk", "normal"], true)
    );
    assert!(
        serde_json::to_string(&report)
            .unwrap()
            .contains("\"state\":\"sealed\"")
    );
}
