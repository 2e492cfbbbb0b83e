//! Core: what nodes behind this agent have to send: an outbox for each, made when something of the node is on
//! the disk. All of them share one connection, its credit, and its publishes.
//!
//! A node's records arrive in any order, while a sender counts on numbers that rise. What lies behind a hole
//! waits for a moment; then the sender passes the hole, and if its records come later, the epoch is given to
//! the sender anew, from them on.

use std::collections::BTreeMap;

use headwater_proto::bundle::{Bundle, MAX_RECORDS};
use headwater_proto::delivery::{DeliveryError, HeldEpoch, SenderLimits};
use headwater_proto::frame::{Frames, Kind};
use headwater_proto::ids::{DeviceId, Epoch, Lane, SeqRange};
use headwater_proto::message::{self, Ack, Reject, SchemaRequest, Welcome};
use headwater_proto::time::{Base, Millis};

use super::{Clocks, Heard, Out, Outbox, Shelf, Uptime};
use crate::pipeline::record::Life;

/// Most epochs that the sender of a node holds; more wait until older ones are committed.
pub(in super::super) const MAX_NODE_EPOCHS: usize = 8;
/// Most bundles of a node in flight.
pub(in super::super) const MAX_NODE_FLIGHTS: usize = 4;
/// How long records behind a hole wait for those before them.
const HOLE_MS: u64 = 5_000;
/// A smaller rest of a publish is left empty.
const MIN_REST_BYTES: usize = 1024;

type NodeOutbox = Outbox<MAX_NODE_EPOCHS, MAX_NODE_FLIGHTS>;

/// What a node said of its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Sighting {
    pub(in super::super) boot: u64,
    pub(in super::super) uptime_ms: u64,
}

/// What the sender of a node was told of an epoch.
#[derive(Debug)]
struct Told {
    life: Life,
    ram: bool,
    ended: bool,
    /// All of it is the sender's; of its holes the sender learns when it reads them.
    range: SeqRange,
    /// Stored behind a hole, lowest first.
    beyond: Vec<SeqRange>,
    /// When the sender passes the hole.
    passes_at: Option<Millis>,
    /// The sender has it; else it waits for room there.
    is_held: bool,
}

/// One node.
struct Relay {
    outbox: NodeOutbox,
    told: BTreeMap<(Lane, Epoch), Told>,
    /// Bytes that went out, so that all nodes come to have the same.
    served: u64,
    /// Committed ranges of epochs that left the sender since the last look.
    dropped: Vec<(Lane, Epoch, SeqRange)>,
}

/// What is stored of an epoch.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Here {
    pub(in super::super) lane: Lane,
    pub(in super::super) epoch: Epoch,
    pub(in super::super) range: SeqRange,
    pub(in super::super) life: Life,
    pub(in super::super) ram: bool,
    pub(in super::super) ended: bool,
}

/// The nodes that have something to send, or had.
pub(in super::super) struct Relays {
    nodes: BTreeMap<DeviceId, Relay>,
    limits: SenderLimits,
    seed: u64,
    link_up: bool,
    /// Bytes that this agent's own outbox sent.
    own_served: u64,
}

