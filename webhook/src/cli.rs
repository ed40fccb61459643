//! The command line. Flags of the EKS Pod Identity Webhook have the same names here, or are accepted as aliases.

#![allow(
    clippy::doc_markdown,
    reason = "these comments are the help text, which is shown without formatting"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use crds::binding::DEFAULT_TOKEN_EXPIRATION_SECONDS;
use crds::names;
use process::logs::LogFormat;

use crate::identity::expiration::in_range;
use crate::identity::settings::{ContainerCredentials, RoleNames, Settings};

/// Gives pods their AWS identity: a mutating admission webhook compatible with the EKS Pod Identity Webhook.
#[derive(Debug, Clone, Parser)]
// The last of repeated flags counts, as in the EKS webhook, so that the chart's extraArgs override what it sets itself.
#[command(version, args_override_self = true)]
pub struct Args {
    /// The API server and how to connect to it.
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// The listener.
    #[command(flatten)]
    pub serving: Serving,
    /// Identities.
    #[command(flatten)]
    pub injection: Injection,
    /// EKS Pod Identity.
    #[command(flatten)]
    pub containers: Containers,
    /// The format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// The API server and how to connect to it.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct Kubernetes {
    /// A kubeconfig, to run outside a cluster. Default: the pod's own ServiceAccount, or otherwise KUBECONFIG.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// The API server's URL, instead of the one in the kubeconfig.
    #[arg(long)]
    pub kube_api: Option<String>,
    /// Namespace of the Secret with the serving certificate and of the ConfigMap with roles.
    #[arg(long, default_value = names::SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// Timeout of the lookup at the API server of a service account that is not in the cache. 0 is treated as 500ms: lookups cannot be disabled.
    #[arg(long, alias = "service-account-lookup-grace-period", default_value = "500ms", value_parser = humantime::parse_duration)]
    pub live_lookup_timeout: Duration,
}

impl Kubernetes {
    /// The timeout of a live lookup. In the EKS webhook 0 disables lookups; here that would be no answer at all, since an
    /// unknown service account is never treated as one without identity.
    #[must_use]
    pub fn lookup_timeout(&self) -> Duration {
        const DEFAULT: Duration = Duration::from_millis(500);
        if self.live_lookup_timeout.is_zero() { DEFAULT } else { self.live_lookup_timeout }
    }
}

/// The listener.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Serving")]
pub struct Serving {
    /// Port of the HTTPS listener (`POST /mutate`); 0 selects a free one.
    #[arg(long, default_value_t = 9443)]
    pub port: u16,
    /// Port of the plain-HTTP listener (`/healthz`, `/readyz`, `/metrics`).
    #[arg(long, alias = "metrics-port", default_value_t = 8081)]
    pub health_port: u16,
    /// Secret (`kubernetes.io/tls`) with the serving certificate; watched by name.
    #[arg(long, default_value = names::TLS_SECRET)]
    pub tls_secret: String,
    /// The serving certificate as a file (PEM), instead of the Secret; read again when it changes.
    #[arg(long, alias = "tls-cert", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, alias = "tls-key", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The MutatingWebhookConfiguration that must trust the certificate before this replica is ready; empty: no check.
    /// Default: the chart's, unless the certificate comes from files.
    #[arg(long)]
    pub webhook_configuration: Option<String>,
    /// Accept only callers whose client certificate was signed by this CA (PEM file); read again when it changes. The API
    /// server sends one if its AdmissionConfiguration says so.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Of those, accept only callers with this common name; may be given more than once.
    #[arg(long, requires = "client_ca_file")]
    pub client_name: Vec<String>,
    /// The most connections at once. At the limit a new connection replaces an idle one, first of all one that never sent a
    /// valid review. An API server opens one for each review in progress, which are 600 at most by its own limits.
    #[arg(long, default_value_t = 1024)]
    pub max_connections: usize,
    /// The longest review accepted, in bytes. The API server accepts objects of up to 3 MiB, and a review contains the object.
    #[arg(long, default_value_t = 4 << 20)]
    pub max_body_bytes: usize,
    /// The most bytes of all reviews that are being received or processed; at least --max-body-bytes.
    #[arg(long, default_value_t = 8 << 20)]
    pub body_budget_bytes: usize,
    /// How long new calls are still answered after SIGTERM, while endpoints are updated.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub shutdown_delay: Duration,
    /// The longest time for a review, from its headers to the answer.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,
}

