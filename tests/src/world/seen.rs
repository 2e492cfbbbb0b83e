//! Core: how often things happened in a run.

use headwater_agent::pipeline::engine::{Counters as AgentCounters, NodeCounters};
use headwater_collector::pipeline::custody::Counters as CollectorCounters;

/// What a good run saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Readings that were made.
    pub made: u64,
    /// Of these, found in the lake.
    pub found: u64,
    /// Deaths of agents and of the collector.
    pub deaths: u64,
    /// Virtual milliseconds.
    pub elapsed_ms: u64,
    /// What happened on the way.
    pub seen: Seen,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Self) {
        self.made += other.made;
        self.found += other.found;
        self.deaths += other.deaths;
        self.elapsed_ms += other.elapsed_ms;
        self.seen.add(&other.seen);
    }
}

/// [`Seen`] from one list of its counters.
macro_rules! seen {
    ($($(#[$what:meta])+ $name:ident)+) => {
        /// How often the rarer things happened: a world in which one never does proves nothing about it.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Seen {
            $($(#[$what])+ pub $name: u64,)+
        }

        impl Seen {
            /// Names and counts.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }

            fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

seen! {
    /// Starts of the collector with a clock that was far off.
    wrong_starts
    /// Times that the collector doubted its clock.
    clock_doubts
    /// Records that agents evicted.
    evicted
    /// Times a lane of an agent gave its disk up for a while.
    fell_to_memory
    /// Groups of agents whose sync failed.
    agent_syncs_failed
    /// Groups of the collector whose sync failed.
    collector_syncs_failed
    /// Records that came to the collector again.
    repeats
    /// Records that the collector refused.
    rejects
    /// Publishes that waited for room in the journal.
    withheld
    /// Journal segments given back.
    segments_released
    /// Gaps that the collector named.
    gaps_named
    /// Schemas the collector had to ask for.
    schemas_asked
    /// Publishes of plain devices that were known already.
    plain_repeats
    /// Devices that shared an identity.
    clones
    /// Sources that went on behind what the collector holds of their content, and their spool did not know.
    adopted
    /// Losses of the collector's disk.
    disks_lost
    /// Log lines in the lake.
    lines
    /// Lakes that keep the dictionary of log lines.
    dictionaries
    /// Publishes that came through the gateway.
    via_gateway
    /// Samples that nodes behind agents made.
    nodes_made
    /// Of these, found in the lake.
    nodes_found
    /// Deaths of agents with nodes behind them.
    nodes_agents_died
    /// Restarts of nodes.
    nodes_restarted
    /// Nodes that were carried to another agent.
    nodes_moved
    /// Records of nodes that came to their agent again.
    nodes_repeats
    /// Records that agents did not take, and that their nodes kept.
    nodes_not_taken
    /// Records of nodes that agents evicted.
    nodes_evicted
    /// Records that a second sink took.
    copied
    /// Calls of the second sink that failed.
    copies_failed
    /// Streams of which it refused records.
    copies_refused
    /// Copies of what sinks refused for good.
    dead_letters
    /// Records that it was left behind by.
    left_behind
    /// Times that it was taken out.
    copies_taken_out
    /// Batches that the stream's service was sent.
    batches
    /// Of these, those that came again.
    batches_repeated
    /// Batches that were made again from their plan.
    batches_remade
    /// Calls of the service that failed.
    batches_failed
    /// Items that it refused.
    items_refused
    /// Orderly ends of the collector.
    orderly_ends
    /// Wall clocks of devices that were set.
    device_clock_steps
    /// Times that the collector's wall clock was set.
    collector_clock_steps
    /// Times that a gateway could not reach the collector for long.
    gateways_away
    /// Collectors that were stopped while another one took their lake over.
    takeovers
    /// Of these, those that stood still in the midst of a step of their sink.
    stopped_midway
    /// And those that woke and found that out.
    fenced
    /// Starts of the collector with other rules.
    rules_changed
    /// Readings in quarantine for times that lie outside it.
    untimely
    /// Readings in quarantine because nothing dates their boot.
    undated
    /// Readings in the lake that were made by uptime.
    dated
    /// Batches that the second sink took as they are in the journal.
    blocks
    /// Tables of the lake with a checkpoint.
    checkpoints
    /// Bits of the journal that flipped.
    rotten
    /// Old copies of the journal's disk brought back.
    journals_restored
    /// Old copies of the lake brought back.
    lakes_restored
    /// Parts of the lake's logs lost.
    holes
    /// Of these, those at which a start was refused.
    holes_refused
    /// Starts without a readable snapshot.
    journals_rebuilt
    /// Records that the journal lost and the collector asked for again.
    asked_again
    /// Epochs that came back after the collector had let go of them.
    recalled
    /// Receipts that were not durable.
    not_durable
    /// Starts without the lake.
    begun_alone
    /// Old copies of the journal that such a start began with.
    renamed_late
}

impl Seen {
    /// Adds what an agent counted in its life.
    pub(super) const fn add_agent(&mut self, counters: &AgentCounters, of_nodes: &NodeCounters) {
        self.nodes_repeats += of_nodes.repeats;
        self.nodes_not_taken += of_nodes.not_taken;
        self.nodes_evicted += of_nodes.evicted_records;
        self.evicted += counters.evicted_records;
        self.fell_to_memory += counters.disk_failures;
        self.agent_syncs_failed += counters.failed_syncs;
    }

    /// Adds what the collector counted in its life.
    pub(super) const fn add_collector(&mut self, counters: &CollectorCounters) {
        self.clock_doubts += counters.clock_doubts_total;
        self.collector_syncs_failed += counters.groups_failed_total;
        self.repeats += counters.repeats_total;
        self.rejects += counters.rejects_total;
        self.withheld += counters.withheld_total;
        self.segments_released += counters.segments_released_total;
        self.gaps_named += counters.gaps_named_total;
        self.schemas_asked += counters.schema_requests_total;
        self.plain_repeats += counters.plain_repeats_total;
        self.asked_again += counters.asked_again_total;
        self.recalled += counters.recalled_total;
    }
}
