//! Core: what is on its way between a device and the collector.

use std::collections::VecDeque;

use headwater_gate::{ConnId, Token};

use super::dice::Dice;

/// How badly a link treats what it carries; each one in so many messages, 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weather {
    /// Messages lost.
    pub loses: u64,
    /// Messages delivered twice.
    pub repeats: u64,
    /// Messages overtaken by a later one.
    pub reorders: u64,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Its number at the collector.
    pub conn: ConnId,
    up: VecDeque<(Token, Vec<u8>)>,
    down: VecDeque<Vec<u8>>,
    next_token: u64,
}

impl Link {
    /// A new connection with nothing on its way.
    #[must_use]
    pub const fn new(conn: ConnId) -> Self {
        Self::of_node(conn, 0)
    }

    /// One of several that share a connection: the tokens of each are its own.
    #[must_use]
    pub const fn of_node(conn: ConnId, place: u64) -> Self {
        Self {
            conn,
            up: VecDeque::new(),
            down: VecDeque::new(),
            next_token: (place << 32) + 1,
        }
    }

    /// Sends a publish to the collector.
    pub fn send_up(&mut self, payload: Vec<u8>) {
        self.up.push_back((Token(self.next_token), payload));
        self.next_token += 1;
    }

    /// Sends a message to the device.
    pub fn send_down(&mut self, payload: Vec<u8>) {
        self.down.push_back(payload);
    }

    /// What arrives at the collector next, if anything does.
    pub fn take_up(&mut self, weather: Weather, dice: &mut Dice) -> Option<(Token, Vec<u8>)> {
        take(&mut self.up, weather, dice)
    }

    /// What arrives at the device next, if anything does.
    pub fn take_down(&mut self, weather: Weather, dice: &mut Dice) -> Option<Vec<u8>> {
        take(&mut self.down, weather, dice)
    }

    /// Whether nothing is on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.up.is_empty() && self.down.is_empty()
    }

    /// Messages on their way up.
    #[must_use]
    pub fn waiting_up(&self) -> usize {
        self.up.len()
    }
}

/// Takes what arrives next out of a queue, if anything does.
pub(super) fn take<T: Clone>(
    queue: &mut VecDeque<T>,
    weather: Weather,
    dice: &mut Dice,
) -> Option<T> {
    if queue.is_empty() {
        return None;
    }
    let at = if dice.one_in(weather.reorders) {
        dice.index(queue.len())
    } else {
        0
    };
    let message = queue.remove(at)?;
    if dice.one_in(weather.repeats) {
        let again = dice.index(queue.len() + 1);
        queue.insert(again, message.clone());
    }
    (!dice.one_in(weather.loses)).then_some(message)
}
