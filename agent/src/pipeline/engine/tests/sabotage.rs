//! The tests of this module notice the bugs they are there for.

use std::panic::catch_unwind;

use headwater_proto::sabotage::{Bug, set};

fn goes_red(bug: Bug, test: fn()) {
    set(Some(bug));
    let result = catch_unwind(test);
    set(None);
    assert!(result.is_err(), "{bug:?} was not noticed");
    test();
}

#[test]
fn a_publish_before_its_sync_is_noticed() {
    goes_red(
        Bug::PublishBeforeSync,
        super::nothing_is_published_before_it_is_synced,
    );
}

#[test]
fn an_epoch_that_is_not_renewed_is_noticed() {
    goes_red(
        Bug::EpochNotRenewed,
        super::every_start_renews_the_epoch_and_first_names_the_end_of_the_one_before,
    );
}

#[test]
fn a_gap_that_comes_after_its_segment_went_is_noticed() {
    goes_red(
        Bug::GapAfterReuse,
        super::loss::a_power_cut_during_eviction_leaves_the_segment_or_its_gap,
    );
}
