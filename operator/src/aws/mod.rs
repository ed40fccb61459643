//! The AWS seam: thin concrete wrappers over the SDK, one method per call we use, domain types out. Tests replace the
//! HTTP client underneath, never these wrappers: error parsing, retries and encodings stay under test.

pub mod error;
pub mod iam;
pub mod public;
pub mod s3;
pub mod sts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use thiserror::Error;
use tokio::sync::OnceCell;

pub use error::{AwsError, Class};
pub use iam::Iam;
pub use public::{Answer, PublicReader};
pub use s3::S3;
pub use sts::Sts;

use crate::metrics::Metrics;

/// Tags of a resource, by key.
pub type Tags = BTreeMap<String, String>;

/// Who the operator is in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// The caller's ARN.
    pub arn: String,
}

/// Everything we say to AWS goes through here. Cheap to clone.
#[derive(Clone)]
pub struct Aws {
    /// Identity and access management: one endpoint per partition.
    pub iam: Iam,
    /// Tokens for credentials.
    pub sts: Sts,
    /// Anonymous reads, as STS makes them.
    pub public: PublicReader,
    config: SdkConfig,
    metrics: Arc<Metrics>,
    identity: Arc<OnceCell<Identity>>,
}

/// Why the AWS clients could not be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The extra CA is not readable.
    #[error("cannot read --extra-ca {path}: {source}")]
    ExtraCa {
        /// The file.
        path: std::path::PathBuf,
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
    pub extra_ca: Option<std::path::PathBuf>,
    /// Region of IAM and STS calls; the SDK's own search where absent.
    pub region: Option<String>,
    /// Limit of one attempt of one call.
    pub call_timeout: Duration,
    /// Limit of one anonymous read.
    pub public_timeout: Duration,
}

impl Aws {
    /// Clients with the SDK's default credential chain over the system's TLS roots and the extra CA.
    pub async fn connect(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, SetupError> {
        let extra = settings
            .extra_ca
            .as_ref()
            .map(|path| {
                std::fs::read(path).map_err(|source| SetupError::ExtraCa { path: path.clone(), source })
            })
            .transpose()?;
        let mut roots = TrustStore::default();
        if let Some(pem) = &extra {
            roots.add_pem_certificate(pem.as_slice());
        }
        let tls = TlsContext::builder()
            .with_trust_store(roots)
            .build()
            .map_err(|e| SetupError::Tls(e.to_string()))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let public = PublicReader::https(extra.as_deref(), settings.public_timeout)?;
        let loader = base(settings, http);
        Ok(Self::new(&loader.load().await, public, metrics))
    }

    /// Clients over a given configuration: what `connect` makes, or a test's.
    #[must_use]
    pub fn new(config: &SdkConfig, public: PublicReader, metrics: Arc<Metrics>) -> Self {
        Self {
            iam: Iam::new(config, metrics.clone()),
            sts: Sts::new(config, metrics.clone()),
            public,
            config: config.clone(),
            metrics,
            identity: Arc::new(OnceCell::new()),
        }
    }

    /// S3 in one region, guarding every call with the owner's account.
    #[must_use]
    pub fn s3(&self, region: &str, account: &str) -> S3 {
        S3::new(&self.config, region, account, self.metrics.clone())
    }

    /// Who the operator is: asked once, then remembered, since it cannot change under one set of credentials' role.
    pub async fn identity(&self) -> Result<&Identity, AwsError> {
        self.identity.get_or_try_init(|| self.sts.caller_identity()).await
    }
}

/// The SDK configuration that every client shares.
fn base(settings: &Settings, http: SharedHttpClient) -> aws_config::ConfigLoader {
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard())
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(settings.call_timeout).build());
    match &settings.region {
        Some(region) => loader.region(Region::new(region.clone())),
        None => loader,
    }
}
