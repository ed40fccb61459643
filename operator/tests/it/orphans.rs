//! Roles whose binding is gone: named, and removed by a person only.

use std::time::Duration;

use crds::Reason;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::world::{QUEUE, STORAGE, World};

/// Ends a binding without the operator, as an administrator (or a tenant without the chart's admission policy) can.
async fn end_without_operator(world: &World, name: &str) {
    world.bindings().delete(name, &DeleteParams::default()).await.unwrap();
    let no_finalizer = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    world.bindings().patch(name, &PatchParams::default(), &no_finalizer).await.unwrap();
    let gone = |b: Option<&crds::PodIdentityBinding>| b.is_none();
    world.until(&world.bindings(), name, "its end", gone).await;
}

/// Waits until the metric has that value.
async fn until_metric(world: &World, count: usize) {
    let check = || async {
        let text = world.metrics.text();
        let line = format!("podidentity_operator_orphaned_roles {count}\n");
        anyhow::ensure!(text.contains(&line), "{text}");
        Ok(())
    };
    cluster::until("the metric", Duration::from_secs(15), check).await.unwrap();
}

#[tokio::test]
async fn an_orphan_is_named_and_removed_by_a_person_only() {
    let mut world = World::ready_with(|t| t.role_sweep = Duration::from_millis(300)).await;
    world.service_account(&world.namespace, "web").await;
    let web = json!({"serviceAccountName": "web", "role": {"policyARNs": [STORAGE]}});
    world.apply_binding("web", web).await;
    world.binding_is("web", "Ready").await;
    world.bind("app", &[STORAGE, QUEUE]).await;
    world.binding_is("app", "Ready").await;
    until_metric(&world, 0).await;
    let role = world.role().unwrap();
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.stop().await;
    end_without_operator(&world, "app").await;
    world.start().await;
    until_metric(&world, 1).await;
    let noted = || async {
        let mut notes = world.events("default", Reason::OrphanedRole).await;
        notes.retain(|note| note.contains(&format!("PodIdentityBinding {}/app", world.namespace)));
        anyhow::ensure!(notes.len() == 1, "{notes:?}");
        Ok(())
    };
    cluster::until("the event", Duration::from_secs(15), noted).await.unwrap();
    // Sweeps read the one role that no binding makes, and change nothing.
    world.sim.clear_calls();
    world.until_called("ListRoles", 3).await;
    assert_eq!(world.writes(), [""; 0]);
    let read = world.operators().into_iter().filter(|c| c.action == "GetRole");
    assert!(read.clone().count() >= 2 && read.clone().all(|c| c.resource == role.arn));

    let listed = world.orphans(&[]).await.unwrap();
    assert!(listed.contains(&role.name) && listed.contains(&format!("{}/app", world.namespace)), "{listed}");
    let row = listed.lines().find(|line| line.contains(&role.name)).unwrap();
    assert!(row.contains("20") && !row.contains("never"), "when it was last used: {row}");

    // Only orphans are removed, and all or none.
    let web = world.role_name("web");
    let before = json!(world.sim.state());
    let refused = world.orphans(&[&role.name, &web]).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("role {web} is no orphan")), "{refused}");
    let refused = world.orphans(&["podidentity-operator.homelab"]).await.unwrap_err().to_string();
    assert!(refused.contains("is no orphan"), "{refused}");
    assert_eq!(json!(world.sim.state()), before);

    world.sim.clear_calls();
    world.orphans(&[&role.name]).await.unwrap();
    assert!(world.role().is_none());
    let written: Vec<String> = world.sim.calls().into_iter().filter(|c| c.write).map(|c| c.action).collect();
    assert_eq!(written, ["UpdateAssumeRolePolicy", "DetachRolePolicy", "DetachRolePolicy", "DeleteRole"]);
    until_metric(&world, 0).await;
    let listed = world.orphans(&[]).await.unwrap();
    assert!(listed.contains("no role under this cluster's path is without its binding"), "{listed}");
    world.unbind("web").await;
    world.stop().await;
}

#[tokio::test]
async fn a_role_is_no_orphan_once_its_binding_is_back_or_another_uses_it() {
    let mut world = World::ready_with(|t| t.role_sweep = Duration::from_millis(300)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    world.stop().await;
    end_without_operator(&world, "app").await;
    world.start().await;
    until_metric(&world, 1).await;
    world.apply_binding("user", json!({"serviceAccountName": "app", "roleARN": role.arn})).await;
    until_metric(&world, 0).await;
    world.unbind("user").await;
    until_metric(&world, 1).await;
    assert_eq!(json!(world.role().unwrap()), json!(role), "not its own, so not removed");

    // A restored cluster gets its bindings back.
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    until_metric(&world, 0).await;
    assert_eq!(world.role().unwrap().id, role.id);
    world.unbind("app").await;
    world.stop().await;
}
