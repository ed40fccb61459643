//! The webhook's replicas: lists them, changes their number, and waits until they are ready.

use std::time::Duration;

use anyhow::ensure;
use crds::names::WEBHOOK;
use e2e::lab::SYSTEM;
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

/// Their number in the chart.
pub const REPLICAS: usize = 2;
/// How long to wait until the replicas are ready.
const LIMIT: Duration = Duration::from_mins(2);

/// One replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// How often the container was restarted.
    pub restarts: i32,
    ready: bool,
}

/// All pods, terminating ones included.
pub async fn replicas(client: &Client) -> anyhow::Result<Vec<Replica>> {
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={WEBHOOK}"));
    let replica = |pod: Pod| {
        let status = pod.status.as_ref()?.container_statuses.as_ref()?.first();
        let (ready, restarts) = status.map(|status| (status.ready, status.restart_count)).unwrap_or_default();
        Some(Replica { name: pod.name_any(), uid: pod.uid()?, restarts, ready })
    };
    Ok(pods.list(&ours).await?.into_iter().filter_map(replica).collect())
}

/// Waits until there are [`REPLICAS`], all of them ready and endpoints of the Service, and each of those `before` has been
/// replaced by another pod or has restarted its container.
pub async fn recovered(client: &Client, before: &[Replica]) {
    let all_new = || async {
        let now = replicas(client).await?;
        let old = |one: &&Replica| {
            before.iter().any(|before| before.uid == one.uid && before.restarts == one.restarts)
        };
        ensure!(now.len() == REPLICAS && now.iter().all(|one| one.ready), "there are {now:?}");
        ensure!(now.iter().find(old).is_none(), "an old one remains: {now:?}");
        let ready = endpoints(client).await?;
        ensure!(ready == REPLICAS, "the Service has {ready} endpoints");
        Ok(())
    };
    cluster::until("new and ready replicas", LIMIT, all_new).await.unwrap();
}

/// Sets their number, and waits until that many are ready. With 0 it waits until the last has ended.
pub async fn scale(client: &Client, number: usize) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), SYSTEM);
    let patch = Patch::Merge(json!({"spec": {"replicas": number}}));
    deployments.patch_scale(WEBHOOK, &PatchParams::default(), &patch).await.unwrap();
    let check = || async {
        let (now, ready) = (replicas(client).await?, endpoints(client).await?);
        ensure!(now.len() == number && now.iter().all(|one| one.ready), "there are {now:?}");
        ensure!(ready == number, "the Service has {ready} endpoints");
        Ok(())
    };
    cluster::until(&format!("{number} replicas"), LIMIT, check).await.unwrap();
}

/// The number of ready endpoints of the Service.
async fn endpoints(client: &Client) -> anyhow::Result<usize> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), SYSTEM);
    let ours = ListParams::default().labels(&format!("kubernetes.io/service-name={WEBHOOK}"));
    let slices = slices.list(&ours).await?;
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| {
        endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready.unwrap_or(true))
    });
    Ok(ready.count())
}

/// How many pods the API server has admitted because an entry failed open: the call of the webhook failed.
pub async fn failed_open(client: &Client, entry: &str) -> u64 {
    let text = client.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let counter = "apiserver_admission_webhook_fail_open_count{";
    let of_entry = |line: &&str| line.starts_with(counter) && line.contains(&format!("name=\"{entry}\""));
    text.lines().filter(of_entry).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
