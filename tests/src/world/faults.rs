//! Core: what breaks between two steps, drawn by dice.

use super::device::Device;
use super::plan::{MAX_STEP_US, Plan};
use super::run::World;

/// What may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Death,
    Stop,
    Crash,
    Failure,
    FullDisk,
    Disturbance,
    ClockStep,
    CopyLeaves,
    DiskLoss,
    Rot,
    OldJournal,
    LakeAway,
    Takeover,
    GatewayAway,
    OldLake,
    Hole,
}

/// Breaks what the dice say, at the device of this place or at the site.
pub(super) fn break_something(world: &mut World, place: usize) {
    let plan = world.course.plan;
    for fault in Fault::ALL {
        if world.course.dice.one_in(fault.once_in(&plan)) {
            fault.strike(world, place);
        }
    }
}

impl Fault {
    const ALL: [Self; 17] = [
        Self::Cut,
        Self::Death,
        Self::Stop,
        Self::Crash,
        Self::Failure,
        Self::FullDisk,
        Self::Disturbance,
        Self::ClockStep,
        Self::CopyLeaves,
        Self::DiskLoss,
        Self::Rot,
        Self::OldJournal,
        Self::LakeAway,
        Self::Takeover,
        Self::GatewayAway,
        Self::OldLake,
        Self::Hole,
    ];

    /// Steps in which it happens once; 0 is never.
    const fn once_in(self, plan: &Plan) -> u64 {
        match self {
            Self::Cut => plan.cuts,
            Self::Death => plan.deaths,
            Self::Stop => plan.stops,
            Self::Crash => plan.crashes,
            Self::Failure => plan.failures,
            Self::FullDisk => plan.full_disks,
            Self::Disturbance => plan.disturbances,
            Self::ClockStep => plan.clock_steps,
            Self::CopyLeaves => plan.copy_leaves,
            Self::DiskLoss => plan.disk_losses,
            Self::Rot => plan.rots,
            Self::OldJournal => plan.old_journals,
            Self::LakeAway => plan.lake_aways,
            Self::Takeover => plan.takeovers,
            Self::GatewayAway => plan.gateways_away,
            Self::OldLake => plan.old_lakes,
            Self::Hole => plan.holes,
        }
    }

    fn strike(self, world: &mut World, place: usize) {
        match self {
            Self::Cut => cut(world, place),
            Self::Death => {
                if world.course.dice.one_in(2) {
                    if world.course.dice.one_in(3) {
                        // It stops in order, and dies then.
                        world.fleet.devices[place].stop(world.course.now);
                    }
                    world.kill_device(place);
                } else if world.site.collector.is_up() {
                    world.kill_collector();
                }
            }
            Self::Stop => world.stop_collector(),
            Self::Crash => crash_later(world, place),
            Self::Failure => fail_once(world, place),
            Self::FullDisk => fill_a_disk(world, place),
            Self::Disturbance => {
                let left = world.fleet.disturb(place, &mut world.course);
                world.site.hear(left, &world.course);
            }
            Self::ClockStep => set_a_clock(world, place),
            Self::CopyLeaves => take_copy_out(world),
            Self::DiskLoss => {
                world.site.lose_disk(&mut world.course);
                lose_acknowledged(world);
            }
            Self::Rot => world.site.rot(&mut world.course),
            Self::OldJournal => copy_journal(world),
            Self::LakeAway => lose_sight_of_lake(world),
            Self::Takeover => take_over(world),
            Self::GatewayAway => {
                let left = world.fleet.lose_gateway(&mut world.course);
                world.site.hear(left, &world.course);
            }
            Self::OldLake => copy_lake(world),
            Self::Hole => {
                end_collector(world);
                world.site.make_hole(&mut world.course);
                if world.site.collector.is_crashed() {
                    world.kill_collector();
                }
            }
        }
    }
}

fn cut(world: &mut World, place: usize) {
    world
        .course
        .note(|| format!("the link of device {place} is cut"));
    if let Some(gateway) = world.fleet.devices[place].gateway
        && world.course.dice.one_in(2)
    {
        let left = world.fleet.hang_up_gateway(gateway, world.course.now);
        world.site.hear(left, &world.course);
    }
    world.hang_up(place);
    let left = world.fleet.hang_up_plain();
    world.site.hear(left, &world.course);
}

/// Nobody reaches the lake for a while; sometimes the collector is started anew meanwhile.
fn lose_sight_of_lake(world: &mut World) {
    world.site.lose_sight_of_lake(&mut world.course);
    if world.site.collector.is_up() && world.course.dice.one_in(2) {
        world.kill_collector();
    }
}

/// Somebody takes the second sink out of the configuration and starts the collector anew.
fn take_copy_out(world: &mut World) {
    let collector = &world.site.collector;
    if collector.taken_out.is_some() || world.course.plan.copy.is_none() || !collector.is_up() {
        return;
    }
    world.sync_collector();
    if world.site.take_copy_out(&mut world.course) {
        world.kill_collector();
    }
}

