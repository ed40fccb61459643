//! PURE: how JSON is read and written without a tree of values.

pub mod patch;
pub mod text;
