//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use crds::names::SYSTEM_NAMESPACE;
use process::logs::LogFormat;

use crate::timings::Timings;

/// Ends static AWS keys outside EKS: publishes a cluster's issuer to AWS and makes the roles of its `ServiceAccounts`.
#[derive(Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile `OidcIssuer` and `PodIdentityBinding` until stopped.
    Run(Box<Run>),
    /// As an administrator: publish and register a cluster's issuer, make the boundary and the operator's own role.
    Bootstrap(Bootstrap),
    /// As an administrator: remove what `bootstrap` made. Stops while roles of bindings remain.
    Teardown(Teardown),
    /// Print the operator's own IAM policy: the least privilege it works under.
    IamPolicy(Offline),
    /// Print the ARN of the role of a `ServiceAccount`, which exists once its binding is Ready.
    RoleArn(RoleArn),
}

/// `operator run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The operator's own namespace.
    #[arg(long, env = "POD_NAMESPACE", default_value = SYSTEM_NAMESPACE)]
    pub namespace: String,
    /// This replica's name in the leader election.
    #[arg(long, env = "POD_NAME", default_value = "operator")]
    pub identity: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_address: SocketAddr,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
    /// Waits and periods.
    #[command(flatten)]
    pub timings: Timings,
}

/// How AWS is reached.
#[derive(Debug, Clone, Args)]
pub struct AwsArgs {
    /// PEM file of a CA that is trusted in addition to the system's roots.
    #[arg(long, value_name = "FILE")]
    pub extra_ca: Option<PathBuf>,
}

/// The file that goes to Git.
#[derive(Debug, Clone, Args)]
pub struct File {
    /// YAML file with the cluster's `OidcIssuer`s, `-` for standard input; other objects in it are ignored.
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// `operator bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct Bootstrap {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace published keys of which this cluster knows none.
    #[arg(long)]
    pub replace_keys: bool,
    /// The operator's own namespace.
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
    /// Print the plan and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The cluster is gone: do not ask it for `OidcIssuer`s that still need the operator's role and the boundary.
    #[arg(long)]
    pub without_cluster: bool,
    /// AWS.
    #[command(flatten)]
    pub aws: AwsArgs,
}

/// What can be computed from the file alone.
#[derive(Debug, Clone, Args)]
pub struct Offline {
    /// The issuers.
    #[command(flatten)]
    pub file: File,
    /// The AWS account, twelve digits. Default: the account of a bucket name that ends in `-<account>-<region>-an`.
    #[arg(long)]
    pub account: Option<String>,
}

/// `operator role-arn`.
#[derive(Debug, Clone, Args)]
pub struct RoleArn {
    /// The `ServiceAccount`'s namespace.
    pub namespace: String,
    /// The `ServiceAccount`'s name.
    pub service_account: String,
    /// Issuers and account.
    #[command(flatten)]
    pub offline: Offline,
}
