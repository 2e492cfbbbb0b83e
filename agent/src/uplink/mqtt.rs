//! The link over MQTT 3.1.1 with rumqttc.
//!
//! Nothing is remembered or forgotten because of the client's state: its session is clean, what it
//! drops on a reconnect is sent again by the engine, and its PUBACKs are used for pacing only. The
//! poll loop runs bare in a task of its own that never publishes; the request channel holds one.

use std::time::Duration;

use headwater_proto::delivery::Jitter;
use headwater_proto::ids::DeviceId;
use headwater_proto::topic;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::LinkEvent;
use crate::config::Collector;
use crate::pipeline::engine::MAX_DOWN_BYTES;

/// First pause after a failed connection; doubled up to the longest.
const FIRST_PAUSE_MS: u64 = 500;
/// Longest pause: a fleet comes back within about a minute.
const LONGEST_PAUSE_MS: u64 = 60_000;
/// Bytes of MQTT around a publish's payload: topic, packet id, header.
pub(super) const PACKET_OVERHEAD_BYTES: usize = 256;
/// Publishes that wait for their PUBACK at the client; the engine's window is smaller.
const INFLIGHT: u16 = 32;

/// The client and its poll loop, not yet connected.
pub struct Link {
    client: AsyncClient,
    poll: EventLoop,
    device: DeviceId,
}

impl Link {
    /// Prepares the link.
    ///
    /// - `password`: for the user of the configuration, if it names one.
    /// - `max_bundle`: largest publish of the engine.
    #[must_use]
    pub fn new(
        collector: &Collector,
        password: Option<String>,
        device: &DeviceId,
        max_bundle: u32,
    ) -> Self {
        let mut options = MqttOptions::new(device.as_str(), &collector.host, collector.port);
        options.set_keep_alive(Duration::from_secs(collector.keep_alive_s.into()));
        options.set_clean_session(true);
        options.set_inflight(INFLIGHT);
        options.set_max_packet_size(
            MAX_DOWN_BYTES as usize + PACKET_OVERHEAD_BYTES,
            max_bundle as usize + PACKET_OVERHEAD_BYTES,
        );
        if let Some((user, _)) = &collector.login {
            options.set_credentials(user, password.unwrap_or_default());
        }
        let (client, mut poll) = AsyncClient::new(options, 1);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        poll.set_network_options(network);
        Self {
            client,
            poll,
            device: device.clone(),
        }
    }

    /// Runs both tasks until the engine is gone: publishes what comes from `up`, tells `events`.
    pub async fn run(
        self,
        up: mpsc::Receiver<Vec<u8>>,
        events: mpsc::Sender<LinkEvent>,
        seed: u64,
    ) {
        let topic = topic::up(&self.device);
        let publisher = publish(self.client.clone(), up, topic.as_str().to_owned());
        let down = topic::down(&self.device).as_str().to_owned();
        let poller = poll(self.poll, self.client, down, events, Jitter::new(seed));
        // The tasks are separate: a publish waits while the poll loop works.
        let publisher = tokio::spawn(publisher);
        let poller = tokio::spawn(poller);
        let _ = publisher.await;
        poller.abort();
    }
}

async fn publish(client: AsyncClient, mut up: mpsc::Receiver<Vec<u8>>, topic: String) {
    while let Some(bytes) = up.recv().await {
        if client
            .publish(&topic, QoS::AtLeastOnce, false, bytes)
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn poll(
    mut poll: EventLoop,
    client: AsyncClient,
    down: String,
    events: mpsc::Sender<LinkEvent>,
    mut jitter: Jitter,
) {
    let mut pause_ms = FIRST_PAUSE_MS;
    let mut told_up = false;
    // Connected, and not yet subscribed: a publish of the last connection may hold the only place.
    let mut subscribe = false;
    let mut last_error = String::new();
    loop {
        let polled = poll.poll().await;
        match &polled {
            Ok(Event::Incoming(Packet::ConnAck(_))) => subscribe = true,
            Ok(_) => {}
            Err(_) => subscribe = false,
        }
        // What holds the place goes out first, and is an event of its own: then there is room.
        if subscribe && client.try_subscribe(&down, QoS::AtLeastOnce).is_ok() {
            subscribe = false;
        }
        let event = match polled {
            Ok(Event::Incoming(Packet::SubAck(_))) => {
                tracing::info!("connected to the collector");
                (pause_ms, told_up) = (FIRST_PAUSE_MS, true);
                last_error.clear();
                Some(LinkEvent::Up)
            }
            Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == down => {
                Some(LinkEvent::Message(publish.payload.to_vec()))
            }
            Ok(_) => None,
            Err(error) => {
                let text = error.to_string();
                if text != last_error {
                    tracing::warn!("no connection to the collector: {text}");
                    last_error = text;
                }
                if std::mem::take(&mut told_up) && events.send(LinkEvent::Down).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(jitter.lengthen(pause_ms))).await;
                pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
                None
            }
        };
        if let Some(event) = event
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}
