//! The histories of a batch: one set per series that appeared, and recent values per column.

use alloc::vec::Vec;

use super::history::{History, TimeHistory};
use super::plan::Plan;
use super::recent::Recent;

/// All histories of a batch.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Per series of the schema: its slot plus one, 0 until it appears.
    slots: Vec<u32>,
    /// Per series: the series of the row after its last one.
    after: Vec<u32>,
    times: Vec<TimeHistory>,
    columns: Vec<History<i64>>,
    recent: Vec<Recent>,
    width: usize,
    used: usize,
    before: u32,
    /// Ticks of the latest row.
    pub(crate) ticks: i64,
}

impl Table {
    /// For batches of these columns and of `series` series.
    pub(crate) fn new(plans: &[Plan], series: usize) -> Self {
        let mut table = Self {
            slots: alloc::vec![0; series],
            after: alloc::vec![0; series],
            recent: plans.iter().map(Recent::new).collect(),
            width: plans.len(),
            ..Self::default()
        };
        table.clear();
        table
    }

    /// Begins a batch; the memory stays.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(0);
        let count = self.series_count();
        for (next, after) in (1..).zip(&mut self.after) {
            *after = if next == count { 0 } else { next };
        }
        self.recent
            .iter_mut()
            .for_each(|recent| recent.values.clear());
        self.used = 0;
        self.before = count.saturating_sub(1);
        self.ticks = 0;
    }

    /// How many series the schema has.
    pub(crate) fn series_count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// The prediction of the next row's series.
    pub(crate) fn expected(&self) -> u32 {
        self.after.get(self.before as usize).copied().unwrap_or(0)
    }

    /// Takes in the series of a row.
    pub(crate) fn follow(&mut self, series: u32) {
        if let Some(after) = self.after.get_mut(self.before as usize) {
            *after = series;
        }
        self.before = series;
    }

    /// The slot of a series' histories.
    pub(crate) fn slot(&mut self, plans: &[Plan], series: u32) -> usize {
        if self.slots[series as usize] == 0 {
            self.get(plans, series);
        }
        self.slots[series as usize] as usize - 1
    }

    /// All histories.
    pub(crate) fn all(&mut self) -> Histories<'_> {
        Histories {
            times: &mut self.times,
            columns: &mut self.columns,
            recents: &mut self.recent,
        }
    }

    /// The histories of a series, which the schema has.
    pub(crate) fn get(
        &mut self,
        plans: &[Plan],
        series: u32,
    ) -> (&mut TimeHistory, &mut [History<i64>], &mut [Recent]) {
        let slot = &mut self.slots[series as usize];
        if *slot == 0 {
            let fresh = plans.iter().map(History::new);
            let start = self.used * self.width;
            if self.used < self.times.len() {
                self.times[self.used] = TimeHistory::default();
                for (history, fresh) in self.columns[start..].iter_mut().zip(fresh) {
                    *history = fresh;
                }
            } else {
                self.times.push(TimeHistory::default());
                self.columns.extend(fresh);
            }
            self.used += 1;
            *slot = u32::try_from(self.used).unwrap_or(u32::MAX);
        }
        let at = *slot as usize - 1;
        let columns = &mut self.columns[at * self.width..(at + 1) * self.width];
        (&mut self.times[at], columns, &mut self.recent)
    }
}

/// The histories of all series that appeared, slot by slot, and the columns' recent values.
pub(crate) struct Histories<'a> {
    pub(crate) times: &'a mut [TimeHistory],
    pub(crate) columns: &'a mut [History<i64>],
    pub(crate) recents: &'a mut [Recent],
}
