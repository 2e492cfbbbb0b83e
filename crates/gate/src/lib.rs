//! headwater-gate.
