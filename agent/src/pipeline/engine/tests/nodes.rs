//! Nodes behind the agent: what they hear, what is kept of theirs, and what reaches the collector.

mod site;

use headwater_proto::codec::{Encoder, Rows};
use headwater_proto::frame::Kind;
use headwater_proto::ids::{Epoch, Lane, SeqRange, Stream};
use headwater_proto::message::{Gap, GapReason, RejectReason, Stage, TimeBase};
use headwater_proto::sample::Value;
use headwater_proto::schema::{Column, ColumnKind, Schema};
use headwater_proto::time::Base;

use super::super::store::SHARE_PERCENT;
use super::super::{MAX_NODES, NodeCounters};
use site::{Hub, Node, Place, Site, id};

fn ks(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[test]
fn records_of_a_node_reach_the_collector_under_its_identity_and_the_node_forgets_them() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    site.link(true);
    node.connect(site.now());
    node.make(50, 100);
    site.run(3_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(50));
    assert!(node.is_drained() && site.engine.progress().is_drained);
    let hellos = site.hub.hellos.iter();
    let relayed: Vec<_> = hellos.filter(|hello| hello.origin == node.id).collect();
    assert!(
        relayed
            .iter()
            .all(|hello| !hello.complete && hello.boot == 3)
    );
    assert_eq!(site.hub.repeats, 0);
    assert!(node.largest <= 400, "{}", node.largest);
}

#[test]
fn a_node_hears_of_a_record_when_it_is_synced_and_not_before() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    site.talk(&mut [&mut node]);
    node.make(5, 100);
    site.talk(&mut [&mut node]);
    assert_eq!(node.records[&(Lane::Normal, Epoch::new(1))].len(), 5);
    assert_eq!(site.engine.node_report().counters.records, 5);
    // The agent dies before the sync: it heard of nothing.
    site.kill();
    node.disconnect(site.now());
    node.connect(site.now());
    site.run(500, &mut [&mut node]);
    assert!(node.is_drained());
    // From here on the agent answers for them.
    drop(node.records);
    site.kill();
    site.link(true);
    site.run(2_000, &mut []);
    assert_eq!(site.hub.samples(&node.id), ks(5));
}

#[test]
fn a_node_that_repeats_what_is_durable_is_answered_at_once_and_waits_for_no_others_record() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    site.talk(&mut [&mut node]);
    node.make(5, 100);
    let now = site.now();
    let packet = node.next_packet(now).unwrap();
    assert_eq!(site.engine.nodes(now).packet(0, &|_| true, &packet), None);
    // The answer gets lost.
    site.ms += 1_000;
    let now = site.now();
    site.engine.handle(super::super::Event::Tick, now);
    assert_eq!(site.engine.nodes(now).take_answers().len(), 1);
    assert_eq!(site.engine.nodes(now).packet(0, &|_| true, &packet), None);
    let answers = site.engine.nodes(now).take_answers();
    assert_eq!(site.engine.node_report().counters.repeats, 5);
    assert_eq!(answers.len(), 1);
    node.take(&answers[0].1, now);
    site.talk(&mut [&mut node]);
    assert!(node.is_drained());
}

#[test]
fn a_failed_sync_is_never_acknowledged_and_its_records_are_sent_again() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    site.talk(&mut [&mut node]);
    node.make(5, 100);
    site.talk(&mut [&mut node]);
    site.disk.fail_sync(0);
    site.run(100, &mut []);
    assert_eq!(site.engine.counters().failed_syncs, 1);
    assert_eq!(node.records[&(Lane::Normal, Epoch::new(1))].len(), 5);
    site.run(20_000, &mut [&mut node]);
    assert!(node.is_drained());
    site.link(true);
    site.run(2_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(5));
}

#[test]
fn a_full_disk_takes_nothing_of_a_node_and_loses_nothing() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    site.link(true);
    node.connect(site.now());
    site.disk.set_capacity(Some(0));
    node.make(20, 300);
    site.run(5_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(0));
    assert_eq!(node.records[&(Lane::Normal, Epoch::new(1))].len(), 20);
    assert!(
        node.rejected
            .iter()
            .all(|it| it.reason == RejectReason::NotDurable)
    );
    site.disk.set_capacity(None);
    site.run(30_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(20));
    assert!(node.is_drained());
}

