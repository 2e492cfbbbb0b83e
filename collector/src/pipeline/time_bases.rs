//! Core: the time bases that devices told, by device and boot. They date records whose times count from a
//! boot that is over.

use std::collections::BTreeMap;

use headwater_proto::ids::{DeviceId, MAX_DEVICE_ID_BYTES};
use headwater_proto::message::TimeBase;
use serde::{Deserialize, Serialize};

/// When a boot began, as a time base says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBase {
    /// Unix time of the boot, in microseconds.
    pub began_us: i64,
    /// Microseconds since the boot at which that was learnt: clocks drift from there on, both ways.
    pub uptime_us: i64,
    /// Most that it may be wrong by, in milliseconds; `None`: nobody knows.
    pub error_ms: Option<u32>,
}

impl KnownBase {
    /// The base that a record says.
    #[must_use]
    pub fn of(said: &TimeBase) -> Self {
        let uptime_us = i64::try_from(said.uptime_us).unwrap_or(i64::MAX);
        Self {
            began_us: said.wall.0.saturating_sub(uptime_us),
            uptime_us,
            error_ms: said.error_ms,
        }
    }

    /// Whether this one says more than another.
    const fn beats(&self, other: &Self) -> bool {
        match (self.error_ms, other.error_ms) {
            (Some(own), Some(other)) => own < other,
            (own, None) => own.is_some(),
            (None, Some(_)) => false,
        }
    }
}

/// Most boots of one device whose base is kept.
pub const MAX_BOOTS_PER_DEVICE: usize = 16;
/// Most boots of all devices whose base is kept; each stands in every segment's snapshot.
pub const MAX_BOOTS: usize = 16_384;
/// Most bytes of one of them in a snapshot.
pub(crate) const BASE_BYTES: usize = 2 + MAX_DEVICE_ID_BYTES + 10 + 10 + 10 + 10 + 6;

/// The time bases that devices told, by device and boot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeBases {
    /// With the order in which they came: the oldest give way.
    known: BTreeMap<(DeviceId, u64), (u64, KnownBase)>,
    count: u64,
}

impl TimeBases {
    /// The base of a boot.
    #[must_use]
    pub fn get(&self, device: &DeviceId, boot: u64) -> Option<&KnownBase> {
        // The key's device is cloned, which costs no allocation.
        self.known
            .get(&(device.clone(), boot))
            .map(|(_, base)| base)
    }

    /// Takes in a base, unless a better one of that boot is known. At the bound of a device its oldest gives
    /// way; at that of all, the oldest of the device that has most, and no device's only one. Boot 0 is no
    /// boot but one that nobody knows: it has no base.
    pub fn insert(&mut self, device: &DeviceId, boot: u64, base: KnownBase) {
        let key = (device.clone(), boot);
        if boot == 0 {
            return;
        }
        if self
            .known
            .get(&key)
            .is_some_and(|(_, known)| !base.beats(known))
        {
            return;
        }
        if !self.known.contains_key(&key) {
            let of_device = (device.clone(), 0)..=(device.clone(), u64::MAX);
            if self.known.range(of_device.clone()).count() >= MAX_BOOTS_PER_DEVICE {
                let oldest = self
                    .known
                    .range(of_device)
                    .min_by_key(|(_, (order, _))| *order);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.map(|key| self.known.remove(&key));
            } else if self.known.len() >= MAX_BOOTS {
                let Some(crowded) = self.most_boots() else {
                    return;
                };
                let of_device = (crowded.clone(), 0)..=(crowded, u64::MAX);
                let oldest = self
                    .known
                    .range(of_device)
                    .min_by_key(|(_, (order, _))| *order);
                let oldest = oldest.map(|(key, _)| key.clone());
                oldest.map(|key| self.known.remove(&key));
            }
        }
        self.count += 1;
        self.known.insert(key, (self.count, base));
    }

    /// The device with most bases, if any has more than one.
    fn most_boots(&self) -> Option<DeviceId> {
        let mut counts: BTreeMap<&DeviceId, usize> = BTreeMap::new();
        for (device, _) in self.known.keys() {
            *counts.entry(device).or_default() += 1;
        }
        let (device, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count > 1).then(|| device.clone())
    }

    /// All bases, oldest first: inserted in this order they give the same state.
    #[must_use]
    pub fn all(&self) -> Vec<(&DeviceId, u64, KnownBase)> {
        let mut all: Vec<_> = self.known.iter().collect();
        all.sort_unstable_by_key(|(_, (order, _))| *order);
        all.into_iter()
            .map(|((device, boot), (_, base))| (device, *boot, *base))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_base_gives_way_at_each_bound_and_a_better_one_wins() {
        let device = DeviceId::new("d").unwrap();
        let base = |error_ms| KnownBase {
            began_us: 1,
            uptime_us: 0,
            error_ms,
        };
        let mut bases = TimeBases::default();
        for boot in 1..=MAX_BOOTS_PER_DEVICE as u64 + 1 {
            bases.insert(&device, boot, base(None));
        }
        assert_eq!(bases.all().len(), MAX_BOOTS_PER_DEVICE);
        assert!(bases.get(&device, 1).is_none() && bases.get(&device, 2).is_some());
        bases.insert(&device, 2, base(Some(5)));
        bases.insert(&device, 2, base(Some(9)));
        assert_eq!(bases.get(&device, 2).unwrap().error_ms, Some(5));
        bases.insert(&device, 0, base(Some(1)));
        assert_eq!(bases.get(&device, 0), None);
        for number in 0..MAX_BOOTS {
            let other = DeviceId::new(&format!("n{number}")).unwrap();
            bases.insert(&other, 1, base(None));
        }
        assert_eq!(bases.all().len(), MAX_BOOTS);
        assert!(bases.get(&device, 3).is_none(), "it had the most");
        let last = DeviceId::new(&format!("n{}", MAX_BOOTS - 1)).unwrap();
        assert!(bases.get(&last, 1).is_none(), "every device has one by now");
        let first = DeviceId::new("n0").unwrap();
        assert!(bases.get(&first, 1).is_some());
        let mut again = TimeBases::default();
        for (device, boot, base) in bases.all() {
            again.insert(device, boot, base);
        }
        assert_eq!(again.all(), bases.all());
        let longest =
            DeviceId::<MAX_DEVICE_ID_BYTES>::new(&"x".repeat(MAX_DEVICE_ID_BYTES)).unwrap();
        let entry = (
            longest,
            u64::MAX,
            KnownBase {
                began_us: i64::MIN,
                uptime_us: i64::MIN,
                error_ms: Some(u32::MAX),
            },
        );
        assert!(postcard::to_allocvec(&entry).unwrap().len() <= BASE_BYTES);
    }
}
