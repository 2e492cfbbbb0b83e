//! Core: sets made from a seed: other sensors, other physics than the real ones. The codec was not
//! tuned on them, apart from `thermistor_adc` and `vibration_xyz`, which led to the levels of columns.
//!
//! They are simulated from what such devices do, and left as they first came out: none was changed to
//! suit a codec. Only additions, multiplications, divisions and rounding are used, so that they are the
//! same bits on every machine.
//!
//! | set | rows every | what |
//! |---|---|---|
//! | `barometer` | 1 s | pressure with weather, drift and noise, temperature, height above the start |
//! | `gps_track` | 1 s | a car: position to 1e-7 degrees, stops, tunnels without a fix |
//! | `vibration_xyz` | 10 ms, jittered | three axes of a machine that starts and stops, steps of a converter |
//! | `power_meter` | 1 s | a household's appliances going on and off, an energy counter |
//! | `machine_status` | 1 s, jittered | states as words, alarm codes, flags, counters |
//! | `thermistor_adc` | 2 s | three noisy 12-bit converters, and the temperature by a formula, all digits |
//! | `tank_levels` | 10 s | eight tanks interleaved under a label |

mod physics;
mod random;

use headwater_proto::sample::OwnedValue;
use headwater_proto::schema::{Column, ColumnKind, Schema, Series};

use crate::data::{Row, Set};
use random::Random;

/// The seed that the published figures use.
pub(crate) const SEED: u64 = 20_261_122;
/// Rows of a set, roughly: so many that batches of 10,000 rows are still of interest.
const ROWS: u32 = 8_000;

/// All held-out sets under a seed.
pub(crate) fn sets(seed: u64) -> anyhow::Result<Vec<Set>> {
    let mut sets = Vec::new();
    for plan in physics::PLANS {
        let mut random = Random::new(seed, plan.name);
        let mut schema = Schema::new(u32::try_from(plan.unit_us)?, Vec::new());
        schema.columns = plan
            .columns
            .iter()
            .map(|&(name, kind)| Column::new(name, kind))
            .collect();
        if let Some((key, values)) = plan.label {
            schema.series = values
                .iter()
                .map(|value| Series {
                    labels: vec![(key.to_owned(), (*value).to_owned())],
                })
                .collect();
        }
        let rows = (plan.make)(&mut random, ROWS);
        sets.push(Set::new(plan.name.to_owned(), plan.unit_us, schema, rows));
    }
    Ok(sets)
}

/// One set: its columns, and how its rows come about.
struct Plan {
    name: &'static str,
    unit_us: i64,
    columns: &'static [(&'static str, ColumnKind)],
    label: Option<(&'static str, &'static [&'static str])>,
    make: fn(&mut Random, u32) -> Vec<Row>,
}

/// A row of a set without series.
fn row(time_us: i64, values: Vec<Option<OwnedValue>>) -> Row {
    Row {
        time_us,
        series: 0,
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(set: &Set) -> u32 {
        let mut text = String::new();
        for row in &set.rows {
            text += &format!("{} {} {:?}\n", row.time_us, row.series, row.values);
        }
        headwater_proto::frame::crc32c(text.as_bytes())
    }

    #[test]
    fn the_held_out_sets_are_frozen_and_another_seed_gives_others() {
        let sums: Vec<_> = sets(SEED)
            .unwrap()
            .iter()
            .map(|set| (set.name.clone(), print(set)))
            .collect();
        let sums: Vec<_> = sums.iter().map(|(n, s)| (n.as_str(), *s)).collect();
        assert_eq!(sums, FROZEN, "published figures would no longer compare");
        for (other, (name, sum)) in sets(SEED + 1).unwrap().iter().zip(FROZEN) {
            assert_ne!(print(other), sum, "{name}");
        }
    }
    const FROZEN: [(&str, u32); 7] = [
        ("barometer", 3_276_707_198),
        ("gps_track", 774_063_347),
        ("vibration_xyz", 3_374_362_377),
        ("power_meter", 3_992_455_071),
        ("machine_status", 1_470_647_014),
        ("thermistor_adc", 3_535_728_989),
        ("tank_levels", 3_862_570_318),
    ];

    #[test]
    fn every_column_of_a_held_out_set_moves_and_time_never_goes_back() {
        for set in sets(SEED).unwrap() {
            assert!(set.rows.is_sorted_by_key(|row| row.time_us), "{}", set.name);
            for (at, column) in set.schema.columns.iter().enumerate() {
                let first = &set.rows[0].values[at];
                assert!(
                    set.rows.iter().any(|row| row.values[at] != *first),
                    "{}: {} never changes",
                    set.name,
                    column.name
                );
            }
        }
    }
}