#[test]
fn an_agent_that_comes_back_sends_what_it_acknowledged_and_takes_no_record_twice() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    for life in 1..6 {
        node.connect(site.now());
        node.make(40, 200);
        // Killed while bundles and answers are under way.
        site.run(100 * life, &mut [&mut node]);
        node.disconnect(site.now());
        site.kill();
    }
    node.connect(site.now());
    site.link(true);
    site.run(10_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(200));
    assert!(node.is_drained() && site.engine.progress().is_drained);
    assert_eq!(site.hub.repeats, 0);
    assert_eq!(site.engine.node_report().nodes[0].backlog_bytes, 0);
}

#[test]
fn several_lives_of_a_node_travel_under_their_own_epochs_and_end_where_it_says() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    for epoch in 1..12 {
        node.make(10, 100);
        node.begin_epoch(epoch + 1);
        site.run(300, &mut [&mut node]);
    }
    site.link(true);
    site.run(20_000, &mut [&mut node]);
    assert_eq!(site.hub.samples(&node.id), ks(110));
    assert!(site.engine.progress().is_drained);
    let ends = site.hub.bodies::<headwater_proto::message::EpochEnd>();
    let own = ends.iter().filter(|(_, end)| end.origin == node.id);
    assert_eq!(own.count(), 11);
}

#[test]
fn a_schema_is_asked_for_where_the_node_did_not_send_it_and_stands_in_every_segment() {
    let schema = Schema::new(1000, vec![Column::new("n", ColumnKind::I64)]);
    let mut bytes = Vec::new();
    schema.encode(&mut bytes).unwrap();
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.schema = Some((9, bytes.clone()));
    node.sends_schemas = false;
    node.connect(site.now());
    let mut encoder = Encoder::new(&schema);
    for k in 0..200 {
        let mut rows = Rows::new(&schema);
        rows.push_row(1_000_000 * k, 0, &[Some(Value::I64(k))])
            .unwrap();
        let mut coded = Vec::new();
        encoder.encode(9, &rows, &mut coded).unwrap();
        node.put(Kind::Batch, coded);
    }
    site.run(20_000, &mut [&mut node]);
    assert!(
        node.is_drained(),
        "{:?}",
        site.engine.node_report().counters
    );
    // A later life has read them again; an agent that kept no schema in memory would find them too.
    site.kill();
    site.link(true);
    site.run(5_000, &mut []);
    assert_eq!(
        site.hub.schemas[&(node.id.clone(), Epoch::new(1), 9)],
        bytes
    );
    let stream = Stream {
        device: node.id.clone(),
        lane: Lane::Normal,
        epoch: Epoch::new(1),
    };
    assert_eq!(site.hub.streams[&stream].records.len(), 200);
}

#[test]
fn a_node_beyond_its_share_keeps_its_records_and_others_are_taken() {
    let mut site = Site::new();
    let (mut loud, mut quiet) = (Node::new("loud"), Node::new("quiet"));
    loud.connect(site.now());
    quiet.connect(site.now());
    loud.make(2_000, 400);
    quiet.make(20, 400);
    site.run(60_000, &mut [&mut loud, &mut quiet]);
    assert!(quiet.is_drained());
    assert!(!loud.is_drained(), "its share is smaller than its backlog");
    let quota = site.settings.spool.nodes_bytes;
    let held = site.engine.node_report().nodes[0].backlog_bytes;
    assert!(held <= quota / 100 * SHARE_PERCENT, "{held}");
    assert!(held >= quota / 5, "{held}");
    assert_eq!(site.engine.node_report().counters.evicted_records, 0);
    // Nothing is lost once the collector is there.
    site.link(true);
    site.run(120_000, &mut [&mut loud, &mut quiet]);
    assert!(loud.is_drained());
    assert_eq!(site.hub.samples(&loud.id), ks(2_000));
    assert_eq!(site.hub.samples(&quiet.id), ks(20));
    assert_eq!(site.hub.named(&loud.id), 0);
}

