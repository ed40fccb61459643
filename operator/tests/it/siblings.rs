//! Several bindings on one `ServiceAccount`: a rename cuts nothing off, and two that are made at once do not break each other.

use std::time::{Duration, Instant};

use crds::PodIdentityBinding;
use crds::condition::ConditionType as C;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{QUEUE, STORAGE, World};

#[tokio::test]
async fn a_renamed_binding_takes_the_role_over() {
    let mut world = World::ready().await;
    world.bind("old", &[STORAGE]).await;
    world.binding_is("old", "Ready").await;
    let role = world.role().unwrap();
    let annotated = world.accounts().get("app").await.unwrap().resource_version();

    // A tool that waits for the new object before it deletes the old one.
    world.sim.clear_calls();
    world.bind("new", &[STORAGE]).await;
    world.binding_is("new", "ServedByOlderBinding").await;
    for type_ in [C::Ready, C::Granted, C::RoleReady, C::ServiceAccountAnnotated] {
        assert_eq!(world.condition("new", type_).await.0, "True", "{}", type_.as_str());
    }
    assert_eq!(world.binding("new").await.finalizers(), [""; 0], "it touches nothing");
    assert_eq!(world.role_calls(), []);

    world.unbind("old").await;
    world.binding_is("new", "Ready").await;
    let renamed = world.role().unwrap();
    assert_eq!(renamed.id, role.id, "the same role: its sessions live on");
    assert_eq!(renamed.tags["podidentity.dev/name"], "new");
    assert_eq!((renamed.trust, renamed.attached), (role.trust, role.attached));
    let counts = world.counts();
    assert_eq!(counts.get("iam:DeleteRole"), None);
    assert_eq!(counts.get("iam:UpdateAssumeRolePolicy"), None, "not a moment without its trust");
    assert_eq!(counts["iam:TagRole"], 1);
    let account = world.accounts().get("app").await.unwrap();
    assert_eq!(account.resource_version(), annotated, "not a moment without its annotations");
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    let name = world.role_name("app");
    let named = |binding: Option<&PodIdentityBinding>| {
        binding.and_then(|binding| binding.status.as_ref()?.role_name.as_ref()) == Some(&name)
    };
    world.until(&world.bindings(), "new", "the role's name", named).await;

    // The last one removes it.
    world.unbind("new").await;
    assert!(world.role().is_none());
    assert_eq!(world.annotations("app").await, [].into());
    world.stop().await;
}

/// What the message of a refused edit recommends: a new binding, and then the end of the old one.
#[tokio::test]
async fn a_binding_whose_issuer_was_mistyped_hands_its_role_over() {
    let world = World::ready().await;
    world.bind("old", &[STORAGE]).await;
    world.binding_is("old", "Ready").await;
    let role = world.role().unwrap();
    let spec = |issuer: &str| json!({"serviceAccountName": "app", "issuerRef": {"name": issuer}, "role": {"policyARNs": [STORAGE]}});
    world.apply_binding("old", spec("typo")).await;
    world.binding_is("old", "InvalidSpec").await;
    world.sim.clear_calls();
    world.apply_binding("new", spec("default")).await;
    world.binding_is("new", "ServiceAccountAlreadyBound").await;
    world.unbind("old").await;
    world.binding_is("new", "Ready").await;
    assert_eq!(world.role().unwrap().id, role.id, "the same role: its sessions live on");
    let counts = world.counts();
    assert_eq!((counts.get("iam:DeleteRole"), counts.get("iam:CreateRole")), (None, None));
    assert_eq!(counts["iam:TagRole"], 1);
    world.unbind("new").await;
    assert!(world.role().is_none());
}

#[tokio::test]
async fn a_role_is_handed_over_under_lag_without_a_moment_that_is_not_ready() {
    let world = World::ready_with(|t| {
        (t.role_settling, t.role_confirmation) =
            (std::time::Duration::from_secs(24), std::time::Duration::from_secs(6));
    })
    .await;
    world.bind("old", &[STORAGE]).await;
    world.binding_is("old", "Ready").await;
    let role = world.role().unwrap();
    world.bind("new", &[STORAGE]).await;
    world.binding_is("new", "ServedByOlderBinding").await;
    let since = transition(&world.binding("new").await);
    world.sim.behave(|behaviour| behaviour.lag_milliseconds = 1000);
    world.unbind("old").await;
    world.binding_is("new", "Ready").await;
    assert_eq!(world.role().unwrap().id, role.id);
    assert_eq!(transition(&world.binding("new").await), since, "Ready was True all the time");
    world.unbind("new").await;
    assert!(world.role().is_none());
}

/// When Ready changed its status last.
fn transition(binding: &PodIdentityBinding) -> String {
    let conditions = &binding.status.as_ref().unwrap().conditions;
    crds::conditions::find(conditions, C::Ready).unwrap().last_transition_time.0.to_string()
}

