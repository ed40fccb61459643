//! The process: watches, listeners, and a stop that loses no call.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum_server::Handle;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};

use crate::admit::Admission;
use crate::cli::Args;
use crate::health::{self, Health};
use crate::lookup::Lookup;
use crate::metrics::Metrics;
use crate::server::{self, Budget, Service};
use crate::tls::Certificate;

/// After the listener is closed, calls under way may take this much longer than a review may at most.
const DRAIN_SLACK: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An API server that is gone without a word is given up after this long; watches end sooner by themselves.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// Runs until SIGTERM or SIGINT. An error is a listener that cannot be opened, no way to the API server, or a task
/// that ended by itself.
pub async fn run(args: Args) -> Result<()> {
    let metrics = Arc::new(Metrics::default());
    let client = client().await?;
    let lookup = Arc::new(Lookup::new(
        client.clone(),
        &args.annotation_prefix,
        args.live_lookup_timeout,
        Arc::clone(&metrics),
    ));
    let certificate = Arc::new(Certificate::new(Arc::clone(&metrics)));
    let stopping = Arc::new(AtomicBool::new(false));
    let health = Health {
        lookup: Arc::clone(&lookup),
        certificate: Arc::clone(&certificate),
        stopping: Arc::clone(&stopping),
        metrics: Arc::clone(&metrics),
    };
    let admission =
        Admission { lookup: Arc::clone(&lookup), defaults: args.defaults(), target: args.target() };
    let service = Service {
        admission,
        metrics,
        request_timeout: args.request_timeout,
        max_body_bytes: args.max_body_bytes,
        budget: Budget::new(args.body_budget_bytes.max(args.max_body_bytes)),
    };

    let health_listener = tokio::net::TcpListener::from_std(listen(args.health_port)?)?;
    let listener = listen(args.port)?;
    let (address, health_address) = (listener.local_addr()?, health_listener.local_addr()?);
    let handle = Handle::new();
    let stop = stop(&args, &stopping, &handle);
    let tls = certificate.server_config().context("TLS")?;
    let https = server::serve(listener, tls, service, handle.clone());
    let https = async { https.await.context("HTTPS listener") };
    tracing::info!(%address, %health_address, "listening");

    tokio::select! {
        served = async { tokio::try_join!(https, stop) } => {
            served?;
            tracing::info!("stopped: every call under way was answered");
            Ok(())
        }
        ended = health::serve(health_listener, health) => ended.context("health listener"),
        () = lookup.follow() => bail!("a watch ended"),
        () = certificate.follow(client, &args.namespace, &args.tls_secret) => bail!("the certificate's watch ended"),
    }
}

/// Waits for the signal, then stops in the order that loses nothing: readiness first, so that endpoints are withdrawn;
/// new calls are still answered for the delay; then the listener closes and calls under way are finished.
async fn stop(args: &Args, stopping: &AtomicBool, handle: &Handle<SocketAddr>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(delay = ?args.shutdown_delay, "stopping: not ready any more, still answering");
    stopping.store(true, Ordering::Relaxed);
    tokio::time::sleep(args.shutdown_delay).await;
    handle.graceful_shutdown(Some(args.request_timeout + DRAIN_SLACK));
    Ok(())
}

/// In a pod the mounted `ServiceAccount`, elsewhere the kubeconfig.
async fn client() -> Result<Client> {
    let mut config = Config::infer().await.context("neither in-cluster configuration nor kubeconfig")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true; // a pooled connection may have been idle before
    // The watches have a backoff of their own, and a review cannot wait for fifteen tries.
    config.default_retry = false;
    Client::try_from(config).context("Kubernetes client")
}

/// All addresses; on machines without IPv6 those of IPv4.
fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .with_context(|| format!("port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
