//! Bounds that a reader checks before it allocates anything.

/// Most rows of any batch: a run of the Rice back end counts them in 16 bits.
pub const MAX_ROWS: u32 = 65_535;

/// Bounds of a decoder, checked before anything is allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch.
    pub rows: u32,
    /// Columns of a schema.
    pub columns: u32,
    /// Series of a schema.
    pub series: u32,
    /// Rows times columns of a batch.
    pub cells: u32,
    /// Series times columns: histories that a decoder may keep.
    pub states: u32,
    /// Labels of a series, and tags of a schema.
    pub labels: u32,
    /// Bytes of the texts of a schema's dictionaries, with 8 for each of its levels, and of the new
    /// texts of one batch, of which each counts as one byte more.
    pub text_bytes: u32,
}

impl Limits {
    /// The limits of a collector, unless its configuration has others.
    pub const DEFAULT: Self = Self {
        rows: 10_000,
        columns: 1_024,
        series: 4_096,
        cells: 1 << 20,
        states: 1 << 16,
        labels: 32,
        text_bytes: 1 << 16,
    };
    /// The limits that no configuration may pass.
    pub const HARD: Self = Self {
        rows: MAX_ROWS,
        columns: 1_024,
        series: 4_096,
        cells: 1 << 26,
        states: 1 << 16,
        labels: 64,
        text_bytes: 1 << 20,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
