//! AWS's host names over TLS, each with a certificate of a private CA.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::model::lock;
use crate::sim::Sim;

/// No call of this project carries more.
const BODY_LIMIT: usize = 8 << 20;
/// STS gives up on an issuer that takes longer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// One certificate for each host name, issued at the first connection.
struct LeafByName {
    authority: Authority,
    leaves: Mutex<HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for LeafByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeafByName")
    }
}

impl ResolvesServerCert for LeafByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_owned();
        let mut leaves = lock(&self.leaves);
        if let Some(leaf) = leaves.get(&host) {
            return Some(leaf.clone());
        }
        let leaf = Arc::new(self.authority.leaf(&host).ok()?);
        leaves.insert(host, leaf.clone());
        Some(leaf)
    }
}

/// Makes STS read issuers' documents over HTTPS, with the private CA trusted, as the real STS does over the internet.
pub fn fetch_over_https(sim: &Sim, authority: &Authority) -> anyhow::Result<()> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes())?)?;
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    sim.fetch_with(Arc::new(move |url| {
        let client = client.clone();
        async move {
            let read = async {
                let request = Request::get(url).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
                let response = client.request(request).await.map_err(|e| e.to_string())?;
                let status = response.status().as_u16();
                let body = Limited::new(response.into_body(), BODY_LIMIT)
                    .collect()
                    .await
                    .map_err(|e| e.to_string())?;
                Ok((status, body.to_bytes()))
            };
            tokio::time::timeout(FETCH_TIMEOUT, read).await.unwrap_or_else(|_| Err("timed out".into()))
        }
        .boxed()
    }));
    Ok(())
}

/// Serves AWS's host names over TLS for as long as it is polled.
pub async fn serve(sim: Sim, listener: TcpListener, authority: Authority) -> anyhow::Result<()> {
    let resolver = LeafByName { authority, leaves: Mutex::default() };
    let mut config =
        rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let (stream, _) = listener.accept().await?;
        let (sim, acceptor) = (sim.clone(), acceptor.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: Request<Incoming>| {
                let sim = sim.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body =
                        Limited::new(body, BODY_LIMIT).collect().await.map_err(std::io::Error::other)?;
                    let request = Request::from_parts(parts, body.to_bytes());
                    // An error here closes the connection: the response is lost.
                    let lost = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    sim.handle(request).await.map(|response| response.map(Full::new)).map_err(lost)
                }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
