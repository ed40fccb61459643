//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use crds::names::SYSTEM_NAMESPACE;
use process::logs::LogFormat;

use crate::aws::limit::Limits;
use crate::pods;
use crate::timings::Timings;

/// IAM roles for Kubernetes `ServiceAccount`s outside EKS, without static AWS keys: publishes the cluster's issuer to AWS and
/// manages the roles.
#[derive(Debug, Parser)]
#[command(name = "operator", version)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controllers of `OidcIssuer` and `PodIdentityBinding` until stopped.
    Run(Box<Run>),
    /// As an administrator: publish and register the cluster's issuers, create the permissions boundary and the operator's role.
    Bootstrap(Bootstrap),
    /// As an administrator: delete what `bootstrap` created. Refused while roles of bindings remain.
    Teardown(Teardown),
    /// As an administrator: take over a bucket, a provider or a role that was made elsewhere. Only tags are written.
    #[command(subcommand)]
    Adopt(Adopt),
    /// Print the IAM policy of the operator's role: the least privileges it needs.
    IamPolicy(Offline),
    /// As an administrator: list the roles of this cluster whose binding does not exist, or remove some of them.
    Orphans(Orphans),
    /// Print the ARN of the role of a `ServiceAccount`. The role exists once the binding is Ready.
    RoleArn(RoleArn),
}

/// `operator run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The operator's namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// This replica's name in the leader election; no two replicas may have the same.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub identity: String,
    /// Address and port that serve `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// Format of log lines.
    #[arg(long, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Whether the operator makes and renews the webhook's certificates, or something else does, such as cert-manager.
    #[arg(long, value_enum, default_value = "operator")]
    pub webhook_certificates: WebhookCertificates,
    /// Pods.
    #[command(flatten)]
    pub pods: pods::Settings,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
    /// Calls of AWS.
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Timeouts and periods.
    #[command(flatten)]
    pub timings: Timings,
}

/// What makes the webhook's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WebhookCertificates {
    /// The operator, which also writes the webhook configuration's `caBundle`.
    Operator,
    /// Something else: the operator needs no right on the webhook configuration.
    External,
}

/// How to connect to AWS.
#[derive(Debug, Clone, Args)]
pub struct AwsArgs {
    /// PEM file with CA certificates that are trusted in addition to the system's.
    #[arg(long, value_name = "FILE")]
    pub extra_ca: Option<PathBuf>,
}

/// How many calls of AWS are made.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Calls a second of each service of AWS, retries included. IAM's own limits hold for the whole account.
    #[arg(long, value_name = "NUMBER", default_value = "5", value_parser = parse_rate)]
    pub aws_rate: f64,
    /// How many of them may be made at once after a while without calls.
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub aws_burst: u32,
}

impl LimitArgs {
    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits::per_service(self.aws_rate, self.aws_burst)
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (1.0..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 1 to 1000000".into()),
    }
}

/// Which cluster.
#[derive(Debug, Clone, Default, Args)]
pub struct ClusterArgs {
    /// The kubeconfig's context. Default: its current one.
    #[arg(long)]
    pub context: Option<String>,
    /// The kubeconfig. Default: KUBECONFIG, or ~/.kube/config, or else a pod's own `ServiceAccount`.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// What is printed instead of what would be changed.
#[derive(Debug, Clone, Args)]
pub struct DryRun {
    /// Print what would be changed, and change nothing. The exit status is 2 where something would be changed.
    #[arg(long)]
    pub dry_run: bool,
    /// How it is printed.
    #[arg(short, long, default_value = "text", requires = "dry_run")]
    pub output: Output,
}

impl DryRun {
    /// How it is printed, if it is a dry run.
    #[must_use]
    pub fn output(&self) -> Option<Output> {
        self.dry_run.then_some(self.output)
    }
}

/// What `bootstrap` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It makes everything.
    Make,
    /// It prints what it would change.
    DryRun(Output),
    /// It prints a file for Terraform.
    Terraform,
}

impl Mode {
    /// Whether what is printed is for a program: nothing else must be in it.
    #[must_use]
    pub fn is_for_programs(self) -> bool {
        matches!(self, Self::DryRun(Output::Json) | Self::Terraform)
    }
}

/// What `bootstrap` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BootstrapOutput {
    /// A line for each change.
    Text,
    /// With --dry-run: one JSON object.
    Json,
    /// A Terraform file (.tf.json) that makes the same. Nothing is changed.
    Terraform,
}

impl Bootstrap {
    /// What it does.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (self.dry_run, self.output) {
            (_, BootstrapOutput::Terraform) => Mode::Terraform,
            (true, BootstrapOutput::Text) => Mode::DryRun(Output::Text),
            (_, BootstrapOutput::Json) => Mode::DryRun(Output::Json),
            (false, BootstrapOutput::Text) => Mode::Make,
        }
    }
}

/// How a dry run is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A line for each change, old beside new.
    Text,
    /// One JSON object.
    Json,
}

