//! Calls the webhook as the API server does: over TLS connections that are kept alive. It calls a Service over HTTP/1.1, one review at a time on
//! each connection (kubernetes#75791), and a URL on its own host over HTTP/2, all on one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How reviews are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Http2, Self::Http1];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// How many reviews are in progress at the same time: as many as when the EKS webhook was measured.
    pub const fn in_flight(self) -> usize {
        match self {
            Self::Http1 => 16,
            Self::Http2 => 8,
        }
    }
}

/// What one review at a time is sent on: a connection, or a share of one.
pub enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Where a webhook listens, and the certificate to trust.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    certificate: CertificateDer<'static>,
}

impl Target {
    /// A webhook at this address that serves this certificate.
    pub fn new(address: SocketAddr, certificate: CertificateDer<'static>) -> Self {
        Self { address, certificate }
    }

    /// Connects with TLS, trusting that certificate only.
    pub async fn handshake(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let mut config = ClientConfig::builder_with_provider(webhook::serving::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = match protocol {
            Protocol::Http1 => vec![b"http/1.1".to_vec()],
            Protocol::Http2 => vec![b"h2".to_vec()],
        };
        let tcp = TcpStream::connect(self.address).await?;
        tcp.set_nodelay(true)?;
        Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?)
    }

    /// Connects; the result can send this many reviews at the same time.
    pub async fn connect(&self, protocol: Protocol, in_flight: usize) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        match protocol {
            Protocol::Http2 => {
                let tls = self.handshake(protocol).await?;
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(4 << 20)
                    .handshake(TokioIo::new(tls))
                    .await?;
                tokio::spawn(connection);
                connections.extend((0..in_flight).map(|_| Connection::Http2(sender.clone())));
            }
            Protocol::Http1 => {
                for _ in 0..in_flight {
                    let tls = self.handshake(protocol).await?;
                    let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
                    tokio::spawn(connection);
                    connections.push(Connection::Http1(sender));
                }
            }
        }
        Ok(connections)
    }
}

/// Sends one review; returns the answer's body.
pub async fn call(connection: &mut Connection, body: &Bytes) -> Result<Bytes> {
    let request = |target: &str| {
        Request::post(target)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("accept", "application/json, */*")
            .header("user-agent", "kube-apiserver-admission")
            .body(Full::new(body.clone()))
    };
    let response = match connection {
        Connection::Http1(connection) => {
            connection.ready().await?;
            connection.send_request(request("/mutate?timeout=2s")?).await?
        }
        Connection::Http2(connection) => {
            connection.ready().await?;
            connection.send_request(request("https://localhost/mutate?timeout=2s")?).await?
        }
    };
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// Sends reviews for this time, one after the other on each connection. Returns the number of answers.
pub async fn closed_loop(connections: Vec<Connection>, body: &Bytes, time: Duration) -> Result<usize> {
    let done = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (body, done) = (body.clone(), Arc::clone(&done));
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

/// Sends reviews at a fixed rate; returns how long each took, in ascending order. A review that is due while every
/// connection is busy waits, and the wait counts. A timer's own lateness does not: it is the client's, not the webhook's.
pub async fn open_loop(
    connections: Vec<Connection>,
    body: &Bytes,
    rate: u32,
    time: Duration,
) -> Result<Vec<Duration>> {
    let gap = Duration::from_secs(1) / rate;
    let count = u32::try_from(time.as_nanos() / gap.as_nanos().max(1)).context("too many")?;
    let begin = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let (body, next) = (body.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(took);
                }
                let mut due = begin + gap * number;
                if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    due = Instant::now();
                }
                call(&mut connection, &body).await?;
                took.push(due.elapsed());
            }
        });
    }
    let mut took = Vec::new();
    while let Some(task) = tasks.join_next().await {
        took.extend(task??);
    }
    took.sort_unstable();
    Ok(took)
}
