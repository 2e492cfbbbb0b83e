//! Core: what the sensors of the held-out sets would say.

use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::ColumnKind::{self, Bool, F32, F64, I64, Str};

use super::random::Random;
use super::{Plan, row};
use crate::data::Row;

const SECOND_US: i64 = 1_000_000;
const START_US: i64 = 1_760_000_000 * SECOND_US;

pub(super) const PLANS: [Plan; 7] = [
    Plan {
        name: "barometer",
        unit_us: 1_000,
        columns: &[
            ("pressure_hpa", F64),
            ("temperature", F64),
            ("height_m", F64),
        ],
        label: None,
        make: barometer,
    },
    Plan {
        name: "gps_track",
        unit_us: 1_000,
        columns: &[
            ("lat", F64),
            ("lon", F64),
            ("altitude_m", F64),
            ("speed_kmh", F32),
            ("course", F32),
            ("hdop", F32),
            ("satellites", I64),
            ("fix", Bool),
        ],
        label: None,
        make: gps_track,
    },
    Plan {
        name: "vibration_xyz",
        unit_us: 1,
        columns: &[("x", F32), ("y", F32), ("z", F32)],
        label: None,
        make: vibration,
    },
    Plan {
        name: "power_meter",
        unit_us: 1_000,
        columns: &[
            ("voltage", F64),
            ("current", F64),
            ("power_w", F64),
            ("power_factor", F64),
            ("frequency", F64),
            ("energy_wh", I64),
            ("solar", Bool),
        ],
        label: None,
        make: power_meter,
    },
    Plan {
        name: "machine_status",
        unit_us: 1_000,
        columns: &[
            ("state", Str),
            ("alarm", I64),
            ("pieces", I64),
            ("program", I64),
            ("cycle_s", F64),
            ("guard_closed", Bool),
            ("coolant", Bool),
        ],
        label: None,
        make: machine_status,
    },
    Plan {
        name: "thermistor_adc",
        unit_us: 1_000,
        columns: &ADC_COLUMNS,
        label: None,
        make: thermistor,
    },
    Plan {
        name: "tank_levels",
        unit_us: 1_000,
        columns: &[("level_mm", I64), ("temperature", F64), ("pump", Bool)],
        label: Some(("tank", &["t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8"])),
        make: tanks,
    },
];

const ADC_COLUMNS: [(&str, ColumnKind); 6] = [
    ("raw0", I64),
    ("raw1", I64),
    ("raw2", I64),
    ("temp0", F64),
    ("temp1", F64),
    ("temp2", F64),
];

fn decimals(value: f64, scale: f64) -> f64 {
    (value * scale).round() / scale
}

fn double(value: f64) -> Option<OwnedValue> {
    Some(OwnedValue::F64(value))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the sensor says a short float"
)]
fn short(value: f64) -> Option<OwnedValue> {
    Some(OwnedValue::F32(value as f32))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a converter's count, far below 2^53"
)]
fn counts(value: f64) -> i64 {
    value.round() as i64
}

fn whole(value: i64) -> Option<OwnedValue> {
    Some(OwnedValue::I64(value))
}

fn flag(value: bool) -> Option<OwnedValue> {
    Some(OwnedValue::Bool(value))
}

/// Weather walks, the cell drifts, the converter is noisy.
fn barometer(random: &mut Random, rows: u32) -> Vec<Row> {
    let (mut pressure, mut trend, mut warmth) = (1_009.4, 0.0, 18.2);
    let start = pressure;
    (0..rows)
        .map(|at| {
            trend = trend * 0.999 + 0.000_02 * random.noise();
            pressure += trend;
            warmth += 0.002 * random.noise() + (18.0 - warmth) * 0.000_1;
            let drift = 0.000_004 * f64::from(at);
            let measured = decimals(pressure + drift + 0.015 * random.noise(), 100.0);
            let height = decimals((start - measured) * 8.3, 10.0);
            let temperature = decimals(warmth + 0.01 * random.noise(), 100.0);
            row(
                START_US + i64::from(at) * SECOND_US,
                vec![double(measured), double(temperature), double(height)],
            )
        })
        .collect()
}

