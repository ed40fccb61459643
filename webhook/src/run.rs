//! Runs the process: watches, listeners, and a shutdown that loses no call.

use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use process::limiter::CapacityLimiter;
use process::{health, watch};
use rustls::server::danger::ClientCertVerifier;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Args, Kubernetes, Serving};
use crate::cluster::lookup::Lookup;
use crate::cluster::sources::Sources;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::protocol::admit::Admission;
use crate::protocol::server::{self, ReviewService};
use crate::serving::callers::Callers;
use crate::serving::files;
use crate::serving::tls::Certificate;
use crate::serving::trust::Trust;

/// After the listener is closed, calls in progress may take this much longer than the longest review.
const DRAIN_MARGIN: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Open files other than callers' connections: those of the health port, those to the API server, and a few more.
const OTHER_FILES: u64 = 64 + health::MAX_CONNECTIONS as u64;

/// Runs until SIGTERM or SIGINT. An error means that a listener cannot be opened, that there is no configuration for the API
/// server, or that a task ended by itself.
pub async fn run(args: Args) -> Result<()> {
    let Args { kubernetes, serving, injection, containers, .. } = &args;
    let metrics = Arc::new(Metrics::default());
    let client = process::responses::decodable(client(kubernetes).await?);
    let sources = Arc::new(Sources::new(injection.watch_config_map, Arc::clone(&metrics)));
    let lookup = Arc::new(Lookup::new(
        client.clone(),
        &injection.annotation_prefix,
        kubernetes.lookup_timeout(),
        Arc::clone(&sources),
        Arc::clone(&metrics),
    ));
    let certificate = Arc::new(Certificate::new(Arc::clone(&metrics)));
    let trust = args.webhook_configuration().map(|_| Arc::new(Trust::new(Arc::clone(&certificate))));
    let stopping = Arc::new(AtomicBool::new(false));
    let connections = CapacityLimiter::new(connection_limit(serving.max_connections));
    let health = Health {
        lookup: Arc::clone(&lookup),
        certificate: Arc::clone(&certificate),
        trust: trust.clone(),
        trusted_once: Arc::default(),
        stopping: Arc::clone(&stopping),
        connections: Arc::clone(&connections),
        metrics: Arc::clone(&metrics),
    };
    let service = ReviewService {
        admission: Admission {
            lookup: Arc::clone(&lookup),
            settings: Arc::new(args.settings()),
            metrics: Arc::clone(&metrics),
        },
        metrics,
        request_timeout: serving.request_timeout,
        max_body_bytes: serving.max_body_bytes,
        bodies: CapacityLimiter::new(serving.body_budget_bytes.max(serving.max_body_bytes)),
        connections,
        stopping: Arc::clone(&stopping),
    };

    let health_listener = listen(serving.health_port)?;
    let listener = listen(serving.port)?;
    let (address, health_address) = (listener.local_addr()?, health_listener.local_addr()?);
    let handle = Handle::new();
    let stop = stop(serving, &stopping, &handle);
    let tls = RustlsConfig::from_config(Arc::new(
        certificate.server_config(callers(serving).await?).context("TLS")?,
    ));
    let https = server::serve(listener, tls.clone(), service, handle.clone());
    let https = async { https.await.context("HTTPS listener") };
    tracing::info!(%address, %health_address, "listening");

    let namespace = kubernetes.namespace.as_str();
    let follow_certificate = async {
        match (&serving.tls_cert_file, &serving.tls_private_key_file) {
            (Some(pem), Some(key)) => certificate.follow_files(pem, key).await,
            _ => certificate.follow_secret(client.clone(), namespace, &serving.tls_secret).await,
        }
    };
    let follow_trust = async {
        match (&trust, args.webhook_configuration()) {
            (Some(trust), Some(name)) => trust.follow(client.clone(), name).await,
            _ => pending().await,
        }
    };
    let follow_config_map = async {
        if injection.watch_config_map {
            sources.follow_config_map(client.clone(), namespace).await;
        } else {
            pending::<()>().await;
        }
    };
    let follow_identities = async {
        match &containers.watch_container_credentials_config {
            Some(path) => sources.follow_file(path).await,
            None => pending().await,
        }
    };
    tokio::select! {
        served = async { tokio::try_join!(https, stop) } => {
            served?;
            tracing::info!("stopped: all calls in progress were answered");
            Ok(())
        }
        ended = health::serve(health_listener, Arc::new(health)) => ended.context("health listener"),
        () = lookup.follow() => bail!("a watch ended"),
        () = follow_certificate => bail!("the certificate's watch ended"),
        () = follow_trust => bail!("the webhook configuration's watch ended"),
        () = follow_config_map => bail!("the ConfigMap's watch ended"),
        () = follow_identities => bail!("the container-credentials file's watch ended"),
        () = follow_callers(serving, &certificate, &tls) => bail!("the client CA's watch ended"),
    }
}

