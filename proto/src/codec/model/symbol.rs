//! Symbols: one cell of a row between the model and a back end.

/// How a cell is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// A residual, in zigzag; for text its number.
    #[default]
    Number,
    /// No value.
    Missing,
    /// The value's own bits; for text its length.
    Raw,
    /// A recent value, by rank.
    Recent,
}

/// One cell of a row between the model and a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// The meaning of `code`.
    pub class: Class,
    /// Units in the last place beside the decimal.
    pub correction: i8,
    /// Residual, bits, length or rank.
    pub code: u64,
}
