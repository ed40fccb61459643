//! The command line.

use std::time::Duration;

use clap::{Parser, ValueEnum};
use crds::binding::{DEFAULT_TOKEN_EXPIRATION_SECONDS, MINIMUM_TOKEN_EXPIRATION_SECONDS};
use crds::names;
use tracing_subscriber::EnvFilter;

use crate::identity::Defaults;
use crate::mutate::Target;

/// Gives pods their AWS identity: a mutating admission webhook compatible with the EKS Pod Identity Webhook.
#[derive(Debug, Clone, Parser)]
#[command(version)]
pub struct Args {
    /// Port of the HTTPS listener (`POST /mutate`); 0 takes any free one.
    #[arg(long, default_value_t = 9443)]
    pub port: u16,
    /// Port of the plain-HTTP listener (`/healthz`, `/readyz`, `/metrics`).
    #[arg(long, default_value_t = 8081)]
    pub health_port: u16,
    /// Namespace of the Secret with the serving certificate.
    #[arg(long, default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Secret (`kubernetes.io/tls`) with the serving certificate; watched by name.
    #[arg(long, default_value = names::TLS_SECRET)]
    pub tls_secret: String,
    /// Prefix of the annotations read from service accounts and pods.
    #[arg(long, default_value = "eks.amazonaws.com")]
    pub annotation_prefix: String,
    /// Audience of the token where neither binding, issuer nor service account names one.
    #[arg(long, default_value = names::DEFAULT_AUDIENCE)]
    pub token_audience: String,
    /// Directory the token is mounted at.
    #[arg(long, default_value = "/var/run/secrets/eks.amazonaws.com/serviceaccount")]
    pub token_mount_path: String,
    /// Life of the token in seconds where nothing else says; below 600 counts as 600.
    #[arg(long, default_value_t = DEFAULT_TOKEN_EXPIRATION_SECONDS)]
    pub token_expiration: i64,
    /// Region injected where neither binding nor issuer names one.
    #[arg(long)]
    pub aws_default_region: Option<String>,
    /// Whether a service account with a role annotation, but no word on it, is told to use the regional STS endpoint.
    #[arg(long)]
    pub sts_regional_endpoint: bool,
    /// How long one look at the API server may take when a service account is not in the cache.
    #[arg(long, default_value = "500ms", value_parser = humantime::parse_duration)]
    pub live_lookup_timeout: Duration,
    /// Longest review accepted. The API server takes objects of up to 3 MiB, and a review wraps the object.
    #[arg(long, default_value_t = 4 << 20)]
    pub max_body_bytes: usize,
    /// What all reviews under way may take together, in bytes; at least the longest. Parsing takes several times it.
    #[arg(long, default_value_t = 4 << 20)]
    pub body_budget_bytes: usize,
    /// How long new calls are still answered after SIGTERM, while endpoints are being updated.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub shutdown_delay: Duration,
    /// How long a review may take, from its headers to the answer.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Args {
    /// What an identity is made of where no object says otherwise.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        Defaults {
            annotation_prefix: self.annotation_prefix.clone(),
            audience: self.token_audience.clone(),
            expiration_seconds: self.token_expiration.max(MINIMUM_TOKEN_EXPIRATION_SECONDS),
            region: self.aws_default_region.clone().filter(|region| !region.is_empty()),
            sts_regional_endpoints: self.sts_regional_endpoint,
        }
    }

    /// Where in a pod the identity goes.
    #[must_use]
    pub fn target(&self) -> Target {
        Target {
            annotation_prefix: self.annotation_prefix.clone(),
            mount_path: self.token_mount_path.trim_end_matches('/').to_owned(),
        }
    }
}

impl LogFormat {
    /// Installs the process's logger, to stderr. `RUST_LOG` overrules the default of `info`.
    pub fn install(self) {
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self {
            Self::Json => logger.json().flatten_event(true).init(),
            Self::Text => logger.init(),
        }
    }
}
