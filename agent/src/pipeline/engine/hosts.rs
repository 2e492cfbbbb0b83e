//! Core: the nodes that speak to this agent, which plays the receiver towards them: what each listed in its
//! Hello, and the answers that it is owed.
//!
//! It knows no disk. What is durable of a stream it is told by the marks it asks for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_proto::bundle::BundleHead;
use headwater_proto::delivery::answers::pages;
use headwater_proto::ids::{DeviceId, Epoch, JournalId, Lane, SeqRange, Stream};
use headwater_proto::message::{
    self, Ack, Body, Hello, HelloStream, MAX_PAGES, Mark, PROTOCOL, Reject, RejectReason,
    SchemaRequest, Welcome,
};
use headwater_proto::time::{Millis, UnixMicros};

/// Most nodes of one agent. A further one gets no answer until another was silent for `SILENT_MS`.
pub const MAX_NODES: usize = 64;
/// Most answers that wait for their way; beyond it the oldest are dropped: each can be asked for again.
pub const MAX_ANSWERS: usize = 256;
/// Most streams of one node in its latest Hello.
pub const MAX_LISTED: usize = 256;
/// Largest bundle that a node may send.
pub const NODE_BUNDLE_BYTES: u32 = 64 * 1024;
/// Most bytes that a node may have in flight.
const NODE_CREDIT_BYTES: u64 = 128 * 1024;
/// How soon a schema is asked for again.
const ASK_AGAIN_MS: u64 = 5_000;
/// A node that said nothing for so long gives its place to another.
pub const SILENT_MS: u64 = 600_000;

/// The way to a node: a connection or a line.
pub type Way = u64;

/// Pages of a Hello that is not whole yet.
#[derive(Debug)]
struct Pending {
    nonce: u64,
    pages: u8,
    seen: u64,
    streams: Vec<HelloStream>,
}

/// One node.
#[derive(Debug)]
struct Host {
    /// Where its latest Hello came from; `None` while that way is gone.
    way: Option<Way>,
    heard_at: Millis,
    /// Largest answer that it takes.
    max_bytes: usize,
    nonce: u64,
    listed: BTreeMap<(Lane, Epoch), HelloStream>,
    pending: Option<Pending>,
    owes_welcome: bool,
    owes_ack: BTreeSet<(Lane, Epoch)>,
    /// It was told to stop.
    is_stopped: bool,
    /// The schema that was asked for last, and when.
    asked: Option<(Lane, Epoch, u32, Millis)>,
    /// The boot that a record of this agent dates, and the error that it says.
    dated: Option<(u64, Option<u32>)>,
}

/// What became of a Hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Its other pages are still to come.
    More,
    /// It is whole.
    Whole,
    /// There are too many nodes, or too many streams.
    Refused,
}

/// What the answers say of this agent.
pub(super) struct Terms<'a> {
    /// The id under which nodes know its spool.
    pub(super) spool: JournalId,
    pub(super) time: UnixMicros,
    /// Bytes that a node may bring.
    pub(super) room: &'a dyn Fn(&DeviceId) -> u64,
    /// What is durable of a stream that its node holds from a number on.
    pub(super) mark: &'a dyn Fn(&Stream, u64) -> Mark,
    /// Whether records of a stream wait for their sync.
    pub(super) is_open: &'a dyn Fn(&Stream) -> bool,
}

/// The nodes that speak to this agent.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<DeviceId, Host>,
    answers: VecDeque<(Way, Vec<u8>)>,
    /// Ways that every node has left for another.
    left: Vec<Way>,
}