impl Relays {
    /// Without a node. `seed`: random bits for nonces and waits.
    pub(in super::super) const fn new(limits: SenderLimits, seed: u64) -> Self {
        Self {
            nodes: BTreeMap::new(),
            limits,
            seed,
            link_up: false,
            own_served: 0,
        }
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(in super::super) fn knows(&self, device: &DeviceId) -> bool {
        self.nodes.contains_key(device)
    }

    fn relay(&mut self, device: &DeviceId, now: Millis) -> &mut Relay {
        let (limits, link_up) = (self.limits, self.link_up);
        let seed = self.seed ^ (self.nodes.len() as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Who comes late has no claim to what others had before.
        let served = self.nodes.values().map(|relay| relay.served);
        let served = served.chain([self.own_served]).min().unwrap_or(0);
        self.nodes.entry(device.clone()).or_insert_with(|| {
            let mut outbox = NodeOutbox::relaying(device.clone(), limits, seed);
            if link_up {
                outbox.link_up(now);
            }
            Relay {
                outbox,
                told: BTreeMap::new(),
                served,
                dropped: Vec::new(),
            }
        })
    }

    /// Records of a node became durable.
    pub(in super::super) fn here(&mut self, device: &DeviceId, here: &Here, now: Millis) {
        self.relay(device, now).here(here, now);
    }

    /// A node said how long its boot runs. Of several such words the one that took the shortest way counts.
    pub(in super::super) fn sighted(&mut self, device: &DeviceId, seen: Sighting, now: Millis) {
        let relay = self.relay(device, now);
        let uptime = i64::try_from(seen.uptime_ms).unwrap_or(i64::MAX);
        let own = i64::try_from(now.0).unwrap_or(i64::MAX);
        let ahead_ms = uptime.saturating_sub(own);
        if let Uptime::Node {
            boot,
            ahead_ms: before,
            at,
        } = relay.outbox.uptime
        {
            let is_later = boot == seen.boot && before > ahead_ms;
            // Clocks drift: after a while a new word counts, however long it took.
            if is_later && now.since(at) < super::SIGHTING_MS / 2 {
                return;
            }
        }
        relay.outbox.uptime = Uptime::Node {
            boot: seen.boot,
            ahead_ms,
            at: now,
        };
    }

    /// Records are not on the disk any more, and a gap names them.
    pub(in super::super) fn absent(
        &mut self,
        device: &DeviceId,
        (lane, epoch): (Lane, Epoch),
        range: SeqRange,
    ) {
        if let Some(relay) = self.nodes.get_mut(device) {
            relay.outbox.absent(lane, epoch, range);
        }
    }

    /// Whether records of a node may be forgotten, as far as the collector said.
    pub(in super::super) fn is_committed(
        &self,
        device: &DeviceId,
        lane: Lane,
        epoch: Epoch,
        range: SeqRange,
    ) -> bool {
        let relay = self.nodes.get(device);
        relay.is_some_and(|relay| relay.outbox.is_committed(lane, epoch, range))
    }

    /// What is committed of epochs that left the senders since the last call: it may be forgotten.
    pub(in super::super) fn take_dropped(&mut self) -> Vec<(DeviceId, Lane, Epoch, SeqRange)> {
        let mut all = Vec::new();
        for (device, relay) in &mut self.nodes {
            let dropped = relay.dropped.drain(..);
            all.extend(dropped.map(|(lane, epoch, range)| (device.clone(), lane, epoch, range)));
        }
        all
    }

    /// Connected, or not any more.
    pub(in super::super) fn link(&mut self, is_up: bool, now: Millis) {
        self.link_up = is_up;
        for relay in self.nodes.values_mut() {
            if is_up {
                relay.outbox.link_up(now);
            } else {
                relay.outbox.link_down(now);
            }
        }
    }

    /// Time has passed.
    pub(in super::super) fn tick(&mut self, now: Millis) {
        for relay in self.nodes.values_mut() {
            relay.pass_holes(now);
            relay.hand_over();
            relay.outbox.tick(now);
        }
    }

    /// Holds back the epochs whose times count from a boot that is over, as long as the record that dates it
    /// is on its way.
    pub(in super::super) fn withhold(
        &mut self,
        is_on_its_way: &dyn Fn(&DeviceId, u64) -> bool,
        now: Millis,
    ) {
        for (device, relay) in &mut self.nodes {
            let present = relay.outbox.uptime.at(now).map(|(boot, _)| boot);
            for ((lane, epoch), told) in &relay.told {
                let is_over = told.life.base == Base::Uptime && present != Some(told.life.boot);
                let waits = is_over && is_on_its_way(device, told.life.boot);
                // One that the sender does not hold yet is looked at again before it is sent.
                let _ = relay.outbox.sender.withhold(*lane, *epoch, waits);
            }
        }
    }

    /// Forgets nodes of which nothing is left to send and that `speaks` does not know.
    pub(in super::super) fn forget_idle(&mut self, speaks: &dyn Fn(&DeviceId) -> bool) {
        self.nodes.retain(|device, relay| {
            let is_idle = relay.is_whole()
                && relay.outbox.sender.is_drained()
                && relay.in_flight() == 0
                && relay.dropped.is_empty();
            speaks(device) || !is_idle
        });
    }

    /// When to call [`Relays::tick`] at the latest.
    pub(in super::super) fn next_wakeup(&self) -> Option<Millis> {
        let all = self.nodes.values().flat_map(|relay| {
            let holes = relay.told.values().filter_map(|told| told.passes_at);
            holes.chain(relay.outbox.next_wakeup())
        });
        all.min()
    }

    /// Takes in a down frame for one of the nodes; says what it tells of the collector's clock.
    pub(in super::super) fn message(
        &mut self,
        device: &DeviceId,
        bytes: &[u8],
        shelf: &mut impl Shelf,
        clocks: Clocks,
    ) -> Vec<Heard> {
        let relay = self.nodes.get_mut(device);
        relay.map_or_else(Vec::new, |relay| relay.outbox.message(bytes, shelf, clocks))
    }

    /// Tells the senders of one connection what the others have in flight, and the credit that came last.
    pub(in super::super) fn share<const E: usize, const F: usize>(
        &mut self,
        own: &mut Outbox<E, F>,
        credit: Option<u32>,
    ) {
        let flights = self.nodes.values().map(|relay| relay.in_flight());
        let nodes = flights.fold(0, u32::saturating_add);
        let all = nodes.saturating_add(own.sender.in_flight_bytes());
        own.sender.set_in_flight_elsewhere(nodes);
        for relay in self.nodes.values_mut() {
            let others = all - relay.in_flight();
            relay.outbox.sender.set_in_flight_elsewhere(others);
        }
        if let Some(credit) = credit {
            own.sender.set_credit(credit);
            for relay in self.nodes.values_mut() {
                relay.outbox.sender.set_credit(credit);
            }
        }
    }

    /// The origins in the order of their turns, `None` for this agent itself: those with something to say that
    /// is no bundle, then by lane, then those that sent least.
    pub(in super::super) fn turns<const E: usize, const F: usize>(
        &self,
        own: &Outbox<E, F>,
        now: Millis,
    ) -> Vec<Option<DeviceId>> {
        let key = |lane: Option<Lane>, served| (lane.map_or(0, |lane| lane.to_u8() + 1), served);
        let first = (key(own.next_lane(now), self.own_served), None);
        let nodes = self.nodes.iter().map(|(device, relay)| {
            let key = key(relay.outbox.next_lane(now), relay.served);
            (key, Some(device.clone()))
        });
        let mut all: Vec<_> = std::iter::once(first).chain(nodes).collect();
        all.sort();
        all.into_iter().map(|(_, origin)| origin).collect()
    }

    /// What a node has to say next.
    pub(in super::super) fn next(
        &mut self,
        device: &DeviceId,
        shelf: &mut impl Shelf,
        clocks: Clocks,
    ) -> Option<Out> {
        self.nodes.get_mut(device)?.outbox.next(shelf, clocks)
    }

    /// A bundle of a node for the rest of a publish; `None` if none fits.
    pub(in super::super) fn fill(
        &mut self,
        device: &DeviceId,
        publish: &Publish,
        shelf: &mut impl Shelf,
        clocks: Clocks,
    ) -> Option<Out> {
        let most = publish.rest()?;
        self.nodes.get_mut(device)?.outbox.fill(most, shelf, clocks)
    }

    /// Largest publish that an origin may send, and others with it.
    pub(in super::super) fn max_bundle<const E: usize, const F: usize>(
        &self,
        own: &Outbox<E, F>,
        origin: Option<&DeviceId>,
    ) -> u32 {
        let relay = origin.and_then(|device| self.nodes.get(device));
        let of_relay = relay.map(|relay| relay.outbox.sender.max_bundle());
        of_relay.unwrap_or_else(|| own.sender.max_bundle())
    }

    /// So many bytes of an origin go out.
    pub(in super::super) fn served(&mut self, origin: Option<&DeviceId>, bytes: usize) {
        let served = match origin {
            None => Some(&mut self.own_served),
            Some(device) => self.nodes.get_mut(device).map(|relay| &mut relay.served),
        };
        if let Some(served) = served {
            *served += bytes as u64;
        }
    }

    /// Each node: records that are not committed, and bytes in flight.
    pub(in super::super) fn backlog(&self, device: &DeviceId) -> u64 {
        let relay = self.nodes.get(device);
        relay.map_or(0, |relay| relay.outbox.sender.backlog_records())
    }

    /// Whether all that is here of the nodes was received by the collector.
    pub(in super::super) fn is_delivered(&self) -> bool {
        let mut all = self.nodes.values();
        all.all(|relay| relay.is_whole() && relay.outbox.sender.is_delivered())
    }

    /// Whether all that is here of the nodes is committed.
    pub(in super::super) fn is_drained(&self) -> bool {
        let mut all = self.nodes.values();
        all.all(|relay| relay.is_whole() && relay.outbox.sender.is_drained())
    }
}

impl Relay {
    fn in_flight(&self) -> u32 {
        self.outbox.sender.in_flight_bytes()
    }

    /// Whether the sender was told of all that is here.
    fn is_whole(&self) -> bool {
        let mut all = self.told.values();
        all.all(|told| told.is_held && told.beyond.is_empty())
    }

    fn here(&mut self, here: &Here, now: Millis) {
        let key = (here.lane, here.epoch);
        let told = self.told.entry(key).or_insert_with(|| Told {
            life: here.life,
            ram: here.ram,
            ended: here.ended,
            range: SeqRange::new(here.range.first, here.range.first),
            beyond: Vec::new(),
            passes_at: None,
            is_held: false,
        });
        told.ended |= here.ended;
        if here.range.first > told.range.next {
            told.put_beyond(here.range);
            told.passes_at.get_or_insert(now.plus(HOLE_MS));
            return;
        }
        let is_below = here.range.first < told.range.next;
        told.range.first = told.range.first.min(here.range.first);
        told.range.next = told.range.next.max(here.range.next);
        told.take_beyond();
        self.tell(key, is_below);
    }

    /// Tells the sender of an epoch. `anew`: from its lowest record on.
    fn tell(&mut self, key: (Lane, Epoch), anew: bool) {
        let Some(told) = self.told.get_mut(&key) else {
            return;
        };
        let (lane, epoch) = key;
        let sender = &mut self.outbox.sender;
        if anew {
            sender.remove_epoch(lane, epoch);
        }
        if sender.stored(lane, epoch, told.range.next).is_err() {
            // Not held, or it counts as ended.
            sender.remove_epoch(lane, epoch);
            told.is_held = false;
            self.hand_over();
        }
    }

    /// Gives the sender the epochs that wait for it.
    fn hand_over(&mut self) {
        let waiting: Vec<_> = self
            .told
            .iter()
            .filter(|(_, told)| !told.is_held)
            .map(|(key, told)| told.held(*key))
            .collect();
        for held in waiting {
            let mut added = self.outbox.sender.add_epoch(held);
            if added == Err(DeliveryError::TooManyEpochs) && self.drop_drained() {
                added = self.outbox.sender.add_epoch(held);
            }
            if added.is_err() {
                return;
            }
            if let Some(told) = self.told.get_mut(&(held.lane, held.epoch)) {
                told.is_held = true;
            }
        }
    }

    /// Takes the epochs out of the sender of which nothing is left to send; says whether there was one.
    fn drop_drained(&mut self) -> bool {
        let sender = &mut self.outbox.sender;
        let dropped = &mut self.dropped;
        let before = self.told.len();
        self.told.retain(|(lane, epoch), told| {
            let is_done = told.is_held
                && told.beyond.is_empty()
                && sender.is_committed(*lane, *epoch, told.range);
            if is_done {
                sender.remove_epoch(*lane, *epoch);
                dropped.push((*lane, *epoch, told.range));
            }
            !is_done
        });
        self.told.len() < before
    }

    /// Passes the holes whose records did not come in time.
    fn pass_holes(&mut self, now: Millis) {
        let mut late = Vec::new();
        for (key, told) in &mut self.told {
            if told.passes_at.is_none_or(|at| at > now) {
                continue;
            }
            if let Some(first) = told.beyond.first() {
                told.range.next = first.next;
                told.take_beyond();
                late.push(*key);
            }
            told.passes_at = (!told.beyond.is_empty()).then(|| now.plus(HOLE_MS));
        }
        for key in late {
            self.tell(key, false);
        }
    }
}

impl Told {
    fn held(&self, (lane, epoch): (Lane, Epoch)) -> HeldEpoch {
        HeldEpoch {
            lane,
            epoch,
            first: self.range.first,
            next: self.range.next,
            ram: self.ram,
            ended: self.ended,
            boot: self.life.boot,
            base: self.life.base,
            end_named_in: None,
            dated_by: None,
        }
    }

    /// Keeps what is stored behind a hole.
    fn put_beyond(&mut self, range: SeqRange) {
        self.beyond.push(range);
        self.beyond.sort_by_key(|range| range.first);
        let mut merged: Vec<SeqRange> = Vec::new();
        for range in self.beyond.drain(..) {
            match merged.last_mut() {
                Some(last) if last.next >= range.first => last.next = last.next.max(range.next),
                _ => merged.push(range),
            }
        }
        self.beyond = merged;
    }

    /// Takes in what no hole parts from the rest any more.
    fn take_beyond(&mut self) {
        let next = &mut self.range.next;
        self.beyond.retain(|range| {
            let joins = range.first <= *next;
            if joins {
                *next = (*next).max(range.next);
            }
            !joins
        });
        if self.beyond.is_empty() {
            self.passes_at = None;
        }
    }
}

/// A publish that is being filled with bundles.
pub(in super::super) struct Publish {
    pub(in super::super) bytes: Vec<u8>,
    records: u64,
    max_bytes: usize,
}

impl Publish {
    /// Begins with these bytes, which may be a bundle.
    pub(in super::super) fn new(bytes: Vec<u8>, max_bytes: u32) -> Self {
        let records = records_of(&bytes);
        Self {
            bytes,
            records,
            max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX),
        }
    }

    pub(in super::super) fn push(&mut self, bundle: &[u8]) {
        self.records += records_of(bundle);
        self.bytes.extend_from_slice(bundle);
    }

    /// Bytes and records that still fit; `None` if it is full, or no bundle.
    pub(in super::super) fn rest(&self) -> Option<(u32, u64)> {
        // A receiver counts a bundle as a record too.
        let records = u64::from(MAX_RECORDS).checked_sub(self.records)?;
        let bytes = self.max_bytes.checked_sub(self.bytes.len())?;
        let fits = Bundle::is_bundle(&self.bytes) && bytes >= MIN_REST_BYTES && records > 0;
        fits.then(|| (u32::try_from(bytes).unwrap_or(u32::MAX), records))
    }
}

fn records_of(bytes: &[u8]) -> u64 {
    let bundle = Bundle::first(bytes).ok();
    bundle.map_or(0, |(bundle, _)| 1 + u64::from(bundle.count))
}

/// Whom a down frame is for, and the credit that it brings.
pub(in super::super) fn origin_of(frame: &[u8]) -> Option<(DeviceId, Option<u32>)> {
    let (frame, _) = Frames::new(frame).next()?.ok()?;
    let payload = frame.payload;
    if frame.kind == Kind::Welcome {
        let welcome = message::decode::<Welcome>(payload).ok()?;
        Some((welcome.origin, Some(welcome.credit)))
    } else if frame.kind == Kind::Ack {
        let ack = message::decode::<Ack>(payload).ok()?;
        Some((ack.origin, Some(ack.credit)))
    } else if frame.kind == Kind::Reject {
        Some((message::decode::<Reject>(payload).ok()?.origin, None))
    } else if frame.kind == Kind::SchemaRequest {
        let request = message::decode::<SchemaRequest>(payload).ok()?;
        Some((request.origin, None))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(epoch: u64, first: u64, next: u64) -> Here {
        Here {
            lane: Lane::Normal,
            epoch: Epoch::new(epoch),
            range: SeqRange::new(first, next),
            life: Life {
                boot: 1,
                base: Base::Wall,
            },
            ram: false,
            ended: false,
        }
    }

    fn relays() -> (Relays, DeviceId) {
        let relays = Relays::new(SenderLimits::DEFAULT, 5);
        (relays, DeviceId::new("n").unwrap())
    }

    #[test]
    fn epochs_beyond_those_that_a_sender_holds_wait_for_their_turn() {
        let (mut relays, node) = relays();
        let all = MAX_NODE_EPOCHS as u64 + 2;
        for epoch in 0..all {
            relays.here(&node, &here(epoch, 0, 3), Millis(0));
        }
        let relay = &relays.nodes[&node];
        let held = relay.told.values().filter(|told| told.is_held).count();
        assert_eq!((held, relay.told.len()), (MAX_NODE_EPOCHS, 10));
        assert!(!relays.is_delivered());
    }

    #[test]
    fn a_sender_of_a_node_takes_little_memory() {
        use headwater_proto::delivery::Sender;
        let one = size_of::<Sender<MAX_NODE_EPOCHS, MAX_NODE_FLIGHTS>>();
        assert!(one * 64 <= 1 << 20, "{one} bytes");
    }

    #[test]
    fn a_hole_is_waited_for_and_then_passed() {
        let (mut relays, node) = relays();
        relays.here(&node, &here(1, 0, 3), Millis(0));
        relays.here(&node, &here(1, 5, 7), Millis(10));
        let next = |relays: &Relays| {
            let relay = &relays.nodes[&node];
            relay.told[&(Lane::Normal, Epoch::new(1))].range.next
        };
        relays.tick(Millis(10 + HOLE_MS - 1));
        assert_eq!(next(&relays), 3);
        assert_eq!(relays.next_wakeup(), Some(Millis(10 + HOLE_MS)));
        relays.tick(Millis(10 + HOLE_MS));
        assert_eq!(next(&relays), 7);
        // One that is filled in time is no hole.
        relays.here(&node, &here(2, 4, 6), Millis(0));
        relays.here(&node, &here(2, 8, 9), Millis(0));
        relays.here(&node, &here(2, 6, 8), Millis(0));
        let told = &relays.nodes[&node].told[&(Lane::Normal, Epoch::new(2))];
        assert_eq!((told.range.next, told.passes_at), (9, None));
    }
}