/// Somebody copies the journal's folder, or brings a copy back.
fn copy_journal(world: &mut World) {
    if !world.site.has_copies() || world.course.dice.one_in(2) {
        world.site.copy_journal(&mut world.course);
        return;
    }
    let plan = world.course.plan;
    let is_away = plan.lake_aways > 0 && world.course.dice.one_in(2);
    if is_away {
        // It is old to the lake too.
        world.pass(plan.flush_after_ms);
        world.run_sinks();
    }
    world.site.restore_journal(&mut world.course);
    lose_acknowledged(world);
    if is_away {
        lose_sight_of_lake(world);
        // Devices bring more than the lake has seen of that time, or less.
        for place in 0..world.fleet.devices.len() {
            world.come_back(place);
        }
    }
}

/// The collector ends, in order or not.
fn end_collector(world: &mut World) {
    if world.course.dice.one_in(2) {
        world.stop_collector();
    } else if world.site.collector.is_up() {
        world.kill_collector();
    }
}

/// Somebody copies the lake, or stops the collector and brings a copy back.
fn copy_lake(world: &mut World) {
    if !world.site.has_copy_of_lake() || world.course.dice.one_in(2) {
        world.site.copy_lake(&mut world.course);
        return;
    }
    end_collector(world);
    world.site.restore_lake(&mut world.course);
    // What only the lake had of plain devices is gone with it, and named.
    world.fleet.lose_stored();
}

/// Another collector takes the lake over from one that is stopped.
fn take_over(world: &mut World) {
    if world.course.dice.one_in(2) {
        // A flush is due.
        world.pass(world.course.plan.flush_after_ms);
    }
    if world.site.take_over(&mut world.course) {
        lose_acknowledged(world);
        if world.site.collector.is_crashed() {
            world.kill_collector();
        }
    }
}

/// The journal is gone, and with it what plain devices had acknowledged of it.
fn lose_acknowledged(world: &mut World) {
    world.drop_connections();
    world.fleet.devices.iter_mut().for_each(Device::lose_lent);
    world.fleet.lose_acknowledged();
}

/// Somebody sets a wall clock, forward or back.
fn set_a_clock(world: &mut World, place: usize) {
    let course = &mut world.course;
    if course.plan.wild_clocks {
        let device = &mut world.fleet.devices[place];
        device.draw_clock(false, &mut course.dice);
        course.note(|| format!("the clock of device {place} is set: {}", device.clocks()));
        course.seen.device_clock_steps += 1;
        return;
    }
    let most_ms = MAX_STEP_US.cast_unsigned() / 1000;
    let ms = course.dice.below(2 * most_ms).cast_signed() - most_ms.cast_signed();
    if course.dice.one_in(3) {
        course.note(|| format!("the collector's clock is set to {ms} ms"));
        course.seen.collector_clock_steps += 1;
        world.site.collector.set_clock(ms * 1000);
    } else {
        course.note(|| format!("the clock of device {place} is set to {ms} ms"));
        course.seen.device_clock_steps += 1;
        world.fleet.devices[place].set_clock(ms * 1000);
    }
}

fn crash_later(world: &mut World, place: usize) {
    let (course, collector) = (&mut world.course, &world.site.collector);
    let operations = course.dice.below(60);
    match course.dice.below(3) {
        0 => {
            course.note(|| format!("device {place} dies at disk operation {operations}"));
            world.fleet.devices[place].disk.crash_after(operations);
        }
        1 => {
            course.note(|| format!("the collector dies at disk operation {operations}"));
            collector.disk.crash_after(operations);
        }
        _ => {
            course.note(|| format!("the collector dies at store operation {operations}"));
            if course.dice.one_in(2) {
                collector.store.crash_after(operations);
            } else {
                collector.store.crash_after_landing(operations);
            }
        }
    }
}

fn fail_once(world: &mut World, place: usize) {
    let course = &mut world.course;
    let turn = course.dice.below(8);
    let of_collector = course.dice.one_in(2);
    let sync = course.dice.one_in(2);
    course.note(|| format!("failure {turn} ahead: collector {of_collector}, sync {sync}"));
    let disk = if of_collector {
        &world.site.collector.disk
    } else {
        &world.fleet.devices[place].disk
    };
    if sync {
        disk.fail_sync(turn);
    } else {
        disk.fail_operation(turn);
    }
}

fn fill_a_disk(world: &mut World, place: usize) {
    let course = &mut world.course;
    let of_collector = course.dice.one_in(3);
    let disk = if of_collector {
        &world.site.collector.disk
    } else {
        &world.fleet.devices[place].disk
    };
    let roomy = course.dice.one_in(2);
    let room = course.dice.below(3) * 4096;
    disk.set_capacity((!roomy).then(|| disk.used_bytes() + room));
    course.note(|| {
        format!(
            "disk full {}: collector {of_collector}, device {place}",
            !roomy
        )
    });
}
