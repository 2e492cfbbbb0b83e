//! Which parts of contents bundles hold, and what the collector says of them.

use headwater_proto::ids::{DeviceId, Lane};
use headwater_proto::portion::{Held, MAX_PLACES, Place, Portion};

use super::super::outbox::MAX_HELD_PLACES;
use super::super::{Event, behind as behind_of, goes_on_at, held_places};
use super::feed;
use super::world::{REPLAY, World, down};
use crate::pipeline::record::{Cursor, SaidBy, Stray};

/// Offers lines of a content that can be known again.
fn feed_lines(world: &mut World, span: std::ops::Range<u64>) {
    let now = world.now();
    for k in span {
        let time = headwater_proto::time::UnixMicros(k as i64);
        let offered =
            world
                .engine
                .offer_line(REPLAY, Lane::Bulk, time, b"a line", Some(behind(k)), now);
        offered.unwrap();
    }
}

/// The place behind a line.
const fn behind(line: u64) -> Cursor {
    Cursor {
        major: 0,
        minor: line + 1,
        tag: 100 + line,
    }
}

#[test]
fn bundles_say_which_part_of_a_content_they_hold_over_all_lives() {
    let mut world = World::new();
    feed_lines(&mut world, 0..30);
    world.pass(6000);
    world.kill();
    feed_lines(&mut world, 30..60);
    // A source that was told where to go on begins there.
    goes_on_at(&mut world.engine, REPLAY, behind(79));
    feed_lines(&mut world, 80..90);
    world.connect();
    world.run(6000);
    let mut said: Vec<_> = world
        .collector
        .portions
        .iter()
        .map(|portion| (portion.from, portion.to))
        .collect();
    said.dedup();
    said.sort_unstable_by_key(|(_, to)| to.minor);
    let ends = |said: &[(Option<Cursor>, Cursor)]| {
        said.windows(2).all(|pair| Some(pair[0].1) == pair[1].0)
    };
    let (before, after): (Vec<_>, Vec<_>) = said.into_iter().partition(|(_, to)| to.minor <= 60);
    assert_eq!((before[0].0, before.last().unwrap().1), (None, behind(59)));
    assert_eq!(
        (after[0].0, after.last().unwrap().1),
        (Some(behind(79)), behind(89))
    );
    assert!(ends(&before) && ends(&after));
}

#[test]
fn what_the_collector_holds_of_contents_is_known_with_its_welcome_and_the_newest_words_stay() {
    let mut world = World::new();
    let name = world.settings.sources[REPLAY].name.clone();
    let said = |origin: &str, first: u64| {
        let place = |line| Place {
            source: name.parse().unwrap(),
            cursor: behind(line),
            is_last: true,
        };
        let held: Held = Held {
            origin: DeviceId::new(origin).unwrap(),
            places: (first..first + MAX_PLACES as u64).map(place).collect(),
        };
        down(&held)
    };
    let own = world.settings.device.as_str().to_owned();
    for first in (0..=MAX_HELD_PLACES as u64).step_by(MAX_PLACES) {
        let now = world.now();
        world.engine.handle(Event::Message(&said(&own, first)), now);
        world
            .engine
            .handle(Event::Message(&said("other", 1_000)), now);
    }
    assert_eq!(held_places(&world.engine), None);
    world.connect();
    world.run(100);
    let places = held_places(&world.engine).unwrap();
    let expected = (16..16 + MAX_HELD_PLACES as u64).map(|line| Stray {
        name: name.clone(),
        cursor: behind(line),
        said_by: SaidBy::Collector {
            is_last: true,
            is_taken: true,
        },
    });
    assert_eq!(places, expected.collect::<Vec<_>>());
    // Its own spool knew less when it began, or as much, or something else.
    let last = behind(15 + MAX_HELD_PLACES as u64);
    let other = Cursor { major: 1, ..last };
    let began = |cursor| {
        let mut began = vec![None; world.settings.sources.len()];
        began[REPLAY] = cursor;
        behind_of(&world.engine, &places, &began)
    };
    assert_eq!(began(None), [REPLAY]);
    assert_eq!(began(Some(behind(17))), [REPLAY]);
    assert!(began(Some(last)).is_empty() && began(Some(other)).is_empty());
}

#[test]
fn a_content_that_cannot_be_known_again_is_not_spoken_of() {
    let mut world = World::new();
    feed(&mut world, 0..30);
    world.connect();
    world.run(6000);
    assert_eq!(
        (world.collector.rows().len(), &*world.collector.portions),
        (30, &[] as &[Portion])
    );
}