#[test]
fn where_more_nodes_come_the_one_beyond_its_share_is_evicted_and_named_and_no_other() {
    let mut site = Site::new();
    let mut first = Node::new("first");
    first.connect(site.now());
    first.make(1_000, 400);
    site.run(30_000, &mut [&mut first]);
    let mut others: Vec<Node> = (0..3).map(|k| Node::new(&format!("later-{k}"))).collect();
    for node in &mut others {
        node.connect(site.now());
        node.make(1_000, 400);
    }
    let mut all: Vec<&mut Node> = std::iter::once(&mut first).chain(&mut others).collect();
    site.run(60_000, &mut all);
    let evicted = site.engine.node_report().counters.evicted_records;
    assert!(evicted > 0, "shares became smaller");
    site.kill();
    site.link(true);
    for node in &mut all {
        let now = site.now();
        node.disconnect(now);
        node.connect(now);
    }
    site.run(200_000, &mut all);
    drop(all);
    assert!(site.engine.progress().is_drained);
    for node in &others {
        assert_eq!(site.hub.samples(&node.id), ks(1_000), "{}", node.id);
        assert_eq!(site.hub.named(&node.id), 0);
    }
    let there = site.hub.samples(&first.id).len() as u64;
    assert_eq!(there + site.hub.named(&first.id), 1_000);
    assert_eq!(site.hub.named(&first.id), evicted);
    let gaps = site.hub.bodies::<Gap>();
    let of_first = gaps.iter().filter(|(_, gap)| gap.origin == first.id);
    for (stream, gap) in of_first {
        assert_eq!((gap.reason, gap.stage), (GapReason::Evicted, Stage::Agent));
        assert_eq!(stream.device, site.settings.device);
        assert!(gap.t_first.is_some());
    }
}

/// What is named as damaged of a node.
fn damaged(site: &Site, node: &Node) -> Vec<SeqRange> {
    let gaps = site.hub.bodies::<Gap>().into_iter();
    let own = gaps.filter(|(_, gap)| gap.origin == node.id && gap.reason == GapReason::Damaged);
    own.map(|(_, gap)| {
        assert_eq!((gap.stage, gap.epoch), (Stage::Agent, Epoch::new(1)));
        gap.seqs.unwrap()
    })
    .collect()
}

#[test]
fn a_record_that_rots_before_a_start_is_named_in_its_nodes_stream_and_no_other_is() {
    // The last one of a segment is not in the snapshot of the next: its neighbours tell of it.
    for place in [Place::First(0), Place::First(4), Place::Last] {
        let count = 400;
        let (mut site, mut node) = (Site::new(), Node::new("node-1"));
        // What the collector has is not here any more, and no loss.
        let mut done = Node::new("done");
        site.link(true);
        done.connect(site.now());
        done.make(30, 300);
        site.run(5_000, &mut [&mut done]);
        site.link(false);
        node.connect(site.now());
        node.make(count, 300);
        site.run(30_000, &mut [&mut node]);
        assert!(node.is_drained(), "the agent answers for all");
        site.rot(&node.id, place);
        site.kill();
        site.link(true);
        site.run(20_000, &mut []);
        let there = site.hub.samples(&node.id);
        assert_eq!(there.len() as u64, count - 1);
        let lost = ks(count).into_iter().find(|k| !there.contains(k)).unwrap();
        assert_eq!(damaged(&site, &node), [SeqRange::new(lost, lost + 1)]);
        assert_eq!(damaged(&site, &done), []);
        assert!(site.engine.progress().is_drained);
        // It stays said, and is not said again.
        site.kill();
        site.link(true);
        site.run(20_000, &mut []);
        assert_eq!(damaged(&site, &node).len(), 1);
        assert!(site.engine.progress().is_drained);
    }
}

#[test]
fn a_record_that_rots_in_a_segment_that_is_moved_is_named_before_the_segment_goes() {
    let mut site = Site::new();
    let (mut first, mut quiet) = (Node::new("first"), Node::new("quiet"));
    first.connect(site.now());
    quiet.connect(site.now());
    quiet.make(5, 100);
    site.run(1_000, &mut [&mut quiet]);
    quiet.disconnect(site.now());
    first.make(1_000, 400);
    site.run(30_000, &mut [&mut first]);
    site.rot(&quiet.id, Place::First(2));
    let mut others: Vec<Node> = (0..3).map(|k| Node::new(&format!("later-{k}"))).collect();
    for node in &mut others {
        node.connect(site.now());
        node.make(1_000, 400);
    }
    let mut all: Vec<&mut Node> = std::iter::once(&mut first).chain(&mut others).collect();
    site.run(60_000, &mut all);
    assert!(site.engine.node_report().counters.evicted_records > 0);
    site.kill();
    site.link(true);
    for node in &mut all {
        let now = site.now();
        node.disconnect(now);
        node.connect(now);
    }
    site.run(200_000, &mut all);
    assert_eq!(site.hub.samples(&quiet.id), [0, 1, 3, 4]);
    assert_eq!(damaged(&site, &quiet), [SeqRange::new(2, 3)]);
    assert!(site.engine.progress().is_drained);
}

