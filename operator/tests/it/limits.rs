//! How many calls of AWS are made in a second, and for whom.

use std::time::{Duration, Instant};

use aws_sim::{Fault, FaultKind};
use crds::PodIdentityBinding;
use crds::condition::ConditionType;
use crds::conditions::is_true;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
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
    // Eight passes run at once, and those that began earlier end before. Without turns it would be the last.
    assert!(before <= 2 * 8, "{before} of the other tenant's bindings were Ready before");

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

#[tokio::test]
async fn an_object_that_ends_while_it_waits_for_its_turn_does_not_keep_the_turn() {
    let mut world = World::bootstrapped().await;
    world.apply_issuer(&world.spec()).await;
    // One pass at once.
    world.limits = Limits::per_service(1.0, 1000);
    world.start().await;
    world.issuer_is("Ready").await;
    world.sim.clear_calls();
    world.sim.inject(Fault::on("iam", "CreateRole", FaultKind::Delay { milliseconds: 4000 }).times(1));
    let spec = |name: &str| json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}});
    world.apply_binding("first", spec("first")).await;
    world
        .until(&world.bindings(), "first", "its pass", |b| b.is_some_and(|b| !b.finalizers().is_empty()))
        .await;
    // They wait for the first one's turn to end, without a finalizer, and end before.
    let names: Vec<String> = (0..20).map(|n| format!("ends-{n}")).collect();
    join_all(names.iter().map(|name| world.apply_binding(name, spec(name)))).await;
    for name in &names {
        world.bindings().delete(name, &DeleteParams::default()).await.unwrap();
    }
    world.apply_binding("last", spec("last")).await;
    for name in ["first", "last"] {
        world.binding_is(name, "Ready").await;
    }
    let roles = world.sim.calls().iter().filter(|call| call.action == "CreateRole").count();
    assert_eq!(roles, 2, "none was begun");
    world.assert_nothing_denied();
}

/// Each service of AWS has one limiter for both controllers.
#[tokio::test]
async fn an_issuer_and_bindings_that_are_changed_at_once_share_the_rate() {
    const RATE: f64 = 10.0;
    // They take four seconds, so that the bindings come meanwhile.
    const AUDIENCES: usize = 40;
    let mut world = World::bootstrapped().await;
    let mut spec = world.spec();
    world.apply_issuer(&spec).await;
    world.limits = Limits::per_service(RATE, 1);
    world.start().await;
    world.issuer_is("Ready").await;
    world.sim.clear_calls();
    let begun = world.sim.elapsed();
    // One call for each audience; four for each binding.
    spec.audiences.extend((0..AUDIENCES).map(|number| format!("audience-{number}")));
    let names = ["app-0", "app-1", "app-2", "app-3", "app-4", "app-5"];
    world.apply_issuer(&spec).await;
    for name in names {
        world
            .apply_binding(name, json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}}))
            .await;
    }
    for name in names {
        world.binding_is(name, "Ready").await;
    }
    world.issuer_is("Ready").await;
    let counts = world.counts();
    assert_eq!(counts["iam:AddClientIDToOpenIDConnectProvider"], AUDIENCES);
    assert_eq!((counts["iam:CreateRole"], counts["iam:AttachRolePolicy"]), (6, 6));
    let calls = world.sim.calls().into_iter().filter(|call| call.service == "iam");
    let (of_roles, others): (Vec<_>, Vec<_>) = calls.partition(|call| call.resource.contains(":role/"));
    let [of_roles, others] =
        [of_roles, others].map(|calls| calls.into_iter().map(|call| call.at).collect::<Vec<_>>());
    // Both work at the same time, until one of them has nothing more to do.
    assert!(of_roles.iter().max() > others.iter().min() && others.iter().max() > of_roles.iter().min());
    let end = *of_roles.iter().max().min(others.iter().max()).unwrap();
    let count = of_roles.iter().chain(&others).filter(|at| **at <= end).count();
    #[allow(clippy::cast_precision_loss, reason = "some fifty calls")]
    let possible = Duration::from_secs_f64((count - 1) as f64 / RATE);
    let passed = end.saturating_sub(begun);
    assert!(passed >= possible, "{count} calls in {passed:?}, at least {possible:?}");
    world.stop().await;
}
