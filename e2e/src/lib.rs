//! The whole system on one machine: a real Kubernetes, a simulated AWS that verifies, this project's programs as pods.

pub mod binaries;
pub mod flags;
pub mod lab;
pub mod processes;
pub mod running_pod;
pub mod story;
pub mod terminal;
