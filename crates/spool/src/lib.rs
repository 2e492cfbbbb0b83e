//! headwater-spool.
