//! Replicas go, one way or another, under a constant load. What is announced (rollout, drain, deletion) loses nothing. What
//! is not (SIGKILL) breaks the calls under way, which the API server does not repeat: an entry that fails open lets those
//! pods pass without identity, one that fails closed refuses them, and their next try is admitted.

use std::time::Duration;

use e2e::lab::{Lab, SYSTEM};
use e2e::processes::processes;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, EvictParams};
use serde_json::json;

use crate::client::{Became, Draft, inside};
use crate::load::{self, Outcome};
use crate::replicas::{failed_open, recovered, replicas};

/// How a replica goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `kubectl rollout restart`: all of them, one after the other.
    Rollout,
    /// The Eviction API, which is what a drain uses.
    Eviction,
    /// SIGTERM to the process, by deletion of its pod.
    Deletion,
    /// SIGKILL to the process.
    Kill,
}

/// Whose pods are created meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pods {
    /// Everybody's: their entry fails open.
    Lenient,
    /// Those labelled `podidentity.dev/require=true`: their entry fails closed.
    Strict,
}

impl Pods {
    fn draft(self) -> Draft {
        let labels =
            if self == Self::Strict { json!({crds::names::label::REQUIRE: "true"}) } else { json!({}) };
        load::pod("vault", "vault", &labels)
    }
}

/// What was seen.
struct Seen {
    end: End,
    pods: Pods,
    outcome: Outcome,
    /// Calls of the lenient entry that the API server did without.
    open: u64,
}

pub async fn lose_no_pod_that_can_be_kept(lab: &Lab) {
    let mut all = Vec::new();
    for end in [End::Rollout, End::Eviction, End::Deletion, End::Kill] {
        all.push(seen(lab, end, Pods::Lenient).await);
    }
    all.push(seen(lab, End::Kill, Pods::Strict).await);
    print(&all);
    for Seen { end, pods, outcome, open } in all {
        outcome.assert_rate();
        assert!(outcome.failed.is_empty(), "{end:?}: {outcome}");
        if end != End::Kill {
            outcome.assert_nothing_lost();
            assert_eq!(open, 0, "{end:?}");
        } else if pods == Pods::Strict {
            assert!(outcome.without.is_empty(), "a pod that must have its identity has none: {outcome}");
            retried(lab, outcome.refused.len()).await;
        } else {
            assert!(outcome.refused.is_empty(), "{outcome}");
            assert_eq!(u64::try_from(outcome.without.len()).unwrap(), open, "the API server counts each");
        }
    }
}

async fn seen(lab: &Lab, end: End, pods: Pods) -> Seen {
    let open = || inside(lab, async |client| failed_open(&client, "pods.podidentity.dev").await);
    let before = open().await;
    let cgroup = lab.node.cgroup();
    let ends = inside(lab, async move |client| ends(&client, &cgroup, end).await);
    let ((), outcome) = load::during(lab, pods.draft(), ends).await;
    Seen { end, pods, outcome, open: open().await - before }
}

/// Ends replicas, and waits until all are there again.
async fn ends(client: &Client, cgroup: &str, end: End) {
    let pods = Api::<Pod>::namespaced(client.clone(), SYSTEM);
    let mut gone = replicas(client).await.unwrap();
    if end != End::Rollout {
        gone.truncate(1);
    }
    let one = &gone[0];
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
    recovered(client, &gone).await;
}

/// As many pods again as were refused: all are admitted, with their identity.
async fn retried(lab: &Lab, number: usize) {
    let pod = Pods::Strict.draft();
    let answers = inside(lab, async move |client| {
        let mut answers = Vec::new();
        for _ in 0..number {
            answers.push(pod.create(&client).await);
        }
        answers
    })
    .await;
    assert!(answers.iter().all(|answer| *answer == Became::Identity), "{answers:?}");
}

fn print(all: &[Seen]) {
    println!(
        "{:<10} {:<8} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>7} {:>9}  window",
        "end", "pods", "number", "rate/s", "p50", "p99", "without", "refused", "failed", "fail-open"
    );
    for Seen { end, pods, outcome, open } in all {
        println!(
            "{:<10} {:<8} {:>7} {:>7.1} {:>8.1?} {:>8.1?} {:>8} {:>8} {:>7} {open:>9}  {}",
            format!("{end:?}"),
            format!("{pods:?}"),
            outcome.asked(),
            outcome.rate(),
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
