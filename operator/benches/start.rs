//! What a start of the operator costs in a large cluster where nothing is left to be done: time until the last reconcile of
//! a binding, CPU time and peak memory of a process of its own, with a real API server behind it and AWS in process.
//!
//! `cargo bench -p operator --bench start` measures 100,000 `ServiceAccount`s and 10,000 bindings; `-- --service-accounts N
//! --bindings M` other numbers. API server and etcd share the machine with the operator.

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sim::{Settings, Sim, sdk};
use clap::Parser;
use cluster::ControlPlane;
use crds::PodIdentityBinding;
use crds::names::{OPERATOR_SERVICE_ACCOUNT, SYSTEM_NAMESPACE};
use futures::FutureExt;
use kube::api::ListParams;
use kube::{Api, Client};
use operator::aws::accounts::Accounts;
use operator::aws::limit::Limits;
use operator::aws::public::PublicReader;
use operator::cli::WebhookCertificates;
use operator::metrics::Metrics;
use operator::run::Operator;
use operator::timings::Timings;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use common::{
    OURS, PROGRESS, client, cluster_config, control_plane, cpu_seconds, each, is_ready, memory_kib, post,
    reconciles, writes,
};

/// Starts that are measured.
const STARTS: usize = 3;
const NAMESPACES: usize = 100;
/// The operator is quiet once it has reconciled every binding and none again for so long.
const QUIET: Duration = Duration::from_secs(3);
/// How often its counters are read.
const SAMPLE: Duration = Duration::from_millis(20);

#[derive(Parser)]
struct Arguments {
    /// `ServiceAccount`s, spread over 100 namespaces.
    #[arg(long, default_value_t = 100_000)]
    service_accounts: usize,
    /// Bindings, each with a `ServiceAccount` of its own.
    #[arg(long, default_value_t = 10_000)]
    bindings: usize,
    /// Be the operator against this cluster: how the bench starts itself again.
    #[arg(long, hide = true)]
    operator: Option<PathBuf>,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { service_accounts, bindings, .. } = arguments;
    if let Some(kubeconfig) = &arguments.operator {
        println!("{}", serde_json::to_string(&operate(kubeconfig, bindings as u64).await?)?);
        return Ok(());
    }
    ensure!(0 < bindings && bindings <= service_accounts, "every binding needs a ServiceAccount of its own");

    let server = control_plane().await?;
    let client = client(server.kubeconfig()).await?;
    arguments.create_objects(&client).await?;
    let settled = start(&server, bindings).await?;
    let all: Api<PodIdentityBinding> = Api::all(client.clone());
    let ready = all.list(&ListParams::default()).await?.iter().filter(|binding| is_ready(binding)).count();
    ensure!(ready == bindings, "of {bindings} bindings only {ready} are Ready");
    eprintln!("all bindings made Ready by the operator in {:.0} s", settled.seconds);

    let mut starts = Vec::new();
    for number in 1..=STARTS {
        let before = writes(&client).await?;
        let figures = start(&server, bindings).await?;
        let written = writes(&client).await? - before;
        ensure!(
            written == 0,
            "{written} writes to bindings and ServiceAccounts: something was left to be done"
        );
        eprintln!("start {number} of {STARTS}: {figures:?}");
        starts.push(figures);
    }
    println!("\nStarts with nothing left to be done: median (min-max) of {STARTS}");
    println!(
        "{:>15} {:>9} {:>22} {:>21} {:>21} {:>21}",
        "ServiceAccounts", "bindings", "reconciles", "seconds until quiet", "CPU seconds", "peak MiB"
    );
    let column = |of: fn(&Figures) -> f64, digits| spread(starts.iter().map(of).collect(), digits);
    println!(
        "{service_accounts:>15} {bindings:>9} {:>22} {:>21} {:>21} {:>21}",
        column(|start| start.reconciles, 0),
        column(|start| start.seconds, 2),
        column(|start| start.cpu_seconds, 2),
        column(|start| start.peak_mib, 1),
    );
    Ok(())
}

/// What a start took until the last reconcile of a binding.
#[derive(Debug, Serialize, Deserialize)]
struct Figures {
    reconciles: f64,
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
}

/// Median, least and greatest.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (min, median, max) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    format!("{median:.digits$} ({min:.digits$}-{max:.digits$})")
}

// The operator's process.

