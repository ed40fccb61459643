//! The whole system on one machine: a real Kubernetes, a simulated AWS that verifies, this project's programs as pods.

pub mod binaries;
pub mod lab;
pub mod processes;
pub mod story;
pub mod terminal;
