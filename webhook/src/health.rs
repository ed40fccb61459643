//! `/healthz`, `/readyz` and `/metrics` over plain HTTP: nothing here is secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::tls::Certificate;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Health {
    /// Ready once it is synced.
    pub lookup: Arc<Lookup>,
    /// Ready while it is valid.
    pub certificate: Arc<Certificate>,
    /// Set when the process is asked to stop: no new calls, please.
    pub stopping: Arc<AtomicBool>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, health: Health) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    axum::serve(listener, app).await
}

impl Health {
    /// Why no calls should be sent here; `Ok` if they should.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.stopping.load(Ordering::Relaxed) {
            Err("stopping")
        } else if !self.lookup.is_synced() {
            Err("the copies of ServiceAccounts, bindings and issuers are not complete yet")
        } else if !self.certificate.is_valid() {
            Err("there is no valid serving certificate")
        } else {
            Ok(())
        }
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    match health.ready() {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn metrics(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics.text())
}
