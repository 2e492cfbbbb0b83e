//! Frames, bundles, messages, log lines and topics: the wire around batches.

use std::cell::RefCell;

use headwater_agent::pipeline::engine::{Engine, Event, Settings};
use headwater_proto::bundle::{Bundle, BundleHead, BundleWriter, Stamps};
use headwater_proto::delivery::receiver::{MAX_RANGES, Namer};
use headwater_proto::delivery::snapshot::MAX_SNAPSHOT_BYTES;
use headwater_proto::delivery::{End, Receiver};
use headwater_proto::frame::{self, Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{
    self, Ack, Body, EpochEnd, Gap, Hello, HelloStream, MAX_MESSAGE_BYTES, Reject, SchemaRequest,
    Stat, TimeBase, Welcome,
};
use headwater_proto::portion::{Held, Portion};
use headwater_proto::refused;
use headwater_proto::serial;
use headwater_proto::text::{Lines, MAX_HEADER_BYTES, TextHeader};
use headwater_proto::time::{Base, Millis, Now, UnixMicros};
use headwater_proto::topic::Topic;
use headwater_spool::FakeDisk;

use crate::heap::within;
use crate::mend;
use crate::seeds::{from_hex, prefixed};

thread_local! {
    static IN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Frames back to back, as they are and with their checksums mended: what decodes is written to the
/// same bytes, but for a length of more digits than it needs. Takes nothing from the heap.
pub fn frame(bytes: &[u8]) {
    walk_frames(bytes);
    IN.with_borrow_mut(|mended| {
        bytes.clone_into(mended);
        mend::frames(mended);
        walk_frames(mended);
    });
}

fn walk_frames(bytes: &[u8]) {
    within(0, || {
        let mut at = 0;
        for (frame, whole) in Frames::new(bytes).map_while(Result::ok) {
            assert_eq!(*whole, bytes[at..at + whole.len()]);
            at += whole.len();
            let mut again = [0; 256];
            if let Ok(len) = frame::encode(frame.kind, frame.payload, &mut again) {
                let (second, used) = frame::decode(&again[..len]).expect("what was written");
                assert_eq!((second.kind, second.payload), (frame.kind, frame.payload));
                assert!(used == len && len <= whole.len());
                assert!(len < whole.len() || second.crc == frame.crc);
            }
        }
    });
}

/// A publish of records. The first byte says whether its checksums and its count are mended. One
/// that opens is written anew and opens as the same; opening takes nothing from the heap.
pub fn bundle(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    IN.with_borrow_mut(|mended| {
        bytes.clone_into(mended);
        if choice & 1 != 0 {
            let count = mend::frames(mended);
            if choice & 2 != 0 {
                mend::bundle_count(mended, count);
            }
        }
        assert!(mended.len() < 2 || Bundle::is_bundle(mended) == (mended[1] == 8));
        let Ok(bundle) = within(0, || Bundle::open(mended)) else {
            return;
        };
        OUT.with_borrow_mut(|out| {
            out.clear();
            out.resize(mended.len() + 16, 0);
            let mut writer = BundleWriter::new(bundle.head.clone(), out).expect("the head fits");
            let mut next = bundle.head.first;
            for record in bundle.records() {
                assert_eq!(record.seq.is_some(), record.frame.kind.is_numbered());
                assert!(record.seq.is_none_or(|seq| seq == next));
                next += u64::from(record.seq.is_some());
                writer
                    .push_frame(record.frame.kind, record.bytes)
                    .expect("it came out of a bundle");
            }
            assert_eq!(writer.count(), bundle.count);
            let len = writer.finish();
            let again = Bundle::open(&out[..len]).expect("what was written");
            assert_eq!((&again.head, again.count), (&bundle.head, bundle.count));
            assert!(again.records().eq(bundle.records()));
        });
    });
}

/// Every control message, up and down; the first byte says which. What decodes is written, with its
/// seal, to bytes that decode to the same and are written so again.
pub fn message(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else {
        return;
    };
    match choice % 12 {
        0 => one_message::<Hello>(bytes),
        1 => one_message::<Stat>(bytes),
        2 => one_message::<Gap>(bytes),
        3 => one_message::<EpochEnd>(bytes),
        4 => one_message::<Welcome>(bytes),
        5 => one_message::<Ack>(bytes),
        6 => one_message::<Reject>(bytes),
        7 => one_message::<SchemaRequest>(bytes),
        8 => one_message::<TimeBase>(bytes),
        9 => one_message::<Portion>(bytes),
        10 => one_message::<Held>(bytes),
        _ => refused_parts(bytes),
    }
}

/// Refused parts that are read are written to the same parts; reading takes nothing from the heap.
fn refused_parts(bytes: &[u8]) {
    let Some(read) = within(0, || refused::Refused::decode(bytes)) else {
        return;
    };
    let parts: Vec<_> = read.parts().collect();
    assert_eq!(parts.len(), read.count as usize);
    let written = refused::to_vec(read.source, &parts).expect("it came out of a record");
    let again = refused::Refused::decode(&written).expect("what was written");
    assert!(again.parts().eq(read.parts()) && again.source == read.source);
    assert_eq!(again.span_us(), read.span_us());
}

fn one_message<M: Body + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let read = within(0, || message::decode_sealed::<M>(bytes));
    let Ok((message, seal, _)) = read else {
        return;
    };
    let mut out = [0; MAX_MESSAGE_BYTES];
    let len = message::encode_sealed(&message, seal.as_ref(), &mut out)
        .expect("MAX_MESSAGE_BYTES holds every message");
    assert!(frame::encoded_len(len) <= MAX_MESSAGE_BYTES);
    let (again, same_seal, _) = message::decode_sealed::<M>(&out[..len]).expect("what was written");
    assert_eq!((&again, same_seal), (&message, seal));
    let mut second = [0; MAX_MESSAGE_BYTES];
    let len_again = message::encode_sealed(&again, seal.as_ref(), &mut second);
    assert_eq!((len_again, second), (Ok(len), out));
}

/// Log lines: a header that is read is written to the same; lines lie within their body.
pub fn text(bytes: &[u8]) {
    let Some((header, body)) = TextHeader::read(bytes) else {
        return;
    };
    let mut out = [0; MAX_HEADER_BYTES];
    let len = header.write(&mut out).expect("its bounds were checked");
    assert_eq!(TextHeader::read(&out[..len]), Some((header, [].as_slice())));
    let mut lines = Lines::new(body, header.first_time_us);
    let read: usize = lines.by_ref().map(|(_, line)| line.len()).sum();
    assert!(read <= body.len());
}

/// A topic that is read is written to the same text.
pub fn topic(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(topic) = Topic::parse(text) {
        assert_eq!(topic.text(), text);
    }
}

/// A serial line. The first byte is the size of the largest packet: none is larger, what is read is written
/// as a packet that reads as the same, and behind any bytes the next whole packet is found. Takes nothing
/// from the heap.
pub fn serial(input: &[u8]) {
    let Some((&most, line)) = input.split_first() else {
        return;
    };
    let most = usize::from(most);
    let mut buffer = [0; 255];
    let mut decoder = serial::Decoder::new(&mut buffer[..most]);
    within(0, || {
        for byte in line {
            if let serial::Read::Packet(packet) = decoder.push(*byte) {
                assert!(packet.len() <= most);
                let mut again = [0; serial::max_encoded(255)];
                let len = serial::encode(packet, &mut again).expect("there is room");
                let ends = again[..len].iter().filter(|byte| **byte == serial::END);
                assert_eq!((ends.count(), again[len - 1]), (1, serial::END));
                let mut second = serial::Decoder::new([0; 255]);
                for byte in &again[..len - 1] {
                    assert_eq!(second.push(*byte), serial::Read::More);
                }
                assert_eq!(second.push(serial::END), serial::Read::Packet(packet));
            }
        }
        decoder.push(serial::END);
        assert!(!decoder.is_inside());
    });
}

/// Packets of a node, as they are and with their checksums mended, to an agent that has heard its Hello: it
/// stays whole, and answers in frames.
pub fn node_packet(bytes: &[u8]) {
    let mut engine = nodes_agent();
    let now = |ms| Now {
        mono: Millis(ms),
        wall: UnixMicros(1_700_000_000_000_000),
    };
    let mut mended = bytes.to_vec();
    mend::frames(&mut mended);
    let hello = node_hello();
    for (ms, packet) in [&hello[..], bytes, &mended[..], &hello[..]]
        .iter()
        .enumerate()
    {
        engine.nodes(now(ms as u64)).packet(1, &|_| true, packet);
        engine.handle(Event::Tick, now(ms as u64 + 100));
    }
    let answers = engine.nodes(now(9)).take_answers();
    assert!(!answers.is_empty(), "the Hello is answered");
    for (way, answer) in answers {
        assert_eq!(way, 1);
        assert!(Frames::new(&answer).all(|frame| frame.is_ok()));
    }
}

fn nodes_agent() -> Engine<FakeDisk> {
    let mut settings = Settings::new(DeviceId::new("gw").expect("an id"));
    let spool = &mut settings.spool;
    spool.lane_bytes = [1 << 16; 3];
    (spool.segment_bytes, spool.nodes_bytes) = (4096, 1 << 16);
    (spool.fs_reserve_percent, spool.fs_reserve_bytes) = (0, 0);
    let mut draws = 0;
    let mut entropy = || {
        draws += 1;
        draws
    };
    let now = Now {
        mono: Millis(0),
        wall: UnixMicros(1_700_000_000_000_000),
    };
    Engine::open(FakeDisk::new(), settings, &mut entropy, now).expect("an empty disk")
}

fn node_hello() -> Vec<u8> {
    let stream = HelloStream {
        lane: Lane::Normal,
        epoch: Epoch::new(7),
        oldest: 0,
        next: 3,
        ram: false,
        ended: false,
        boot: 1,
        base: Base::Wall,
    };
    let hello: Hello = Hello {
        version_min: message::PROTOCOL,
        version_max: message::PROTOCOL,
        origin: DeviceId::new("node-7").expect("an id"),
        nonce: 9,
        page: 0,
        pages: 1,
        complete: true,
        boot: 1,
        uptime_ms: 5,
        wall: None,
        max_bundle: 256,
        streams: [stream].into_iter().collect(),
    };
    let mut out = Vec::new();
    message::append_frame(&hello, &mut out);
    out
}

/// A Hello, and a bundle of its stream.
#[must_use]
pub fn node_packet_seeds() -> Vec<Vec<u8>> {
    let head = BundleHead {
        origin: DeviceId::new("node-7").expect("an id"),
        lane: Lane::Normal,
        epoch: Epoch::new(7),
        first: 0,
        ram: false,
        boot: 1,
        base: Base::Wall,
        stamps: Stamps::default(),
        uptime_ms: Some(5),
        wall: None,
    };
    let mut out = [0; 256];
    let mut writer = BundleWriter::new(head, &mut out).expect("there is room");
    for kind in [Kind::Schema, Kind::Refused, Kind::Gap, Kind::EpochEnd] {
        writer.push(kind, b"\x04body").expect("there is room");
    }
    let len = writer.finish();
    vec![node_hello(), out[..len].to_vec()]
}

/// A packet on a line, a cut one, and one with a long run.
#[must_use]
pub fn serial_seeds() -> Vec<Vec<u8>> {
    let line = |packet: &[u8]| {
        let mut line = vec![200];
        serial::append(packet, &mut line);
        line
    };
    let mut cut = line(b"cut in the middle");
    cut.truncate(5);
    cut.push(serial::END);
    cut.extend(&line(b"whole")[1..]);
    vec![line(b"a\0packet\0"), cut, line(&[7; 200])]
}

/// A receiver from a journal's snapshot: written to bytes that give the same receiver, and fit for
/// every record, gap and end that may come. Takes what its ranges can take at most.
pub fn receiver(bytes: &[u8]) {
    // Four sets; one that grows is there twice, and in reserve for as much again.
    let most = 4 * 3 * (MAX_RANGES + 1) * size_of::<SeqRange>();
    let Ok((receiver, used)) = within(most, || Receiver::decode(bytes)) else {
        return;
    };
    let mut out = [0; MAX_SNAPSHOT_BYTES];
    let len = receiver
        .encode(&mut out)
        .expect("MAX_SNAPSHOT_BYTES always suffices");
    assert_eq!(Receiver::decode(&out[..len]), Ok((receiver.clone(), len)));
    use_receiver(receiver, &bytes[used..]);
}

/// What follows the receiver is taken as events, nine bytes each.
fn use_receiver(mut receiver: Receiver, events: &[u8]) {
    let epoch = Epoch::new(7);
    for event in events.chunks_exact(9).take(64) {
        let mut number = [0; 8];
        number.copy_from_slice(&event[1..]);
        let seq = u64::from_le_bytes(number) >> (event[0] >> 3);
        let range = SeqRange::new(seq, seq.saturating_add(u64::from(event[1])));
        match event[0] % 8 {
            0 => drop(receiver.offer(seq, 5)),
            1 => drop(receiver.cover(range, Namer::Sender)),
            2 => drop(receiver.cover(range, Namer::Receiver)),
            3 => receiver.commit(range),
            4 => receiver.commit_all(),
            5 => receiver.synced(),
            6 => receiver.rollback(),
            _ => receiver.end(End {
                first: range.first,
                next: range.next,
                clean: event[1] & 1 != 0,
            }),
        }
        let mark = receiver.mark(Lane::Normal, epoch, 0);
        assert!(mark.committed <= mark.received);
    }
}

const MESSAGES: [(u8, &str); 9] = [
    (0, include_str!("../../../proto/tests/golden/hello.hex")),
    (1, include_str!("../../../proto/tests/golden/stat.hex")),
    (2, include_str!("../../../proto/tests/golden/gap.hex")),
    (3, include_str!("../../../proto/tests/golden/epoch_end.hex")),
    (4, include_str!("../../../proto/tests/golden/welcome.hex")),
    (5, include_str!("../../../proto/tests/golden/ack.hex")),
    (6, include_str!("../../../proto/tests/golden/reject.hex")),
    (
        7,
        include_str!("../../../proto/tests/golden/schema_request.hex"),
    ),
    (8, include_str!("../../../proto/tests/golden/time_base.hex")),
];

/// Frames of the golden messages.
#[must_use]
pub fn frame_seeds() -> Vec<Vec<u8>> {
    let kinds = [
        Kind::Hello,
        Kind::Stat,
        Kind::Gap,
        Kind::EpochEnd,
        Kind::Welcome,
        Kind::Ack,
        Kind::Reject,
        Kind::SchemaRequest,
        Kind::TimeBase,
    ];
    let framed = |(at, hex): &(u8, &str)| {
        let mut out = Vec::new();
        let kind = kinds[usize::from(*at)];
        frame::append(kind, &from_hex(hex), &mut out).expect("a message is short");
        out
    };
    MESSAGES.iter().map(framed).collect()
}

/// The golden messages behind their number.
#[must_use]
pub fn message_seeds() -> Vec<Vec<u8>> {
    let one = |(at, hex): &(u8, &str)| prefixed(&[*at], &from_hex(hex));
    MESSAGES.iter().map(one).collect()
}

/// A bundle of three records and a schema, with and without wall time.
#[must_use]
pub fn bundle_seeds() -> Vec<Vec<u8>> {
    let head = |wall| BundleHead {
        origin: DeviceId::new("pump-7").expect("a plain name"),
        lane: Lane::Normal,
        epoch: Epoch::new(9),
        first: 3,
        ram: false,
        boot: 4,
        base: Base::Wall,
        stamps: Stamps::default(),
        uptime_ms: Some(5_000),
        wall,
    };
    let wall = message::WallClock {
        time: headwater_proto::time::UnixMicros(1_700_000_000_000_000),
        error_ms: Some(20),
    };
    [None, Some(wall)]
        .into_iter()
        .map(|wall| {
            let mut out = [0; 512];
            let mut writer = BundleWriter::new(head(wall), &mut out).expect("there is room");
            let gap = from_hex(MESSAGES[2].1);
            for (kind, payload) in [
                (Kind::Schema, b"schema".as_slice()),
                (Kind::Batch, b"rows"),
                (Kind::Text, b"lines"),
                (Kind::Gap, &gap),
            ] {
                writer.push(kind, payload).expect("there is room");
            }
            let len = writer.finish();
            prefixed(&[3], &out[..len])
        })
        .collect()
}

/// Headers with two lines, with and without a dictionary.
#[must_use]
pub fn text_seeds() -> Vec<Vec<u8>> {
    let header = TextHeader {
        dictionary: None,
        lines: 2,
        first_time_us: 1_700_000_000_000_000,
        last_time_us: 1_700_000_000_000_010,
        name: "syslog",
        body_bytes: 10,
    };
    let seed = |dictionary| {
        let header = TextHeader {
            dictionary,
            ..header
        };
        let mut out = [0; MAX_HEADER_BYTES];
        let len = header.write(&mut out).expect("a short name");
        prefixed(&out[..len], &[0, 2, b'a', b'b', 20, 1, b'c'])
    };
    vec![seed(None), seed(Some(300))]
}

/// A receiver with holes, an end and events after it.
#[must_use]
pub fn receiver_seeds() -> Vec<Vec<u8>> {
    let golden = "0107 030003 04 01 a402 01 01 03 02 01 05 02 01 00 03 00 9003 ac02 09000000";
    let events = "00 0900000000000000 01 0300000000000000 04 0000000000000000";
    vec![
        from_hex(golden),
        prefixed(&from_hex(golden), &from_hex(events)),
    ]
}
