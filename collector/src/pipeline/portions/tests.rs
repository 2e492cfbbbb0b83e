//! Portions that come in any order, again, cut anew, of several lives and contents; and what gives way.

use super::*;

fn device(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

/// A place in a content; its tag is of that content.
fn at(minor: u64, content: u64) -> Cursor {
    Cursor {
        major: 0,
        minor,
        tag: content << 32 | minor,
    }
}

fn portion(from: Option<Cursor>, to: Cursor) -> Portion {
    Portion {
        source: "log".parse().unwrap(),
        from,
        to,
    }
}

fn of(content: u64, from: u64, to: u64) -> Portion {
    portion((from > 0).then(|| at(from, content)), at(to, content))
}

fn head(origin: &DeviceId, epoch: Epoch, portion: &Portion) -> PortionHead {
    PortionHead {
        origin: origin.clone(),
        epoch,
        portion: portion.clone(),
    }
}

fn held(portions: &Portions, name: &str) -> Vec<Cursor> {
    let device = device(name);
    let places = portions.places(&device);
    places.map(|place| place.cursor).collect()
}

const LIFE: Epoch = Epoch::new(1);
const NEXT: Epoch = Epoch::new(2);

#[test]
fn what_is_told_has_no_hole_whatever_comes_first() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 20, 30)));
    assert_eq!(held(&portions, "d"), []);
    portions.take(&head(&d, LIFE, &of(1, 0, 10)));
    assert_eq!(held(&portions, "d"), [at(10, 1)]);
    assert!(!portions.knows(&head(&d, LIFE, &of(1, 10, 20))));
    portions.take(&head(&d, LIFE, &of(1, 10, 20)));
    assert_eq!(held(&portions, "d"), [at(30, 1)]);
    assert!(portions.knows(&head(&d, LIFE, &of(1, 10, 20))));
    assert_eq!(held(&portions, "e"), []);
}

#[test]
fn a_bundle_that_was_cut_anew_fills_the_hole_that_its_first_cut_left() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 10)));
    portions.take(&head(&d, LIFE, &of(1, 30, 40)));
    portions.take(&head(&d, LIFE, &of(1, 5, 35)));
    assert_eq!(held(&portions, "d"), [at(40, 1)]);
}

#[test]
fn a_later_life_goes_on_only_where_an_earlier_one_ended() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 10)));
    // Nobody knows whether the rows up to 8 are those that the first life gave.
    portions.take(&head(&d, NEXT, &of(1, 8, 20)));
    assert_eq!(held(&portions, "d"), [at(10, 1)]);
    portions.take(&head(&d, NEXT, &of(1, 10, 12)));
    assert_eq!(held(&portions, "d"), [at(20, 1)]);
}

#[test]
fn another_content_under_the_same_name_is_told_apart() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 50)));
    portions.take(&head(&d, NEXT, &of(2, 0, 10)));
    portions.take(&head(&d, NEXT, &of(2, 10, 60)));
    assert_eq!(held(&portions, "d"), [at(50, 1), at(60, 2)]);
}

#[test]
fn a_source_that_was_renamed_goes_on_in_the_same_content() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 50)));
    let renamed = Portion {
        source: "new".parse().unwrap(),
        ..of(1, 50, 60)
    };
    portions.take(&head(&d, NEXT, &renamed));
    let places: Vec<_> = portions.places(&d).collect();
    assert_eq!((places.len(), &*places[0].source), (1, "new"));
    assert_eq!(places[0].cursor, at(60, 1));
}

#[test]
fn a_group_that_failed_held_nothing() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 10)));
    portions.synced();
    let before = (portions.devices.clone(), portions.bytes);
    portions.take(&head(&d, LIFE, &of(1, 10, 20)));
    portions.take(&head(&device("e"), LIFE, &of(1, 0, 20)));
    portions.roll_back();
    assert_eq!((portions.devices.clone(), portions.bytes), before);
    assert_eq!(held(&portions, "d"), [at(10, 1)]);
}

