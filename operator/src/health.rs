//! Readiness and metrics of the operator, for the health port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::Metrics;

/// What readiness and metrics are read from.
#[derive(Clone)]
pub struct Health {
    /// Set once the API server has answered: a replica that is not the leader is ready, too.
    pub ready: Arc<AtomicBool>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl process::health::Health for Health {
    fn ready(&self) -> Result<(), String> {
        let answered = self.ready.load(Ordering::Relaxed);
        answered.then_some(()).ok_or_else(|| "the API server has not answered yet".into())
    }

    fn metrics(&self) -> String {
        self.metrics.text()
    }
}