#[tokio::test]
async fn a_rename_with_another_specification_changes_the_same_role() {
    let world = World::ready().await;
    world.bind("old", &[STORAGE]).await;
    world.binding_is("old", "Ready").await;
    let role = world.role().unwrap();
    world.bind("new", &[QUEUE]).await;
    world.binding_is("new", "ServiceAccountAlreadyBound").await;
    world.unbind("old").await;
    world.binding_is("new", "Ready").await;
    let renamed = world.role().unwrap();
    assert_eq!((renamed.id, renamed.attached), (role.id, vec![QUEUE.to_owned()]));
    world.unbind("new").await;
    assert!(world.role().is_none());
}

/// The one that the role is handed over to is deleted in the same moment: the role ends with it.
#[tokio::test]
async fn a_rename_that_is_deleted_whole_leaves_no_role() {
    let world = World::ready().await;
    for _ in 0..5 {
        world.bind("a-old", &[STORAGE]).await;
        world.binding_is("a-old", "Ready").await;
        world.bind("b-new", &[STORAGE]).await;
        world.binding_is("b-new", "ServedByOlderBinding").await;
        let delete = async |name| world.bindings().delete(name, &DeleteParams::default()).await.unwrap();
        tokio::join!(delete("a-old"), delete("b-new"));
        for name in ["a-old", "b-new"] {
            let gone = |b: Option<&PodIdentityBinding>| b.is_none();
            world.until(&world.bindings(), name, "its deletion", gone).await;
        }
        assert!(world.role().is_none(), "the role was handed over to a binding that had ended");
        assert_eq!(world.annotations("app").await, [].into());
    }
}

/// The heir has our finalizer, and soon the role's tags: an older binding that never had the role does not come before it, also
/// while IAM still shows the tags as they were.
#[tokio::test]
async fn the_heir_keeps_the_role_although_a_third_binding_is_older() {
    let world = World::ready_with(|t| {
        (t.role_settling, t.role_confirmation) =
            (std::time::Duration::from_secs(24), std::time::Duration::from_secs(6));
    })
    .await;
    world.bind("a-old", &[STORAGE]).await;
    world.binding_is("a-old", "Ready").await;
    let role = world.role().unwrap();
    let elsewhere = "arn:aws:iam::999999999999:role/terraform/app";
    world.apply_binding("b-third", json!({"serviceAccountName": "app", "roleARN": elsewhere})).await;
    world.binding_is("b-third", "ServiceAccountAlreadyBound").await;
    world.bind("c-new", &[STORAGE]).await;
    world.binding_is("c-new", "ServedByOlderBinding").await;
    let since = transition(&world.binding("c-new").await);
    world.sim.behave(|behaviour| behaviour.lag_milliseconds = 1000);
    world.unbind("a-old").await;
    world.binding_is("c-new", "Ready").await;
    assert_eq!(world.role().unwrap().id, role.id);
    assert_eq!(transition(&world.binding("c-new").await), since, "Ready was True all the time");
    assert_eq!(reason(&world, "b-third").await, "ServiceAccountAlreadyBound");
    assert_eq!(world.annotations("app").await["eks.amazonaws.com/role-arn"], role.arn);
    world.sim.behave(|behaviour| behaviour.lag_milliseconds = 0);
    world.unbind("b-third").await;
    world.unbind("c-new").await;
    assert!(world.role().is_none());
}

/// One commit replaces the binding that made the role by one that only uses it.
#[tokio::test]
async fn a_role_stays_that_another_binding_uses_by_its_arn() {
    let world = World::ready().await;
    world.bind("maker", &[STORAGE]).await;
    world.binding_is("maker", "Ready").await;
    let role = world.role().unwrap();
    world.apply_binding("user", json!({"serviceAccountName": "app", "roleARN": role.arn})).await;
    world.binding_is("user", "ServiceAccountAlreadyBound").await;
    world.sim.clear_calls();
    world.unbind("maker").await;
    world.binding_is("user", "Ready").await;
    assert_eq!(json!(world.role().unwrap()), json!(role));
    assert_eq!(world.writes(), [""; 0]);
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.unbind("user").await;
}

/// A binding that no grant covers inherits nothing.
#[tokio::test]
async fn a_role_is_not_handed_over_to_a_binding_without_a_grant() {
    let world = World::ready().await;
    world.bind("old", &[STORAGE]).await;
    world.binding_is("old", "Ready").await;
    world.bind("new", &["arn:aws:iam::111122223333:policy/not-granted"]).await;
    world.binding_is("new", "ServiceAccountAlreadyBound").await;
    world.unbind("old").await;
    assert!(world.role().is_none());
    world.binding_is("new", "WaitingForGrant").await;
    assert_eq!(world.annotations("app").await, [].into());
    world.unbind("new").await;
}

