//! The operator killed between any two AWS calls: the next one converges, without an orphan and without a duplicate.
//! A call whose effect happened and whose answer never came is both the end of that call and the moment before the next.

use std::collections::BTreeMap;

use aws_sim::{Call, Fault, FaultKind};
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{ACCOUNT, BUCKET, QUEUE, STORAGE, World};

/// Each call as the how-manieth of its operation.
fn occurrences(calls: Vec<Call>) -> Vec<(String, String, u32)> {
    let mut seen: BTreeMap<(String, String), u32> = BTreeMap::new();
    calls
        .into_iter()
        .map(|call| {
            let count = seen.entry((call.service.clone(), call.action.clone())).or_default();
            *count += 1;
            (call.service, call.action, *count - 1)
        })
        .collect()
}

/// Waits until the operator hangs in that call, whose effect has happened, and kills it.
async fn kill_in(world: &mut World, (service, action, earlier): &(String, String, u32)) {
    let hangs = || async {
        let made = world.sim.calls().iter().filter(|c| c.service == *service && c.action == *action).count();
        anyhow::ensure!(made > *earlier as usize, "it was made {made} times");
        Ok(())
    };
    cluster::until(action, std::time::Duration::from_mins(1), hangs).await.unwrap();
    world.kill().await;
    world.sim.clear_faults();
}

#[tokio::test]
async fn a_binding_survives_a_kill_after_any_call() {
    let mut world = World::ready().await;
    let bind = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE, QUEUE]}});
    world.sim.clear_calls();
    world.apply_binding("app", bind.clone()).await;
    world.binding_is("app", "Ready").await;
    let good = world.role().unwrap();
    let making = occurrences(world.role_calls());
    world.sim.clear_calls();
    world.unbind("app").await;
    let removing = occurrences(world.role_calls());
    assert!(making.len() >= 5 && removing.len() >= 7, "{making:?} {removing:?}");

    for call in &making {
        world.sim.clear_calls();
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.apply_binding("app", bind.clone()).await;
        kill_in(&mut world, call).await;
        let before = world.sim.calls();
        world.start().await;
        world.binding_is("app", "Ready").await;
        let role = world.role().unwrap();
        assert_eq!((&role.trust, &role.tags, &role.boundary), (&good.trust, &good.tags, &good.boundary));
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

    for call in &removing {
        world.apply_binding("app", bind.clone()).await;
        world.binding_is("app", "Ready").await;
        world.sim.clear_calls();
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        kill_in(&mut world, call).await;
        assert!(world.bindings().get_opt("app").await.unwrap().is_some(), "the finalizer holds it");
        world.start().await;
        world
            .until(&world.bindings(), "app", "its end", |b: Option<&crds::PodIdentityBinding>| b.is_none())
            .await;
        assert!(world.role().is_none(), "killed in {call:?}");
        assert_eq!(world.annotations("app").await, [].into());
    }
}

#[tokio::test]
async fn an_issuer_survives_a_kill_after_any_write() {
    let mut world = World::bootstrapped().await;
    let picture = |world: &World| {
        let state = world.sim.state();
        let bodies: Vec<_> = state.buckets[BUCKET].objects.values().map(|o| o.body.clone()).collect();
        (json!([state.buckets[BUCKET], state.providers]), bodies)
    };
    let good = picture(&world);
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
    let from_nothing = |world: &World| {
        world.sim.change(|s| {
            s.buckets.remove(BUCKET);
            s.providers.clear();
        });
    };
    from_nothing(&world);
    world.apply_issuer(&world.spec()).await;
    world.start_as(credentials.clone()).await;
    world.issuer_is("Ready").await;
    let writes: Vec<Call> = world.operators().into_iter().filter(|c| c.write).collect();
    assert_eq!(writes.len(), 7);
    world.stop().await;

    for call in &occurrences(writes) {
        from_nothing(&world);
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.start_as(credentials.clone()).await;
        kill_in(&mut world, call).await;
        // Nothing is ever public that is not fenced.
        let state = world.sim.state();
        if let Some(bucket) = state.buckets.get(BUCKET).filter(|b| !b.public_access_block[2]) {
            assert!(bucket.policy_text.contains("aws:FederatedProvider"), "killed in {call:?}");
        }
        let before = world.operators();
        world.start_as(credentials.clone()).await;
        world.until_called("AssumeRoleWithWebIdentity", 1).await;
        assert_eq!(picture(&world), good, "killed in {call:?}");
        let all: Vec<String> =
            before.into_iter().chain(world.operators()).filter(|c| c.write).map(|c| c.action).collect();
        for once in ["CreateBucket", "CreateOpenIDConnectProvider"] {
            assert_eq!(all.iter().filter(|a| *a == once).count(), 1, "killed in {call:?}: {all:?}");
        }
        world.stop().await;
    }
}
