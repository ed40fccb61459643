//! The webhook's process: its certificate, its log, its metrics.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::ensure;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::pki::{Authority, Pair};
use crate::world::{World, eventually};

/// As a real API server sends it.
pub const REVIEW: &str = include_str!("../reviews/deployment-pod-1.37.json");

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs a program that ends when the process that started it ends, in whatever way.
const WITH_PARENT: &str = r#""$0" "$@" & cat >/dev/null; kill -9 $!"#;

/// A running webhook; dropping it ends it.
pub struct Webhook {
    /// Where it answers over TLS.
    pub address: SocketAddr,
    health: SocketAddr,
    log: PathBuf,
    child: Child,
}

impl Webhook {
    /// Serves a certificate of `authority` that never changes, and is ready: the configuration leads to it.
    pub async fn ready(world: &World, authority: &Authority, flags: &[&str]) -> Self {
        let (certificate, key) = (world.folder.path().join("tls.crt"), world.folder.path().join("tls.key"));
        let pair = authority.server();
        std::fs::write(&certificate, pair.certificate).unwrap();
        std::fs::write(&key, pair.key).unwrap();
        let files = [
            format!("--tls-cert-file={}", certificate.display()),
            format!("--tls-private-key-file={}", key.display()),
        ];
        let files = files.iter().map(String::as_str);
        let webhook = Self::start(world, &files.chain(flags.iter().copied()).collect::<Vec<_>>()).await;
        world.configured(webhook.address, &authority.certificate).await;
        webhook.until_ready().await;
        webhook
    }

    /// Returns once it listens.
    pub async fn start(world: &World, flags: &[&str]) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = world.folder.path().join(format!("webhook-{number}.log"));
        let child = Command::new("sh")
            .args([
                "-c",
                WITH_PARENT,
                env!("CARGO_BIN_EXE_webhook"),
                "--port=0",
                "--health-port=0",
                "--request-timeout=10s",
            ])
            .arg(format!("--kubeconfig={}", world.cluster.kubeconfig().display()))
            .args(flags)
            // Everything is logged, so that tests find what must not be.
            .env("RUST_LOG", "trace")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut webhook = Self { address: nowhere, health: nowhere, log, child };
        eventually("the webhook listens", || async {
            ensure!(!webhook.logged("listening").is_empty(), "{}", webhook.text());
            Ok(())
        })
        .await;
        let listening = webhook.logged("listening").remove(0);
        let port = |key: &str| listening[key].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
        webhook.address.set_port(port("address"));
        webhook.health.set_port(port("health_address"));
        webhook
    }

    /// Waits until it is ready.
    pub async fn until_ready(&self) {
        eventually("the webhook is ready", || async {
            let answer = self.get("/readyz");
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            Ok(())
        })
        .await;
    }

    /// Lines of its log whose message starts with this.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let text = self.text();
        // The last line may not be complete yet.
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines =
            complete.lines().map(|line| serde_json::from_str::<Value>(line).expect("every line is JSON"));
        lines.filter(|line| line["message"].as_str().unwrap_or_default().starts_with(message)).collect()
    }

    /// All of its log.
    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The sum of a metric over all series whose labels contain each of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let answer = self.get("/metrics");
        let name = format!("podidentity_webhook_{name}");
        let series = answer.lines().filter_map(|line| line.rsplit_once(' '));
        let series = series.filter(|(series, _)| series.split('{').next() == Some(&*name));
        let wanted = series.filter(|(series, _)| labels.iter().all(|label| series.contains(label)));
        wanted.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// A review sent by hand, without or with a client certificate: the certificate served, and the answer, if there is one.
    pub async fn call(&self, authority: &Authority, client: Option<&Pair>) -> io::Result<(Vec<u8>, String)> {
        self.send(authority, client, REVIEW).await
    }

    /// Anything sent by hand; the answer.
    pub async fn post(&self, authority: &Authority, body: &str) -> io::Result<String> {
        Ok(self.send(authority, None, body).await?.1)
    }

    async fn send(
        &self,
        authority: &Authority,
        client: Option<&Pair>,
        body: &str,
    ) -> io::Result<(Vec<u8>, String)> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(webhook::serving::tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            Some(Pair { certificate, key }) => config
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => config.with_no_client_auth(),
        };
        let tcp = tokio::net::TcpStream::connect(self.address).await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let served = tls.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        let head = "POST /mutate HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json";
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tls.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        tls.read_to_string(&mut answer).await?;
        Ok((served, answer))
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
