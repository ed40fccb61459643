//! The whole system on one machine: a real Kubernetes, an AWS that verifies, our binaries as pods.

pub mod aws;
pub mod binaries;
pub mod lab;
pub mod story;
pub mod terminal;