/// Runs the operator until it is quiet, then stops it. Nothing else in this file uses its crate. It is AWS's administrator
/// in an empty account; the issuer never becomes Ready, which bindings with `roleARN` do not wait for.
async fn operate(kubeconfig: &Path, bindings: u64) -> Result<Figures> {
    process::logs::LogFormat::Json.install(); // what is logged costs CPU time in a real cluster, too
    let begun = Instant::now();
    let sim = Sim::new(Settings::default());
    let keys = sim.administrator();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(sim.settings().region.clone()))
        .http_client(sdk::http_client(&sim))
        .credentials_provider(Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            None,
            None,
            "bench",
        ))
        .load()
        .await;
    let public = PublicReader::from_fn(|_| async { Err("nothing is public".to_owned()) }.boxed());
    let exchange =
        Arc::new(move |_: &str| -> SharedCredentialsProvider { unreachable!("no issuer names a role") });
    let (metrics, timings) = (Arc::<Metrics>::default(), Timings::default());
    let operator = Operator {
        client: client(kubeconfig).await?,
        config: cluster_config(kubeconfig).await?,
        accounts: Accounts::new(
            &config,
            public,
            exchange,
            metrics.clone(),
            Limits::default(),
            timings.identity_refresh,
        ),
        metrics: metrics.clone(),
        timings,
        webhook_certificates: WebhookCertificates::Operator,
        pods: operator::pods::Settings::default(),
        namespace: SYSTEM_NAMESPACE.to_owned(),
        identity: format!("start-{}", std::process::id()),
    };
    let stop = CancellationToken::new();
    let mut running = tokio::spawn(operator.run(TcpListener::bind("127.0.0.1:0")?, stop.clone()));
    let figures = tokio::select! {
        ended = &mut running => bail!("the operator ended by itself: {ended:?}"),
        figures = until_quiet(begun, bindings, || metrics.text()) => figures?,
    };
    stop.cancel(); // gives the lease back, so that the next start need not wait for it
    running.await??;
    Ok(figures)
}

/// Waits until the counter of reconciles does not change any more, and returns what the process had used when it last changed.
async fn until_quiet(begun: Instant, bindings: u64, metrics: impl Fn() -> String) -> Result<Figures> {
    let (mut last, mut changed, mut cpu, mut reported) = (0, begun, 0.0, begun);
    loop {
        let count = reconciles(&metrics());
        if count != last {
            (last, changed, cpu) = (count, Instant::now(), cpu_seconds("self")?);
        } else if count >= bindings && changed.elapsed() >= QUIET {
            break;
        }
        if reported.elapsed() >= PROGRESS {
            reported = Instant::now();
            println!("  {count} reconciles after {:.0?}", begun.elapsed());
        }
        tokio::time::sleep(SAMPLE).await;
    }
    let kib = memory_kib("self", "VmHWM")?;
    let reconciles = f64::from(u32::try_from(last)?);
    let seconds = changed.duration_since(begun).as_secs_f64();
    Ok(Figures { reconciles, seconds, cpu_seconds: cpu, peak_mib: kib / 1024.0 })
}

/// Starts this program again as the operator, and waits for its figures.
async fn start(server: &ControlPlane, bindings: usize) -> Result<Figures> {
    let logs = if std::env::var_os("RUST_LOG").is_some() { Stdio::inherit() } else { Stdio::null() };
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg(format!("--bindings={bindings}"))
        .arg("--operator")
        .arg(server.kubeconfig())
        .stdout(Stdio::piped())
        .stderr(logs)
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with(' ') {
            eprintln!("{line}");
        }
        last = line;
    }
    let status = child.wait().await?;
    ensure!(status.success(), "the operator ended with {status}; RUST_LOG=info shows its log");
    Ok(serde_json::from_str(&last)?)
}

// The cluster.

impl Arguments {
    /// One issuer, the `ServiceAccount`s, and the bindings, which are spread evenly over them.
    async fn create_objects(&self, client: &Client) -> Result<()> {
        let Self { service_accounts, bindings, .. } = *self;
        let namespace = |account: usize| format!("start-{:02}", account * NAMESPACES / service_accounts);
        let name = |account: usize| format!("account-{account:06}");
        let all = (0..NAMESPACES).map(|number| format!("start-{number:02}"));
        for name in all.chain([SYSTEM_NAMESPACE.to_owned()]) {
            post(client, "/api/v1/namespaces", &json!({"metadata": {"name": name}})).await?;
        }
        let own = json!({"metadata": {"name": OPERATOR_SERVICE_ACCOUNT}});
        post(client, &format!("/api/v1/namespaces/{SYSTEM_NAMESPACE}/serviceaccounts"), &own).await?;
        let issuer = json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
            "spec": {
                "clusterName": "homelab",
                "s3": {"bucket": "oidc-111122223333-eu-central-1-an", "region": "eu-central-1"},
            },
        });
        post(client, &format!("{OURS}/oidcissuers"), &issuer).await?;
        // About 1 kB of JSON each, as in the webhook's bench.
        let create = async |account: usize| {
            let object = json!({"metadata": {
                "name": name(account),
                "labels": {"app.kubernetes.io/name": "application", "app.kubernetes.io/managed-by": "Helm"},
                "annotations": {"team.example.com/owner": "somebody ".repeat(30)},
            }});
            let path = format!("/api/v1/namespaces/{}/serviceaccounts", namespace(account));
            post(client, &path, &object).await
        };
        each("ServiceAccounts created", service_accounts, create).await?;
        let create = async |binding: usize| {
            let account = binding * service_accounts / bindings;
            let name = name(account);
            let role = format!("arn:aws:iam::111122223333:role/team/{name}");
            let object = json!({
                "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": name},
                "spec": {"serviceAccountName": name, "roleARN": role},
            });
            let path = format!("{OURS}/namespaces/{}/podidentitybindings", namespace(account));
            post(client, &path, &object).await
        };
        each("bindings created", bindings, create).await?;
        Ok(())
    }
}
