//! `/healthz`, `/readyz` and `/metrics` over plain HTTP: nothing here is secret.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::routing::get;
use hyper_util::rt::TokioTimer;

use crate::crowd::Crowd;
use crate::door::Doorkeeper;
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::tls::Certificate;
use crate::trust::{Trust, Trusted};

/// What the endpoints tell.
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

/// Connections at once: kubelets' probes and those who scrape metrics. Like the other port, this one is open to every pod; what
/// is held here must not be missing there.
pub const CONNECTIONS: usize = 64;
/// Between two scrapes.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// The requests are one line each.
const HEADER_BYTES: u32 = 16 << 10;
const STREAMS: u32 = 16;
const WINDOW: u32 = 64 << 10;

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, health: Health) -> io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health);
    let mut server = axum_server::from_tcp(listener)?
        .acceptor(Doorkeeper(Crowd::new(CONNECTIONS)))
        .first_request_timeout(IDLE_TIMEOUT);
    let http = server.http_builder();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_buf_size(HEADER_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    server.serve(app.into_make_service()).await
}

impl Health {
    /// Why no calls should be sent here; `Ok` if they should.
    pub fn ready(&self) -> Result<(), String> {
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
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    match health.ready() {
        Ok(()) => (StatusCode::OK, "ok".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn metrics(State(health): State<Health>) -> ([(HeaderName, &'static str); 1], String) {
    // What is only known when somebody looks.
    if let Some(trust) = &health.trust {
        health.metrics.trusted(trust.trusted() == Trusted::Yes);
    }
    let (open, evicted) = health.connections.count();
    health.metrics.connections(open, evicted);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], health.metrics.text())
}
