//! Replicas end under a constant load. If they are terminated (rollout, drain, deletion), every pod gets its identity. If they
//! are killed (SIGKILL), the running calls fail, and the API server does not repeat them: an entry that fails open admits those
//! pods without identity; one that fails closed refuses them, and a retry is admitted.

use std::time::Duration;

use crds::names::label;
use e2e::lab::{Lab, SYSTEM};
use e2e::processes::processes;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams};

use crate::client::{Creation, inside};
use crate::load::{self, Outcome};
use crate::replicas::{failed_open, recovered, replicas};

/// How a replica ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `kubectl rollout restart`: all of them, one after the other.
    Rollout,
    /// The Eviction API, as in a drain.
    Eviction,
    /// Deletion of its pod: SIGTERM to the process.
    Deletion,
    /// SIGKILL to the process.
    Kill,
}

/// The pods that are created during the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    /// Without label: their entry fails open.
    FailOpen,
    /// Labelled `podidentity.dev/require=true`: their entry fails closed.
    FailClosed,
}

impl Pods {
    fn label(self) -> Option<(&'static str, &'static str)> {
        (self == Self::FailClosed).then_some((label::REQUIRE, "true"))
    }
}

/// The result of one run.
struct Run {
    end: End,
    pods: Pods,
    outcome: Outcome,
    /// Pods that the API server has admitted because the entry failed open.
    failed_open: u64,
}

pub async fn lose_as_few_pods_as_possible(lab: &Lab) {
    let mut runs = Vec::new();
    for end in [End::Rollout, End::Eviction, End::Deletion, End::Kill] {
        runs.push(run(lab, end, Pods::FailOpen).await);
    }
    runs.push(run(lab, End::Kill, Pods::FailClosed).await);
    print(&runs);
    for Run { end, pods, outcome, failed_open } in runs {
        outcome.assert_rate();
        assert!(outcome.failed.is_empty(), "{end:?}: {outcome}");
        if end != End::Kill {
            outcome.assert_nothing_lost();
            assert_eq!(failed_open, 0, "{end:?}");
        } else if pods == Pods::FailClosed {
            assert!(outcome.without.is_empty(), "a pod that requires its identity has none: {outcome}");
            assert_retries_are_admitted(lab, outcome.refused.len()).await;
        } else {
            assert!(outcome.refused.is_empty(), "{outcome}");
            let without = u64::try_from(outcome.without.len()).unwrap();
            assert_eq!(without, failed_open, "the API server counts each");
        }
    }
}

async fn run(lab: &Lab, end: End, pods: Pods) -> Run {
    let count = || inside(lab, async |client| failed_open(&client, "pods.podidentity.dev").await);
    let before = count().await;
    let cgroup = lab.node.cgroup();
    let work = inside(lab, async move |client| end_replicas(&client, &cgroup, end).await);
    let ((), outcome) = load::during(lab, pods.label(), work).await;
    Run { end, pods, outcome, failed_open: count().await - before }
}

/// Ends replicas, and waits until their successors are ready.
async fn end_replicas(client: &Client, cgroup: &str, end: End) {
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let mut ending = replicas(client).await.unwrap();
    if end != End::Rollout {
        ending.truncate(1);
    }
    let one = &ending[0];
    match end {
        End::Rollout => {
            let deployments = Api::<Deployment>::namespaced(client.clone(), SYSTEM);
            deployments.restart(crds::names::WEBHOOK).await.unwrap();
        }
        End::Eviction => {
            pods.evict(&one.name, &EvictParams::default()).await.unwrap();
        }
        End::Deletion => {
            pods.delete(&one.name, &DeleteParams::default()).await.unwrap();
        }
        End::Kill => {
            let all = processes(cgroup, "webhook").unwrap();
            let process = all.iter().find(|process| process.cgroups.contains(&one.uid)).unwrap();
            process.kill().unwrap();
        }
    }
    recovered(client, &ending).await;
}

/// Creates as many pods as were refused: all of them are admitted with their identity.
async fn assert_retries_are_admitted(lab: &Lab, number: usize) {
    let pod = load::pod(Pods::FailClosed.label());
    let creations = inside(lab, async move |client| {
        let mut creations = Vec::new();
        for _ in 0..number {
            creations.push(pod.create(&client).await);
        }
        creations
    })
    .await;
    assert!(creations.iter().all(|creation| *creation == Creation::Identity), "{creations:?}");
}

fn print(runs: &[Run]) {
    println!(
        "{:<10} {:<10} {:>7} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>9}  window",
        "end",
        "pods",
        "number",
        "rate/s",
        "most/s",
        "bare/s",
        "p50",
        "p99",
        "without",
        "refused",
        "failed",
        "fail-open"
    );
    for Run { end, pods, outcome, failed_open } in runs {
        println!(
            "{:<10} {:<10} {:>7} {:>7.1} {:>7.0} {:>7.0} {:>8.1?} {:>8.1?} {:>8} {:>8} {:>7} {failed_open:>9}  {}",
            format!("{end:?}"),
            format!("{pods:?}"),
            outcome.responses(),
            outcome.rate(),
            outcome.rates.reviewed,
            outcome.rates.bare,
            outcome.latency(50),
            outcome.latency(99),
            outcome.without.len(),
            outcome.refused.len(),
            outcome.failed.len(),
            window(outcome).map_or("none".into(), |window| format!("{window:.1?}")),
        );
    }
}

/// From the first pod that did not get its identity to the last.
fn window(outcome: &Outcome) -> Option<Duration> {
    let missed = || outcome.without.iter().chain(outcome.refused.iter().map(|(due, _)| due));
    Some(missed().max()?.saturating_sub(*missed().min()?))
}