impl Hosts {
    /// Takes in a page of a Hello that came on a way.
    pub(super) fn hello(&mut self, way: Way, hello: &Hello, now: Millis) -> Heard {
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL) {
            self.put(way, &Reject::of_version(hello));
            return Heard::Refused;
        }
        if !self.hosts.contains_key(&hello.origin) && !self.has_place(now) {
            return Heard::Refused;
        }
        let host = self.hosts.entry(hello.origin.clone());
        let host = host.or_insert_with(|| Host::new(now));
        host.heard_at = now;
        host.max_bytes = usize::try_from(hello.max_bundle).unwrap_or(usize::MAX);
        let before = host.way.replace(way).filter(|before| *before != way);
        let heard = host.page(hello);
        if let Some(before) = before {
            self.leave(before);
        }
        heard
    }

    /// A node speaks on another way now. The one before is most likely dead, and is given up when no other node
    /// speaks there.
    fn leave(&mut self, way: Way) {
        if self.hosts.values().all(|host| host.way != Some(way)) {
            self.answers.retain(|(to, _)| *to != way);
            self.left.push(way);
        }
    }

    /// Ways that are to end, since the last call: no node speaks there any more.
    pub(super) fn take_left(&mut self) -> Vec<Way> {
        std::mem::take(&mut self.left)
    }

    fn has_place(&mut self, now: Millis) -> bool {
        if self.hosts.len() >= MAX_NODES {
            self.hosts
                .retain(|_, host| now.since(host.heard_at) < SILENT_MS);
        }
        self.hosts.len() < MAX_NODES
    }

    /// Whether a bundle may be taken that came on a way: its epoch stands in the node's latest Hello there.
    pub(super) fn lists(&mut self, way: Way, head: &BundleHead, now: Millis) -> bool {
        let Some(host) = self.hosts.get_mut(&head.origin) else {
            return false;
        };
        let is_listed = host.way == Some(way) && host.listed.contains_key(&(head.lane, head.epoch));
        if is_listed {
            host.heard_at = now;
        }
        is_listed
    }

    /// The streams of a node's latest Hello.
    pub(super) fn listed(&self, device: &DeviceId) -> impl Iterator<Item = &HelloStream> {
        let host = self.hosts.get(device).into_iter();
        host.flat_map(|host| host.listed.values())
    }

    /// A node is to hear how far its stream is durable, once its group is.
    pub(super) fn owe_ack(&mut self, head: &BundleHead) {
        if let Some(host) = self.hosts.get_mut(&head.origin) {
            host.owes_ack.insert((head.lane, head.epoch));
        }
    }

    /// A way is gone: what goes that way is dropped.
    pub(super) fn gone(&mut self, way: Way) {
        for host in self.hosts.values_mut() {
            if host.way == Some(way) {
                host.way = None;
                (host.owes_welcome, host.pending) = (false, None);
                host.owes_ack.clear();
            }
        }
        self.answers.retain(|(to, _)| *to != way);
    }

    /// Refuses records.
    pub(super) fn reject(
        &mut self,
        way: Way,
        head: &BundleHead,
        range: SeqRange,
        reason: RejectReason,
    ) {
        if range.is_empty() {
            return;
        }
        let reject = Reject {
            origin: head.origin.clone(),
            lane: head.lane,
            epoch: head.epoch,
            range,
            reason,
        };
        self.put(way, &reject);
    }

    /// Asks a node for a schema, unless that was asked for a moment ago.
    pub(super) fn ask(&mut self, way: Way, head: &BundleHead, schema: u32, now: Millis) {
        let Some(host) = self.hosts.get_mut(&head.origin) else {
            return;
        };
        let (lane, epoch) = (head.lane, head.epoch);
        if host.asked.is_some_and(|(of, in_epoch, number, at)| {
            (of, in_epoch, number) == (lane, epoch, schema) && now.since(at) < ASK_AGAIN_MS
        }) {
            return;
        }
        host.asked = Some((lane, epoch, schema, now));
        let request = SchemaRequest {
            origin: head.origin.clone(),
            lane,
            epoch,
            schema,
        };
        self.put(way, &request);
    }

    /// Makes the answers that can be given now.
    pub(super) fn settle(&mut self, terms: &Terms<'_>) {
        let mut out: Vec<(Way, Vec<u8>)> = Vec::new();
        for (device, host) in &mut self.hosts {
            let Some(way) = host.way else { continue };
            let room = (terms.room)(device).min(NODE_CREDIT_BYTES);
            let credit = u32::try_from(room).unwrap_or(u32::MAX);
            let mut say = |bytes| out.push((way, bytes));
            if std::mem::take(&mut host.owes_welcome) {
                host.welcome(device, terms, credit, &mut say);
            }
            let mut marks = Vec::new();
            host.owes_ack.retain(|(lane, epoch)| {
                let Some(listed) = host.listed.get(&(*lane, *epoch)) else {
                    return false;
                };
                let stream = Stream {
                    device: device.clone(),
                    lane: *lane,
                    epoch: *epoch,
                };
                let waits = (terms.is_open)(&stream);
                if !waits {
                    marks.push((terms.mark)(&stream, listed.oldest));
                }
                waits
            });
            let goes_on = host.is_stopped && credit > 0;
            if !marks.is_empty() || goes_on {
                host.ack(device, terms, credit, marks, &mut say);
            }
            host.is_stopped = credit == 0;
        }
        for (way, bytes) in out {
            self.push(way, bytes);
        }
    }

    /// Answers that wait for their way, oldest first.
    pub(super) fn take_answers(&mut self) -> Vec<(Way, Vec<u8>)> {
        self.answers.drain(..).collect()
    }

    /// Whether a node speaks to this agent, or did a while ago.
    pub(super) fn knows(&self, device: &DeviceId) -> bool {
        self.hosts.contains_key(device)
    }

    /// Whether this boot of a node is still to be dated, with that error; it counts as dated so then. One that
    /// was dated without a known error is dated again with one.
    pub(super) fn dates(&mut self, device: &DeviceId, boot: u64, error_ms: Option<u32>) -> bool {
        let Some(host) = self.hosts.get_mut(device) else {
            return false;
        };
        let is_told = host
            .dated
            .is_some_and(|(dated, known)| dated == boot && (known.is_some() || error_ms.is_none()));
        if !is_told {
            host.dated = Some((boot, error_ms));
        }
        !is_told
    }

    /// The nodes, and whether each has a way.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&DeviceId, bool)> {
        let all = self.hosts.iter();
        all.map(|(device, host)| (device, host.way.is_some()))
    }

    fn put<M: Body>(&mut self, way: Way, message: &M) {
        let mut bytes = Vec::new();
        message::append_frame(message, &mut bytes);
        self.push(way, bytes);
    }

    fn push(&mut self, way: Way, bytes: Vec<u8>) {
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.pop_front();
        }
        self.answers.push_back((way, bytes));
    }
}

