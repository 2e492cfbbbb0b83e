//! One row between the model and a back end.

use crate::codec::model::{History, Plan, TimeHistory};

/// One row between the model and a back end.
#[derive(Debug)]
pub struct RowState<'a, W> {
    /// The columns' plans.
    pub plans: &'a [Plan],
    /// The series' history of times.
    pub time: &'a mut TimeHistory,
    /// The series' history of each column.
    pub columns: &'a mut [History<W>],
    /// Whether the row's time is coded: not for the first row of an ordered batch.
    pub timed: bool,
}
