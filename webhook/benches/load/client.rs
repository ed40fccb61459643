//! The API server's part: one HTTP/2 connection over TLS that is kept alive.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub type Connection = SendRequest<Full<Bytes>>;

/// Connects with TLS, trusting one certificate only.
pub async fn handshake(
    address: SocketAddr,
    certificate: CertificateDer<'static>,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::builder_with_provider(webhook::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?)
}

/// Connects with HTTP/2.
pub async fn connect(address: SocketAddr, certificate: CertificateDer<'static>) -> Result<Connection> {
    let tls = handshake(address, certificate).await?;
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .handshake(TokioIo::new(tls))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends one review; returns the answer's body.
pub async fn call(connection: &mut Connection, body: &Bytes) -> Result<Bytes> {
    let request = Request::post("https://localhost/mutate?timeout=2s")
        .header("content-type", "application/json")
        .header("accept", "application/json, */*")
        .header("user-agent", "kube-apiserver-admission")
        .body(Full::new(body.clone()))?;
    connection.ready().await?;
    let response = connection.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// As many as are answered in a time, so many in flight. Returns their number.
pub async fn closed_loop(
    connection: &Connection,
    body: &Bytes,
    in_flight: usize,
    time: Duration,
) -> Result<usize> {
    let done = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (mut connection, body, done) = (connection.clone(), body.clone(), Arc::clone(&done));
        tasks.spawn(async move {
            while Instant::now() < end {
                call(&mut connection, &body).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    Ok(done.load(Ordering::Relaxed))
}

/// So many a second whatever the answers take; returns how long each took, from when it was due.
pub async fn open_loop(
    connection: &Connection,
    body: &Bytes,
    rate: u32,
    time: Duration,
) -> Result<Vec<Duration>> {
    let gap = Duration::from_secs(1) / rate;
    let count = u32::try_from(time.as_millis() / gap.as_millis().max(1)).context("too many")?;
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let due = begin + gap * number;
        tokio::time::sleep_until(due.into()).await;
        let (mut connection, body) = (connection.clone(), body.clone());
        // A timer's own lateness is the client's, not the webhook's.
        let due = Instant::now();
        tasks.spawn(async move { call(&mut connection, &body).await.map(|_| due.elapsed()) });
    }
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.push(task??);
    }
    took.sort_unstable();
    Ok(took)
}
