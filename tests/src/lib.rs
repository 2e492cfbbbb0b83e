//! headwater-tests.
