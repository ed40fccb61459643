//! PURE: how JSON is written without a tree of values.

pub mod patch;
