//! The `operator` program: parses the command line and runs the subcommand.

use std::net::TcpListener;
use std::process::ExitCode;
use std::slice;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use crds::names;
use kube::Client;
use operator::adopt::{self, BindingRole, Resource};
use operator::api_servers::endpoints::Endpoints;
use operator::aws::accounts::Accounts;
use operator::aws::limit::Limits;
use operator::aws::setup::{SDK_MODULES, Settings};
use operator::bootstrap::{Bootstrap, issuers_of, refused, register_only, unchanged};
use operator::cli::{self, Adopt, AwsArgs, Cli, ClusterArgs, Command, Run};
use operator::installation::NamedIssuer;
use operator::kubeconfig::Cluster;
use operator::metrics::Metrics;
use operator::orphans::command::Orphans;
use operator::run::{Ended, Operator};
use operator::teardown::{Confirm, Teardown, ask};
use operator::terminal::Terminal;
use operator::timings::Timings;
use operator::{dry_run, issuer_file, kubeconfig, policy};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// It keeps what is small and long-lived together, and gives free memory back: with thousands of bindings the process has less memory than
/// with glibc's allocator (docs/performance.md). Its settings are in `.cargo/config.toml`. Not on other architectures: a program that was
/// built where pages are small does not run where they are large.
#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // If a dependency adds a second rustls provider, rustls cannot choose one itself and panics.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(asked) => {
            let _ = asked.print();
            // 2 is a dry run's, and no script must take a wrong option for it.
            return if asked.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match dispatch(command).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    let mut terminal = Terminal::default();
    match command {
        Command::Run(flags) => return run(*flags).await,
        Command::Bootstrap(flags) => return bootstrap(&flags, &mut terminal).await,
        Command::Teardown(flags) => {
            let issuers = issuer_file::read(&flags.file)?;
            let (of_cluster, cluster) = if flags.without_cluster {
                (Vec::new(), "not asked (--without-cluster)".to_owned())
            } else {
                cluster_issuers(&flags.cluster).await?
            };
            let accounts = administrator(&flags.aws, &issuers).await?;
            let (account, cluster) = (accounts.own(), &cluster[..]);
            let confirm = if flags.yes { Confirm::Given } else { Confirm::Asked(Box::new(ask)) };
            let teardown = Teardown { issuers: &issuers, of_cluster, account, cluster, confirm };
            return Ok(exit_code(teardown.run(flags.dry_run.output(), &mut terminal).await?));
        }
        Command::Orphans(flags) => {
            let client = cluster(&flags.cluster).await?.client()?;
            let issuers = issuers_of(&client).await?;
            let accounts = administrator(&flags.aws, &issuers).await?;
            let orphans = Orphans { issuers: &issuers, client: &client, account: accounts.own() };
            if flags.delete.is_empty() {
                orphans.list(&mut terminal).await?;
            } else {
                orphans.delete(&flags.delete, &mut terminal).await?;
            }
        }
        Command::Adopt(command) => return Ok(exit_code(adopt(command, &mut terminal).await?)),
        Command::IamPolicy(flags) => {
            let installation = issuer_file::offline(&flags)?;
            terminal.line(&format!("{:#}", policy::operator::policy(&installation)));
        }
        Command::RoleArn(flags) => {
            let installation = issuer_file::offline(&flags.offline)?;
            let (partition, account, cluster) =
                (installation.partition(), installation.account(), installation.cluster_name());
            let arn = names::role_arn(partition, account, cluster, &flags.namespace, &flags.service_account);
            terminal.line(&arn);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn bootstrap(flags: &cli::Bootstrap, terminal: &mut Terminal) -> anyhow::Result<ExitCode> {
    let of_file = issuer_file::read(&flags.file)?;
    let cluster = cluster(&flags.cluster).await.context("nothing was changed")?;
    let client = cluster.client().context("nothing was changed")?;
    let described = cluster.describe(&client).await;
    let endpoints = Endpoints::new(client.clone(), cluster.config, Timings::default().api_server_timeout);
    let accounts = administrator(&flags.aws, &of_file).await?;
    let issuers = if flags.register_only {
        let identity = accounts.own().identity().await.map_err(|error| refused(&error))?;
        register_only::issuers(&of_file, &identity).map_err(unchanged)?
    } else {
        of_file
    };
    let bootstrap = Bootstrap {
        issuers: &issuers,
        namespace: &flags.namespace,
        account: accounts.own(),
        public: &accounts.public,
        cluster: &described,
        permissions_boundary: flags.permissions_boundary.as_deref(),
        client: &client,
        endpoints: &endpoints,
        replace_keys: flags.replace_keys,
    };
    let ended = bootstrap.run(flags.mode(), terminal).await?;
    if flags.register_only && !flags.mode().is_for_programs() {
        terminal.heading("OidcIssuer of this account: apply it, and keep it in a file of its own");
        terminal.line(&register_only::manifest(&issuers));
    }
    Ok(exit_code(ended))
}

async fn adopt(command: Adopt, terminal: &mut Terminal) -> anyhow::Result<dry_run::Ended> {
    let flags = match &command {
        Adopt::Role(flags) => {
            let client = cluster(&flags.cluster).await?.client()?;
            let role = BindingRole::read(&client, &flags.namespace, &flags.name).await?;
            let accounts = administrator(&flags.aws, slice::from_ref(role.issuer())).await?;
            let output = flags.dry_run.output();
            return adopt::adopt(Resource::Role(&role), accounts.own(), output, terminal).await;
        }
        Adopt::Bucket(flags) | Adopt::Provider(flags) => flags,
    };
    let issuers = issuer_file::read(&flags.file)?;
    let issuer = match &flags.issuer {
        Some(name) => issuers.iter().find(|issuer| issuer.name == *name),
        None => issuers.first().filter(|_| issuers.len() == 1),
    };
    let names: Vec<&str> = issuers.iter().map(|issuer| issuer.name.as_str()).collect();
    let issuer = issuer.with_context(|| format!("name one with --issuer: {}", names.join(", ")))?;
    let resource = match &command {
        Adopt::Provider(_) => Resource::Provider(issuer),
        _ => Resource::Bucket(issuer),
    };
    let accounts = administrator(&flags.aws, &issuers).await?;
    adopt::adopt(resource, accounts.own(), flags.dry_run.output(), terminal).await
}

/// As `diff` and `terraform plan -detailed-exitcode` do: 2 where a dry run found something to change.
fn exit_code(ended: dry_run::Ended) -> ExitCode {
    match ended {
        dry_run::Ended::Done => ExitCode::SUCCESS,
        dry_run::Ended::WouldChange => ExitCode::from(2),
    }
}

/// The issuers in the cluster, and the cluster for a person to recognise.
async fn cluster_issuers(flags: &ClusterArgs) -> anyhow::Result<(Vec<NamedIssuer>, String)> {
    let read = async {
        let cluster = cluster(flags).await?;
        let client = cluster.client()?;
        anyhow::Ok((issuers_of(&client).await?, cluster.describe(&client).await))
    };
    read.await.context("nothing was changed. If the cluster no longer exists, use --without-cluster")
}

/// AWS with the administrator's own credentials.
async fn administrator(flags: &AwsArgs, issuers: &[NamedIssuer]) -> anyhow::Result<Accounts> {
    let region = issuers.iter().find_map(|issuer| Some(issuer.spec.s3.as_ref()?.region.clone()));
    aws(flags, region, &Timings::default(), Limits::default(), Arc::default()).await
}

async fn run(flags: Run) -> anyhow::Result<ExitCode> {
    flags.log_format.install_quietly(&SDK_MODULES);
    let Run {
        namespace,
        identity,
        health_address,
        aws: aws_flags,
        limits,
        timings,
        webhook_certificates,
        pods,
        ..
    } = flags;
    timings.check().map_err(anyhow::Error::msg)?;
    let metrics = Arc::new(Metrics::default());
    let health =
        TcpListener::bind(health_address).with_context(|| format!("cannot listen on {health_address}"))?;
    let config = cluster(&ClusterArgs::default()).await?.config;
    let client = Client::try_from(config.clone())?;
    // AWS_REGION is the region of IAM and STS; S3 clients use the issuer's.
    let accounts = aws(&aws_flags, None, &timings, limits.limits(), metrics.clone()).await?;
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    // A restarted container has the same pod name, but must not renew the lease of the process before it.
    let identity = format!("{identity}-{}", std::process::id());
    let operator = Operator {
        client,
        config,
        accounts,
        metrics,
        timings,
        namespace,
        identity,
        webhook_certificates,
        pods,
    };
    Ok(match operator.run(health, stop).await? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Aborted => ExitCode::FAILURE,
    })
}

async fn cluster(flags: &ClusterArgs) -> anyhow::Result<Cluster> {
    let mut cluster =
        kubeconfig::cluster(flags).await.with_context(|| match (&flags.kubeconfig, &flags.context) {
            (None, None) => {
                "no cluster: found neither a kubeconfig nor a pod's ServiceAccount token".to_owned()
            }
            (Some(file), _) => format!("kubeconfig {} cannot be used", file.display()),
            (None, Some(context)) => format!("context {context} of the kubeconfig cannot be used"),
        })?;
    cluster.config.read_timeout = Some(process::watch::READ_TIMEOUT);
    cluster.config.reset_reader_on_write = true; // otherwise the idle time of a pooled connection counts
    Ok(cluster)
}

async fn aws(
    flags: &AwsArgs,
    region: Option<String>,
    timings: &Timings,
    limits: Limits,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Accounts> {
    let settings = Settings {
        extra_ca: flags.extra_ca.clone(),
        region,
        call_timeout: timings.aws_call_timeout,
        public_timeout: timings.public_read_timeout,
        identity_refresh: timings.identity_refresh,
        limits,
    };
    Ok(Accounts::connect(&settings, metrics).await?)
}

async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    stop.cancel();
}
