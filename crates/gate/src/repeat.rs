//! Core: which publish of a plain device is a repeat.
//!
//! A publish is a repeat only if it says DUP and an *open* entry has the same client, packet id and
//! content. An entry opens when the publish is appended, and closes when
//!
//! - its packet id is seen with DUP = 0: the client reused the id, so it had the PUBACK;
//! - the client says DISCONNECT;
//! - the client sends something more than 30 s after its PUBACK on the same connection;
//! - the client has more than [`MAX_PER_CLIENT`] open: the oldest goes.
//!
//! The entries live in the owner's journal snapshot:
//!
//! | part | bytes |
//! |---|---|
//! | version | 1 |
//! | clients | 4 |
//! | per client: length of its id, id, number of entries | 2, n, 1 |
//! | per entry: packet id, fingerprint, place | 2, 8, 8 |
//!
//! Numbers are little-endian.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::ingest::{ConnId, Token};

/// Most open entries of one client: more than stock clients have in flight.
pub const MAX_PER_CLIENT: usize = 64;
/// Most clients with open entries: those that vanished without DISCONNECT never close theirs. When
/// it is reached the eighth that was quiet longest goes. About 1.8 KB each at worst.
pub const MAX_CLIENTS: usize = 16_384;

const VERSION: u8 = 1;
/// Bytes of the snapshot's head, of a client without its id, and of an entry.
const HEAD_BYTES: usize = 5;
const CLIENT_BYTES: usize = 3;
const ENTRY_BYTES: usize = 18;

/// What a publish turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Append it, then [`OpenEntries::open`].
    New,
    /// It is at `place` already: acknowledge it when that is durable.
    Repeat {
        /// As given to [`OpenEntries::open`].
        place: u64,
    },
}

/// Why a snapshot is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A later program wrote it.
    #[error("open entries of version {0} are not known here")]
    Version(u8),
    /// It ends early, or holds what never goes in.
    #[error("the open entries are damaged")]
    Damaged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    packet_id: u16,
    fingerprint: u64,
    place: u64,
    /// Where it came in; unknown after a restart, and then time closes it no more.
    on: Option<(ConnId, Token)>,
}

/// The open entries of all clients.
#[derive(Debug, Clone, Default)]
pub struct OpenEntries {
    clients: HashMap<Arc<str>, VecDeque<Entry>>,
}

impl OpenEntries {
    /// Judges a QoS 1 publish; one without DUP closes the entry that has its packet id.
    pub fn judge(&mut self, client: &str, packet_id: u16, dup: bool, fingerprint: u64) -> Verdict {
        let Some(entries) = self.clients.get_mut(client) else {
            return Verdict::New;
        };
        let Some(at) = entries
            .iter()
            .position(|entry| entry.packet_id == packet_id)
        else {
            return Verdict::New;
        };
        if !dup {
            entries.remove(at);
            return Verdict::New;
        }
        let entry = &entries[at];
        if entry.fingerprint == fingerprint {
            Verdict::Repeat { place: entry.place }
        } else {
            Verdict::New
        }
    }

    /// The publish was appended at `place`. It replaces an entry with the same packet id.
    pub fn open(
        &mut self,
        client: &Arc<str>,
        packet_id: u16,
        fingerprint: u64,
        place: u64,
        on: (ConnId, Token),
    ) {
        if !self.clients.contains_key(client) && self.clients.len() >= MAX_CLIENTS {
            self.make_room();
        }
        let entries = self.clients.entry(Arc::clone(client)).or_default();
        entries.retain(|entry| entry.packet_id != packet_id);
        while entries.len() >= MAX_PER_CLIENT {
            entries.pop_front();
        }
        entries.push_back(Entry {
            packet_id,
            fingerprint,
            place,
            on: Some(on),
        });
    }

    /// The group with this append failed: what was opened at `place` or later was never there.
    pub fn roll_back(&mut self, place: u64) {
        self.clients.retain(|_, entries| {
            entries.retain(|entry| entry.place < place);
            !entries.is_empty()
        });
    }

