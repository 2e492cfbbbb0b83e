//! Core: what a seed decides before the run begins.

use headwater_collector::pipeline::rules::TimeWindow;

use super::copy::CopyFaults;
use super::dice::Dice;
use super::link::Weather;

/// A segment of the journal: small, and more than a run's snapshot and schemas, which stand in each, leave.
pub const JOURNAL_SEGMENT_BYTES: u64 = 12 << 10;

/// Furthest that a wall clock is set off the true time: two that are so far apart are still within
/// the hour by which a reading may be ahead of its receipt.
pub const MAX_STEP_US: i64 = 20 * 60 * 1_000_000;

/// The time window that a collector of the world starts with now and then: readings of a backlog are too
/// old for it, and those by a clock that was set too old or too new.
pub const NARROW: TimeWindow = TimeWindow {
    max_late_us: Some(8_000_000),
    max_ahead_us: 2_000_000,
};

/// Most nodes behind the agents of one run.
const MOST_BEHIND: usize = 3;

/// Marks the choice that is about the collector's clock.
const WRONG_STARTS: u64 = 0x7374_6172_7473;
/// Marks the choice that is about copies of the lake.
const OLD_LAKES: u64 = 0x006c_616b_6573;
/// Marks the choice that is about the lake's logs.
const HOLES: u64 = 0x0068_6f6c_6573;
/// Epochs that are over are kept for longer than a run lasts.
const KEPT_FOR_GOOD_MS: u64 = 24 * 3_600 * 1_000;
/// Marks the choices that are about nodes behind agents.
pub(super) const BEHIND: u64 = 0x6265_6869_6e64;

/// The faults of one run; each one in so many steps, 0 is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Devices at the start.
    pub devices: usize,
    /// Devices beside them that reach the collector through a gateway.
    pub nodes: usize,
    /// Two gateways hold a part each of what is a node's.
    pub shared_nodes: bool,
    /// Times that a gateway cannot reach the collector for long.
    pub gateways_away: u64,
    /// Small devices behind agents, which keep and date what they bring.
    pub behind: usize,
    /// Times that one of them is carried to another agent.
    pub moves: u64,
    /// Plain MQTT devices.
    pub plain: usize,
    /// A second sink beside the lake; whether the journal waits for it.
    pub copy: Option<bool>,
    /// The second sink takes batches as they are in the journal, where it may.
    pub copy_blocks: bool,
    /// How the second sink's destination treats it.
    pub copy_faults: CopyFaults,
    /// Steps before the second sink is taken out.
    pub copy_leaves: u64,
    /// A stream sink beside the others; whether the journal waits for it.
    pub stream: Option<bool>,
    /// How the stream's service treats it.
    pub stream_faults: CopyFaults,
    /// Orderly ends of the collector between two steps.
    pub stops: u64,
    /// Steps before the drain.
    pub steps: u64,
    /// How the links treat messages.
    pub weather: Weather,
    /// Connections cut.
    pub cuts: u64,
    /// Deaths between two steps.
    pub deaths: u64,
    /// Deaths between two commands, per command.
    pub deaths_between_commands: u64,
    /// Deaths at an operation of a disk or store to come.
    pub crashes: u64,
    /// Single operations and syncs that fail.
    pub failures: u64,
    /// Disks without room for a while.
    pub full_disks: u64,
    /// Clones, backups, new disks.
    pub disturbances: u64,
    /// Losses of the collector's disk.
    pub disk_losses: u64,
    /// Wall clocks set.
    pub clock_steps: u64,
    /// Wall clocks of devices may also stand in 1970 or 2040, begin so at a boot, and be set right later. The
    /// collector's is right then, and time services do not err.
    pub wild_clocks: bool,
    /// The collector's clock may be far off at a start, and is set right later.
    pub wrong_starts: bool,
    /// Now and then the collector starts with other rules: a time window that is much narrower, other names of
    /// plain readings.
    pub rules_change: bool,
    /// Versions of a table between two checkpoints.
    pub checkpoint_versions: u64,
    /// Bits of the journal that flip.
    pub rots: u64,
    /// Copies of the journal's disk taken, or brought back.
    pub old_journals: u64,
    /// Copies of the lake taken, or brought back beside a journal that is whole.
    pub old_lakes: u64,
    /// Parts of the lake's logs lost.
    pub holes: u64,
    /// Times in which the lake cannot be reached.
    pub lake_aways: u64,
    /// Times that another collector takes the lake over from one that is stopped, and wakes later.
    pub takeovers: u64,
    /// Custody ends at the journal.
    pub ends_at_journal: bool,
    /// How long an epoch may be absent from its sender's Hellos.
    pub abandon_after_ms: u64,
    /// How long the collector keeps the marks of epochs that are over.
    pub keep_closed_ms: u64,
    /// Bytes of each lane of a spool.
    pub lane_bytes: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// How long rows wait for the lake.
    pub flush_after_ms: u64,
}

