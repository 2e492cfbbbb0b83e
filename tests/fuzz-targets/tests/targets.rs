//! Every target holds on its seeds and on what small changes make of them; and every decoder named
//! here can be run by `tests/fuzz`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use headwater_fuzz::TARGETS;
use headwater_proto::delivery::Jitter;

/// Changed inputs for each target.
const CHANGES: u64 = 3_000;

/// One to four bytes changed, cut out, put in or cut off.
fn changed(seed: &[u8], dice: &mut Jitter) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.bits() % 4 {
        let [value, action, ..] = dice.bits().to_le_bytes();
        let place = dice.bits() % (bytes.len() as u64 + 1);
        let place = usize::try_from(place).expect("a place in a seed");
        match (action % 4, bytes.get_mut(place)) {
            (0, Some(byte)) => *byte ^= value,
            (1, Some(_)) => {
                bytes.remove(place);
            }
            (2, _) => bytes.insert(place, value),
            (3, Some(byte)) => *byte = [0, 1, 0x7f, 0x80, 0xff][usize::from(value % 5)],
            _ => bytes.truncate(place),
        }
    }
    bytes
}

fn holds_on_what_changes_make(family: &str) {
    let mut inputs = 0;
    for target in TARGETS.iter().filter(|t| t.name.starts_with(family)) {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{} has no seed", target.name);
        let mut dice = Jitter::new(7);
        let turns = CHANGES.div_ceil(seeds.len() as u64);
        for seed in &seeds {
            (target.run)(seed);
            for _ in 0..turns {
                let input = changed(seed, &mut dice);
                let held = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
                assert!(held.is_ok(), "{} fails with {input:02x?}", target.name);
                inputs += 1;
            }
        }
    }
    assert!(inputs >= CHANGES, "{inputs} inputs");
}

#[test]
fn codecs_hold_on_small_changes() {
    holds_on_what_changes_make("codec");
}

#[test]
fn mqtt_holds_on_small_changes() {
    holds_on_what_changes_make("mqtt");
}

#[test]
fn the_wire_holds_on_small_changes() {
    holds_on_what_changes_make("wire");
}

#[test]
fn disk_formats_hold_on_small_changes() {
    holds_on_what_changes_make("disk");
}

#[test]
fn texts_hold_on_small_changes() {
    holds_on_what_changes_make("text");
}

#[test]
fn every_target_has_a_program_of_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("targets");
    let programs: BTreeSet<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|t| format!("{}.rs", t.name)).collect();
    assert_eq!(programs, targets);
}
