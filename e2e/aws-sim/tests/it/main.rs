//! What the simulator accepts and refuses, as its clients see it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod calls;
mod clients;
mod control;
mod documents;
mod exchange;
mod iam_behaviour;
mod lag;
mod parameters;
mod reads;
mod s3_behaviour;
mod sessions;
mod sts;
mod sts_behaviour;
