//! A pod and its identity created at the same instant, many times: the webhook either gives the identity or reports the pod,
//! in whatever order the two arrive.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{caught_up, has_identity, reports};
use crate::api::{accounts, pods};
use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::{ROLE, World, pod};

const PAIRS: usize = 900;
const AT_ONCE: usize = 8;

/// How a `ServiceAccount` gets its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It is in the webhook's copy, and is then bound.
    Bound,
    /// It was created a moment ago, and is then bound.
    NewAndBound,
    /// It is in the webhook's copy, and is then annotated.
    Annotated,
}

/// One `ServiceAccount` with its pod.
struct Pair {
    name: String,
    way: Way,
}

impl Pair {
    fn new(number: usize) -> Self {
        let ways = [Way::Bound, Way::NewAndBound, Way::Annotated];
        Self { name: format!("app-{number}"), way: ways[number % ways.len()] }
    }

    /// Creates the pod and its identity at the same time; returns the pod.
    async fn create(&self, world: &World) -> Value {
        if self.way == Way::NewAndBound {
            world.account(world.name, &self.name).await;
        }
        let mut pod = pod(&self.name);
        pod["metadata"] = json!({"name": self.name});
        let list = pods(world.name);
        tokio::join!(world.api.create(&list, &pod), self.identity(world)).0.unwrap()
    }

    async fn identity(&self, world: &World) {
        if self.way == Way::Annotated {
            let account = format!("{}/{}", accounts(world.name), self.name);
            let annotations = json!({crds::names::annotation::ROLE_ARN: ROLE});
            world.api.merge(&account, &json!({"metadata": {"annotations": annotations}})).await.unwrap();
        } else {
            world.bind(world.name, &self.name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_created_together_with_its_identity_gets_it_or_is_reported() {
    let world = &World::alone("instant").await;
    let webhook = Webhook::ready(world, &Authority::new("webhook"), &[]).await;
    let all: Vec<Pair> = (0..PAIRS).map(Pair::new).collect();
    futures::stream::iter(all.iter().filter(|pair| pair.way != Way::NewAndBound))
        .for_each_concurrent(AT_ONCE, |pair| world.account(world.name, &pair.name))
        .await;
    let made: Vec<(&Pair, Value)> = futures::stream::iter(&all)
        .map(|pair| async move { (pair, pair.create(world).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    caught_up(world, &webhook).await;

    let lines = reports(&webhook);
    let mut counts = BTreeMap::<_, usize>::new();
    let mut wrong = Vec::new();
    for (Pair { name, way }, pod) in &made {
        let named = lines.iter().filter(|line| line.pod == *name).count();
        let identity = has_identity(pod);
        *counts.entry(format!("{way:?}, with identity: {identity}, named: {named}")).or_default() += 1;
        if named != usize::from(!identity) {
            wrong.push(format!("{name} ({way:?}) at {}", pod["metadata"]["resourceVersion"]));
        }
    }
    println!("{counts:#?}");
    assert!(wrong.is_empty(), "not named, though without identity, or the reverse: {wrong:?}");
    assert_eq!(webhook.metric("pods_without_identity_total", &[]), lines.len() as u64);
}
