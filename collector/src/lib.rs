//! headwater-collector.
