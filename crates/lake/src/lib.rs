//! headwater-lake.