/// Waits for the signal, then stops in the order that loses no call: first the process is not ready, so that its endpoints are
/// removed; new calls are still answered during the delay; then the listener closes and calls in progress are finished.
async fn stop(serving: &Serving, stopping: &AtomicBool, handle: &Handle<SocketAddr>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!(delay = ?serving.shutdown_delay, "stopping: not ready, still answering");
    stopping.store(true, Ordering::Relaxed);
    tokio::time::sleep(serving.shutdown_delay).await;
    handle.graceful_shutdown(Some(serving.request_timeout + DRAIN_MARGIN));
    Ok(())
}

/// The accepted callers, from the client CA's file. A file that is not usable at the start is an error: without it every caller
/// would be accepted.
async fn callers(serving: &Serving) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
    let Some(path) = &serving.client_ca_file else { return Ok(None) };
    let pem = tokio::fs::read(path).await.with_context(|| path.display().to_string())?;
    let callers = Callers::new(&pem, &serving.client_name).with_context(|| path.display().to_string())?;
    Ok(Some(Arc::new(callers)))
}

/// Applies the client CA's file whenever it changes; one that is not usable changes nothing.
async fn follow_callers(serving: &Serving, certificate: &Arc<Certificate>, tls: &RustlsConfig) {
    let Some(path) = &serving.client_ca_file else { return pending().await };
    let apply = |pem: &[u8]| -> Result<()> {
        let callers = Callers::new(pem, &serving.client_name)?;
        tls.reload_from_config(Arc::new(certificate.server_config(Some(Arc::new(callers)))?));
        Ok(())
    };
    files::follow([path.as_path() as &Path], |[pem]| match apply(&pem.unwrap_or_default()) {
        Ok(()) => tracing::info!("client CA loaded"),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "this client CA is not usable; the last usable one stays in force"
            );
        }
    })
    .await;
}

/// A client with the pod's own `ServiceAccount`, or from a kubeconfig.
async fn client(kubernetes: &Kubernetes) -> Result<Client> {
    let mut config = match &kubernetes.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| path.display().to_string())?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context("neither in-cluster configuration nor kubeconfig")?,
    };
    if let Some(url) = &kubernetes.kube_api {
        config.cluster_url = url.parse().with_context(|| format!("--kube-api {url}"))?;
    }
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(watch::READ_TIMEOUT);
    config.reset_reader_on_write = true; // a pooled connection may have been idle before
    // The watches have their own backoff, and a review cannot wait for fifteen retries.
    config.default_retry = false;
    Client::try_from(config).context("Kubernetes client")
}

/// The limit of connections: as requested, or as the limit of open files permits. Containers often start with a soft limit of
/// 1,024 (systemd's, since containerd 2 sets none of its own). A listener that cannot open a file for a connection accepts
/// none: a client with that many idle connections would exclude the API server.
fn connection_limit(requested: usize) -> usize {
    let needed = u64::try_from(requested).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let raised = soft.max(needed.min(hard));
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard).map(|()| raised)
    });
    match limit {
        Ok(files) if files < needed => {
            let possible = usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(requested).max(1);
            tracing::warn!(files, requested, possible, "the limit of open files permits fewer connections");
            possible
        }
        Ok(_) => requested,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files is not known");
            requested
        }
    }
}

/// Listens on all addresses; on machines without IPv6 on those of IPv4.
fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .with_context(|| format!("port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
