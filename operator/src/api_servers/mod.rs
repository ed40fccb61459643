//! The API servers of the cluster, each by itself: several sign with keys of their own.

pub mod endpoints;
pub mod model;