    /// [`crate::GateEvent::Settled`].
    pub fn settled(&mut self, client: &str, conn: ConnId, through: Token) {
        self.retain(client, |entry| {
            !entry
                .on
                .is_some_and(|(on, token)| on == conn && token <= through)
        });
    }

    /// [`crate::GateEvent::Disconnected`]: an orderly one closes all entries of the client.
    pub fn disconnected(&mut self, client: &str, orderly: bool) {
        if orderly {
            self.clients.remove(client);
        }
    }

    /// How many entries are open, in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.values().map(VecDeque::len).sum()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    fn retain(&mut self, client: &str, keep: impl FnMut(&Entry) -> bool) {
        if let Some(entries) = self.clients.get_mut(client) {
            entries.retain(keep);
            if entries.is_empty() {
                self.clients.remove(client);
            }
        }
    }

    fn make_room(&mut self) {
        let mut newest: Vec<u64> = self
            .clients
            .values()
            .filter_map(|e| e.back().map(|e| e.place))
            .collect();
        newest.sort_unstable();
        let Some(&bar) = newest.get(newest.len() / 8) else {
            return;
        };
        self.clients
            .retain(|_, entries| entries.back().is_some_and(|entry| entry.place > bar));
    }

    /// Appends the snapshot to `out`; equal entries give equal bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.encode_within(usize::MAX, out);
    }

    /// The same in at most `max_bytes` (5 are always taken): where they do not suffice the oldest
    /// entries are left out.
    pub fn encode_within(&self, max_bytes: usize, out: &mut Vec<u8>) {
        let above = self.left_out(max_bytes);
        let stays = |entry: &&Entry| above.is_none_or(|bar| entry.place > bar);
        let mut clients: Vec<(&Arc<str>, Vec<&Entry>)> = self
            .clients
            .iter()
            .map(|(client, entries)| (client, entries.iter().filter(stays).collect()))
            .collect();
        clients.retain(|(_, entries)| !entries.is_empty());
        clients.sort_unstable_by_key(|(client, _)| Arc::clone(client));
        out.push(VERSION);
        out.extend_from_slice(
            &u32::try_from(clients.len())
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        for (client, entries) in clients {
            let id_bytes = u16::try_from(client.len()).unwrap_or(u16::MAX);
            out.extend_from_slice(&id_bytes.to_le_bytes());
            out.extend_from_slice(&client.as_bytes()[..usize::from(id_bytes)]);
            out.push(u8::try_from(entries.len()).unwrap_or(u8::MAX));
            for entry in entries {
                out.extend_from_slice(&entry.packet_id.to_le_bytes());
                out.extend_from_slice(&entry.fingerprint.to_le_bytes());
                out.extend_from_slice(&entry.place.to_le_bytes());
            }
        }
    }

    /// The newest place that does not fit into `max_bytes`; `None` if all do.
    fn left_out(&self, max_bytes: usize) -> Option<u64> {
        let mut newest_first: Vec<(u64, &str)> = self
            .clients
            .iter()
            .flat_map(|(client, entries)| entries.iter().map(|e| (e.place, &**client)))
            .collect();
        newest_first.sort_unstable_by(|a, b| b.cmp(a));
        let mut seen = HashSet::new();
        let mut bytes = HEAD_BYTES;
        for (place, client) in newest_first {
            if seen.insert(client) {
                bytes += CLIENT_BYTES + client.len();
            }
            bytes += ENTRY_BYTES;
            if bytes > max_bytes {
                return Some(place);
            }
        }
        None
    }

    /// Reads what [`Self::encode`] wrote; returns the bytes it took as well.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), SnapshotError> {
        let mut rest = bytes;
        let [version] = take::<1>(&mut rest)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let count = u32::from_le_bytes(take(&mut rest)?);
        let mut clients = HashMap::new();
        for _ in 0..count {
            let id_bytes = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let (id, after) = rest
                .split_at_checked(id_bytes)
                .ok_or(SnapshotError::Damaged)?;
            rest = after;
            let id = std::str::from_utf8(id).map_err(|_| SnapshotError::Damaged)?;
            let [entries] = take::<1>(&mut rest)?;
            if entries == 0 || usize::from(entries) > MAX_PER_CLIENT {
                return Err(SnapshotError::Damaged);
            }
            let mut list = VecDeque::with_capacity(usize::from(entries));
            for _ in 0..entries {
                list.push_back(Entry {
                    packet_id: u16::from_le_bytes(take(&mut rest)?),
                    fingerprint: u64::from_le_bytes(take(&mut rest)?),
                    place: u64::from_le_bytes(take(&mut rest)?),
                    on: None,
                });
            }
            clients.insert(Arc::from(id), list);
        }
        Ok((Self { clients }, bytes.len() - rest.len()))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SnapshotError> {
    let (head, after) = rest
        .split_first_chunk::<N>()
        .ok_or(SnapshotError::Damaged)?;
    *rest = after;
    Ok(*head)
}

/// 64 bits that tell one message of a client from another; part of the snapshot, so it never
/// changes. Not proof against an attacker: a client can only fool itself, about its own messages.
///
/// # Source
/// Multiply and fold the 128-bit product, as in wyhash (Wang Yi, 2019), with constants of our own.
#[must_use]
pub fn fingerprint(topic: &str, payload: &[u8]) -> u64 {
    let seed = fold(
        topic.len() as u64 ^ 0x9e37_79b9_7f4a_7c15,
        payload.len() as u64,
    );
    absorb(absorb(seed, topic.as_bytes()), payload)
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<16>();
    for word in words {
        let (low, high) = word.split_at(8);
        let number = |half: &[u8]| half.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b));
        state = fold(state ^ number(low), number(high) ^ 0xe703_7ed1_a0b4_28db);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let number = u128::from_le_bytes(last);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the number"
    )]
    let (low, high) = (number as u64, (number >> 64) as u64);
    fold(
        state ^ low ^ 0x8ebc_6af0_9c88_c6e3,
        high ^ 0xa076_1d64_78bd_642f,
    )
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x2d35_8dcc_aa6c_78a5) * u128::from(b ^ 0x8bb8_4b93_962e_acc9);
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves of the product"
    )]
    let halves = (product as u64, (product >> 64) as u64);
    halves.0 ^ halves.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ON: ConnId = ConnId(1);

    fn client() -> Arc<str> {
        Arc::from("meter-7")
    }

    fn opened(packet_id: u16, place: u64) -> OpenEntries {
        let mut open = OpenEntries::default();
        open.open(&client(), packet_id, 99, place, (ON, Token(place)));
        open
    }

    #[test]
    fn dup_with_the_same_id_and_content_is_a_repeat_of_its_place() {
        let mut open = opened(5, 40);
        assert_eq!(
            open.judge("meter-7", 5, true, 99),
            Verdict::Repeat { place: 40 }
        );
        assert_eq!(
            open.judge("meter-7", 5, true, 99),
            Verdict::Repeat { place: 40 }
        );
    }

    #[test]
    fn dup_with_other_content_or_of_another_client_is_new() {
        let mut open = opened(5, 40);
        assert_eq!(open.judge("meter-7", 5, true, 98), Verdict::New);
        assert_eq!(open.judge("meter-8", 5, true, 99), Verdict::New);
        assert_eq!(open.judge("meter-7", 6, true, 99), Verdict::New);
    }

    #[test]
    fn an_id_seen_without_dup_closes_its_entry() {
        let mut open = opened(5, 40);
        assert_eq!(open.judge("meter-7", 5, false, 99), Verdict::New);
        assert_eq!(open.judge("meter-7", 5, true, 99), Verdict::New);
    }

    #[test]
    fn an_orderly_end_closes_all_and_a_lost_connection_none() {
        let mut open = opened(5, 40);
        open.disconnected("meter-7", false);
        assert_eq!(open.len(), 1);
        open.disconnected("meter-7", true);
        assert!(open.is_empty());
    }

    #[test]
    fn a_settled_token_closes_what_came_up_to_it_on_that_connection() {
        let mut open = opened(5, 40);
        open.settled("meter-7", ConnId(2), Token(100));
        open.settled("meter-7", ON, Token(39));
        assert_eq!(open.len(), 1);
        open.settled("meter-7", ON, Token(40));
        assert!(open.is_empty());
    }

    #[test]
    fn a_failed_group_leaves_no_entry_behind() {
        let mut open = opened(5, 40);
        open.open(&client(), 6, 1, 41, (ON, Token(41)));
        open.roll_back(41);
        assert_eq!(open.judge("meter-7", 6, true, 1), Verdict::New);
        assert_eq!(
            open.judge("meter-7", 5, true, 99),
            Verdict::Repeat { place: 40 }
        );
    }

    #[test]
    fn the_oldest_of_sixty_five_entries_gives_way() {
        let mut open = OpenEntries::default();
        for n in 0..=64_u16 {
            open.open(&client(), n + 1, 7, u64::from(n), (ON, Token(0)));
        }
        assert_eq!(open.len(), MAX_PER_CLIENT);
        assert_eq!(open.judge("meter-7", 1, true, 7), Verdict::New);
        assert_eq!(
            open.judge("meter-7", 2, true, 7),
            Verdict::Repeat { place: 1 }
        );
    }

    #[test]
    fn clients_that_were_quiet_longest_give_way_at_the_cap() {
        let mut open = OpenEntries::default();
        for n in 0..=MAX_CLIENTS as u64 {
            open.open(&Arc::from(format!("c{n}")), 1, 7, n, (ON, Token(0)));
        }
        assert!(open.len() <= MAX_CLIENTS);
        assert_eq!(open.judge("c0", 1, true, 7), Verdict::New);
        let newest = MAX_CLIENTS as u64;
        let verdict = open.judge(&format!("c{newest}"), 1, true, 7);
        assert_eq!(verdict, Verdict::Repeat { place: newest });
    }

    #[test]
    fn the_fingerprint_never_changes() {
        assert_eq!(fingerprint("a/b", b"12.5"), 712_145_199_250_822_233);
        let long: Vec<u8> = (0..=255).collect();
        assert_eq!(
            fingerprint("sensors/boiler", &long),
            17_270_476_237_381_718_739
        );
    }

    #[test]
    fn the_fingerprint_tells_topic_from_payload_and_each_byte() {
        assert_ne!(fingerprint("ab", b"c"), fingerprint("a", b"bc"));
        assert_ne!(fingerprint("a", b""), fingerprint("a", b"\0"));
        let base = vec![7_u8; 100];
        for at in 0..100 {
            let mut other = base.clone();
            other[at] ^= 1;
            assert_ne!(fingerprint("t", &base), fingerprint("t", &other));
        }
    }

    proptest! {
        #[test]
        fn a_snapshot_reads_back_and_takes_its_own_bytes(
            ids in proptest::collection::vec(("[a-z]{1,8}", 1_u16.., any::<u64>(), any::<u64>()), 0..100),
            tail in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut open = OpenEntries::default();
            for (client, packet_id, print, place) in &ids {
                open.open(&Arc::from(client.as_str()), *packet_id, *print, *place, (ON, Token(0)));
            }
            let mut bytes = Vec::new();
            open.encode(&mut bytes);
            let len = bytes.len();
            bytes.extend_from_slice(&tail);
            let (mut back, took) = OpenEntries::decode(&bytes).unwrap();
            prop_assert_eq!(took, len);
            let mut again = Vec::new();
            back.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..len]);
            for (client, packet_id, print, _) in &ids {
                prop_assert_eq!(
                    back.judge(client, *packet_id, true, *print),
                    open.judge(client, *packet_id, true, *print)
                );
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(OpenEntries::decode(&bytes));
        }
    }
}
