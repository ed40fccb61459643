//! The serving certificate: read from a watched Secret or from files, and replaced without a restart.
//!
//! A certificate that is not usable changes nothing: the last usable one is served until it expires.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::metrics::Metrics;
use crate::serving::files;

/// Why a certificate and its key are not usable.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// One of the two is missing, or empty.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// Not PEM, or without a section of the expected kind. The decoder's own message is not repeated: it quotes the line, which
    /// may contain a key, even in a file that should contain only certificates.
    #[error("{0} is not usable PEM: sections of whole lines are expected, with at least one {1} section")]
    Pem(&'static str, &'static str),
    /// The certificate is not X.509.
    #[error("tls.crt is not an X.509 certificate")]
    Certificate,
    /// The key is of an unknown kind, or of another certificate.
    #[error("tls.key does not fit tls.crt: {0}")]
    Key(#[from] rustls::Error),
    /// The certificate has expired.
    #[error("tls.crt expired {0} seconds ago")]
    Expired(i64),
}

/// The certificate that is served now.
#[derive(Debug)]
pub struct Certificate {
    served: RwLock<ServedCertificates>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct ServedCertificates {
    current: Option<UsableCertificate>,
    /// One that is not valid yet, while the current one is valid.
    next: Option<UsableCertificate>,
}

#[derive(Debug, Clone)]
struct UsableCertificate {
    key: Arc<CertifiedKey>,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// No certificate yet: every handshake fails.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { served: RwLock::default(), metrics }
    }

    /// Keeps the certificate equal to the Secret; returns only if the watch ends, which it does not do by itself.
    pub async fn follow_secret(&self, client: Client, namespace: &str, secret: &str) {
        // RBAC's resourceNames permits a list or watch only with this field selector.
        let config = process::watch::config().fields(&format!("metadata.name={secret}"));
        self.apply_all(watcher(Api::<Secret>::namespaced(client, namespace), config)).await;
    }

    /// Keeps the certificate equal to the files; does not return.
    pub async fn follow_files(&self, certificate: &Path, key: &Path) {
        files::follow([certificate, key], |[certificate, key]| {
            self.apply(&certificate.unwrap_or_default(), &key.unwrap_or_default());
        })
        .await;
    }

    async fn apply_all(&self, events: impl Stream<Item = watcher::Result<Event<Secret>>>) {
        let mut events = std::pin::pin!(events.backoff(process::watch::backoff()));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                    let data = secret.data.unwrap_or_default();
                    let part = |key| data.get(key).map(|bytes| bytes.0.as_slice()).unwrap_or_default();
                    self.apply(part("tls.crt"), part("tls.key"));
                }
                Ok(Event::Init | Event::InitDone) => {}
                Ok(Event::Delete(_)) => {
                    tracing::warn!(
                        "the Secret with the serving certificate was deleted; the last certificate is still served"
                    );
                }
                Err(error) => tracing::warn!(error = %error, "the watch of the certificate's Secret failed"),
            }
        }
    }

    /// Serves this certificate with this key (PEM) from now on, if they are usable.
    pub fn apply(&self, certificate: &[u8], key: &[u8]) {
        match read(certificate, key) {
            Ok(new) => {
                let UsableCertificate { not_before, not_after, .. } = new;
                let mut served = self.served.write().unwrap_or_else(PoisonError::into_inner);
                if not_before > now() && served.now().is_some_and(UsableCertificate::is_valid) {
                    tracing::warn!(not_before, "this certificate is served once it is valid");
                    served.next = Some(new);
                    drop(served);
                    self.metrics.certificate(not_before, not_after);
                    return;
                }
                let replaced = served.current.is_some();
                *served = ServedCertificates { current: Some(new), next: None };
                drop(served);
                self.metrics.certificate(not_before, not_after);
                tracing::info!(not_after, replaced, "serving certificate loaded");
            }
            Err(error) => {
                self.metrics.certificate_refused();
                tracing::error!(error = %error, "this certificate is not usable; the last usable one is still served");
            }
        }
    }

    /// Whether there is a certificate, and it is valid now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.current().is_some_and(|current| current.is_valid())
    }

    /// The certificate that is served now, and its intermediates.
    #[must_use]
    pub fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.current().map(|current| current.key.cert.clone())
    }

    /// TLS 1.3 only, HTTP/2 preferred; with `callers` only for clients whose certificate it accepts.
    pub fn server_config(
        self: &Arc<Self>,
        callers: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match callers {
            Some(callers) => builder.with_client_cert_verifier(callers),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn current(&self) -> Option<UsableCertificate> {
        self.served.read().unwrap_or_else(PoisonError::into_inner).now().cloned()
    }
}

impl ServedCertificates {
    fn now(&self) -> Option<&UsableCertificate> {
        self.next.as_ref().filter(|next| next.not_before <= now()).or(self.current.as_ref())
    }
}

impl UsableCertificate {
    fn is_valid(&self) -> bool {
        (self.not_before..self.not_after).contains(&now())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current().map(|current| current.key)
    }
}

fn read(certificate: &[u8], key: &[u8]) -> Result<UsableCertificate, CertificateError> {
    let not_empty =
        |name, pem: &'_ [u8]| if pem.is_empty() { Err(CertificateError::Missing(name)) } else { Ok(()) };
    not_empty("tls.crt", certificate)?;
    not_empty("tls.key", key)?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::Pem("tls.crt", "CERTIFICATE"))?;
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Pem("tls.key", "PRIVATE KEY"))?;
    let leaf = chain.first().ok_or(CertificateError::Certificate)?;
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::Certificate)?;
    let validity = parsed.validity();
    let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if not_after <= now() {
        return Err(CertificateError::Expired(now() - not_after));
    }
    // Fails if the two have different public keys.
    let key = Arc::new(CertifiedKey::from_der(chain, key, &provider())?);
    Ok(UsableCertificate { key, not_before, not_after })
}

/// The only cryptography provider of this process.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_cannot_be_read_is_not_quoted() -> Result<(), rcgen::Error> {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["webhook".to_owned()])?;
        let (pem, key) = (cert.pem(), signing_key.serialize_pem());
        let refused = |certificate: &str, key: &str| {
            read(certificate.as_bytes(), key.as_bytes()).err().map(|error| error.to_string())
        };
        // As a template or an environment variable may produce it.
        for broken in [key.replace('\n', "\\n"), key.replace('\n', "\\n") + "\n", key.replace('\n', " ")] {
            let message = "tls.key is not usable PEM: sections of whole lines are expected, with at least one PRIVATE KEY section";
            assert_eq!(refused(&pem, &broken).as_deref(), Some(message), "{broken:?}");
            let message = "tls.crt is not usable PEM: sections of whole lines are expected, with at least one CERTIFICATE section";
            assert_eq!(refused(&(broken.clone() + &pem), &key).as_deref(), Some(message), "{broken:?}");
        }
        Ok(())
    }
}