/// A car that turns, stops at lights, and loses the sky in tunnels.
fn gps_track(random: &mut Random, rows: u32) -> Vec<Row> {
    let (mut east, mut north) = (0.6, 0.8);
    let mut course = 36.9;
    let (mut lat, mut lon, mut altitude) = (47.370_12, 8.541_7, 408.0);
    let (mut speed, mut wanted) = (0.0, 50.0);
    let (mut turn, mut tunnel) = (0.0, 0);
    let mut satellites = 11;
    let mut taken = Vec::new();
    for at in 0..rows {
        if random.once_in(45) {
            wanted = match random.below(4) {
                0 => 0.0,
                1 => 30.0,
                2 => 50.0,
                _ => random.even(60.0, 110.0),
            };
        }
        if random.once_in(20) {
            turn = 0.12 * random.noise();
        }
        let change: f64 = wanted - speed;
        speed = (speed + change.clamp(-9.0, 6.0) * 0.4 + 0.3 * random.noise()).max(0.0);
        if wanted == 0.0 && speed < 1.5 {
            speed = 0.0;
        }
        if speed > 0.0 {
            // A small turn as a rotation, then back to length 1.
            let (sine, cosine) = (turn, 1.0 - turn * turn / 2.0);
            (east, north) = (east * cosine + north * sine, north * cosine - east * sine);
            let fix = (3.0 - east * east - north * north) / 2.0;
            (east, north) = (east * fix, north * fix);
            course += turn * 57.295_78;
            course -= 360.0 * (course / 360.0).floor();
        }
        let metres = speed / 3.6;
        lat += north * metres / 111_132.0;
        lon += east * metres / 75_300.0;
        altitude += 0.02 * metres * random.noise();
        if tunnel == 0 && random.once_in(700) {
            tunnel = 5 + random.below(40);
        }
        if random.once_in(15) {
            satellites = (satellites + counts(random.noise())).clamp(6, 17);
        }
        let fix = tunnel == 0;
        tunnel = tunnel.saturating_sub(1);
        let jitter = 0.000_000_9;
        let here = |value: Option<OwnedValue>| value.filter(|_| fix);
        let values = vec![
            here(double(decimals(lat + jitter * random.noise(), 1e7))),
            here(double(decimals(lon + jitter * random.noise(), 1e7))),
            here(double(decimals(altitude + 0.3 * random.noise(), 10.0))),
            here(short(decimals(speed, 100.0))),
            here(short(decimals(course, 10.0))),
            here(short(decimals(14.0 / satellites as f64, 10.0))),
            whole(if fix { satellites } else { 0 }),
            flag(fix),
        ];
        taken.push(row(START_US + i64::from(at) * SECOND_US, values));
    }
    taken
}

/// Three axes in m/s2 of a converter with 0.061 mg per step: rest, then a shaft with two harmonics.
fn vibration(random: &mut Random, rows: u32) -> Vec<Row> {
    /// Cosine and sine of one row's angle at 24.6 Hz and 100 rows per second.
    const TURN: (f64, f64) = (0.025_130_095_443_337_4, 0.999_684_189_307_584_7);
    const STEP: f64 = 0.000_061 * 9.806_65;
    let (mut cosine, mut sine) = (1.0, 0.0);
    let (mut force, mut running) = (0.0, false);
    let mut time = 93_000_417;
    (0..rows)
        .map(|_| {
            if random.once_in(900) {
                running = !running;
            }
            force += (if running { 1.0 } else { 0.0 } - force) * 0.02;
            (cosine, sine) = (
                cosine * TURN.0 - sine * TURN.1,
                sine * TURN.0 + cosine * TURN.1,
            );
            let fix = (3.0 - cosine * cosine - sine * sine) / 2.0;
            (cosine, sine) = (cosine * fix, sine * fix);
            let second = 2.0 * sine * cosine;
            let mut axis = |level: f64, first: f64, other: f64| {
                let rough = 0.012 + 0.25 * force;
                let value = level + force * (first + other) + rough * random.noise();
                short(f64::from(i32::try_from(counts(value / STEP)).unwrap_or(0)) * STEP)
            };
            let values = vec![
                axis(0.14, 1.9 * cosine, 0.6 * second),
                axis(-0.22, 1.7 * sine, 0.5 * second),
                axis(9.79, 0.8 * cosine, 0.9 * second),
            ];
            time += 10_000 + counts(12.0 * random.noise());
            row(time, values)
        })
        .collect()
}

/// Appliances with loads in W that go on and off, on a mains that sags under them.
fn power_meter(random: &mut Random, rows: u32) -> Vec<Row> {
    /// (power, power factor, one switch in so many seconds)
    const APPLIANCES: [(f64, f64, u64); 6] = [
        (84.0, 0.71, 500),
        (2_050.0, 0.99, 900),
        (310.0, 0.93, 300),
        (12.0, 0.55, 1_500),
        (1_180.0, 0.97, 1_100),
        (46.0, 0.82, 250),
    ];
    let mut on = [false; 6];
    let (mut grid, mut frequency) = (231.4, 50.0);
    let (mut energy, mut solar) = (48_211_070.0, false);
    (0..rows)
        .map(|at| {
            for (on, (.., seconds)) in on.iter_mut().zip(APPLIANCES) {
                *on ^= random.once_in(seconds);
            }
            solar ^= random.once_in(1_200);
            grid += 0.03 * random.noise() + (231.0 - grid) * 0.001;
            frequency += 0.001_5 * random.noise() + (50.0 - frequency) * 0.01;
            let (mut power, mut apparent) = (38.0, 61.0);
            for ((watts, factor, _), _) in APPLIANCES.iter().zip(on).filter(|(_, on)| *on) {
                let now = watts * (1.0 + 0.004 * random.noise());
                power += now;
                apparent += now / factor;
            }
            let voltage = decimals(grid - power * 0.000_9 + 0.05 * random.noise(), 10.0);
            energy += power / 3_600.0;
            let values = vec![
                double(voltage),
                double(decimals(apparent / voltage, 1_000.0)),
                double(decimals(power, 10.0)),
                double(decimals(power / apparent, 100.0)),
                double(decimals(frequency, 100.0)),
                whole(counts(energy)),
                flag(solar),
            ];
            row(START_US + i64::from(at) * SECOND_US, values)
        })
        .collect()
}

