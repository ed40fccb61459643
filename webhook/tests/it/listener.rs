//! The listener for tests: over real TLS, with a fake API server.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use process::limiter::CapacityLimiter;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use webhook::metrics::Metrics;
use webhook::protocol::admit::Admission;
use webhook::protocol::server::{self, ReviewService};
use webhook::serving::tls::Certificate;

use crate::fake::{Api, eventually};
use crate::reviews::cluster;

pub const NAME: &str = "podidentity-webhook.podidentity-system.svc";
pub const MAX_BODY: usize = 64 << 10;
pub const CONNECTIONS: usize = 8;
pub const SECRETS: &str = "/api/v1/secrets";

pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// A running webhook.
pub struct Webhook {
    pub api: Arc<Api>,
    pub admission: Admission,
    pub metrics: Arc<Metrics>,
    pub certificate: Arc<Certificate>,
    pub address: SocketAddr,
    pub handle: Handle<SocketAddr>,
    pub bodies: Arc<CapacityLimiter>,
    pub connections: Arc<CapacityLimiter>,
    pub stopping: Arc<AtomicBool>,
    pub pair: Pair,
    pub served: JoinHandle<io::Result<()>>,
}

impl Webhook {
    pub fn start(request_timeout: Duration) -> Self {
        let api = cluster();
        let metrics = Arc::new(Metrics::default());
        let admission = api.admission(&metrics);
        let certificate = Arc::new(Certificate::new(Arc::clone(&metrics)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, connections) = (CapacityLimiter::new(MAX_BODY), CapacityLimiter::new(CONNECTIONS));
        let stopping = Arc::new(AtomicBool::new(false));
        let service = ReviewService {
            admission: admission.clone(),
            metrics: Arc::clone(&metrics),
            request_timeout,
            max_body_bytes: MAX_BODY,
            bodies: Arc::clone(&bodies),
            connections: Arc::clone(&connections),
            stopping: Arc::clone(&stopping),
        };
        let handle = Handle::new();
        let tls = RustlsConfig::from_config(Arc::new(certificate.server_config(None).unwrap()));
        let served = tokio::spawn(server::serve(listener, tls, service, handle.clone()));
        Self {
            api,
            admission,
            metrics,
            certificate,
            address,
            handle,
            bodies,
            connections,
            pair: Pair::new(),
            served,
            stopping,
        }
    }

    /// A webhook with a certificate and complete copies, and a connection to it.
    pub async fn ready(request_timeout: Duration) -> (Self, SendRequest<Body>) {
        let webhook = Self::start(request_timeout);
        webhook.serve(&webhook.pair);
        eventually("synced", || webhook.admission.lookup.is_synced()).await;
        let (connection, _) = webhook.connect(&webhook.pair, &version::TLS13).await.unwrap();
        (webhook, connection)
    }

    pub fn serve(&self, pair: &Pair) {
        self.certificate.apply(pair.pem.as_bytes(), pair.key.as_bytes());
    }

    /// A TLS connection that trusts `pair` only.
    pub async fn tls(
        &self,
        pair: &Pair,
        version: &'static SupportedProtocolVersion,
        protocol: &[u8],
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(pair.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    }

    /// A connection that trusts `pair` only, and the certificate that was served.
    pub async fn connect(
        &self,
        pair: &Pair,
        version: &'static SupportedProtocolVersion,
    ) -> io::Result<(SendRequest<Body>, CertificateDer<'static>)> {
        let tls = self.tls(pair, version, b"h2").await?;
        let served = tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Ok((sender, served))
    }
}

/// A self-signed certificate with its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key: String,
}

impl Pair {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), pem: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn secret(&self) -> Secret {
        secret(&self.pem, &self.key)
    }
}

pub fn secret(certificate: &str, key: &str) -> Secret {
    let data = [("tls.crt", certificate), ("tls.key", key)]
        .map(|(name, value)| (name.to_owned(), ByteString(value.as_bytes().to_vec())));
    Secret { data: Some(BTreeMap::from(data)), ..Secret::default() }
}

pub fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

pub async fn send(
    connection: &mut SendRequest<Body>,
    path: &str,
    content_type: &str,
    body: Body,
) -> (StatusCode, Value) {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("https://{NAME}{path}"))
        .header("content-type", content_type)
        .body(body)
        .unwrap();
    connection.ready().await.unwrap();
    let response = connection.send_request(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

pub async fn post(connection: &mut SendRequest<Body>, body: impl Into<Bytes>) -> (StatusCode, Value) {
    send(connection, "/mutate", "application/json", full(body)).await
}

pub fn configuration(bundles: &[&str]) -> MutatingWebhookConfiguration {
    let entries = bundles.iter().enumerate().map(|(number, bundle)| {
        json!({
            "name": format!("entry-{number}"),
            "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {
                "service": {"name": "podidentity-webhook", "namespace": "podidentity-system"},
                "caBundle": ByteString(bundle.as_bytes().to_vec()),
            },
        })
    });
    serde_json::from_value(json!({"metadata": {}, "webhooks": entries.collect::<Vec<_>>()})).unwrap()
}