#[tokio::test]
async fn of_two_bindings_made_at_once_one_has_the_role_and_keeps_it() {
    let world = World::ready().await;
    for round in 0..6 {
        // The one whose name sorts first is made last.
        let (late, early) = (format!("a{round}"), format!("b{round}"));
        let spec = |policy: &str| json!({"serviceAccountName": "app", "role": {"policyARNs": [policy]}});
        world.apply_binding(&early, spec(STORAGE)).await;
        world.apply_binding(&late, spec(QUEUE)).await;
        let ended = || async {
            let [one, other] = [reason(&world, &early).await, reason(&world, &late).await];
            let good = ["Ready", "ServiceAccountAlreadyBound"];
            let apart = one != other && [&one, &other].iter().all(|r| good.contains(&r.as_str()));
            anyhow::ensure!(apart, "{early}: {one}, {late}: {other}");
            Ok(())
        };
        cluster::until("one of both to be Ready", std::time::Duration::from_secs(10), ended).await.unwrap();
        let has_role = if reason(&world, &early).await == "Ready" { &early } else { &late };
        assert_eq!(world.role().unwrap().tags["podidentity.dev/name"], **has_role);
        for name in [&early, &late] {
            world.bindings().delete(name, &DeleteParams::default()).await.unwrap();
        }
        for name in [&early, &late] {
            let gone = |b: Option<&PodIdentityBinding>| b.is_none();
            world.until(&world.bindings(), name, "its deletion", gone).await;
        }
        assert!(world.role().is_none());
    }
}

/// Both passes ran before either saw the other: the role is of the one whose name sorts last.
#[tokio::test]
async fn the_one_that_made_the_role_keeps_it_although_the_other_sorts_first() {
    let mut world = World::ready().await;
    world.bind("b-made-it", &[STORAGE]).await;
    world.binding_is("b-made-it", "Ready").await;
    let role = world.role().unwrap();
    world.stop().await;
    // As if the operator had died before it could write the status, and both had been made in the same second.
    let status = json!([{"op": "remove", "path": "/status"}]);
    let patch = serde_json::from_value(status).unwrap();
    let parameters = kube::api::PatchParams::default();
    let patch = kube::api::Patch::<()>::Json(patch);
    world.bindings().patch_status("b-made-it", &parameters, &patch).await.unwrap();
    world.bind("a-late", &[QUEUE]).await;
    let finalizer = json!({"metadata": {"finalizers": [crds::names::FINALIZER]}});
    let patch = kube::api::Patch::Merge(finalizer);
    world.bindings().patch("a-late", &parameters, &patch).await.unwrap();
    world.start().await;
    world.binding_is("b-made-it", "Ready").await;
    world.binding_is("a-late", "ServiceAccountAlreadyBound").await;
    assert_eq!(json!(world.role().unwrap()), json!(role));
    assert_eq!(world.writes(), [""; 0]);

    // It takes the role over when its owner goes, although it had found it to be another's.
    world.unbind("b-made-it").await;
    world.binding_is("a-late", "Ready").await;
    assert_eq!(world.role().unwrap().id, role.id);
    world.unbind("a-late").await;
}

/// Both are old when one of them is edited. A tool that waits is told nothing final before the two minutes, here two seconds, are over.
#[tokio::test]
async fn the_wait_for_the_end_of_a_conflict_begins_with_the_edit_that_makes_it() {
    const GRACE: Duration = Duration::from_secs(2);
    let world = World::ready_with(|timings| timings.conflict_grace = GRACE).await;
    world.bind("a-first", &[STORAGE]).await;
    world.binding_is("a-first", "Ready").await;
    world.bind("b-second", &[STORAGE]).await;
    world.binding_is("b-second", "ServedByOlderBinding").await;
    let begun = Instant::now();
    let is_old = || async {
        anyhow::ensure!(begun.elapsed() > GRACE * 2, "not yet");
        Ok(())
    };
    cluster::until("an old binding", Duration::from_secs(10), is_old).await.unwrap();
    let edited = Instant::now();
    world.bind("b-second", &[QUEUE]).await;
    let is_stalled = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|binding| binding.status.as_ref());
        status.is_some_and(|status| crds::conditions::is_true(&status.conditions, C::Stalled))
    };
    world.until(&world.bindings(), "b-second", "Stalled", is_stalled).await;
    assert!(edited.elapsed() >= GRACE, "{:?}", edited.elapsed());
    assert_eq!(reason(&world, "b-second").await, "ServiceAccountAlreadyBound");
    assert_eq!(world.role().unwrap().attached, [STORAGE]);
    world.unbind("b-second").await;
    world.unbind("a-first").await;
}

async fn reason(world: &World, name: &str) -> String {
    let binding = world.binding(name).await;
    let conditions = binding.status.unwrap_or_default().conditions;
    crds::conditions::find(&conditions, C::Ready).map_or_else(String::new, |c| c.reason.as_str().to_owned())
}