/// A machine tool polled once a second.
fn machine_status(random: &mut Random, rows: u32) -> Vec<Row> {
    let (mut state, mut left) = ("idle", 30);
    let (mut alarm, mut pieces, mut program) = (0, 18_340, 1_201);
    let mut cycle = 41.5;
    let mut guard = true;
    (0..rows)
        .map(|at| {
            let mut finished = None;
            if left == 0 {
                (state, left) = match state {
                    "running" => {
                        pieces += 1;
                        finished = double(decimals(cycle + 0.4 * random.noise(), 10.0));
                        match random.below(30) {
                            0 => ("fault", 20 + random.below(200)),
                            1 | 2 => ("setup", 60 + random.below(300)),
                            _ => ("loading", 4 + random.below(4)),
                        }
                    }
                    "fault" | "setup" | "idle" => {
                        if state == "setup" || random.once_in(3) {
                            program = 1_200 + i64::try_from(random.below(9)).unwrap_or(0);
                            cycle = random.even(18.0, 70.0);
                        }
                        ("loading", 6)
                    }
                    _ if random.once_in(40) => ("idle", 30 + random.below(400)),
                    _ => ("running", 41),
                };
                alarm = match state {
                    "fault" if random.once_in(3) => 3_110,
                    "fault" => 2_041 + 36 * i64::from(random.once_in(4)),
                    _ => 0,
                };
            }
            left = left.saturating_sub(1);
            guard = state == "running" || (guard && !random.once_in(6));
            let late = i64::try_from(random.below(9)).unwrap_or(0) * 1_000;
            let values = vec![
                Some(OwnedValue::Str(state.to_owned())),
                whole(alarm),
                whole(pieces),
                whole(program),
                finished,
                flag(guard),
                flag(state == "running" && left > 5),
            ];
            row(START_US + i64::from(at) * SECOND_US + late, values)
        })
        .collect()
}

/// A divider with a thermistor: counts with noise, and a temperature by a rational fit to the counts.
fn thermistor(random: &mut Random, rows: u32) -> Vec<Row> {
    let (mut heater, mut oven) = (false, 24.0);
    let (mut lag, mut room) = (24.0, 21.5);
    (0..rows)
        .map(|at| {
            if oven > 68.0 {
                heater = false;
            } else if oven < 52.0 {
                heater = true;
            }
            oven += if heater { 0.09 } else { 0.0 } - (oven - room) * 0.001_1;
            lag += (oven - lag) * 0.01;
            room += 0.004 * random.noise() + (21.5 - room) * 0.001;
            let mut raws = Vec::new();
            let mut degrees = Vec::new();
            for true_degrees in [oven, lag, room] {
                let ideal =
                    4_095.0 * 34.0 / (34.0 + true_degrees + true_degrees * true_degrees / 90.0);
                let raw = counts(ideal + 1.4 * random.noise()).clamp(1, 4_095);
                let share = raw as f64 / 4_095.0;
                raws.push(whole(raw));
                degrees.push(double(
                    (1.0 - share) * (97.3 + 4.1 * share) / (share * 2.31 + 0.417) - 7.93,
                ));
            }
            raws.extend(degrees);
            row(START_US + i64::from(at) * 2 * SECOND_US, raws)
        })
        .collect()
}

/// Tanks that empty slowly and are pumped full; a float that bobs.
fn tanks(random: &mut Random, rows: u32) -> Vec<Row> {
    let mut tanks: Vec<(f64, f64, bool)> = (0..8)
        .map(|_| (random.even(600.0, 2_400.0), random.even(8.0, 16.0), false))
        .collect();
    let mut taken = Vec::new();
    for at in 0..rows {
        let tank = (at % 8) as usize;
        let (level, warmth, pump) = &mut tanks[tank];
        if *level < 700.0 {
            *pump = true;
        } else if *level > 2_300.0 {
            *pump = false;
        }
        *level += if *pump {
            14.0
        } else {
            -0.4 * (1.0 + tank as f64)
        };
        *warmth += 0.01 * random.noise();
        let bob = if *pump { 5.0 } else { 0.8 };
        let time = START_US + i64::from(at / 8) * 10 * SECOND_US;
        taken.push(Row {
            series: at % 8,
            ..row(
                time + i64::from(at % 8) * 40_000,
                vec![
                    whole(counts(*level + bob * random.noise())),
                    double(decimals(*warmth + 0.03 * random.noise(), 10.0)),
                    flag(*pump),
                ],
            )
        });
    }
    taken
}
