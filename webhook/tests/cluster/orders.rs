//! Namespace, `ServiceAccount`, issuer, binding and Deployment are created in any order, as Argo CD or Flux apply them: no pod
//! lacks its identity without being reported, and none that requires it is admitted without.

mod instant;
mod seen;
mod trials;

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::ensure;
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;

use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::{World, eventually};
use seen::Seen;
use trials::{LABEL, Round, Step, Trial, Want};

const ROUNDS: usize = 25;
const TRIALS: usize = 40;
const PODS: &str = "/api/v1/pods";
/// The message of log lines that name a pod without its identity starts with this.
const REPORT: &str = "a pod was admitted without its identity";

/// The result of a trial's pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It has its identity and was admitted at once.
    AtOnce,
    /// It was refused until it had its identity.
    Refused,
    /// It has none, and the webhook has reported it.
    Reported,
    /// It has none, and was not reported.
    Unreported,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pod_without_its_identity_is_reported_in_any_order() {
    let seed = seed();
    println!("PODIDENTITY_SEED={seed}");
    let world = World::alone("orders").await;
    let webhook = Webhook::ready(&world, &Authority::new("webhook"), &[]).await;
    let (opened, before) = (failed_open(&world).await, count(&world, PODS).await);

    let begun = SystemTime::now();
    let seconds = || begun.elapsed().unwrap().as_secs_f64();
    let mut trials = Vec::new();
    for (number, steps) in orders(seed).into_iter().enumerate() {
        let round = Round::new(&world, number, steps);
        round.run().await;
        trials.extend(round.trials);
    }
    println!("{} trials applied in {:.1} s", trials.len(), seconds());
    eventually("every Deployment has its pod", || async {
        let pods = count(&world, PODS).await - before;
        ensure!(pods == trials.len() as u64, "{pods} pods of {}", trials.len());
        Ok(())
    })
    .await;
    println!("every Deployment has its pod after {:.1} s", seconds());
    // A live lookup that took too long is an answer, too, if the pod is reported.
    let unknown = webhook.metric("pods_without_identity_total", &["reason=\"unknown\""]);
    assert_eq!(failed_open(&world).await - opened, unknown, "the webhook has answered every call");

    caught_up(&world, &webhook).await;
    let pods = pods(&world).await;
    let mut lines = BTreeMap::<String, Vec<Report>>::new();
    for report in reports(&webhook) {
        lines.entry(report.namespace.clone()).or_default().push(report);
    }
    let audit = Seen::new(&world.cluster.audit());
    let mut counts = BTreeMap::<_, usize>::new();
    let mut late = BTreeMap::<_, Vec<i64>>::new();
    let mut wrong = Vec::new();
    for trial in &trials {
        let reports = lines.get(&trial.namespace).map(Vec::as_slice).unwrap_or_default();
        let class = match (has_identity(&pods[&trial.namespace]), reports.is_empty()) {
            (true, _) if audit.refused(&trial.namespace) > 0 => Class::Refused,
            (true, _) => Class::AtOnce,
            (false, false) => Class::Reported,
            (false, true) => Class::Unreported,
        };
        *counts.entry((trial.want, class)).or_default() += 1;
        if class == Class::Reported {
            late.entry(reports[0].reason.clone()).or_default().push(too_early(&reports[0], &audit));
        }
        // A pod that has its identity is not reported, and no pod is reported twice.
        if reports.len() != usize::from(class == Class::Reported) || !may(trial, class, &audit) {
            wrong.push(evidence(trial, class, &pods[&trial.namespace], &audit, reports));
        }
    }
    report(&counts, &late);
    let some = &wrong[..wrong.len().min(10)];
    assert!(wrong.is_empty(), "{} of {}, for example\n{}", wrong.len(), trials.len(), some.join("\n"));
    let reported: usize = lines.values().map(Vec::len).sum();
    assert_eq!(webhook.metric("pods_without_identity_total", &[]), reported as u64);
}

/// Whether a pod may end so.
fn may(trial: &Trial, class: Class, seen: &Seen) -> bool {
    match (trial.want, class) {
        (Want::Lenient, class) => matches!(class, Class::AtOnce | Class::Reported),
        (_, Class::AtOnce | Class::Refused) => true,
        // Of a ServiceAccount that was not bound yet.
        (Want::RequiredByNamespace, Class::Reported) => seen.admitted_before_bound(&trial.namespace),
        (_, Class::Reported | Class::Unreported) => false,
    }
}

