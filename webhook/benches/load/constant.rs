//! The limit: the webhook's own listener, which reads a whole request and gives always the same answer, in a process of its own.
//! What a review costs beyond that is the review.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use process::limiter::CapacityLimiter;
use serde_json::json;
use tokio::runtime::{Builder, LocalOptions};
use webhook::metrics::Metrics;
use webhook::protocol::server::listen;
use webhook::serving::tls::Certificate;

/// The argument with which this program is such a server; the next ones are the files of certificate, key and answer.
pub const ARGUMENT: &str = "--constant-answer";
/// As in the webhook.
const CONNECTIONS: usize = 1024;

/// Serves until the process is killed.
pub fn serve([certificate, key, answer]: [&Path; 3]) -> Result<()> {
    let served = Arc::new(Certificate::new(Arc::new(Metrics::default())));
    served.apply(&std::fs::read(certificate)?, &std::fs::read(key)?);
    let answer = Bytes::from(std::fs::read(answer)?);
    let answer = move |request: http::Request<hyper::body::Incoming>| {
        let answer = answer.clone();
        async move {
            let _ = request.into_body().collect().await;
            let mut response = Response::new(Full::new(answer));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
            response
        }
    };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        eprintln!("{}", json!({"message": "listening", "address": address, "health_address": address}));
        let tls = RustlsConfig::from_config(Arc::new(served.server_config(None)?));
        let serving = listen(listener, tls, CapacityLimiter::new(CONNECTIONS), Handle::new(), answer);
        serving.await.context("HTTPS listener")
    })
}
