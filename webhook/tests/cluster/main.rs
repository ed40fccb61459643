//! The webhook's binary with a real API server and real controllers: no root, and no node, so that pods stay Pending.
//! One file for each behaviour. The control plane is started once; each test has namespaces, a webhook process and a webhook
//! configuration of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod callers;
mod envelope;
mod files;
mod issuers;
mod orders;
mod pki;
mod pods;
mod privacy;
mod process;
mod reinvocation;
mod undecodable;
mod world;
