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

/// What an anonymous reader got: the status and the body, or why there was no answer.
pub type Answer = Result<(u16, Vec<u8>), String>;

/// Reads a public URL without credentials.
#[derive(Clone)]
pub struct PublicReader(Arc<dyn Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync>);

/// Most bytes read of an answer. Discovery documents and key sets are a few kilobytes.
const LIMIT: usize = 1 << 20;

impl PublicReader {
    /// Over HTTPS with the system's roots and an extra CA (PEM), if any.
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
                return Err(SetupError::Tls("--extra-ca holds no certificate in PEM".into()));
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
                    let answer = client.request(request).await.map_err(|e| causes(&e))?;
                    let status = answer.status().as_u16();
                    let body =
                        Limited::new(answer.into_body(), LIMIT).collect().await.map_err(|e| e.to_string())?;
                    Ok((status, body.to_bytes().to_vec()))
                };
                let limit = format!("no answer within {} s", timeout.as_secs());
                tokio::time::timeout(timeout, read).await.unwrap_or(Err(limit))
            }
            .boxed()
        }))
    }

    /// Any other way of reading: a test's.
    pub fn from_fn(read: impl Fn(Uri) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// One anonymous GET.
    pub async fn get(&self, url: &str) -> Answer {
        let uri = url.parse::<Uri>().map_err(|e| e.to_string())?;
        (self.0)(uri).await
    }
}

/// hyper's own message is "client error (Connect)"; why stands in its sources.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |e| e.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
