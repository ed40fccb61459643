//! Roles that this cluster made and that no binding makes any more: found by the operator's sweep, and shown and removed by an
//! administrator with `operator orphans`. The operator removes none: a restored cluster must not lose its roles before its
//! bindings are back.

pub mod command;
pub mod find;
pub mod judge;
