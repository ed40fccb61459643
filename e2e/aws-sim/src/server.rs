//! The stand-in as a server: every host name over TLS, with a leaf for each name from a private CA, and beside it a plain
//! HTTP door for tests that play "somebody with the console" or make things go wrong.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::wire::answer;
use crate::{Fault, Sim};

/// No call of ours carries more.
const BODY_LIMIT: usize = 8 << 20;
/// STS gives up on an issuer that takes longer.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// A private CA that vouches for AWS's names.
pub struct Authority {
    /// Its certificate, PEM: what clients must trust.
    pub certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new CA.
    pub fn generate() -> anyhow::Result<Self> {
        Self::new(KeyPair::generate()?)
    }

    /// The CA of a directory (`ca.crt`, `ca.key`), made there if it is missing.
    pub fn in_directory(directory: &Path) -> anyhow::Result<Self> {
        let (certificate, key) = (directory.join("ca.crt"), directory.join("ca.key"));
        if let (Ok(certificate), Ok(key)) =
            (std::fs::read_to_string(&certificate), std::fs::read_to_string(&key))
        {
            let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
            return Ok(Self { certificate, issuer });
        }
        std::fs::create_dir_all(directory)?;
        let pair = KeyPair::generate()?;
        std::fs::write(&key, pair.serialize_pem())?;
        let made = Self::new(pair)?;
        std::fs::write(certificate, &made.certificate)?;
        Ok(made)
    }

    fn new(key: KeyPair) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "aws-sim private CA");
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    fn leaf(&self, host: &str) -> anyhow::Result<CertifiedKey> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&private)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
    }
}

/// A leaf for each name, made when it is first asked for.
struct LeafByName {
    authority: Authority,
    leaves: std::sync::Mutex<std::collections::HashMap<String, Arc<CertifiedKey>>>,
}

impl std::fmt::Debug for LeafByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeafByName")
    }
}

impl ResolvesServerCert for LeafByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name()?.to_owned();
        let mut leaves = crate::lock(&self.leaves);
        if let Some(leaf) = leaves.get(&host) {
            return Some(leaf.clone());
        }
        let leaf = Arc::new(self.authority.leaf(&host).ok()?);
        leaves.insert(host, leaf.clone());
        Some(leaf)
    }
}

/// Reads issuers' documents over real HTTPS, trusting the private CA: what STS does, seen from outside.
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

/// Serves AWS's names over TLS for as long as it is polled.
pub async fn serve(sim: Sim, listener: TcpListener, authority: Authority) -> anyhow::Result<()> {
    let resolver = LeafByName { authority, leaves: std::sync::Mutex::default() };
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
                    // An error here closes the connection: the answer is lost.
                    let lost = |_| std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    sim.handle(request).await.map(|response| response.map(Full::new)).map_err(lost)
                }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Serves the control door for as long as it is polled.
pub async fn control(sim: Sim, listener: TcpListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let sim = sim.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let sim = sim.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body =
                        body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    Ok::<_, Infallible>(console(&sim, &parts, &body).map(Full::new))
                }
            });
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Knocks at a control door.
pub async fn call(door: SocketAddr, method: &str, path: &str, body: String) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{door}{path}"))
        .body(Full::new(Bytes::from(body)))?;
    let response = client.request(request).await?;
    let status = response.status();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    anyhow::ensure!(status.is_success(), "{method} {path}: {status}: {text}");
    Ok(text)
}

/// Somebody with the console.
fn console(sim: &Sim, parts: &http::request::Parts, body: &Bytes) -> Response<Bytes> {
    let json = |value: Result<String, serde_json::Error>| {
        answer(200, &[("content-type", "application/json")], value.unwrap_or_default())
    };
    match act(sim, &parts.method, parts.uri.path(), body) {
        Ok(None) => match parts.uri.path() {
            "/calls" => json(serde_json::to_string(&sim.calls())),
            "/administrator" => json(serde_json::to_string(&sim.administrator())),
            _ => json(serde_json::to_string(&sim.state())),
        },
        Ok(Some(text)) => answer(200, &[], text),
        Err(error) => answer(400, &[], format!("{error:#}\n")),
    }
}

fn act(sim: &Sim, method: &Method, path: &str, body: &Bytes) -> anyhow::Result<Option<String>> {
    match (method.as_str(), path) {
        ("GET", "/calls" | "/state" | "/administrator") => return Ok(None),
        ("DELETE", "/calls") => sim.clear_calls(),
        ("DELETE", "/faults") => sim.clear_faults(),
        ("POST", "/faults") => sim.inject(serde_json::from_slice::<Fault>(body).context("not a fault")?),
        ("POST", "/roles") => {
            let role: serde_json::Value = serde_json::from_slice(body)?;
            let text = |key: &str| role[key].as_str().unwrap_or_default();
            let attached: Vec<&str> =
                role["attached"].as_array().into_iter().flatten().filter_map(|a| a.as_str()).collect();
            return Ok(Some(sim.put_role(text("path"), text("name"), role["trust"].clone(), &attached)));
        }
        ("POST", "/policies") => {
            let policy: serde_json::Value = serde_json::from_slice(body)?;
            let name = policy["name"].as_str().context("name is missing")?;
            return Ok(Some(sim.put_managed_policy(name, policy["document"].clone())));
        }
        ("PUT", path) if path.starts_with("/buckets/") => match path["/buckets/".len()..].split_once('/') {
            None => sim.put_bucket(&path["/buckets/".len()..], &sim.settings().account),
            Some((bucket, key)) => sim.put_object(bucket, key, body.clone()),
        },
        ("DELETE", path) if path.starts_with("/roles/") => {
            sim.change(|state| state.roles.remove(&path["/roles/".len()..].to_lowercase()));
        }
        ("DELETE", path) if path.starts_with("/policies/") => {
            sim.change(|state| state.policies.retain(|_, p| p.name != path["/policies/".len()..]));
        }
        ("DELETE", path) if path.starts_with("/buckets/") => {
            sim.change(|state| state.buckets.remove(&path["/buckets/".len()..]));
        }
        _ => anyhow::bail!("no such door: {method} {path}"),
    }
    Ok(Some(String::new()))
}
