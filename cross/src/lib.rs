//! headwater-cross.
