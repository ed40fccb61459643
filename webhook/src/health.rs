//! Readiness and metrics of the webhook, for the health port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use process::limiter::CapacityLimiter;

use crate::cluster::lookup::Lookup;
use crate::metrics::Metrics;
use crate::serving::tls::Certificate;
use crate::serving::trust::{Trust, Trusted};

/// What readiness and metrics are computed from.
#[derive(Clone)]
pub struct Health {
    /// The process is ready only once this is synced.
    pub lookup: Arc<Lookup>,
    /// The process is ready only while this is valid.
    pub certificate: Arc<Certificate>,
    /// Whether the live webhook configuration trusts that certificate; `None` where that is not checked.
    pub trust: Option<Arc<Trust>>,
    /// Set once it did: from then on the process is ready even if it does not.
    pub trusted_once: Arc<AtomicBool>,
    /// Set when the process is to stop: it is no longer ready.
    pub stopping: Arc<AtomicBool>,
    /// The open connections.
    pub connections: Arc<CapacityLimiter>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl process::health::Health for Health {
    fn ready(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("stopping".into());
        }
        if !self.lookup.is_synced() {
            return Err("the copies of ServiceAccounts, bindings and issuers are not complete yet".into());
        }
        if !self.certificate.is_valid() {
            return Err("there is no valid serving certificate".into());
        }
        match &self.trust {
            Some(trust) if !self.trusted_once.load(Ordering::Relaxed) => match trust.trusted() {
                Trusted::Yes | Trusted::NoConfiguration => {}
                Trusted::Unknown => return Err("the webhook configuration has not been read yet".into()),
                Trusted::NotBy(entry) => {
                    return Err(format!(
                        "the live webhook configuration does not trust the serving certificate: {entry}"
                    ));
                }
            },
            _ => return Ok(()),
        }
        self.trusted_once.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn metrics(&self) -> String {
        // These are computed for each scrape.
        if let Some(trust) = &self.trust {
            self.metrics.trusted(trust.trusted() == Trusted::Yes);
        }
        let (open, evicted) = self.connections.counts();
        self.metrics.connections(open, evicted);
        self.metrics.text()
    }
}
