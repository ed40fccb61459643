//! Somebody in the cluster holds as many connections to the webhook as they can get, while pods are created all the time: no
//! pod goes without its identity, and the webhook's memory stays bounded.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use crds::names::WEBHOOK;
use e2e::lab::{Lab, SYSTEM};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::inside;
use crate::load;
use crate::monitoring::metrics_of;

/// Connections to each replica, of which it keeps 1,024.
const IDLE: u64 = 5_000;
const MOST_MIB: u64 = 64;

pub async fn idle_connections_keep_nobody_out(lab: &Lab) {
    let files = 4 * IDLE;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
    let attack = inside(lab, async |client| {
        let targets = targets(&client).await?;
        let connect = |number: usize| TcpStream::connect(targets[number % targets.len()].1);
        let number = usize::try_from(IDLE)? * targets.len();
        let held: Vec<TcpStream> =
            stream::iter(0..number).map(connect).buffer_unordered(64).try_collect().await?;
        for (replica, _) in &targets {
            let taken = || async {
                let evicted = evicted(&client, replica).await?;
                ensure!(evicted > 0, "{} has sent away nobody", replica.name_any());
                Ok(())
            };
            cluster::until("more than there is room for", Duration::from_mins(1), taken).await?;
        }
        anyhow::Ok(held.len())
    });
    let pod = load::pod("vault", "vault", &json!({}));
    let (held, outcome) = load::during(lab, pod, attack).await;
    let peaks: Vec<u64> = lab.processes("webhook").unwrap().iter().map(|one| one.peak / 1024).collect();
    println!("{} idle connections, the webhook's peaks {peaks:?} MiB: {outcome}", held.unwrap());
    outcome.assert_nothing_lost();
    assert!(peaks.len() == 2 && peaks.iter().all(|peak| *peak <= MOST_MIB), "{peaks:?}");
}

/// Each replica, and where it listens.
async fn targets(client: &Client) -> anyhow::Result<Vec<(Pod, SocketAddr)>> {
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={WEBHOOK}"));
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM).list(&ours).await?;
    let target = |pod: Pod| {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        Ok((pod, SocketAddr::new(address.context("a pod without an address")?, 9443)))
    };
    pods.into_iter().map(target).collect()
}

/// How many connections it has closed to make room.
async fn evicted(client: &Client, replica: &Pod) -> anyhow::Result<u64> {
    let metrics = metrics_of(client, replica).await?;
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("podidentity_webhook_connections_evicted_total "));
    Ok(value.context("no such metric")?.parse()?)
}
