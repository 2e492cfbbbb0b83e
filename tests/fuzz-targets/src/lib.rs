//! A fuzz target for every decoder of bytes from outside or from a disk.
//!
//! A target is a plain function from bytes to nothing, which panics where its sentence does not
//! hold. `tests/fuzz` runs them under libFuzzer; the tests of this package run each over its seeds
//! and what a few thousand small changes make of them. Nothing is switched off or on for fuzzing:
//! the decoders are what ships. Formats with a checksum have it mended first ([`mend`]), so that
//! what lies behind it is reached.
//!
//! | family | what |
//! |---|---|
//! | `codec` | schemas and batches |
//! | `mqtt` | packets, and a connection of the gate |
//! | `wire` | frames, bundles, messages, log lines, topics, packets on a serial line, what a node sends |
//! | `disk` | segments, records, snapshots, plans, table logs |
//! | `text` | lines, payloads, tables, configuration |

pub mod codec;
pub mod disk;
pub mod heap;
pub mod mend;
pub mod mqtt;
pub mod seeds;
pub mod session;
pub mod texts;
pub mod wire;

/// One decoder and what must hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, which begins with its family's; `targets/NAME.rs` runs it.
    pub name: &'static str,
    /// Judges one input; panics if anything does not hold.
    pub run: fn(&[u8]),
    /// Where its corpus begins.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

const fn target(name: &'static str, run: fn(&[u8]), seeds: fn() -> Vec<Vec<u8>>) -> Target {
    Target { name, run, seeds }
}

fn topic_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&["hw/1/29/pump-7/up", "hw/1/30/a/down"])
}

/// Every target.
pub const TARGETS: [Target; 33] = [
    target("codec_schema", codec::schema, codec::schema_seeds),
    target("codec_rows", codec::rows, codec::batch_seeds),
    target("codec_batch", codec::batch, codec::batch_seeds),
    target("mqtt_decode_v4", mqtt::v4, mqtt::seeds),
    target("mqtt_decode_v5", mqtt::v5, mqtt::seeds),
    target("mqtt_round_trip", mqtt::round_trip, mqtt::round_trip_seeds),
    target("mqtt_session", session::talk, session::seeds),
    target("wire_frame", wire::frame, wire::frame_seeds),
    target("wire_bundle", wire::bundle, wire::bundle_seeds),
    target("wire_message", wire::message, wire::message_seeds),
    target("wire_text", wire::text, wire::text_seeds),
    target("wire_topic", wire::topic, topic_seeds),
    target("wire_serial", wire::serial, wire::serial_seeds),
    target(
        "wire_node_packet",
        wire::node_packet,
        wire::node_packet_seeds,
    ),
    target("disk_receiver", wire::receiver, wire::receiver_seeds),
    target("disk_spool", disk::spool, disk::spool_seeds),
    target(
        "disk_agent_record",
        disk::agent_record,
        disk::agent_record_seeds,
    ),
    target(
        "disk_agent_snapshot",
        disk::agent_snapshot,
        disk::agent_snapshot_seeds,
    ),
    target(
        "disk_journal_record",
        disk::journal_record,
        disk::journal_record_seeds,
    ),
    target(
        "disk_journal_snapshot",
        disk::journal_snapshot,
        disk::journal_snapshot_seeds,
    ),
    target(
        "disk_open_entries",
        disk::open_entries,
        disk::open_entries_seeds,
    ),
    target("disk_plan", disk::plan, disk::plan_seeds),
    target("disk_table_log", disk::table_log, disk::table_log_seeds),
    target(
        "disk_node_record",
        disk::node_record,
        disk::node_record_seeds,
    ),
    target(
        "disk_node_snapshot",
        disk::node_snapshot,
        disk::node_snapshot_seeds,
    ),
    target("text_influx", texts::influx, texts::influx_seeds),
    target("text_json", texts::json, texts::json_seeds),
    target("text_single", texts::single, texts::single_seeds),
    target("text_replay", texts::replay, texts::replay_seeds),
    target(
        "text_followed_file",
        texts::followed_file,
        texts::followed_file_seeds,
    ),
    target(
        "text_plain_payload",
        texts::plain_payload,
        texts::plain_payload_seeds,
    ),
    target(
        "text_agent_config",
        texts::agent_config,
        texts::agent_config_seeds,
    ),
    target(
        "text_collector_config",
        texts::collector_config,
        texts::collector_config_seeds,
    ),
];
