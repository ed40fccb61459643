//! The operator against a real API server with real tokens, and an AWS that verifies and authorises every call under the
//! operator's own printed policy. One API server serves all tests; they take turns, since the issuer `default` is one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binding;
mod bootstrap;
mod certificates;
mod crash;
mod crd_rules;
mod documents;
mod faults;
mod issuer;
mod plans;
mod several_issuers;
mod structure;
mod world;