impl Plan {
    /// The plan of a run. Half of the kinds of faults are left out of each, so that what one kind
    /// covers up in one run shows in another.
    #[must_use]
    pub fn draw(dice: &mut Dice) -> Self {
        let mut maybe = |n: u64| if dice.one_in(2) { n } else { 0 };
        let weather = Weather {
            loses: maybe(15),
            repeats: maybe(10),
            reorders: maybe(10),
        };
        let (cuts, deaths, crashes) = (maybe(40), maybe(50), maybe(40));
        let (failures, full_disks, deaths_between_commands) = (maybe(60), maybe(90), maybe(150));
        let disturbances = if dice.one_in(4) { 120 } else { 0 };
        let disk_losses = if dice.one_in(6) { 150 } else { 0 };
        let wild_clocks = dice.one_in(4);
        let clock_steps = if wild_clocks || dice.one_in(3) { 40 } else { 0 };
        let rules_change = dice.one_in(2);
        let copy = dice.one_in(2).then(|| dice.one_in(2));
        let copy_blocks = dice.one_in(2);
        let nodes = if dice.one_in(3) { 1 + dice.index(2) } else { 0 };
        let shared_nodes = nodes > 0 && dice.one_in(2);
        let gateways_away = if shared_nodes { 60 } else { 0 };
        let rots = if dice.one_in(4) { 60 } else { 0 };
        let old_journals = if dice.one_in(5) { 40 } else { 0 };
        let is_away = dice.one_in(if old_journals > 0 { 2 } else { 4 });
        let lake_aways = if is_away { 90 } else { 0 };
        let takeovers = if dice.one_in(5) { 60 } else { 0 };
        let ends_at_journal = dice.one_in(5);
        let keep_closed_ms = if dice.one_in(2) {
            2_000 + dice.below(20_000)
        } else {
            7 * 24 * 3_600 * 1_000
        };
        let mut maybe = |n: u64| if dice.one_in(2) { n } else { 0 };
        let copy_faults = CopyFaults {
            busy: maybe(4),
            lost: maybe(4),
            refuses: maybe(12),
            away_ms: maybe(30_000),
        };
        let copy_leaves = if dice.one_in(4) { 100 } else { 0 };
        let stream = (!dice.one_in(4)).then(|| dice.one_in(2));
        let mut maybe = |n: u64| if dice.one_in(2) { n } else { 0 };
        let stream_faults = CopyFaults {
            busy: maybe(4),
            lost: maybe(4),
            refuses: maybe(12),
            away_ms: maybe(10_000),
        };
        let stops = maybe(80);
        let (behind, moves) = draw_behind(dice);
        // What the journal has let go of nobody names then, and of two that are old nobody tells which is older.
        let is_whole = disk_losses + rots + old_journals + takeovers == 0;
        let is_kept = keep_closed_ms > KEPT_FOR_GOOD_MS;
        let has_old = is_whole && is_kept && dice.aside(OLD_LAKES).one_in(4);
        Self {
            devices: 1 + dice.index(3),
            nodes,
            shared_nodes,
            gateways_away,
            behind,
            moves,
            plain: dice.index(2),
            copy,
            copy_blocks,
            copy_faults,
            copy_leaves,
            stream,
            stream_faults,
            stops,
            clock_steps,
            wild_clocks,
            wrong_starts: (wild_clocks || clock_steps == 0) && dice.aside(WRONG_STARTS).one_in(8),
            rules_change,
            checkpoint_versions: if dice.one_in(2) { 4 } else { 100 },
            steps: 100 + dice.below(250),
            weather,
            cuts,
            deaths,
            deaths_between_commands,
            crashes,
            failures,
            full_disks,
            disturbances,
            disk_losses,
            rots,
            old_journals,
            old_lakes: if has_old { 40 } else { 0 },
            holes: if dice.aside(HOLES).one_in(8) { 60 } else { 0 },
            lake_aways,
            takeovers,
            ends_at_journal,
            abandon_after_ms: if shared_nodes { 5_000 } else { 20_000 },
            keep_closed_ms,
            lane_bytes: if dice.one_in(3) { 5 * 4096 } else { 40 * 4096 },
            journal_bytes: if dice.one_in(3) {
                16 * JOURNAL_SEGMENT_BYTES
            } else {
                100 * JOURNAL_SEGMENT_BYTES
            },
            flush_after_ms: 1_000 + dice.below(5_000),
        }
    }
}

/// Nodes behind agents, and how often one moves. Drawn aside: a run without them is the run that it would be if
/// there never were any.
fn draw_behind(dice: &Dice) -> (usize, u64) {
    let mut aside = dice.aside(BEHIND);
    if !aside.one_in(3) {
        return (0, 0);
    }
    let behind = 1 + aside.index(MOST_BEHIND);
    (behind, if aside.one_in(2) { 150 } else { 0 })
}
