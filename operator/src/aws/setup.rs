//! How the connections to AWS are set up: credentials, TLS roots, time limits.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;

use super::limit::Limits;

/// The SDK's modules that warn of every failed call. What they say is in our own log, conditions and metrics, once.
pub const SDK_MODULES: [&str; 5] =
    ["aws_config", "aws_runtime", "aws_smithy_http_client", "aws_smithy_runtime", "aws_smithy_runtime_api"];

/// Why the AWS clients could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The extra CA is not readable.
    #[error("cannot read --extra-ca {path}: {source}")]
    ExtraCa {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS roots are unusable.
    #[error("cannot set up TLS for AWS: {0}")]
    Tls(String),
}

/// What the clients need to know from outside.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// PEM file of a CA trusted in addition to the system's roots.
    pub extra_ca: Option<PathBuf>,
    /// Region of IAM and STS calls; the SDK's default region chain where absent.
    pub region: Option<String>,
    /// Limit of one attempt of one call.
    pub call_timeout: Duration,
    /// Limit of one anonymous read.
    pub public_timeout: Duration,
    /// How long the answer of `GetCallerIdentity` is used.
    pub identity_refresh: Duration,
    /// How many calls a second are made.
    pub limits: Limits,
}

impl Settings {
    /// Which certificates are trusted: by the system's roots and the extra CA.
    pub(super) fn tls(&self) -> Result<TlsContext, SetupError> {
        let mut roots = TrustStore::default();
        if let Some(path) = &self.extra_ca {
            let pem =
                std::fs::read(path).map_err(|source| SetupError::ExtraCa { path: path.clone(), source })?;
            check_certificates(&pem)?;
            roots.add_pem_certificate(pem);
        }
        TlsContext::builder().with_trust_store(roots).build().map_err(|e| SetupError::Tls(e.to_string()))
    }

    /// The SDK configuration that every client shares: the SDK's default credential chain over [`connector`].
    pub(super) async fn load(&self, tls: &TlsContext) -> SdkConfig {
        let tls = tls.clone();
        let http = aws_smithy_http_client::Builder::new()
            .build_with_connector_fn(move |settings, _| connector(&tls, settings));
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(self.call_timeout).build());
        let loader = match &self.region {
            Some(region) => loader.region(Region::new(region.clone())),
            None => loader,
        };
        loader.load().await
    }
}

/// Connections through the proxy of `HTTPS_PROXY`, except to hosts of `NO_PROXY`, both as curl reads them. The SDK's own builder
/// of clients with other TLS roots uses no proxy.
pub(super) fn connector(tls: &TlsContext, settings: Option<&HttpConnectorSettings>) -> Connector {
    let mut builder = Connector::builder()
        .proxy_config(ProxyConfig::from_env())
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls.clone());
    builder.set_connector_settings(settings.cloned());
    builder.build()
}

/// The SDK reads the certificates at the first connection, and panics where one is unusable.
fn check_certificates(pem: &[u8]) -> Result<(), SetupError> {
    let unusable = |error: &dyn std::fmt::Display| SetupError::Tls(format!("--extra-ca: {error}"));
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|e| unusable(&e))?).map_err(|e| unusable(&e))?;
    }
    if roots.is_empty() { Err(unusable(&"the file has no certificate in PEM")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extra_ca_without_certificates_is_refused_at_the_start() {
        for (pem, says) in [
            ("", "no certificate in PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "--extra-ca"),
        ] {
            let refused = check_certificates(pem.as_bytes()).expect_err(pem).to_string();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
