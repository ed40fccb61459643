//! An attacker in the cluster opens as many connections to the webhook as possible while pods are created: every pod gets its
//! identity, and the webhook's memory stays bounded.

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
use tokio::net::TcpStream;

use crate::client::inside;
use crate::load;
use crate::monitoring::metrics_of;

/// Idle connections to each replica, which limits them to 1,024.
const IDLE: u64 = 5_000;
const MAX_MIB: u64 = 64;

pub async fn idle_connections_delay_no_review(lab: &Lab) {
    let files = 4 * IDLE;
    setrlimit(Resource::RLIMIT_NOFILE, files, files).unwrap();
    let attack = inside(lab, async |client| {
        let targets = targets(&client).await?;
        let connect = |number: usize| TcpStream::connect(targets[number % targets.len()].1);
        let number = usize::try_from(IDLE)? * targets.len();
        let open: Vec<TcpStream> =
            stream::iter(0..number).map(connect).buffer_unordered(64).try_collect().await?;
        for (replica, _) in &targets {
            let check = || async {
                let evicted = evicted(&client, replica).await?;
                ensure!(evicted > 0, "{} has evicted no connection", replica.name_any());
                Ok(())
            };
            cluster::until("evicted connections", Duration::from_mins(1), check).await?;
        }
        anyhow::Ok(open.len())
    });
    let (opened, outcome) = load::during(lab, None, attack).await;
    let opened = opened.unwrap_or_else(|error| panic!("{error:#}, {outcome}"));
    let peaks: Vec<u64> = lab.processes("webhook").unwrap().iter().map(|one| one.peak / 1024).collect();
    println!("{opened} idle connections, peak memory of the replicas {peaks:?} MiB: {outcome}");
    outcome.assert_nothing_lost();
    assert!(peaks.len() == 2 && peaks.iter().all(|peak| *peak <= MAX_MIB), "{peaks:?}");
}

/// Each replica with its address.
async fn targets(client: &Client) -> anyhow::Result<Vec<(Pod, SocketAddr)>> {
    let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={WEBHOOK}"));
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM).list(&ours).await?;
    let target = |pod: Pod| {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
        Ok((pod, SocketAddr::new(address.context("a pod without an address")?, 9443)))
    };
    pods.into_iter().map(target).collect()
}

/// How many connections the replica has evicted.
async fn evicted(client: &Client, replica: &Pod) -> anyhow::Result<u64> {
    let metrics = metrics_of(client, replica).await?;
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("podidentity_webhook_connections_evicted_total "));
    Ok(value.context("no such metric")?.parse()?)
}
