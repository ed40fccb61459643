//! The webhook's tests: tables for the pure parts, properties of the patch, and the server over real TLS with a fake API
//! server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container_credentials;
mod corpus;
mod dependencies;
mod fake;
mod flags;
mod identity;
mod issuers;
mod listener;
mod lookups;
mod mapping;
mod mutate;
mod problems;
mod process;
mod properties;
mod reviews;
mod server;
mod serving;
