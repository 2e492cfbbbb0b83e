//! Log lines whose payload needs a dictionary.

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod common;

use common::{
    Rig, START_US, bundle, bundle_of, device, flush_all, hello, hello_of, listed, rot_snapshots,
    rows_of,
};
use headwater_collector::pipeline::custody::{MAX_ASKED, Past};
use headwater_collector::pipeline::envelope::SchemaHead;
use headwater_collector::pipeline::schemas::{Bound, MAX_BOUND, MAX_DICTIONARIES_BYTES};
use headwater_lake::{MemStore, Table, scan};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{DeviceId, Epoch};
use headwater_proto::message::SchemaRequest;
use headwater_proto::schema::{Column, ColumnKind, Schema};
use headwater_proto::text::{MAX_HEADER_BYTES, TextHeader, refer, write_line};
use headwater_proto::varint;
use sha2::{Digest as _, Sha256};

/// Number of the dictionary in its epoch.
const NUMBER: u32 = 4;

fn message(n: u32) -> String {
    format!("valve {} of pump {n} does not close, trying again", n % 7)
}

fn dictionary() -> Vec<u8> {
    let lines: Vec<String> = (0..2_000).map(message).collect();
    zstd::dict::from_samples(&lines, 4096).unwrap()
}

fn reference(dictionary: &[u8]) -> Vec<u8> {
    refer(&Sha256::digest(dictionary).into()).to_vec()
}

fn schema_frame(bytes: &[u8]) -> Vec<u8> {
    numbered_frame(NUMBER, bytes)
}

fn numbered_frame(number: u32, bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut len) = (vec![0; varint::MAX_VARINT_BYTES], 0);
    varint::put(&mut out, &mut len, number.into()).unwrap();
    out.truncate(len);
    out.extend_from_slice(bytes);
    out
}

/// Two lines, compressed with `dictionary`.
fn text(dictionary: &[u8]) -> Vec<u8> {
    numbered_text(NUMBER, dictionary)
}

fn numbered_text(number: u32, dictionary: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 1024];
    let mut len = 0;
    for n in [8, 9] {
        len += write_line(START_US, START_US, message(n).as_bytes(), &mut body[len..]).unwrap();
    }
    body.truncate(len);
    let header = TextHeader {
        dictionary: Some(number),
        lines: 2,
        first_time_us: START_US,
        last_time_us: START_US,
        name: "pumps",
        body_bytes: body.len(),
    };
    let mut out = vec![0; MAX_HEADER_BYTES];
    let len = header.write(&mut out).unwrap();
    out.truncate(len);
    let mut zstd = zstd::bulk::Compressor::with_dictionary(3, dictionary).unwrap();
    out.extend(zstd.compress(&body).unwrap());
    out
}

fn lines(store: &MemStore) -> Vec<String> {
    let mut lines = Vec::new();
    scan::messages(store, |message| lines.push(message.to_owned())).unwrap();
    lines
}

fn greeted() -> Rig {
    let mut rig = Rig::new();
    rig.connect("dev");
    rig.up(hello(&[listed(1, 0, 9)]), 0);
    assert!(rig.sync());
    rig.sent.clear();
    rig
}

#[test]
fn a_dictionary_that_nobody_has_sent_is_asked_for_and_its_lines_not_taken_before() {
    let mut rig = greeted();
    let dictionary = dictionary();
    let frames = [
        (Kind::Schema, schema_frame(&reference(&dictionary))),
        (Kind::Text, text(&dictionary)),
    ];
    let lonely = bundle_of(&device(), 1, 0, &frames);
    rig.up(lonely.clone(), 1);
    rig.sync();
    let asked: Vec<SchemaRequest> = rig.messages();
    assert_eq!((asked.len(), asked[0].schema), (1, NUMBER));
    assert_eq!(rig.mark(1).unwrap().received, 0);
    let answer = [(Kind::Schema, schema_frame(&dictionary))];
    rig.up(bundle_of(&device(), 1, 0, &answer), 2);
    rig.up(lonely, 3);
    rig.sync();
    assert_eq!(rig.mark(1).unwrap().received, 1);
    rig.flush().unwrap();
    assert_eq!(lines(&rig.store), [message(8), message(9)]);
    assert!(rig.audit().totals.is_good());
}