impl Host {
    const fn new(now: Millis) -> Self {
        Self {
            way: None,
            heard_at: now,
            max_bytes: 0,
            nonce: 0,
            listed: BTreeMap::new(),
            pending: None,
            owes_welcome: false,
            owes_ack: BTreeSet::new(),
            is_stopped: false,
            asked: None,
            dated: None,
        }
    }

    fn page(&mut self, hello: &Hello) -> Heard {
        let pages = hello.pages.clamp(1, MAX_PAGES);
        let is_same = |it: &Pending| it.nonce == hello.nonce && it.pages == pages;
        if !self.pending.as_ref().is_some_and(is_same) {
            self.pending = Some(Pending {
                nonce: hello.nonce,
                pages,
                seen: 0,
                streams: Vec::new(),
            });
        }
        let Some(pending) = &mut self.pending else {
            return Heard::More;
        };
        let page = 1u64.wrapping_shl(u32::from(hello.page));
        if hello.page < pages && pending.seen & page == 0 {
            pending.seen |= page;
            pending.streams.extend(hello.streams.iter().copied());
        }
        if pending.streams.len() > MAX_LISTED {
            self.pending = None;
            return Heard::Refused;
        }
        if pending.seen.count_ones() < u32::from(pages) {
            return Heard::More;
        }
        let streams = std::mem::take(&mut pending.streams).into_iter();
        self.listed = streams.map(|s| ((s.lane, s.epoch), s)).collect();
        (self.pending, self.nonce) = (None, hello.nonce);
        self.owes_welcome = true;
        Heard::Whole
    }

    fn welcome(
        &self,
        device: &DeviceId,
        terms: &Terms<'_>,
        credit: u32,
        say: &mut dyn FnMut(Vec<u8>),
    ) {
        let marks = self.listed.values().map(|listed| {
            let stream = Stream {
                device: device.clone(),
                lane: listed.lane,
                epoch: listed.epoch,
            };
            (terms.mark)(&stream, listed.oldest)
        });
        let mut pages = pages(marks.collect(), device, self.max_bytes);
        let rest = pages.split_off(pages.len().min(usize::from(MAX_PAGES)));
        let count = u8::try_from(pages.len()).unwrap_or(u8::MAX);
        for (page, marks) in (0u8..).zip(pages) {
            let welcome = Welcome {
                version: PROTOCOL,
                origin: device.clone(),
                nonce: self.nonce,
                page,
                pages: count,
                journal: terms.spool,
                credit,
                max_bundle: NODE_BUNDLE_BYTES,
                time: terms.time,
                marks,
            };
            say(framed(&welcome));
        }
        for marks in rest {
            self.ack(device, terms, credit, marks.into_iter().collect(), say);
        }
    }

