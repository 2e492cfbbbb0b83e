//! A hand-driven MQTT client: does exactly what a test says, and nothing by itself.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use headwater_proto::mqtt::{
    Connect, Packet, Properties, Publish, Qos, Version, encode, encoded_len,
};

use crate::process::PATIENCE;

/// How long a write may find no room before the other side counts as not taking any more.
const FULL_AFTER: Duration = Duration::from_secs(1);

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
}

impl Client {
    /// A TCP connection on which nothing is said.
    ///
    /// # Errors
    /// When it is refused.
    pub fn silent(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// An MQTT 3.1.1 session with a keep-alive of ten minutes.
    ///
    /// # Errors
    /// When it is refused.
    pub fn connect(address: SocketAddr, client_id: &str) -> Result<Self> {
        let mut client = Self::silent(address)?;
        client
            .stream
            .write_all(&bytes_of(&Packet::Connect(Connect {
                version: Version::V4,
                client_id,
                clean_start: true,
                keep_alive_s: 600,
                user: None,
                password: None,
                will: None,
                properties: Properties::EMPTY,
            }))?)?;
        let mut answer = [0; 4];
        client
            .stream
            .read_exact(&mut answer)
            .context("no CONNACK")?;
        if answer != [0x20, 2, 0, 0] {
            bail!("{client_id} is refused: {answer:02x?}");
        }
        Ok(client)
    }

    /// Sends a QoS 1 publish.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn publish(&mut self, topic: &str, packet_id: u16, payload: &[u8]) -> Result<()> {
        Ok(self
            .stream
            .write_all(&publish(topic, packet_id, payload)?)?)
    }

    /// Reads the PUBACK of `packet_id`.
    ///
    /// # Errors
    /// When something else comes, or nothing.
    pub fn expect_puback(&mut self, packet_id: u16) -> Result<()> {
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).context("no PUBACK")?;
        let [high, low] = packet_id.to_be_bytes();
        if answer != [0x40, 2, high, low] {
            bail!("not the PUBACK of {packet_id}: {answer:02x?}");
        }
        Ok(())
    }

    /// Publishes at QoS 1 without reading a single answer, until the other side takes no more,
    /// closes, or `limit` bytes are sent. Returns the bytes that went out.
    ///
    /// # Errors
    /// When the socket fails in another way.
    pub fn flood(&mut self, topic: &str, payload: &[u8], limit: usize) -> Result<usize> {
        self.stream.set_write_timeout(Some(FULL_AFTER))?;
        let mut sent = 0;
        let mut packet_id = 0_u16;
        while sent < limit {
            packet_id = packet_id.checked_add(1).unwrap_or(1);
            let packet = publish(topic, packet_id, payload)?;
            match self.stream.write_all(&packet) {
                Ok(()) => sent += packet.len(),
                Err(error) if takes_no_more(error.kind()) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sent)
    }
}

fn takes_no_more(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
    matches!(kind, WouldBlock | TimedOut | ConnectionReset | BrokenPipe)
}

fn publish(topic: &str, packet_id: u16, payload: &[u8]) -> Result<Vec<u8>> {
    bytes_of(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        packet_id,
        properties: Properties::EMPTY,
        payload,
    }))
}

fn bytes_of(packet: &Packet<'_>) -> Result<Vec<u8>> {
    let length = encoded_len(packet, Version::V4).context("the packet is too long")?;
    let mut bytes = vec![0; length];
    encode(packet, Version::V4, &mut bytes).context("the packet is too long")?;
    Ok(bytes)
}