/// The file with the issuers, as it is kept in Git.
#[derive(Debug, Clone, Args)]
pub struct File {
    /// YAML file with the cluster's `OidcIssuer`s, or `-` for standard input; objects of other kinds are ignored.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `operator bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct Bootstrap {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// Print what would be changed, and change nothing. The exit status is 2 where something would be changed.
    #[arg(long, required_if_eq("output", "json"))]
    pub dry_run: bool,
    /// What is printed, and how.
    #[arg(short, long, default_value = "text")]
    pub output: BootstrapOutput,
    /// Register the issuers of the file in a second AWS account, that of the credentials: their documents stay in the first one.
    #[arg(long)]
    pub register_only: bool,
    /// ARN of a permissions boundary for the operator's own role and the canary's, where the organisation demands one.
    #[arg(long, value_name = "ARN")]
    pub permissions_boundary: Option<String>,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Replace the published keys although neither the API servers nor the status of the `OidcIssuer` knows one of them.
    #[arg(long)]
    pub replace_keys: bool,
    /// The operator's namespace.
    #[arg(long, default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// `operator teardown`.
#[derive(Debug, Clone, Args)]
pub struct Teardown {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// The dry run.
    #[command(flatten)]
    pub dry_run: DryRun,
    /// Do not ask before something is removed.
    #[arg(long)]
    pub yes: bool,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Do not read from the cluster which `OidcIssuer`s still need the operator's role and the boundary: it no longer exists.
    #[arg(long)]
    pub without_cluster: bool,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// `operator orphans`.
#[derive(Debug, Clone, Args)]
pub struct Orphans {
    /// Names of roles to remove. Each must be listed without this flag.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub delete: Vec<String>,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// `operator adopt`.
#[derive(Debug, Clone, Subcommand)]
pub enum Adopt {
    /// The bucket of the file's issuer.
    Bucket(AdoptOfIssuer),
    /// The OIDC provider of the file's issuer.
    Provider(AdoptOfIssuer),
    /// The role of a binding that the cluster has.
    Role(AdoptRole),
}

/// `operator adopt bucket` and `operator adopt provider`.
#[derive(Debug, Clone, Args)]
pub struct AdoptOfIssuer {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// The name of the `OidcIssuer`, where the file has several.
    #[arg(long)]
    pub issuer: Option<String>,
    /// The dry run.
    #[command(flatten)]
    pub dry_run: DryRun,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// `operator adopt role`.
#[derive(Debug, Clone, Args)]
pub struct AdoptRole {
    /// The binding's namespace.
    pub namespace: String,
    /// The binding's name.
    pub name: String,
    /// The dry run.
    #[command(flatten)]
    pub dry_run: DryRun,
    /// The cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// Input of the subcommands that need only the file.
#[derive(Debug, Clone, Args)]
pub struct Offline {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// The AWS account, twelve digits. Default: the account in a bucket name that ends in `-<account>-<region>-an`.
    #[arg(long)]
    pub account: Option<String>,
}

/// `operator role-arn`.
#[derive(Debug, Clone, Args)]
pub struct RoleArn {
    /// The `ServiceAccount`'s namespace.
    #[arg(value_parser = namespace_name)]
    pub namespace: String,
    /// The `ServiceAccount`'s name.
    #[arg(value_parser = service_account_name)]
    pub service_account: String,
    /// Issuers and account.
    #[command(flatten)]
    pub offline: Offline,
}

/// A namespace's name is a DNS label (RFC 1123).
fn namespace_name(text: &str) -> Result<String, String> {
    if text.len() <= 63 && is_label(text) {
        return Ok(text.to_owned());
    }
    Err("a namespace has 1 to 63 lower-case letters, digits and hyphens, and begins and ends with a letter or digit".into())
}

/// A `ServiceAccount`'s name is a DNS subdomain (RFC 1123). As in Kubernetes, only its whole length is limited.
fn service_account_name(text: &str) -> Result<String, String> {
    if text.len() <= 253 && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    Err("a ServiceAccount has 1 to 253 lower-case letters, digits, hyphens and dots, and each part between dots begins and \
         ends with a letter or digit"
        .into())
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn role_arn_refuses_names_that_cannot_be() {
        let parse = |namespace: &str, service_account: &str| {
            Cli::try_parse_from(["operator", "role-arn", "-f", "x.yaml", "--", namespace, service_account])
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        let long = "a".repeat(64);
        for (namespace, service_account) in
            [("vault", "vault"), ("a", "0"), ("a-b", "a.b-c.d"), (&long[..63], &long.repeat(4)[..253])]
        {
            assert_eq!(parse(namespace, service_account), Ok(()));
        }
        for namespace in ["", "Vault", "a.b", "a_b", "-a", "a-", "a/b", "ä", &long] {
            let refused = parse(namespace, "vault").unwrap_err();
            assert!(refused.contains("a namespace has 1 to 63 lower-case letters"), "{namespace}: {refused}");
        }
        for service_account in ["", "Vault", "a..b", ".a", "a.", "a.-b", "a_b", "a/b", &long.repeat(4)] {
            let refused = parse("vault", service_account).unwrap_err();
            assert!(refused.contains("a ServiceAccount has 1 to 253"), "{service_account}: {refused}");
        }
    }
}