#[test]
fn a_node_that_moves_to_another_agent_leaves_nothing_abandoned_and_nothing_double() {
    let (mut one, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(one.now());
    node.make(60, 100);
    one.run(1_000, &mut [&mut node]);
    node.make(60, 100);
    // The first agent has a part when the node leaves, and no way to the collector.
    one.talk(&mut [&mut node]);
    one.run(100, &mut []);
    node.disconnect(one.now());
    let mut two = Site::with(one.settings.clone(), Hub::default());
    two.ms = one.ms;
    node.connect(two.now());
    node.make(60, 100);
    two.link(true);
    two.run(10_000, &mut [&mut node]);
    assert!(node.is_drained());
    let brought = two.hub.samples(&node.id);
    assert!(!brought.is_empty() && brought.len() < 180);
    // The first comes back later, to the same collector.
    one.hub = std::mem::take(&mut two.hub);
    one.ms = two.ms;
    one.link(true);
    one.run(10_000, &mut []);
    assert_eq!(one.hub.samples(&node.id), ks(180));
    assert!(one.engine.progress().is_drained);
    assert_eq!(one.engine.node_report().nodes[0].backlog_bytes, 0);
}

#[test]
fn records_that_come_late_below_a_hole_are_sent_too() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    site.link(true);
    node.connect(site.now());
    site.run(100, &mut [&mut node]);
    node.make(60, 300);
    // Every second bundle gets lost, for long enough that the agent passes the holes.
    for step in 0..800 {
        site.ms += 50;
        let now = site.now();
        let mut turn = 0;
        while let Some(packet) = node.next_packet(now) {
            turn += 1;
            let is_lost = step < 600 && turn % 2 == 0;
            if !is_lost {
                site.engine.nodes(now).packet(0, &|_| true, &packet);
            }
        }
        site.engine.handle(super::super::Event::Tick, now);
        for (_, bytes) in site.engine.nodes(now).take_answers() {
            node.take(&bytes, now);
        }
        site.exchange();
    }
    let hellos = site.hub.hellos.iter();
    let relayed = hellos.filter(|hello| hello.origin == node.id).count();
    assert!(relayed > 2, "an epoch began anew below what was passed");
    site.run(60_000, &mut [&mut node]);
    assert!(node.is_drained());
    assert_eq!(site.hub.samples(&node.id), ks(60));
    assert!(site.engine.progress().is_drained);
    assert!(site.hub.bodies::<Gap>().is_empty());
}

#[test]
fn a_record_behind_a_hole_is_sent_though_the_hole_stays() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    site.talk(&mut [&mut node]);
    for k in 0..4 {
        // Each in a bundle of its own, of which one gets lost; the node is not heard of again.
        node.make(1, 1_500);
        let now = site.now();
        let packet = node.next_packet(now).unwrap();
        if k != 1 {
            assert_eq!(site.engine.nodes(now).packet(0, &|_| true, &packet), None);
        }
    }
    site.run(100, &mut []);
    site.link(true);
    site.run(20_000, &mut []);
    assert_eq!(site.hub.samples(&node.id), [0, 2, 3]);
}

#[test]
fn what_a_node_brings_after_another_agent_had_its_records_is_sent_whole() {
    let (mut one, mut node) = (Site::new(), Node::new("node-1"));
    let mut two = Site::with(one.settings.clone(), Hub::default());
    for at in 0..5 {
        let site = if at % 2 == 0 { &mut one } else { &mut two };
        site.ms = 2_000 * at;
        node.connect(site.now());
        node.make(10, 100);
        site.run(2_000, &mut [&mut node]);
        node.disconnect(site.now());
    }
    assert!(node.is_drained());
    // Neither has a record twice, and the one that comes first has holes.
    one.link(true);
    one.run(20_000, &mut []);
    assert_eq!(one.hub.samples(&node.id).len(), 30);
    two.hub = std::mem::take(&mut one.hub);
    two.ms = one.ms;
    two.link(true);
    two.run(20_000, &mut []);
    assert_eq!(two.hub.samples(&node.id), ks(50));
    assert!(two.hub.bodies::<Gap>().is_empty());
}