/// Identities.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Identities")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Injection {
    /// Prefix of the annotations read from service accounts and pods.
    #[arg(long, default_value = "eks.amazonaws.com")]
    pub annotation_prefix: String,
    /// Audience of the token where neither binding, issuer nor service account names one.
    #[arg(long, default_value = names::DEFAULT_AUDIENCE)]
    pub token_audience: String,
    /// Directory the token is mounted at.
    #[arg(long, default_value = "/var/run/secrets/eks.amazonaws.com/serviceaccount")]
    pub token_mount_path: String,
    /// Lifetime of the token in seconds where no other source sets one; below 600 counts as 600, above 86,400 as 86,400.
    #[arg(long, default_value_t = DEFAULT_TOKEN_EXPIRATION_SECONDS)]
    pub token_expiration: i64,
    /// Shorten lifetimes of exactly 24 hours by up to two, differently for each pod, so that tokens are not all renewed at the
    /// same time.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub token_expiration_jitter: bool,
    /// Region of service accounts without a binding (default: that of the cluster's default issuer); of bound ones, where
    /// neither the binding nor its issuer names one.
    #[arg(long)]
    pub aws_default_region: Option<String>,
    /// Inject AWS_STS_REGIONAL_ENDPOINTS=regional for service accounts whose annotations name a role and do not say otherwise.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub sts_regional_endpoint: bool,
    /// Inject AWS_ROLE_SESSION_NAME, so that CloudTrail names the pod.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub role_session_name: bool,
    /// Also read roles from ConfigMap pod-identity-webhook, in the form that kOps writes.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub watch_config_map: bool,
    /// A role annotation may be a role's name, or path and name, of --aws-account-id.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub compose_role_arn: bool,
    /// The account of such roles. Default: that of the cluster's default issuer.
    #[arg(long, requires = "compose_role_arn")]
    pub aws_account_id: Option<String>,
    /// The partition of such roles. Default: that of the cluster's default issuer, or aws.
    #[arg(long, requires = "compose_role_arn")]
    pub aws_partition: Option<String>,
}

/// EKS Pod Identity.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Container credentials (EKS Pod Identity)")]
pub struct Containers {
    /// JSON file with the service accounts whose pods get container credentials; read again when it changes.
    #[arg(long)]
    pub watch_container_credentials_config: Option<PathBuf>,
    /// Audience of their tokens.
    #[arg(long, default_value_t = ContainerCredentials::default().audience)]
    pub container_credentials_audience: String,
    /// Directory their token is mounted at.
    #[arg(long, default_value_t = ContainerCredentials::default().mount_path)]
    pub container_credentials_token_mount_path: String,
    /// Name of their token's volume.
    #[arg(long, default_value_t = ContainerCredentials::default().volume_name)]
    pub container_credentials_token_volume_name: String,
    /// Their token's file in that volume.
    #[arg(long, default_value_t = ContainerCredentials::default().token_path)]
    pub container_credentials_token_path: String,
    /// URL of the agent on their node.
    #[arg(long, default_value_t = ContainerCredentials::default().full_uri)]
    pub container_credentials_full_uri: String,
}

impl Args {
    /// How identities are made and where in a pod they are added.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let Injection { annotation_prefix, token_audience, token_mount_path, .. } = &self.injection;
        let of_account = RoleNames::OfAccount {
            account: self.injection.aws_account_id.clone(),
            partition: self.injection.aws_partition.clone(),
        };
        Settings {
            audience: token_audience.clone(),
            expiration_seconds: in_range(self.injection.token_expiration),
            expiration_jitter: self.injection.token_expiration_jitter,
            region: self.injection.aws_default_region.clone().filter(|region| !region.is_empty()),
            sts_regional_endpoints: self.injection.sts_regional_endpoint,
            role_session_name: self.injection.role_session_name,
            mount_path: directory(token_mount_path),
            role_names: if self.injection.compose_role_arn { of_account } else { RoleNames::Verbatim },
            container_credentials: ContainerCredentials {
                audience: self.containers.container_credentials_audience.clone(),
                mount_path: directory(&self.containers.container_credentials_token_mount_path),
                volume_name: self.containers.container_credentials_token_volume_name.clone(),
                token_path: self.containers.container_credentials_token_path.clone(),
                full_uri: self.containers.container_credentials_full_uri.clone(),
            },
            ..Settings::new(annotation_prefix)
        }
    }

    /// The webhook configuration that must trust the certificate.
    #[must_use]
    pub fn webhook_configuration(&self) -> Option<&str> {
        let default = if self.serving.tls_cert_file.is_some() { "" } else { names::WEBHOOK };
        let name = self.serving.webhook_configuration.as_deref().unwrap_or(default);
        (!name.is_empty()).then_some(name)
    }
}

fn directory(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}