#[test]
fn a_line_whose_time_is_no_date_keeps_it_beside_that_of_its_receipt() {
    let mut rig = greeted();
    let mut body = vec![0; 64];
    let mut len = write_line(-5, -5, b"early", &mut body).unwrap();
    len += write_line(START_US, -5, b"right", &mut body[len..]).unwrap();
    body.truncate(len);
    let header = TextHeader {
        dictionary: None,
        lines: 2,
        first_time_us: -5,
        last_time_us: START_US,
        name: "pumps",
        body_bytes: body.len(),
    };
    let mut payload = vec![0; MAX_HEADER_BYTES];
    let len = header.write(&mut payload).unwrap();
    payload.truncate(len);
    payload.extend(zstd::bulk::compress(&body, 3).unwrap());
    rig.up(bundle_of(&device(), 1, 0, &[(Kind::Text, payload)]), 1);
    rig.sync();
    rig.flush().unwrap();
    let rows = rows_of(&rig.store, Table::Logs);
    let cells = rows.iter().map(|row| {
        let cell = |name: &str| row.get(name).map_or("", |text| text);
        [
            cell("message"),
            cell("ts"),
            cell("told_us"),
            cell("time_class"),
        ]
        .map(str::to_owned)
    });
    let receipt = rig.now().wall.0.to_string();
    let expected = [
        ["early", &receipt, "-5", "received"],
        ["right", &START_US.to_string(), "", "synced"],
    ];
    assert_eq!(
        cells.collect::<Vec<_>>(),
        expected.map(|row| row.map(str::to_owned))
    );
}

/// Devices that name one dictionary by its SHA-256 after the first has sent it.
const FLEET: u64 = 40;

#[test]
fn a_fleet_sends_its_dictionary_once_and_a_segment_of_the_journal_holds_it_once() {
    let mut rig = Rig::new();
    let dictionary = dictionary();
    let bytes_before = rig.custody.log().used_bytes();
    let mut segments = rig.custody.log().segments().count();
    let mut rolled = 0;
    for n in 0..FLEET {
        let id = DeviceId::new(&format!("pump-{n}")).unwrap();
        rig.connect(id.as_str());
        rig.up_for(&id, hello_of(&id, &[listed(1, 0, 1)]), 0);
        assert!(rig.sync());
        let said = if n == 0 {
            schema_frame(&dictionary)
        } else {
            schema_frame(&reference(&dictionary))
        };
        let frames = [(Kind::Schema, said), (Kind::Text, text(&dictionary))];
        rig.up_for(&id, bundle_of(&id, 1, 0, &frames), n);
        assert!(rig.sync());
        let now = rig.custody.log().segments().count();
        rolled += usize::from(now > segments);
        segments = now;
        if n == FLEET / 2 {
            // What the lake has leaves the journal, the device's record that brought it among them.
            flush_all(&mut rig);
            segments = rig.custody.log().segments().count();
        }
    }
    assert_eq!(rig.messages::<SchemaRequest>(), []);
    assert!(rolled > 1, "the journal is on its first segment");
    let grown = rig.custody.log().used_bytes() - bytes_before;
    let each = dictionary.len() as u64 * FLEET;
    assert!(
        grown < each,
        "{grown} bytes of journal, {each} of dictionaries alone"
    );
    // Without its snapshots each segment still says what its numbers mean.
    let (disk, store, done) = (rig.disk.power_cut(1), rig.store.clone(), rig.done.clone());
    rot_snapshots(&disk);
    let mut rig = Rig::start_with(disk, store, done, common::settings(), rig.ms).unwrap();
    assert_eq!(rig.past, Past::Records);
    rig.flush().unwrap();
    assert_eq!(lines(&rig.store).len() as u64, 2 * FLEET);
    assert!(rig.audit().totals.is_good());
}

#[test]
fn lines_are_read_after_a_restart_that_has_the_journal_alone() {
    let mut rig = greeted();
    let dictionary = dictionary();
    let frames = [
        (Kind::Schema, schema_frame(&dictionary)),
        (Kind::Text, text(&dictionary)),
    ];
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    assert!(rig.sync());
    let (disk, store, done) = (rig.disk.power_cut(1), rig.store.clone(), rig.done.clone());
    let mut rig = Rig::start_with(disk, store, done, common::settings(), rig.ms).unwrap();
    rig.flush().unwrap();
    assert_eq!(lines(&rig.store), [message(8), message(9)]);
}

#[test]
fn lines_whose_dictionary_zstd_does_not_take_are_refused_for_good() {
    let mut rig = greeted();
    let dictionary = dictionary();
    let cut = [
        (Kind::Schema, schema_frame(&dictionary[..24])),
        (Kind::Text, text(&dictionary)),
    ];
    rig.up(bundle_of(&device(), 1, 0, &cut), 1);
    rig.sync();
    assert_eq!(rig.custody.counters().malformed_total, 1);
    assert_eq!(rig.mark(1).unwrap().received, 0);
    let rejects = rig.rejects();
    assert_eq!(rejects.len(), 1);
    assert!(rejects[0].reason.is_final());
    assert_eq!(rig.messages::<SchemaRequest>(), []);
}

