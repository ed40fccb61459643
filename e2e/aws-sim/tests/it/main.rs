//! What the simulator accepts and refuses, as its clients see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod clients;
mod control;
mod exchange;
mod lag;
mod sessions;
mod sts;
