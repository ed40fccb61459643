//! A pod and its identity at the same instant, many times: the webhook either knows the identity, or says that the pod went
//! without, however the two overtake each other on their way.

use std::collections::BTreeMap;

use futures::StreamExt;
use serde_json::{Value, json};

use super::{caught_up, has_identity, said};
use crate::api::{accounts, pods};
use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::{ROLE, World, pod};

const PAIRS: usize = 900;
const AT_ONCE: usize = 8;

/// How a `ServiceAccount` comes to its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The webhook has long known it, and it is bound.
    Bound,
    /// It was made a moment ago, and it is bound.
    NewAndBound,
    /// The webhook has long known it, and it is annotated.
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

    /// Makes the pod and gives the identity at once; returns the pod.
    async fn meet(&self, world: &World) -> Value {
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
async fn a_pod_that_meets_its_identity_on_the_way_is_not_forgotten() {
    let world = &World::alone("instant").await;
    let webhook = Webhook::ready(world, &Authority::new("webhook"), &[]).await;
    let all: Vec<Pair> = (0..PAIRS).map(Pair::new).collect();
    futures::stream::iter(all.iter().filter(|pair| pair.way != Way::NewAndBound))
        .for_each_concurrent(AT_ONCE, |pair| world.account(world.name, &pair.name))
        .await;
    let made: Vec<(&Pair, Value)> = futures::stream::iter(&all)
        .map(|pair| async move { (pair, pair.meet(world).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    caught_up(world, &webhook).await;

    let lines = said(&webhook);
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
