//! How many calls of AWS are made in a second, and for whom.

use std::time::{Duration, Instant};

use aws_sim::{Fault, FaultKind};
use crds::PodIdentityBinding;
use crds::condition::{ConditionType, is_true};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ListParams, PostParams};
use operator::aws::limit::Limits;
use serde_json::json;

use crate::world::{STORAGE, World, apply};

const RATE: f64 = 40.0;
const MANY: usize = 60;

#[tokio::test]
async fn calls_stay_within_the_rate_with_the_sdk_s_retries_and_one_tenant_does_not_delay_another() {
    let mut world = World::bootstrapped().await;
    let other = format!("{}-other", world.namespace);
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": other}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let mut spec = world.spec();
    spec.grants[0].namespaces.as_mut().unwrap().names = Some(vec![world.namespace.clone(), other.clone()]);
    world.apply_issuer(&spec).await;
    world.limits = Limits::per_service(RATE, 1);
    world.start().await;
    world.issuer_is("Ready").await;

    world.sim.clear_calls();
    world.sim.inject(Fault::on("iam", "CreateRole", FaultKind::throttle()).times(20));
    let begun = Instant::now();
    let spec = |name: &str| json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}});
    let names: Vec<String> = (0..MANY).map(|n| format!("app-{n}")).collect();
    join_all(names.iter().map(|name| world.apply_binding(name, spec(name)))).await;
    let others: Api<PodIdentityBinding> = Api::namespaced(world.client.clone(), &other);
    apply(&others, "app", spec("app")).await.unwrap();
    let is_ready = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
    };
    world.until(&others, "app", "Ready", is_ready).await;
    let all = world.bindings().list(&ListParams::default()).await.unwrap();
    let before = all.iter().filter(|binding| is_ready(Some(binding))).count();
    // Eight passes run at once. Without turns it would be the last.
    assert!(before <= MANY / 2, "{before} of the other tenant's bindings were Ready before");

    for name in &names {
        world.until(&world.bindings(), name, "Ready", is_ready).await;
    }
    let (calls, elapsed) = (world.sim.calls(), begun.elapsed());
    let iam = calls.iter().filter(|call| call.service == "iam").count();
    let throttled = calls.iter().filter(|call| call.code.as_deref() == Some("Throttling")).count();
    assert_eq!(throttled, 20);
    #[allow(clippy::cast_precision_loss, reason = "some hundred calls")]
    let least = Duration::from_secs_f64((iam - 1) as f64 / RATE);
    assert!(elapsed >= least, "{iam} calls in {elapsed:?}, at least {least:?}");
    // What waits for a turn has not begun: it does not delay the end.
    world.stop().await;
}