#[test]
fn a_dictionary_beyond_their_room_lets_older_ones_go_and_no_schema() {
    let mut rig = greeted();
    let room = MAX_DICTIONARIES_BYTES;
    let book = rig.custody.schemas().clone();
    let head = |number| SchemaHead {
        origin: device(),
        epoch: Epoch::new(1),
        number,
    };
    let mut whole = dictionary();
    let mut number = 100u32;
    // zstd takes any content behind the tables of a dictionary.
    while (number as usize - 100 + 1) * whole.len() <= room {
        let end = whole.len() - 4;
        whole[end..].copy_from_slice(&number.to_le_bytes());
        assert_eq!(book.judge(&head(number), &whole), Bound::New);
        assert!(book.bind(&head(number), &whole));
        number += 1;
    }
    let end = whole.len() - 4;
    whole[end..].copy_from_slice(&number.to_le_bytes());
    book.synced();
    rig.up(bundle(1, 0, 1), 1);
    assert_eq!(book.judge(&head(number), &whole), Bound::Full);
    let frames = [(Kind::Schema, numbered_frame(number, &whole))];
    rig.up(bundle_of(&device(), 1, 1, &frames), 2);
    assert!(rig.sync());
    assert_eq!(rig.mark(1).unwrap().received, 1);
    assert!(book.knows(&head(number)) && book.knows(&head(number - 1)));
    assert!(!book.knows(&head(100)) && book.knows(&head(0)));
}

/// A gateway that has said hello for two nodes.
fn gateway_with_two_nodes() -> (Rig, DeviceId, [DeviceId; 2]) {
    let mut rig = Rig::new();
    let gateway = DeviceId::new("gw").unwrap();
    rig.connect("gw");
    let nodes = ["node-1", "node-2"].map(|name| DeviceId::new(name).unwrap());
    for node in &nodes {
        rig.up_for(&gateway, hello_of(node, &[listed(1, 0, 1)]), 0);
    }
    assert!(rig.sync());
    (rig, gateway, nodes)
}

#[test]
fn a_dictionary_that_came_from_another_device_meanwhile_is_not_asked_for() {
    let (mut rig, gateway, nodes) = gateway_with_two_nodes();
    let dictionary = dictionary();
    let said = [
        (Kind::Schema, schema_frame(&reference(&dictionary))),
        (Kind::Schema, schema_frame(&dictionary)),
        (Kind::Text, text(&dictionary)),
    ];
    rig.up_for(&gateway, bundle_of(&nodes[0], 1, 0, &said[..1]), 1);
    rig.up_for(&gateway, bundle_of(&nodes[1], 1, 0, &said[1..2]), 2);
    rig.up_for(&gateway, bundle_of(&nodes[0], 1, 0, &said[2..]), 3);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>(), []);
    rig.flush().unwrap();
    assert_eq!(lines(&rig.store), [message(8), message(9)]);
}

#[test]
fn a_dictionary_that_leaves_to_make_room_for_its_own_reference_is_remembered_as_referred_to() {
    let (mut rig, gateway, nodes) = gateway_with_two_nodes();
    let dictionary = dictionary();
    let book = rig.custody.schemas().clone();
    let head = |number| SchemaHead {
        origin: DeviceId::new("greedy").unwrap(),
        epoch: Epoch::new(1),
        number,
    };
    assert!(book.bind(&head(0), &dictionary));
    let mut columns = Vec::new();
    let schema = Schema::new(1, vec![Column::new("t", ColumnKind::F64)]);
    schema.encode(&mut columns).unwrap();
    for number in 1..u32::try_from(MAX_BOUND).unwrap() {
        assert!(book.bind(&head(number), &columns));
    }
    book.synced();
    let said = [
        (Kind::Schema, schema_frame(&reference(&dictionary))),
        (Kind::Schema, schema_frame(&dictionary)),
        (Kind::Text, text(&dictionary)),
    ];
    rig.up_for(&gateway, bundle_of(&nodes[0], 1, 0, &said[..1]), 1);
    assert!(!book.knows(&head(0)));
    rig.up_for(&gateway, bundle_of(&nodes[1], 1, 0, &said[1..2]), 2);
    rig.up_for(&gateway, bundle_of(&nodes[0], 1, 0, &said[2..]), 3);
    assert!(rig.sync());
    assert_eq!(rig.messages::<SchemaRequest>(), []);
    rig.flush().unwrap();
    assert_eq!(lines(&rig.store), [message(8), message(9)]);
}

