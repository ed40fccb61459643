//! How the connections to AWS are set up: credentials, TLS roots, time limits.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use thiserror::Error;

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
}

impl Settings {
    /// The extra CA in PEM, if there is one.
    pub(super) fn read_extra_ca(&self) -> Result<Option<Vec<u8>>, SetupError> {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|source| SetupError::ExtraCa { path: path.clone(), source })
        };
        self.extra_ca.as_ref().map(read).transpose()
    }

    /// The SDK configuration that every client shares: the SDK's default credential chain over the system's TLS roots and
    /// the extra CA.
    pub(super) async fn load(&self, extra_ca: Option<&[u8]>) -> Result<SdkConfig, SetupError> {
        let mut roots = TrustStore::default();
        if let Some(pem) = extra_ca {
            roots.add_pem_certificate(pem);
        }
        let tls = TlsContext::builder()
            .with_trust_store(roots)
            .build()
            .map_err(|e| SetupError::Tls(e.to_string()))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::standard())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(self.call_timeout).build());
        let loader = match &self.region {
            Some(region) => loader.region(Region::new(region.clone())),
            None => loader,
        };
        Ok(loader.load().await)
    }
}
