//! Memory with many pods: only those that run without their identity may cost any.

use anyhow::{Result, ensure};
use crds::PodIdentityBinding;
use crds::names::role_arn;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::CLUSTER;
use crate::common::{each, post};
use crate::operator_process::{Memory, RunningOperator, no_limit};
use crate::setup::{Setup, name, namespace};
use crate::table::{Limit, Row, number};

/// Starts of which the median is taken: two of them differ by themselves.
const STARTS: usize = 3;
/// Settled memory with pods that have their identity, or need none, over that without pods.
const WITHOUT_PROBLEM: f64 = 1.1;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pods {
    /// Of a `ServiceAccount` without a binding.
    Unbound,
    /// With the identity.
    Injected,
    /// Without it.
    Missing,
}

/// Memory with so many pods of each kind for every binding, each time of an operator that has watched them being created, and of one that
/// finds them at its start.
pub async fn measure(bindings: usize, pods: usize, setup: &Setup<'_>, rows: &mut Vec<Row>) -> Result<()> {
    let operator = setup.with_ready(bindings).await?;
    let (mut operator, without, spread) = start_anew(operator, bindings, setup).await?;
    let what = format!("memory, {bindings} bindings");
    rows.push(Row::new(format!("{what}, no pods: MB when settled"), without.settled_mb, 1, Limit::None));
    rows.push(Row::new(format!("{what}, no pods: MB at the peak"), without.peak_mb, 1, Limit::None));
    rows.push(Row::new(format!("{what}, no pods: MB between {STARTS} starts"), spread, 1, Limit::None));
    let (count, mut before) = (pods * bindings, without.settled_mb);
    for kind in [Pods::Unbound, Pods::Injected, Pods::Missing] {
        create(setup, kind, bindings, count).await?;
        operator.until_quiet(0).await?;
        let running = operator.memory()?;
        let (restarted, spread);
        (operator, restarted, spread) = start_anew(operator, bindings, setup).await?;
        let what = format!("{what}, then {count} pods more, {kind:?}");
        let target = (kind != Pods::Missing).then_some(WITHOUT_PROBLEM);
        let limit = Limit::Best(without.settled_mb, target);
        rows.extend([
            Row::new(format!("{what}, created: MB when settled"), running.settled_mb, 1, limit),
            Row::new(format!("{what}, after a restart: MB when settled"), restarted.settled_mb, 1, limit),
            Row::new(
                format!("{what}, after a restart: MB at the peak"),
                restarted.peak_mb,
                1,
                Limit::Best(without.peak_mb, None),
            ),
            Row::new(format!("{what}: MB between {STARTS} starts"), spread, 1, Limit::None),
            Row::new(
                format!("{what}, after a restart: bytes for each"),
                (restarted.settled_mb - before) * 1e6 / number(count),
                0,
                Limit::None,
            ),
        ]);
        before = restarted.settled_mb;
        let named = reported(setup).await?;
        let expected = if kind == Pods::Missing { bindings } else { 0 };
        ensure!(named == expected, "{named} bindings have pods without identity, not {expected}");
    }
    operator.stop().await
}

/// Memory of an operator that finds everything at its start: the median of several starts by what is settled, and how far their settled
/// memory is apart. The last one goes on.
async fn start_anew(
    mut operator: RunningOperator,
    bindings: usize,
    setup: &Setup<'_>,
) -> Result<(RunningOperator, Memory, f64)> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        operator.stop().await?;
        operator = setup.operator(&no_limit()).await?;
        operator.until_quiet(bindings as u64).await?;
        starts.push(operator.memory()?);
    }
    starts.sort_by(|one, other| one.settled_mb.total_cmp(&other.settled_mb));
    let spread = starts[STARTS - 1].settled_mb - starts[0].settled_mb;
    Ok((operator, starts[STARTS / 2], spread))
}

/// Creates pods, the same number for each binding's `ServiceAccount`.
async fn create(setup: &Setup<'_>, kind: Pods, bindings: usize, count: usize) -> Result<()> {
    let create = async |pod: usize| {
        let account = pod % bindings;
        let namespace = namespace(account);
        let path = format!("/api/v1/namespaces/{namespace}/pods");
        post(&setup.client, &path, &object(kind, &namespace, &name(account), pod, setup)).await
    };
    each(&format!("{kind:?} pods created"), count, create).await.map(drop)
}

/// A pod of the size that pods have.
fn object(kind: Pods, namespace: &str, account: &str, number: usize, setup: &Setup<'_>) -> Value {
    let settings = (0..30)
        .map(|number| json!({"name": format!("SETTING_{number:02}"), "value": format!("{number:064}")}));
    let arn = role_arn("aws", &setup.aws.sim.settings().account, CLUSTER, namespace, account);
    let identity = [
        json!({"name": "AWS_ROLE_ARN", "value": arn}),
        json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/token"}),
    ];
    let injected = identity.into_iter().filter(|_| kind == Pods::Injected);
    let env: Vec<Value> = settings.chain(injected).collect();
    let account = if kind == Pods::Unbound { "default" } else { account };
    json!({
        "metadata": {"name": format!("{}-{number:06}", format!("{kind:?}").to_lowercase()), "labels": {"app": account}},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": false,
            "containers": [{"name": "app", "image": "app", "env": env}, {"name": "proxy", "image": "proxy", "env": env}],
        },
    })
}

/// How many bindings say that pods run without the identity.
async fn reported(setup: &Setup<'_>) -> Result<usize> {
    let bindings: Api<PodIdentityBinding> = Api::all(setup.client.clone());
    let all = bindings.list(&ListParams::default()).await?;
    let says = |binding: &&PodIdentityBinding| {
        binding.status.as_ref().is_some_and(|status| status.missing.is_some())
    };
    Ok(all.iter().filter(says).count())
}
