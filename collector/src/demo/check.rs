//! Core: holds every row of the lake against the generator that made it.

use std::collections::HashMap;

use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;
use headwater_signals::{Device, METRICS};

/// One generated device: what it must have brought to the lake, and what was seen of it.
struct Expected {
    device: Device,
    period_us: u32,
    start: UnixMicros,
    /// A bit per metric and row, set when its value was seen.
    seen: Vec<u8>,
}

/// What the comparison found. Counts are samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Made by the generator.
    pub(super) generated: u64,
    /// Seen in the lake, at the right time with the right bits, each counted once.
    pub(super) in_lake: u64,
    /// Seen again.
    pub(super) duplicates: u64,
    /// Seen with a time or a value that the generator never made.
    pub(super) wrong: u64,
}

/// Compares lake rows of generated devices, in any order.
#[derive(Default)]
pub(super) struct Comparison {
    devices: HashMap<String, Expected>,
    found: Found,
}

impl Comparison {
    /// Expects `rows` rows of the device `name`, as the replay source makes them.
    pub(super) fn expect(
        &mut self,
        name: &str,
        seed: u64,
        start: UnixMicros,
        period_us: u32,
        rows: u64,
    ) {
        let device = Device::varied(seed, name, start, period_us);
        self.found.generated += (0..rows).map(|k| device.row(k).samples()).sum::<u64>();
        let seen = vec![0; usize::try_from(rows).expect("a demo's rows fit the memory")];
        self.devices.insert(
            name.to_owned(),
            Expected {
                device,
                period_us,
                start,
                seen,
            },
        );
    }

    /// Takes one row of the lake; rows of other devices are nobody's business here.
    pub(super) fn see(&mut self, device: &str, metric: &str, time: UnixMicros, value: Value<'_>) {
        let Some(expected) = self.devices.get_mut(device) else {
            return;
        };
        match expected.bit_of(metric, time, value) {
            None => self.found.wrong += 1,
            Some((row, bit)) if expected.seen[row] & bit == 0 => {
                expected.seen[row] |= bit;
                self.found.in_lake += 1;
            }
            Some(_) => self.found.duplicates += 1,
        }
    }

    /// What was found so far.
    #[must_use]
    pub(super) fn found(&self) -> Found {
        self.found
    }
}

impl Expected {
    /// Row index and metric bit of a value that the generator made at that time, bit for bit.
    fn bit_of(&self, metric: &str, time: UnixMicros, value: Value<'_>) -> Option<(usize, u8)> {
        let column = METRICS.iter().position(|m| m.name == metric)?;
        // Jitter is below the period, so integer division finds the row.
        let k = u64::try_from(time.0 - self.start.0).ok()? / u64::from(self.period_us);
        let row = usize::try_from(k)
            .ok()
            .filter(|row| *row < self.seen.len())?;
        let made = self.device.row(k);
        (made.time == time && same(made.values[column]?, value)).then_some((row, 1 << column))
    }
}

/// Equal in every bit; the lake holds an f32 as the f64 of the same value.
fn same(made: Value<'_>, stored: Value<'_>) -> bool {
    match (made, stored) {
        (Value::F32(a), Value::F64(b)) => f64::from(a).to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::I64(a), Value::I64(b)) => a == b,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Str(a), Value::Str(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixMicros = UnixMicros(1_700_000_000_000_000);

    fn comparison() -> (Comparison, Device) {
        let mut comparison = Comparison::default();
        comparison.expect("demo-001", 7, START, 10_000, 50);
        (comparison, Device::varied(7, "demo-001", START, 10_000))
    }

    fn see_all(comparison: &mut Comparison, device: &Device, rows: std::ops::Range<u64>) {
        for row in rows.map(|k| device.row(k)) {
            for (metric, value) in METRICS.iter().zip(row.values) {
                let Some(value) = value else { continue };
                let stored = if let Value::F32(v) = value {
                    Value::F64(v.into())
                } else {
                    value
                };
                comparison.see("demo-001", metric.name, row.time, stored);
            }
        }
    }

    #[test]
    fn the_generators_own_rows_are_all_found_once() {
        let (mut comparison, device) = comparison();
        see_all(&mut comparison, &device, 0..50);
        let found = comparison.found();
        assert_eq!(found.in_lake, found.generated);
        assert_eq!((found.duplicates, found.wrong), (0, 0));
    }

    #[test]
    fn a_repeated_row_is_a_duplicate_and_a_missing_one_is_missing() {
        let (mut comparison, device) = comparison();
        see_all(&mut comparison, &device, 0..49);
        see_all(&mut comparison, &device, 3..4);
        let found = comparison.found();
        assert_eq!(found.duplicates, device.row(3).samples());
        assert_eq!(found.generated - found.in_lake, device.row(49).samples());
    }

    #[test]
    fn a_changed_last_bit_or_a_shifted_time_is_wrong() {
        let (mut comparison, device) = comparison();
        let row = device.row(5);
        let Some(Value::F64(value)) = row.values[0] else {
            panic!("temperature is an f64")
        };
        let off = f64::from_bits(value.to_bits() ^ 1);
        comparison.see("demo-001", "temperature", row.time, Value::F64(off));
        let later = UnixMicros(row.time.0 + 1);
        comparison.see("demo-001", "temperature", later, Value::F64(value));
        comparison.see("demo-001", "no such metric", row.time, Value::F64(value));
        assert_eq!(comparison.found().wrong, 3);
        assert_eq!(comparison.found().in_lake, 0);
    }
}
