//! The webhook's replicas: which there are, and when they are as they should be again.

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

/// How many the chart asks for.
pub const REPLICAS: usize = 2;
const PATIENCE: Duration = Duration::from_mins(2);

/// One replica.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// How often its process was started again.
    pub restarts: i32,
    ready: bool,
}

/// All pods, those that are going included.
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

/// Waits until there are as many as there should be, all of them ready, in the Service, and none of those before; or, where
/// nobody made another pod, in the process that came after.
pub async fn recovered(client: &Client, before: &[Replica]) {
    let all_new = || async {
        let now = replicas(client).await?;
        let old = |one: &&Replica| {
            before.iter().any(|before| before.uid == one.uid && before.restarts == one.restarts)
        };
        ensure!(now.len() == REPLICAS && now.iter().all(|one| one.ready), "there are {now:?}");
        ensure!(now.iter().find(old).is_none(), "an old one is left: {now:?}");
        let ready = endpoints(client).await?;
        ensure!(ready == REPLICAS, "{ready} are in the Service");
        Ok(())
    };
    cluster::until("all replicas to be new and ready", PATIENCE, all_new).await.unwrap();
}

/// Sets their number, and waits until it is so: for none, until the last has ended.
pub async fn scale(client: &Client, number: usize) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), SYSTEM);
    let patch = Patch::Merge(json!({"spec": {"replicas": number}}));
    deployments.patch_scale(WEBHOOK, &PatchParams::default(), &patch).await.unwrap();
    let so = || async {
        let (now, ready) = (replicas(client).await?, endpoints(client).await?);
        ensure!(now.len() == number && now.iter().all(|one| one.ready), "there are {now:?}");
        ensure!(ready == number, "{ready} are in the Service");
        Ok(())
    };
    cluster::until(&format!("{number} replicas"), PATIENCE, so).await.unwrap();
}

/// How many of them the API server may call.
async fn endpoints(client: &Client) -> anyhow::Result<usize> {
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), SYSTEM);
    let ours = ListParams::default().labels(&format!("kubernetes.io/service-name={WEBHOOK}"));
    let slices = slices.list(&ours).await?;
    let ready = slices.iter().flat_map(|slice| &slice.endpoints).filter(|endpoint| {
        endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready.unwrap_or(true))
    });
    Ok(ready.count())
}

/// How many of an entry's pods the API server let pass because the webhook could not be asked.
pub async fn failed_open(client: &Client, entry: &str) -> u64 {
    let text = client.request_text(Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    let counter = "apiserver_admission_webhook_fail_open_count{";
    let of_entry = |line: &&str| line.starts_with(counter) && line.contains(&format!("name=\"{entry}\""));
    text.lines().filter(of_entry).filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
