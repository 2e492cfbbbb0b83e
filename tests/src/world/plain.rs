//! Core: a plain MQTT device: it keeps a message until its PUBACK, and sends it again after a
//! reconnect with the same packet id and DUP.

use std::sync::Arc;

use bytes::Bytes;
use headwater_collector::pipeline::custody::{Event, PlainPublish};
use headwater_gate::repeat::fingerprint;
use headwater_gate::{ConnId, Token};

use super::collector::plain_topic;

/// One plain device; its messages carry the numbers 0, 1, 2 ...
#[derive(Debug)]
pub struct Plain {
    /// Its name, and its client id.
    pub name: String,
    /// Its connection, if it has one.
    pub conn: Option<ConnId>,
    next: u64,
    /// The message that waits for its PUBACK: packet id, payload, whether it was sent before.
    open: Option<(u16, String, bool)>,
    /// The token of that message on this connection.
    token: Option<Token>,
    next_token: u64,
    next_packet_id: u16,
    /// Numbers whose PUBACK it has: it holds these no more.
    pub acknowledged: Vec<u64>,
}

impl Plain {
    /// A device that has sent nothing.
    #[must_use]
    pub const fn new(name: String) -> Self {
        Self {
            name,
            conn: None,
            next: 0,
            open: None,
            token: None,
            next_token: 0,
            next_packet_id: 1,
            acknowledged: Vec::new(),
        }
    }

    /// How many messages it made.
    #[must_use]
    pub const fn made(&self) -> u64 {
        self.next
    }

    /// A new connection.
    pub fn connect(&mut self, conn: ConnId) -> Event {
        self.conn = Some(conn);
        self.token = None;
        self.next_token = 0;
        Event::Connected {
            conn,
            client: Arc::from(self.name.as_str()),
        }
    }

    /// The connection is gone; says so to the collector.
    pub fn disconnect(&mut self) -> Option<Event> {
        let conn = self.conn.take()?;
        self.token = None;
        Some(Event::Disconnected {
            conn,
            client: Arc::from(self.name.as_str()),
            orderly: false,
        })
    }

    /// Publishes the next message, or the open one again; nothing while it waits for a PUBACK.
    pub fn publish(&mut self, may_begin: bool) -> Option<Event> {
        let conn = self.conn?;
        if self.token.is_some() {
            return None;
        }
        if self.open.is_none() {
            if !may_begin {
                return None;
            }
            let payload = format!("{{\"values\":{{\"number\":{}}}}}", self.next);
            self.next += 1;
            self.open = Some((self.next_packet_id, payload, false));
            self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        }
        let (packet_id, payload, before) = self.open.as_mut()?;
        let token = Token(self.next_token);
        let topic = plain_topic(&self.name);
        let publish = PlainPublish {
            conn,
            client: Arc::from(self.name.as_str()),
            fingerprint: fingerprint(&topic, payload.as_bytes()),
            topic: Arc::from(topic),
            payload: Bytes::from(payload.clone()),
            dup: *before,
            packet_id: *packet_id,
            token: Some(token),
        };
        *before = true;
        self.next_token += 1;
        self.token = Some(token);
        Some(Event::Plain(publish))
    }

    /// It waits for no PUBACK any more.
    pub fn give_up(&mut self) {
        (self.token, self.open) = (None, None);
    }

    /// A PUBACK came.
    pub fn acknowledge(&mut self, token: Token) {
        if self.token == Some(token) {
            self.token = None;
            self.open = None;
            self.acknowledged.push(self.next - 1);
        }
    }

    /// Whether nothing waits for a PUBACK.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.open.is_none()
    }
}