    fn ack(
        &self,
        device: &DeviceId,
        terms: &Terms<'_>,
        credit: u32,
        marks: Vec<Mark>,
        say: &mut dyn FnMut(Vec<u8>),
    ) {
        for marks in pages(marks, device, self.max_bytes) {
            let ack = Ack {
                origin: device.clone(),
                journal: terms.spool,
                credit,
                time: terms.time,
                marks,
            };
            say(framed(&ack));
        }
    }
}

fn framed<M: Body>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    message::append_frame(message, &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_proto::message::MAX_HELLO_STREAMS;
    use headwater_proto::time::Base;

    fn hello(name: &str, page: u8, pages: u8, streams: usize) -> Hello {
        let stream = |k: usize| HelloStream {
            lane: Lane::Normal,
            epoch: Epoch::new(u64::from(page) * 100 + k as u64),
            oldest: 0,
            next: 1,
            ram: false,
            ended: false,
            boot: 1,
            base: Base::Wall,
        };
        Hello {
            version_min: PROTOCOL,
            version_max: PROTOCOL,
            origin: DeviceId::new(name).unwrap(),
            nonce: 7,
            page,
            pages,
            complete: true,
            boot: 1,
            uptime_ms: 0,
            wall: None,
            max_bundle: 256,
            streams: (0..streams).map(stream).collect(),
        }
    }

    #[test]
    fn answers_beyond_their_bound_take_the_place_of_the_oldest() {
        let mut hosts = Hosts::default();
        for way in 0..=MAX_ANSWERS as u64 {
            let mut other = hello("n", 0, 1, 0);
            other.version_min = PROTOCOL + 1;
            other.version_max = PROTOCOL + 1;
            assert_eq!(hosts.hello(way, &other, Millis(0)), Heard::Refused);
        }
        let answers = hosts.take_answers();
        assert_eq!((answers.len(), answers[0].0), (MAX_ANSWERS, 1));
    }

    #[test]
    fn a_hello_of_as_many_streams_as_are_kept_is_heard_and_one_of_more_is_refused() {
        let mut hosts = Hosts::default();
        let most = MAX_LISTED / MAX_HELLO_STREAMS;
        let pages = u8::try_from(most).unwrap();
        for page in 0..pages {
            let heard = hosts.hello(1, &hello("n", page, pages, MAX_HELLO_STREAMS), Millis(0));
            let is_last = page + 1 == pages;
            assert_eq!(heard, if is_last { Heard::Whole } else { Heard::More });
        }
        let device = DeviceId::new("n").unwrap();
        assert_eq!(hosts.listed(&device).count(), MAX_LISTED);
        for page in 0..=pages {
            let said = hello("m", page, pages + 1, MAX_HELLO_STREAMS);
            let heard = hosts.hello(1, &said, Millis(0));
            assert_eq!(heard == Heard::Refused, page == pages);
        }
    }

    #[test]
    fn a_way_that_its_last_node_left_for_another_is_given_up() {
        let mut hosts = Hosts::default();
        hosts.hello(1, &hello("n", 0, 1, 0), Millis(0));
        hosts.hello(1, &hello("m", 0, 1, 0), Millis(0));
        hosts.hello(1, &hello("n", 0, 1, 0), Millis(1));
        hosts.hello(2, &hello("n", 0, 1, 0), Millis(2));
        assert!(hosts.take_left().is_empty());
        hosts.hello(3, &hello("m", 0, 1, 0), Millis(3));
        assert_eq!(hosts.take_left(), [1]);
        assert!(hosts.take_left().is_empty());
        // One that has ended already needs no end.
        hosts.gone(2);
        hosts.hello(4, &hello("n", 0, 1, 0), Millis(4));
        assert!(hosts.take_left().is_empty());
    }

    #[test]
    fn a_node_that_was_silent_for_long_gives_its_place_to_another() {
        let mut hosts = Hosts::default();
        for k in 0..MAX_NODES {
            hosts.hello(1, &hello(&format!("n{k}"), 0, 1, 0), Millis(k as u64));
        }
        let one_more = hello("more", 0, 1, 0);
        assert_eq!(
            hosts.hello(2, &one_more, Millis(SILENT_MS - 1)),
            Heard::Refused
        );
        assert_eq!(hosts.hello(2, &one_more, Millis(SILENT_MS)), Heard::Whole);
        assert!(!hosts.knows(&DeviceId::new("n0").unwrap()));
        assert!(hosts.knows(&DeviceId::new("n1").unwrap()));
    }
}
