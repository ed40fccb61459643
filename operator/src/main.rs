//! The operator's process: parse, wire, go.

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use crds::names;
use kube::{Client, Config};
use operator::aws::{Aws, Settings};
use operator::bootstrap::Bootstrap;
use operator::cli::{AwsArgs, Cli, Command, Run};
use operator::metrics::Metrics;
use operator::run::{Ended, Operator};
use operator::terminal::Terminal;
use operator::timings::Timings;
use operator::{issuer_file, policy, teardown};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    // Two rustls providers could be compiled in one day; the choice is made once, here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match dispatch(Cli::parse().command).await {
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
        Command::Bootstrap(flags) => {
            let (name, spec) = issuer_file::read(&flags.file)?;
            let client = cluster().await.context("nothing was changed")?;
            let aws =
                aws(&flags.aws, Some(spec.s3.region.clone()), &Timings::default(), Arc::default()).await?;
            let (aws, client, namespace) = (&aws, &client, flags.namespace.as_str());
            let replace_keys = flags.replace_keys;
            let bootstrap = Bootstrap { name: &name, spec: &spec, namespace, aws, client, replace_keys };
            bootstrap.run(flags.dry_run, &mut terminal).await?;
        }
        Command::Teardown(flags) => {
            let (name, spec) = issuer_file::read(&flags.file)?;
            let aws =
                aws(&flags.aws, Some(spec.s3.region.clone()), &Timings::default(), Arc::default()).await?;
            teardown::run(&name, &spec, &aws, flags.dry_run, &mut terminal).await?;
        }
        Command::IamPolicy(flags) => {
            let (spec, account) = issuer_file::offline(&flags)?;
            terminal.line(&format!("{:#}", policy::operator::policy(&account, &spec)));
        }
        Command::RoleArn(flags) => {
            let (spec, account) = issuer_file::offline(&flags.offline)?;
            let (partition, cluster) = (spec.partition().id, &spec.cluster_name);
            terminal.line(&names::role_arn(
                partition,
                &account,
                cluster,
                &flags.namespace,
                &flags.service_account,
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(flags: Run) -> anyhow::Result<ExitCode> {
    flags.log_format.install();
    let Run { namespace, identity, health_address, aws: aws_flags, timings, .. } = flags;
    timings.check().map_err(anyhow::Error::msg)?;
    let metrics = Arc::new(Metrics::default());
    let health =
        TcpListener::bind(health_address).with_context(|| format!("cannot listen on {health_address}"))?;
    let client = cluster().await?;
    // IAM and STS take the region of AWS_REGION; S3's is the issuer's.
    let aws = aws(&aws_flags, None, &timings, metrics.clone()).await?;
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_signal(stop.clone()));
    // A restarted container has its pod's name, but nothing of its predecessor's.
    let identity = format!("{identity}-{}", std::process::id());
    let operator = Operator { client, aws, metrics, timings, namespace, identity };
    Ok(match operator.run(health, stop).await? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::LeadershipLost => ExitCode::FAILURE,
    })
}

async fn cluster() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("no cluster: neither a kubeconfig nor a pod's ServiceAccount was found")?;
    config.read_timeout = Some(process::watch::READ_TIMEOUT);
    config.reset_reader_on_write = true; // a pooled connection may have been idle before
    Ok(Client::try_from(config)?)
}

async fn aws(
    flags: &AwsArgs,
    region: Option<String>,
    timings: &Timings,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Aws> {
    let settings = Settings {
        extra_ca: flags.extra_ca.clone(),
        region,
        call_timeout: timings.aws_call_timeout,
        public_timeout: timings.public_read_timeout,
    };
    Ok(Aws::connect(&settings, metrics).await?)
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