#[test]
fn the_oldest_pieces_of_a_device_give_way_at_its_bound_and_epochs_of_a_piece_too() {
    let mut portions = Portions::default();
    let d = device("d");
    for content in 0..=MAX_PIECES as u64 {
        portions.take(&head(&d, Epoch::new(content), &of(content, 0, 5)));
    }
    assert_eq!(
        (held(&portions, "d").len(), portions.left()),
        (MAX_PIECES, 1)
    );
    assert!(!held(&portions, "d").contains(&at(5, 0)));
    for life in 0..=MAX_PIECE_EPOCHS as u64 {
        portions.take(&head(
            &d,
            Epoch::new(100 + life),
            &of(9, 5 + life, 6 + life),
        ));
    }
    let epochs = |piece: &Piece| piece.epochs.len();
    let most = portions.devices[&d].pieces.iter().map(epochs).max();
    assert_eq!(most, Some(MAX_PIECE_EPOCHS));
}

#[test]
fn beyond_the_bound_of_all_the_device_that_has_most_gives_way_and_then_the_one_heard_of_longest_ago()
 {
    let mut portions = Portions::default();
    for content in 0..3 {
        portions.take(&head(
            &device("crowd"),
            Epoch::new(content),
            &of(content, 0, 5),
        ));
    }
    let mut number = 0;
    while portions.left() < 3 {
        let id = device(&format!("n{number}"));
        portions.take(&head(&id, LIFE, &of(1, 0, 5)));
        number += 1;
    }
    assert!(portions.bytes <= MAX_PORTION_BYTES);
    // Two of the crowd's, and then its last, of which nothing was heard since.
    assert_eq!(held(&portions, "crowd"), []);
    assert_eq!(held(&portions, "n0"), [at(5, 1)]);
    let longest = Cursor {
        major: u64::MAX,
        minor: u64::MAX,
        tag: u64::MAX,
    };
    let name = "x".repeat(headwater_proto::portion::MAX_SOURCE_BYTES);
    let piece = Piece {
        source: name.parse().unwrap(),
        from: Some(longest),
        to: longest,
        epochs: vec![Epoch::new(u64::MAX >> 1); MAX_PIECE_EPOCHS],
    };
    assert!(postcard::to_allocvec(&piece).unwrap().len() <= piece.bytes());
    let all = postcard::to_allocvec(&portions.all()).unwrap();
    assert!(all.len() <= MAX_PORTION_BYTES);
    let again = Portions::restore(postcard::from_bytes(&all).unwrap());
    assert_eq!((again.bytes, again.all()), (portions.bytes, portions.all()));
}

#[test]
fn behind_a_hole_a_place_is_not_the_last_and_what_is_lost_is_held_no_more() {
    let mut portions = Portions::default();
    let d = device("d");
    portions.take(&head(&d, LIFE, &of(1, 0, 10)));
    portions.take(&head(&d, LIFE, &of(1, 20, 30)));
    portions.take(&head(&d, NEXT, &of(2, 0, 40)));
    let said = |portions: &Portions| {
        let places = portions.places(&d);
        places.map(|it| (it.cursor, it.is_last)).collect::<Vec<_>>()
    };
    assert_eq!(said(&portions), [(at(10, 1), false), (at(40, 2), true)]);
    let lost = |name: &str, epoch| Stream {
        device: device(name),
        lane: headwater_proto::ids::Lane::Bulk,
        epoch,
    };
    portions.doubt(&lost("e", LIFE));
    portions.doubt(&lost("d", Epoch::new(9)));
    assert_eq!(said(&portions).len(), 2);
    portions.doubt(&lost("d", LIFE));
    assert_eq!(said(&portions), [(at(40, 2), true)]);
    portions.doubt(&lost("d", NEXT));
    assert_eq!((said(&portions), portions.bytes), (Vec::new(), 0));
}

#[test]
fn sources_of_one_device_are_kept_apart_also_where_their_places_look_alike() {
    let mut portions = Portions::default();
    let d = device("d");
    let other = |from, to| Portion {
        source: "other".parse().unwrap(),
        ..of(1, from, to)
    };
    portions.take(&head(&d, LIFE, &of(1, 0, 50)));
    portions.take(&head(&d, LIFE, &other(0, 20)));
    // What lies between has not come.
    portions.take(&head(&d, LIFE, &other(50, 60)));
    let mut places: Vec<_> = portions.places(&d).collect();
    places.sort_by_key(|place| place.cursor.minor);
    let held: Vec<_> = places
        .iter()
        .map(|place| (&*place.source, place.cursor))
        .collect();
    assert_eq!(held, [("other", at(20, 1)), ("log", at(50, 1))]);
}