#[test]
fn all_nodes_share_the_connection_fairly_and_their_bundles_share_publishes() {
    let mut site = Site::new();
    let mut nodes: Vec<Node> = (0..4).map(|k| Node::new(&format!("node-{k}"))).collect();
    for (node, count) in nodes.iter_mut().zip([400, 20, 20, 20]) {
        node.connect(site.now());
        node.make(count, 100);
    }
    let mut all: Vec<&mut Node> = nodes.iter_mut().collect();
    site.run(30_000, &mut all);
    site.settings.sender.max_bundle = 4_000;
    site.kill();
    site.link(true);
    site.run(20_000, &mut all);
    assert!(site.hub.bundles_of_publish.iter().any(|count| *count > 1));
    // The small backlogs are through while the large one is under way.
    let position = |name: &str| {
        let last = site.hub.lens.iter().rposition(|(of, _)| *of == id(name));
        last.unwrap()
    };
    for name in ["node-1", "node-2", "node-3"] {
        assert!(position(name) < position("node-0") / 2, "{name}");
    }
    assert_eq!(site.hub.samples(&id("node-0")), ks(400));
}

#[test]
fn a_boot_of_a_node_without_a_clock_is_dated_by_the_agents() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    (node.base, node.boot) = (Base::Uptime, 8);
    node.begin_epoch(2);
    site.ms = 5_000;
    node.booted_ms = 3_000;
    site.read(400);
    site.run(2_000, &mut []);
    node.connect(site.now());
    node.make(5, 100);
    site.run(1_000, &mut [&mut node]);
    site.settings.sender.max_bundle = 1_500;
    // The node boots again, and the agent too, before anything is sent.
    node.disconnect(site.now());
    site.kill();
    site.ms += 60_000;
    (node.boot, node.booted_ms) = (9, site.ms - 10);
    node.connect(site.now());
    site.link(true);
    site.run(5_000, &mut [&mut node]);
    let bases = site.hub.bodies::<TimeBase>();
    let (_, base) = bases.iter().find(|(_, base)| base.boot == 8).unwrap();
    assert_eq!(base.origin, node.id);
    let began = base.wall.0 - i64::try_from(base.uptime_us).unwrap();
    let truth = super::world::BOOT_US + 3_000_000;
    assert!(began.abs_diff(truth) <= 60_000, "{} us off", began - truth);
    // It comes after what the agent read before, and the records of that boot wait for it.
    let position = |found: &dyn Fn(&(Kind, Stream)) -> bool| site.hub.order.iter().position(found);
    let dated = position(&|(kind, _)| *kind == Kind::TimeBase).unwrap();
    let first = position(&|(_, stream)| stream.device == node.id).unwrap();
    assert!(dated > 5 && first > dated, "{dated} {first}");
    // The boot that is over is not dated by the one that runs.
    let own = site.hub.heads.iter().filter(|head| head.origin == node.id);
    for head in own.filter(|head| head.epoch == Epoch::new(2)) {
        assert_eq!((head.boot, head.uptime_ms), (8, None));
    }
}

#[test]
fn who_is_not_allowed_or_finds_no_place_gets_no_answer_and_is_counted() {
    let mut site = Site::new();
    let mut node = Node::new("node-1");
    node.connect(site.now());
    let now = site.now();
    let hello = node.next_packet(now).unwrap();
    site.engine.nodes(now).packet(0, &|_| false, &hello);
    site.engine.nodes(now).packet(0, &|_| true, b"not a packet");
    assert!(site.engine.nodes(now).take_answers().is_empty());
    let counters = site.engine.node_report().counters;
    let expected = NodeCounters {
        refused: 1,
        malformed: 1,
        ..NodeCounters::default()
    };
    assert_eq!(counters, expected);
    for k in 0..=MAX_NODES as u64 {
        let mut node = Node::new(&format!("many-{k}"));
        node.connect(now);
        let hello = node.next_packet(now).unwrap();
        site.engine.nodes(now).packet(k, &|_| true, &hello);
    }
    assert_eq!(site.engine.nodes(now).take_answers().len(), MAX_NODES);
    assert_eq!(site.engine.node_report().counters.refused, 2);
}

#[test]
fn records_before_a_hello_are_refused_and_come_again_after_it() {
    let (mut site, mut node) = (Site::new(), Node::new("node-1"));
    node.connect(site.now());
    site.talk(&mut [&mut node]);
    // The agent is another one now, and the node does not know.
    site.kill();
    node.make(5, 100);
    site.run(10_000, &mut [&mut node]);
    assert!(
        node.rejected
            .iter()
            .any(|it| it.reason == RejectReason::NotInHello)
    );
    assert!(node.is_drained());
}