fn report(counts: &BTreeMap<(Want, Class), usize>, late: &BTreeMap<String, Vec<i64>>) {
    for ((want, class), count) in counts {
        println!("{want:?} {class:?}: {count}");
    }
    for (reason, milliseconds) in late {
        let mut sorted = milliseconds.clone();
        sorted.sort_unstable();
        let (least, middle, most) = (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        println!(
            "identity after admission, {reason}: {} pods, {least} ms / {middle} ms / {most} ms",
            sorted.len()
        );
    }
}

/// All that is known about a trial which did not end as it should.
fn evidence(trial: &Trial, class: Class, pod: &Value, seen: &Seen, reports: &[Report]) -> String {
    let version = &pod["metadata"]["resourceVersion"];
    let reports: String =
        reports.iter().map(|report| format!("\n    {} reported: {}", report.at, report.reason)).collect();
    let Trial { namespace, want, computed, .. } = trial;
    let story = seen.story(namespace);
    format!("{namespace}, {want:?}, computed: {computed}, {class:?}, pod at {version}{story}{reports}")
}

fn seed() -> u64 {
    let given = std::env::var("PODIDENTITY_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into())
}

/// The steps of each round, shuffled.
fn orders(seed: u64) -> Vec<Vec<Step>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let shuffled = Just(trials::steps(TRIALS)).prop_shuffle();
    (0..ROUNDS).map(|_| shuffled.new_tree(&mut runner).unwrap().current()).collect()
}

/// The trials' pods, by namespace.
async fn pods(world: &World) -> BTreeMap<String, Value> {
    let path = format!("{PODS}?labelSelector={LABEL}={}", world.name);
    let mut list = world.api.get(&path).await.unwrap();
    let pods: Vec<Value> = serde_json::from_value(list["items"].take()).unwrap();
    let count = pods.len();
    let by_namespace: BTreeMap<_, _> = pods
        .into_iter()
        .map(|pod| (pod["metadata"]["namespace"].as_str().unwrap().to_owned(), pod))
        .collect();
    assert_eq!(by_namespace.len(), count, "one pod each");
    by_namespace
}

fn has_identity(pod: &Value) -> bool {
    let env = pod["spec"]["containers"][0]["env"].as_array();
    env.is_some_and(|env| env.iter().any(|variable| variable["name"] == "AWS_ROLE_ARN"))
}

/// A log line of the webhook about a pod without its identity.
struct Report {
    at: Timestamp,
    namespace: String,
    /// The pod's name, or the prefix of it.
    pod: String,
    reason: String,
    /// Since it was admitted.
    milliseconds: Option<i64>,
}

fn reports(webhook: &Webhook) -> Vec<Report> {
    let read = |line: Value| {
        let text = |key: &str| line[key].as_str().map(str::to_owned);
        Report {
            at: text("timestamp").unwrap().parse().unwrap(),
            namespace: text("namespace").unwrap(),
            pod: text("pod").unwrap(),
            reason: text("reason").unwrap_or_else(|| "before_identity".to_owned()),
            milliseconds: line["milliseconds"].as_i64(),
        }
    };
    webhook.logged(REPORT).into_iter().map(read).collect()
}

/// How many milliseconds after the pod the identity was known; negative where it existed, but was not in the copies yet.
fn too_early(report: &Report, seen: &Seen) -> i64 {
    report.milliseconds.unwrap_or_else(|| {
        seen.issuer_known(report.at).duration_since(report.at).as_millis().try_into().unwrap()
    })
}

/// Waits until the webhook's copies have all objects that exist so far: by creating another one.
async fn caught_up(world: &World, webhook: &Webhook) {
    world.account(world.name, "last").await;
    world.bind(world.name, "last").await;
    eventually("the copies are up to date", || async {
        for (kind, list) in [
            ("ServiceAccount", "/api/v1/serviceaccounts"),
            ("PodIdentityBinding", "/apis/podidentity.dev/v1alpha1/podidentitybindings"),
        ] {
            let copied = webhook.metric("cache_objects", &[&format!("kind={kind:?}")]);
            let all = count(world, list).await;
            ensure!(copied == all, "{copied} of {all} {kind}s");
        }
        Ok(())
    })
    .await;
}

/// How many objects there are.
async fn count(world: &World, list: &str) -> u64 {
    let list = world.api.get(&format!("{list}?limit=1")).await.unwrap();
    let first = list["items"].as_array().map_or(0, Vec::len) as u64;
    first + list["metadata"]["remainingItemCount"].as_u64().unwrap_or_default()
}

/// Calls to the webhook that failed, so that the API server let pods pass.
async fn failed_open(world: &World) -> u64 {
    let metrics = world.api.metrics().await;
    let series =
        metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_fail_open_count{"));
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
