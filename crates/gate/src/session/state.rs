//! Core: publishes that wait for their PUBACK, and when a client is known to have it.

use std::collections::VecDeque;

use headwater_proto::time::Millis;

use crate::ingest::Token;

/// Publishes without PUBACK, oldest first. Tokens are dense, so a token is an index.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    entries: VecDeque<Entry>,
    first: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bytes: u32,
    packet_id: u16,
    released: bool,
}

impl Unacked {
    /// Entries kept allocated when none waits.
    const SPARE: usize = 64;

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, packet_id: u16, bytes: usize) -> Token {
        let token = Token(self.first + self.entries.len() as u64);
        self.bytes += bytes;
        let bytes = u32::try_from(bytes).expect("an MQTT packet is below 256 MiB");
        self.entries.push_back(Entry {
            bytes,
            packet_id,
            released: false,
        });
        token
    }

    /// Marks one, then says which packet ids may be acknowledged, in order of receipt. Returns the
    /// last of them.
    pub(super) fn release(&mut self, token: Token, mut ack: impl FnMut(u16)) -> Option<Token> {
        let index = usize::try_from(token.0.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)?.released = true;
        let mut last = None;
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.released) {
            self.bytes -= entry.bytes as usize;
            ack(entry.packet_id);
            last = Some(Token(self.first));
            self.first += 1;
        }
        if self.entries.is_empty() && self.entries.capacity() > Self::SPARE {
            self.entries.shrink_to(Self::SPARE);
        }
        last
    }
}

/// Watches for a sign of life long enough after a PUBACK. Two marks are enough: what is
/// acknowledged while one mark waits is settled with the next.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Agents have identities of their own, so nobody asks about their packet ids.
    plain: bool,
    waiting: Option<(Token, Millis)>,
    newest: Option<(Token, Millis)>,
}

impl Settling {
    pub(super) fn plain_seen(&mut self) {
        self.plain = true;
    }

    pub(super) fn acked(&mut self, through: Token, now: Millis) {
        if self.plain {
            self.newest = Some((through, now));
            self.waiting.get_or_insert((through, now));
        }
    }

    pub(super) fn heard(&mut self, now: Millis, settle_ms: u64) -> Option<Token> {
        let late = |mark: Option<(Token, Millis)>| {
            mark.filter(|(_, at)| now.since(*at) > settle_ms)
                .map(|(token, _)| token)
        };
        if let Some(all) = late(self.newest) {
            (self.waiting, self.newest) = (None, None);
            return Some(all);
        }
        let through = late(self.waiting)?;
        self.waiting = self.newest;
        Some(through)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pubacks_wait_for_those_before_them() {
        let mut unacked = Unacked::default();
        let tokens: Vec<Token> = (1..=3).map(|id| unacked.push(id, 10)).collect();
        let mut acked = Vec::new();
        assert_eq!(unacked.release(tokens[1], |id| acked.push(id)), None);
        assert_eq!(
            unacked.release(tokens[0], |id| acked.push(id)),
            Some(tokens[1])
        );
        assert_eq!(unacked.release(tokens[0], |id| acked.push(id)), None);
        assert_eq!((acked, unacked.len(), unacked.bytes()), (vec![1, 2], 1, 10));
    }

    #[test]
    fn a_token_never_given_out_releases_nothing() {
        let mut unacked = Unacked::default();
        unacked.push(1, 10);
        assert_eq!(unacked.release(Token(7), |_| unreachable!()), None);
        assert_eq!(unacked.release(Token(u64::MAX), |_| unreachable!()), None);
    }

    #[test]
    fn a_sign_of_life_after_the_time_settles_what_was_acked_before_it() {
        let mut settling = Settling::default();
        settling.plain_seen();
        settling.acked(Token(4), Millis(0));
        settling.acked(Token(9), Millis(20_000));
        assert_eq!(settling.heard(Millis(30_000), 30_000), None);
        assert_eq!(settling.heard(Millis(30_001), 30_000), Some(Token(4)));
        assert_eq!(settling.heard(Millis(50_000), 30_000), None);
        assert_eq!(settling.heard(Millis(50_001), 30_000), Some(Token(9)));
        assert_eq!(settling.heard(Millis(99_000), 30_000), None);
    }
}
