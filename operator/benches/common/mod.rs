//! What the operator's benches share: the cluster, its objects, and what is read of processes and metrics.

use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::{ControlPlane, Options};
use crds::PodIdentityBinding;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use futures::{StreamExt, stream};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

/// How often progress is printed.
pub const PROGRESS: Duration = Duration::from_secs(5);
/// The path of our kinds in the API server.
pub const OURS: &str = "/apis/podidentity.dev/v1alpha1";
/// Requests in flight while objects are created or deleted.
const IN_FLIGHT: usize = 32;

/// A control plane with our two kinds.
pub async fn control_plane() -> Result<ControlPlane> {
    let begun = Instant::now();
    let server = ControlPlane::start(&Options::default()).await?;
    let kubectl = |arguments: &[&str]| -> Result<()> {
        let output = server.kubectl(arguments).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let kinds = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/pod-identity-operator/crd-manifests");
    kubectl(&["create", "--filename", kinds])?;
    kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
    eprintln!("API server started in {:.0?}", begun.elapsed());
    Ok(server)
}

/// An administrator's client, with the time limits of the operator's own.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::try_from(cluster_config(kubeconfig).await?)?)
}

/// How that client reaches the API server.
pub async fn cluster_config(kubeconfig: &Path) -> Result<Config> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.read_timeout = Some(process::watch::READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Ok(config)
}

/// Writes to bindings and `ServiceAccount`s that the API server has counted, also those that changed nothing.
pub async fn writes(client: &Client) -> Result<u64> {
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
    let kinds = ["resource=\"podidentitybindings\"", "resource=\"serviceaccounts\""];
    let none = ["verb=\"GET\"", "verb=\"LIST\"", "verb=\"WATCH\"", "subresource=\"token\""];
    let has = |sample: &str, labels: &[&str]| labels.iter().any(|label| sample.contains(label));
    let count = sum(&text, |sample| {
        sample.starts_with("apiserver_request_total{") && has(sample, &kinds) && !has(sample, &none)
    });
    ensure!(count > 0, "the API server does not count what created the objects");
    Ok(count)
}

pub fn is_ready(binding: &PodIdentityBinding) -> bool {
    binding.status.as_ref().is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

/// Creates an object under a path.
pub async fn post(client: &Client, path: &str, object: &Value) -> Result<()> {
    let request = http::Request::post(path).header("content-type", "application/json");
    client.request_text(request.body(serde_json::to_vec(object)?)?).await?;
    Ok(())
}

/// Does something so many times, several at once, and prints its progress. Returns how long it took.
pub async fn each(what: &str, count: usize, act: impl AsyncFn(usize) -> Result<()>) -> Result<Duration> {
    let (begun, mut reported) = (Instant::now(), Instant::now());
    let done = stream::iter(0..count).map(|number| act(number)).buffer_unordered(IN_FLIGHT);
    let mut done = pin!(done.enumerate());
    while let Some((number, one)) = done.next().await {
        one?;
        if reported.elapsed() >= PROGRESS {
            reported = Instant::now();
            eprintln!("  {number} of {count} {what} after {:.0?}", begun.elapsed());
        }
    }
    let took = begun.elapsed();
    eprintln!("{count} {what} in {took:.1?}");
    Ok(took)
}

/// The sum of the wanted samples of a metrics text.
pub fn sum(metrics: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let samples = metrics.lines().filter(|sample| wanted(sample));
    samples.filter_map(|sample| sample.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Reconciles of bindings, by the operator's metrics.
pub fn reconciles(metrics: &str) -> u64 {
    sum(metrics, |sample| {
        sample.starts_with("podidentity_operator_reconciles_total{")
            && sample.contains("\"PodIdentityBinding\"")
    })
}

/// User and system time of a process: its id, or `self`.
pub fn cpu_seconds(process: &str) -> Result<f64> {
    /// `USER_HZ`, which is 100 on the architectures we build for.
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // utime and stime are fields 14 and 15; the name, which may hold spaces, is field 2 and ends with a parenthesis.
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_A_SECOND)
}

/// Memory of a process in KiB: `VmRSS` is what it uses, `VmHWM` its peak.
pub fn memory_kib(process: &str, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field}"))?.trim().trim_end_matches(" kB").parse()?)
}
