//! What the health port tells of the operator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::metrics::Metrics;

/// What is asked for it.
#[derive(Clone)]
pub struct Health {
    /// Set once the API server has answered: a standby replica is as ready as the leader.
    pub ready: Arc<AtomicBool>,
    /// What is counted.
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
