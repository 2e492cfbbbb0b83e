//! Sizes that the standard bounds: what just fits is taken, one byte more is refused.

use headwater_proto::mqtt::{
    self, DecodeError, EncodeError, MAX_REMAINING_BYTES, MAX_TEXT_BYTES, Packet, Properties,
    Publish, Qos, Version, decode, encode, encoded_len, filter_is_valid, topic_is_valid,
};

fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_id: 0,
        properties: Properties::EMPTY,
        payload,
    })
}

#[test]
fn a_topic_of_the_most_bytes_comes_back_and_a_longer_one_is_refused() {
    let long = "t".repeat(MAX_TEXT_BYTES + 1);
    let topic = &long[1..];
    assert!(topic_is_valid(topic) && !topic_is_valid(&long));
    assert!(filter_is_valid(topic) && !filter_is_valid(&long));
    let mut out = vec![0; MAX_TEXT_BYTES + 16];
    let packet = publish(topic, b"x");
    let len = encode(&packet, Version::V4, &mut out).expect("the topic fits");
    assert_eq!(
        decode(&out[..len], Version::V4, len),
        Ok(Some((packet, len)))
    );
    assert_eq!(
        encode(&publish(&long, b"x"), Version::V4, &mut out),
        Err(EncodeError::Invalid(DecodeError::TopicName))
    );
}

#[test]
fn a_packet_of_the_most_bytes_is_measured_and_a_larger_one_refused() {
    // Zeros that nobody writes take no memory.
    let payload = vec![0; MAX_REMAINING_BYTES];
    let topic_bytes = 2 + 1;
    let largest = publish("t", &payload[topic_bytes..]);
    let header_bytes = 1 + 4;
    assert_eq!(
        encoded_len(&largest, Version::V4),
        Ok(header_bytes + mqtt::MAX_REMAINING_BYTES)
    );
    let larger = publish("t", &payload[topic_bytes - 1..]);
    assert_eq!(
        encoded_len(&larger, Version::V4),
        Err(EncodeError::TooLarge)
    );
}
