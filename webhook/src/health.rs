//! What the health port tells of the webhook.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use process::crowd::Crowd;

use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::tls::Certificate;
use crate::trust::{Trust, Trusted};

/// What is asked for it.
#[derive(Clone)]
pub struct Health {
    /// Ready once it is synced.
    pub lookup: Arc<Lookup>,
    /// Ready while it is valid.
    pub certificate: Arc<Certificate>,
    /// Whether the live webhook configuration trusts that certificate; `None` where that is not looked at.
    pub trust: Option<Arc<Trust>>,
    /// Set once it did: from then on it is no reason not to be ready.
    pub trusted_once: Arc<AtomicBool>,
    /// Set when the process is asked to stop: no new calls, please.
    pub stopping: Arc<AtomicBool>,
    /// The open connections.
    pub connections: Arc<Crowd>,
    /// What is counted.
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
                        "the live webhook configuration does not trust our certificate: {entry}"
                    ));
                }
            },
            _ => return Ok(()),
        }
        self.trusted_once.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn metrics(&self) -> String {
        // What is only known when somebody looks.
        if let Some(trust) = &self.trust {
            self.metrics.trusted(trust.trusted() == Trusted::Yes);
        }
        let (open, evicted) = self.connections.count();
        self.metrics.connections(open, evicted);
        self.metrics.text()
    }
}
