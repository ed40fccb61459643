//! The operator is killed between any two AWS calls. The next one completes the work; no resource is without an owner, and none
//! is created twice. The kill happens while the operator waits for the response of a call that has taken effect.

use std::collections::BTreeMap;

use aws_sim::world::Role;
use aws_sim::{Call, Fault, FaultKind};
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{ACCOUNT, BUCKET, QUEUE, STORAGE, World};

/// Each call: service, operation, and how many calls of the operation were made before it.
pub fn occurrences(calls: Vec<Call>) -> Vec<(String, String, u32)> {
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    calls
        .into_iter()
        .map(|call| {
            let count = counts.entry((call.service.clone(), call.action.clone())).or_default();
            *count += 1;
            (call.service, call.action, *count - 1)
        })
        .collect()
}

/// Waits until that call has taken effect (the operator waits for its response), and kills the operator.
pub async fn kill_in(world: &mut World, (service, action, earlier): &(String, String, u32)) {
    let check = || async {
        let made = world.sim.calls().iter().filter(|c| c.service == *service && c.action == *action).count();
        anyhow::ensure!(made > *earlier as usize, "it was made {made} times");
        Ok(())
    };
    cluster::until(action, std::time::Duration::from_mins(1), check).await.unwrap();
    world.kill().await;
    world.sim.clear_faults();
}

#[tokio::test]
async fn a_binding_becomes_ready_or_is_deleted_after_a_kill_in_any_call() {
    let mut world = World::ready().await;
    let bind = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE, QUEUE]}});
    world.sim.clear_calls();
    world.apply_binding("app", bind.clone()).await;
    world.binding_is("app", "Ready").await;
    let expected = world.role().unwrap();
    let creating = occurrences(world.role_calls());
    world.sim.clear_calls();
    world.unbind("app").await;
    let deleting = occurrences(world.role_calls());
    assert!(creating.len() >= 5 && deleting.len() >= 7, "{creating:?} {deleting:?}");

    for call in &creating {
        world.sim.clear_calls();
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.apply_binding("app", bind.clone()).await;
        kill_in(&mut world, call).await;
        let before = world.sim.calls();
        world.start().await;
        world.binding_is("app", "Ready").await;
        let role = world.role().unwrap();
        let Role { trust, tags, boundary, .. } = &role;
        assert_eq!((trust, tags, boundary), (&expected.trust, &expected.tags, &expected.boundary));
        let mut attached = role.attached.clone();
        attached.sort_unstable();
        assert_eq!(attached, [QUEUE, STORAGE]);
        let made = before
            .iter()
            .chain(&world.sim.calls())
            .filter(|c| c.action == "CreateRole" && c.status == 200)
            .count();
        assert_eq!(made, 1, "killed in {call:?}");
        world.unbind("app").await;
        assert!(world.role().is_none());
    }

    for call in &deleting {
        world.apply_binding("app", bind.clone()).await;
        world.binding_is("app", "Ready").await;
        world.sim.clear_calls();
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        kill_in(&mut world, call).await;
        assert!(
            world.bindings().get_opt("app").await.unwrap().is_some(),
            "the finalizer prevents the deletion"
        );
        world.start().await;
        world
            .until(&world.bindings(), "app", "its deletion", |b: Option<&crds::PodIdentityBinding>| {
                b.is_none()
            })
            .await;
        assert!(world.role().is_none(), "killed in {call:?}");
        assert_eq!(world.annotations("app").await, [].into());
    }
}

#[tokio::test]
async fn an_issuer_becomes_ready_after_a_kill_in_any_write() {
    let mut world = World::bootstrapped().await;
    let published = |world: &World| crate::issuer::managed(&world.sim.state());
    let expected = published(&world);
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
    let delete_published = |world: &World| {
        world.sim.change(|s| {
            s.buckets.remove(BUCKET);
            s.providers.clear();
        });
    };
    delete_published(&world);
    world.apply_issuer(&world.spec()).await;
    world.start_as(credentials.clone()).await;
    world.issuer_is("Ready").await;
    let writes: Vec<Call> = world.operators().into_iter().filter(|c| c.write).collect();
    assert_eq!(writes.len(), 7);
    world.stop().await;

    for call in &occurrences(writes) {
        delete_published(&world);
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.start_as(credentials.clone()).await;
        kill_in(&mut world, call).await;
        // A bucket is never public without the statement that denies writes by pods.
        let state = world.sim.state();
        if let Some(bucket) = state.buckets.get(BUCKET).filter(|b| !b.public_access_block[2]) {
            assert!(bucket.policy_text.contains("aws:FederatedProvider"), "killed in {call:?}");
        }
        let before = world.operators();
        world.start_as(credentials.clone()).await;
        world.until_called("AssumeRoleWithWebIdentity", 1).await;
        assert_eq!(published(&world), expected, "killed in {call:?}");
        let all: Vec<String> =
            before.into_iter().chain(world.operators()).filter(|c| c.write).map(|c| c.action).collect();
        for action in ["CreateBucket", "CreateOpenIDConnectProvider"] {
            assert_eq!(all.iter().filter(|a| *a == action).count(), 1, "killed in {call:?}: {all:?}");
        }
        world.stop().await;
    }
}
