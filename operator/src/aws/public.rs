//! Anonymous reads of the published documents, as AWS STS makes them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::{CertificateDer, pem::PemObject};

use super::setup::SetupError;

/// HTTP status and body of an anonymous read, or why there was no response.
pub type Answer = Result<(u16, Vec<u8>), String>;

/// Reads public URLs without credentials.
#[derive(Clone)]
pub struct PublicReader(Arc<dyn Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync>);

/// The most bytes that are read of a response. Discovery documents and key sets have a few kilobytes.
const MAX_BYTES: usize = 1 << 20;

impl PublicReader {
    /// Reads over HTTPS and trusts the system's CAs and, if given, extra ones (PEM).
    ///
    /// # Errors
    /// If `extra_ca` is not PEM or has no certificate.
    pub fn https(extra_ca: Option<&[u8]>, timeout: Duration) -> Result<Self, SetupError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = extra_ca {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|e| SetupError::Tls(e.to_string()))?;
                roots.add(certificate).map_err(|e| SetupError::Tls(e.to_string()))?;
            }
            if roots.len() == before {
                return Err(SetupError::Tls("--extra-ca has no certificate in PEM".into()));
            }
        }
        let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self::from_fn(move |uri| {
            let client = client.clone();
            async move {
                let read = async {
                    let request = Request::get(uri)
                        .body(Empty::<bytes::Bytes>::default())
                        .map_err(|e| e.to_string())?;
                    let response = client.request(request).await.map_err(|e| causes(&e))?;
                    let status = response.status().as_u16();
                    let body = Limited::new(response.into_body(), MAX_BYTES)
                        .collect()
                        .await
                        .map_err(|e| e.to_string())?;
                    Ok((status, body.to_bytes().to_vec()))
                };
                let timed_out = format!("no response within {} s", timeout.as_secs());
                tokio::time::timeout(timeout, read).await.unwrap_or(Err(timed_out))
            }
            .boxed()
        }))
    }

    /// Reads by a function: for tests.
    pub fn from_fn(read: impl Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// One anonymous GET.
    pub async fn get(&self, url: &str) -> Answer {
        let uri = url.parse::<Uri>().map_err(|e| e.to_string())?;
        (self.0)(uri).await
    }
}

/// The error and its sources: hyper's own message, "client error (Connect)", does not include them.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
