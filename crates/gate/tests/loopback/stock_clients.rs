//! Clients that others wrote.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::harness::{DEADLINE, Setup, TestGate};
use headwater_gate::store::MemoryStore;
use headwater_gate::{Body, GateEvent};
use headwater_proto::mqtt::Qos;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};

fn mosquitto_pub(gate: &TestGate, args: &[&str]) -> Child {
    let port = gate.addr.port().to_string();
    Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub runs; it is in the package mosquitto-clients, which tests/run names")
}

fn plain(event: &headwater_gate::Arrival) -> (&str, &[u8], Qos) {
    match &event.body {
        Body::Plain {
            topic,
            payload,
            qos,
            ..
        } => (topic, payload, *qos),
        Body::Agent { .. } => panic!("{event:?}"),
    }
}

#[test]
fn mosquitto_pub_returns_only_when_its_message_is_durable() {
    for version in ["mqttv311", "mqttv5"] {
        let gate = TestGate::quiet();
        let args = ["-V", version, "-q", "1", "-t", "sensors/m1/t", "-m", "21.5"];
        let mut publisher = mosquitto_pub(&gate, &args);
        let arrivals = gate.arrivals(1);
        assert_eq!(
            plain(&arrivals[0]),
            ("sensors/m1/t", &b"21.5"[..], Qos::AtLeastOnce)
        );
        assert!(
            publisher.try_wait().unwrap().is_none(),
            "it returned before its PUBACK"
        );
        gate.release(&arrivals[0]);
        assert!(publisher.wait().unwrap().success());
        gate.owner.wait(|seen| {
            let ended = |e: &GateEvent| matches!(e, GateEvent::Disconnected { orderly: true, .. });
            seen.iter().any(ended).then_some(())
        });
    }
}

#[test]
fn mosquitto_pub_sends_qos_0_in_one_go() {
    for version in ["mqttv311", "mqttv5"] {
        let gate = TestGate::quiet();
        let args = ["-V", version, "-q", "0", "-t", "sensors/m1/t", "-m", "x"];
        assert!(mosquitto_pub(&gate, &args).wait().unwrap().success());
        assert_eq!(plain(&gate.arrivals(1)[0]).2, Qos::AtMostOnce);
    }
}

#[test]
fn mosquitto_pub_learns_that_qos_2_is_not_spoken() {
    let gate = TestGate::quiet();
    let args = ["-V", "mqttv5", "-q", "2", "-t", "sensors/m1/t", "-m", "x"];
    let output = mosquitto_pub(&gate, &args).wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("qos"), "{said}");
    assert!(
        gate.owner
            .seen()
            .iter()
            .all(|e| !matches!(e, GateEvent::Arrival(_)))
    );
}

fn options(gate: &TestGate, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, "127.0.0.1", gate.addr.port());
    options
        .set_clean_session(false)
        .set_keep_alive(Duration::from_secs(30));
    options
}

/// A client resends after a restart only because the session is present; without it rumqttc drops
/// what was not acknowledged, without an error.
#[test]
fn rumqttc_resends_after_a_restart_what_was_not_acknowledged() {
    const MESSAGES: usize = 20;
    let store = Arc::new(MemoryStore::default());
    let mut gate = TestGate::start(Setup {
        store: store.clone(),
        ..Setup::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut connection) = AsyncClient::new(options(&gate, "m1"), 10);
    let (acked, acks) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        loop {
            match connection.poll().await {
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    if acked.send(ack.pkid).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    runtime.block_on(async {
        for n in 0..MESSAGES {
            let payload = n.to_string();
            client
                .publish("sensors/m1/t", QoS::AtLeastOnce, false, payload)
                .await
                .unwrap();
        }
    });
    // All arrived, none is durable, and the gate goes away.
    gate.arrivals(MESSAGES);
    let addr = gate.addr;
    gate.stop();
    assert!(acks.try_recv().is_err());
    let gate = TestGate::start(Setup {
        store,
        addr,
        release: true,
        ..Setup::default()
    });
    let again = gate.arrivals(MESSAGES);
    let payloads: Vec<String> = again
        .iter()
        .map(|arrival| String::from_utf8_lossy(plain(arrival).1).into_owned())
        .collect();
    assert_eq!(
        payloads,
        (0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    for _ in 0..MESSAGES {
        acks.recv_timeout(DEADLINE)
            .expect("every message is acknowledged in the end");
    }
}

#[test]
fn an_agent_with_rumqttc_hears_its_down_topic() {
    let gate = TestGate::start(Setup {
        release: true,
        ..Setup::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (client, mut connection) = AsyncClient::new(options(&gate, "pi-1"), 10);
    runtime.block_on(async {
        client
            .subscribe("hw/1/0a/pi-1/down", QoS::AtLeastOnce)
            .await
            .unwrap();
        client
            .publish("hw/1/0a/pi-1/up", QoS::AtLeastOnce, false, "hello")
            .await
            .unwrap();
    });
    let heard = runtime.spawn(async move {
        loop {
            if let Event::Incoming(Packet::Publish(publish)) = connection.poll().await.unwrap() {
                return publish.payload;
            }
        }
    });
    let conn = gate.arrivals(1)[0].conn;
    gate.handle.send_down(conn, "welcome".into()).unwrap();
    let heard = runtime.block_on(async { tokio::time::timeout(DEADLINE, heard).await });
    let heard = heard.expect("the message comes").unwrap();
    assert_eq!(&heard[..], b"welcome");
}