#[test]
fn beyond_the_references_that_are_remembered_a_dictionary_is_asked_for() {
    let mut rig = Rig::new();
    let dictionary = dictionary();
    let gateway = DeviceId::new("gw").unwrap();
    rig.connect("gw");
    let nodes = ["node-1", "node-2"].map(|name| DeviceId::new(name).unwrap());
    for node in &nodes {
        rig.up_for(&gateway, hello_of(node, &[listed(1, 0, 9)]), 0);
    }
    let last = u32::try_from(MAX_ASKED).unwrap();
    for number in 1..=last + 1 {
        let told = numbered_frame(number, &reference(&dictionary));
        let said = bundle_of(&nodes[0], 1, 0, &[(Kind::Schema, told)]);
        rig.up_for(&gateway, said, 1);
    }
    let whole = [(Kind::Schema, schema_frame(&dictionary))];
    rig.up_for(&gateway, bundle_of(&nodes[1], 1, 0, &whole), 2);
    assert!(rig.sync());
    let mut asked_for = |number| {
        let lines = [(Kind::Text, numbered_text(number, &dictionary))];
        let seq = u64::from(number == last + 1);
        rig.sent.clear();
        rig.up_for(&gateway, bundle_of(&nodes[0], 1, seq, &lines), 3);
        assert!(rig.sync());
        let asked: Vec<SchemaRequest> = rig.messages();
        let asked: Vec<u32> = asked.iter().map(|request| request.schema).collect();
        (asked, rig.mark(1).unwrap().received)
    };
    assert_eq!(asked_for(last), (vec![], 1));
    assert_eq!(asked_for(last + 1), (vec![last + 1], 1));
}

#[test]
fn lines_of_dictionaries_that_were_not_taken_are_refused_for_good_however_many_there_are() {
    let mut rig = greeted();
    let dictionary = dictionary();
    let last = u32::try_from(MAX_ASKED).unwrap();
    let refused = |rig: &mut Rig, number, told: &[u8]| {
        rig.sent.clear();
        let mut said = vec![(Kind::Text, numbered_text(number, &dictionary))];
        if !told.is_empty() {
            said.insert(0, (Kind::Schema, numbered_frame(number, told)));
        }
        rig.up(bundle_of(&device(), 1, 0, &said), 1);
        assert!(rig.sync());
        let is_final = rig.rejects().iter().any(|reject| reject.reason.is_final());
        (is_final, rig.messages::<SchemaRequest>().len())
    };
    let damaged = &dictionary[..24];
    for number in 1..=last {
        assert_eq!(refused(&mut rig, number, damaged), (true, 0));
    }
    assert_eq!(refused(&mut rig, 1, &[]), (true, 0));
    // One more: those before are forgotten, asked for again and refused again.
    assert_eq!(refused(&mut rig, last + 1, damaged), (true, 0));
    assert_eq!(refused(&mut rig, last + 1, &[]), (true, 0));
    assert_eq!(refused(&mut rig, 1, &[]), (false, 1));
    assert_eq!(refused(&mut rig, 1, damaged), (true, 0));
}

#[test]
fn a_reference_to_a_schema_of_columns_binds_nothing() {
    let mut rig = greeted();
    rig.up(bundle(1, 0, 1), 1);
    let mut columns = Vec::new();
    common::schema().encode(&mut columns).unwrap();
    let said = [(Kind::Schema, schema_frame(&reference(&columns)))];
    rig.up(bundle_of(&device(), 1, 1, &said), 2);
    rig.sync();
    assert_eq!(rig.custody.counters().malformed_total, 1);
    let head = SchemaHead {
        origin: device(),
        epoch: Epoch::new(1),
        number: NUMBER,
    };
    assert!(!rig.custody.schemas().knows(&head));
}

#[test]
fn lines_that_name_the_schema_of_columns_go_to_quarantine_with_a_gap() {
    let mut rig = greeted();
    let mut columns = Vec::new();
    common::schema().encode(&mut columns).unwrap();
    let frames = [
        (Kind::Schema, schema_frame(&columns)),
        (Kind::Text, text(&dictionary())),
    ];
    rig.up(bundle_of(&device(), 1, 0, &frames), 1);
    rig.sync();
    rig.flush().unwrap();
    assert!(lines(&rig.store).is_empty());
    assert!(rig.audit().totals.is_good());
    assert_eq!(rig.sink.counters().quarantined, 1);
}
