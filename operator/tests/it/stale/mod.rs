//! An operator with an old copy of bindings, issuers or namespaces, as an API server may give it whose own copy is late: it starts with
//! one, or its watches lose events. Nothing is changed in AWS for a specification, a grant or labels that are not the newest.

mod starts;

use std::time::Duration;

use cluster::until;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{ACCOUNT, QUEUE, STORAGE, World};

fn spec(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

impl World {
    /// [`World::ready`] with frequent reads of roles, where a role is revoked so many seconds after it has lost its grant.
    async fn with_grant_loss(seconds: u64) -> Self {
        Self::ready_with(|timings| {
            (timings.role_resync, timings.grant_loss) =
                (Duration::from_millis(200), Duration::from_secs(seconds));
        })
        .await
    }

    fn outdated(&self) -> u64 {
        self.passes("PodIdentityBinding", Some("outdated"))
    }

    /// Waits until three passes more were outdated than before.
    async fn until_outdated(&self, row: &str, before: u64) {
        let refused = || async {
            let outdated = self.outdated() - before;
            anyhow::ensure!(outdated >= 3, "{outdated} passes were outdated");
            Ok(())
        };
        until(row, Duration::from_secs(15), refused).await.unwrap();
    }

    /// Loses all events of that kind, makes a change that such an event would show, and changes the role of `app` in AWS, so that the
    /// operator has a reason to write. It writes nothing in three passes. Then the operator lists again.
    async fn nothing_is_written_without<F: Future<Output = ()>>(
        &self,
        resource: &'static str,
        row: &str,
        change: impl FnOnce() -> F,
    ) {
        self.hold.watches.silence(resource);
        self.sim.clear_calls();
        change().await;
        let name = self.role_name("app").to_lowercase();
        self.sim.change(|state| {
            if let Some(role) = state.roles.get_mut(&name) {
                role.description = "changed".into();
            }
        });
        let (state, before) = (json!(self.sim.state()), self.outdated());
        self.until_outdated(row, before).await;
        assert_eq!(self.writes(), [""; 0], "{row}");
        assert_eq!(json!(self.sim.state()), state, "{row}");
        self.hold.watches.end();
    }
}

#[tokio::test]
async fn while_the_events_of_a_binding_are_lost_its_former_specification_changes_nothing() {
    let own = |fields: Value| {
        let mut role = json!({"policyARNs": [STORAGE]});
        role.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"role": role})
    };
    let versions = [
        own(json!({})),
        own(json!({"policyARNs": [STORAGE, QUEUE]})),
        own(json!({"maxSessionDuration": "1h", "description": "x"})),
        json!({"roleARN": format!("arn:aws:iam::{ACCOUNT}:role/other")}),
        json!({"role": {"policyARNs": [QUEUE]}, "deletionPolicy": "Retain"}),
        json!({"role": {"policyARNs": [QUEUE]}, "driftPolicy": "ReportOnly"}),
    ];
    let mut world = World::ready_with(|timings| timings.role_resync = Duration::from_millis(200)).await;
    // Under a role of another tool there is nothing to write, and what is only reported is not written anyway.
    let writes = |version: &Value| version.get("role").is_some() && version.get("driftPolicy").is_none();
    for (former, newest) in versions.iter().filter(|version| writes(version)).flat_map(|former| {
        versions.iter().filter(move |newest| *newest != former).map(move |newest| (former, newest))
    }) {
        world.apply_binding("app", spec(former)).await;
        world.binding_is("app", "Ready").await;
        let row = format!("{former} → {newest}");
        world
            .nothing_is_written_without("podidentitybindings", &row, || async {
                world.apply_binding("app", spec(newest)).await;
            })
            .await;
        // Where both specify the same role, the changed description is drift, which the newest one only reports.
        let is_reported = newest.get("driftPolicy").is_some() && newest["role"] == former["role"];
        world.binding_is("app", if is_reported { "DriftDetected" } else { "Ready" }).await;
        let (role, policies) = (world.role(), newest["role"]["policyARNs"].as_array());
        assert_eq!(role.is_some(), policies.is_some(), "{row}");
        for arn in policies.into_iter().flatten().filter_map(Value::as_str) {
            assert!(role.as_ref().unwrap().attached.iter().any(|attached| attached == arn), "{row}");
        }
        let number = role.map_or(0, |role| role.attached.len());
        assert_eq!(number, policies.map_or(0, Vec::len), "{row}");
    }
    world.apply_binding("app", spec(&versions[0])).await;
    world.binding_is("app", "Ready").await;
    world
        .nothing_is_written_without("podidentitybindings", "a deletion", || async {
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        })
        .await;
    world.until(&world.bindings(), "app", "its deletion", |binding| binding.is_none()).await;
    assert!(world.role().is_none());
    world.stop().await;
}

#[tokio::test]
async fn while_the_events_of_an_issuer_are_lost_its_former_grants_and_decisions_change_nothing() {
    let mut world = World::ready_with(|timings| timings.role_resync = Duration::from_millis(200)).await;
    world.service_account(&world.namespace, "late").await;
    let late = json!({"serviceAccountName": "late", "role": {"policyARNs": [QUEUE]}});
    let roles = || world.sim.state().roles.len();
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let mut narrow = world.spec();
    narrow.grants[0].policy_arns = vec![STORAGE.to_owned()];
    let before = roles();
    world
        .nothing_is_written_without("oidcissuers", "a narrower grant", || async {
            world.apply_issuer(&narrow).await;
            world.apply_binding("late", late.clone()).await;
        })
        .await;
    world.binding_is("late", "WaitingForGrant").await;
    world.binding_is("app", "Ready").await;
    assert_eq!(roles(), before, "no role was made for what is granted no longer");
    let is_repaired = |role: &aws_sim::world::Role| role.description != "changed";
    world.until_aws("the repair", |state| state.role(&world.role_name("app")).is_some_and(is_repaired)).await;

    // An administrator says that the account is lost.
    let abandoned = json!({"metadata": {"annotations": {"podidentity.dev/abandon": "true"}}});
    world
        .nothing_is_written_without("oidcissuers", "the account is lost", || async {
            let patch = Patch::Merge(&abandoned);
            world.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        })
        .await;
    world.until(&world.bindings(), "app", "its end", |binding| binding.is_none()).await;
    assert_eq!(roles(), before, "the role stays");

    // It was not lost.
    world.apply_issuer(&world.spec()).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let found = json!({"metadata": {"annotations": {"podidentity.dev/abandon": null}}});
    world
        .nothing_is_written_without("oidcissuers", "the account is not lost", || async {
            let patch = Patch::Merge(&found);
            world.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        })
        .await;
    world.until(&world.bindings(), "app", "its end", |binding| binding.is_none()).await;
    assert!(world.role().is_none(), "it ends with its role");
    world.stop().await;
}

/// The grants of the issuer under which a role was made hold while an edit is refused.
#[tokio::test]
async fn a_role_is_not_revoked_while_the_event_that_gives_its_grant_back_is_lost() {
    let mut world = World::bootstrapped().await;
    world.timings.role_resync = Duration::from_millis(200);
    world.timings.grant_loss = Duration::from_secs(6);
    let mut next = world.spec();
    next.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
    next.grants.clear();
    let mut none = world.spec();
    none.grants.clear();
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    for refused in [false, true] {
        if refused {
            world.apply_issuer_as("next", &next).await;
            let moved = json!({"issuerRef": {"name": "next"}, "role": {"policyARNs": [STORAGE]}});
            world.apply_binding("app", spec(&moved)).await;
            world.binding_is("app", "NotGranted").await;
        }
        world.apply_issuer(&none).await;
        world.binding_is("app", "GrantLost").await;
        let row = format!("a grant comes back, refused {refused}");
        world
            .nothing_is_written_without("oidcissuers", &row, || async {
                world.apply_issuer(&world.spec()).await;
            })
            .await;
        world.binding_is("app", if refused { "NotGranted" } else { "Ready" }).await;
        assert!(world.binding("app").await.status.unwrap().revoke_at.is_none(), "{row}");
    }
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    world.stop().await;
    // Issuer `next` was never bootstrapped.
    world.sim.clear_calls();
}

/// Each of them writes its own loss into its status, and the operator does not see that. It counts those that are Ready by themselves; these are
/// not, because an edit was refused.
#[tokio::test]
async fn many_roles_are_not_revoked_at_once_while_the_events_of_bindings_are_lost() {
    let mut world = World::with_grant_loss(6).await;
    let names: Vec<String> = (0..7).map(|number| format!("app-{number}")).collect();
    for name in &names {
        world.service_account(&world.namespace, name).await;
    }
    let apply = async |fields: &Value, reason: &str| {
        for name in &names {
            let mut spec = json!({"serviceAccountName": name, "role": {"policyARNs": [STORAGE]}});
            spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            world.apply_binding(name, spec).await;
        }
        for name in &names {
            world.binding_is(name, reason).await;
        }
    };
    apply(&json!({}), "Ready").await;
    apply(&json!({"audience": "not-registered"}), "InvalidSpec").await;
    let mut none = world.spec();
    none.grants.clear();
    world
        .nothing_is_written_without("podidentitybindings", "no grant is left", || async {
            world.apply_issuer(&none).await;
        })
        .await;
    for name in &names {
        world.binding_is(name, "GrantChangeSuspicious").await;
    }
    assert_eq!(world.writes(), [""; 0]);
    world.apply_issuer(&world.spec()).await;
    apply(&json!({}), "Ready").await;
    world.stop().await;
}

/// A binding that waits takes the role over: it is neither made anew nor kept with rights that it has no grant for.
#[tokio::test]
async fn a_role_is_handed_over_by_the_newest_grants_only() {
    let mut world = World::ready_with(|timings| timings.role_resync = Duration::from_millis(200)).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let before = world.role().unwrap();
    let mut next = world.spec();
    next.s3.as_mut().unwrap().bucket = "next-111122223333-eu-central-1-an".into();
    let waiting = json!({"issuerRef": {"name": "next"}, "role": {"policyARNs": [STORAGE]}});
    world.apply_binding("renamed", spec(&waiting)).await;
    world.binding_is("renamed", "ServiceAccountAlreadyBound").await;
    world
        .nothing_is_written_without("oidcissuers", "the issuer of the one that waits", || async {
            world.apply_issuer_as("next", &next).await;
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        })
        .await;
    world.until(&world.bindings(), "app", "its end", |binding| binding.is_none()).await;
    assert_eq!(world.role().unwrap().id, before.id, "it was handed over");
    world.binding_is("renamed", "Ready").await;

    // Another one is edited so that it uses the role by its ARN, and the operator does not get that event.
    let not_granted = json!({"role": {"policyARNs": [format!("arn:aws:iam::{ACCOUNT}:policy/other")]}});
    world.apply_binding("user", spec(&not_granted)).await;
    world.binding_is("user", "ServiceAccountAlreadyBound").await;
    world.hold.watches.silence("podidentitybindings user");
    let by_arn = |arn: &str| json!({"serviceAccountName": "app", "roleARN": arn});
    world.apply_binding("user", by_arn(&before.arn)).await;
    for deleted in [false, true] {
        world.sim.clear_calls();
        let outdated = world.outdated();
        if deleted {
            world.bindings().delete("renamed", &DeleteParams::default()).await.unwrap();
        } else {
            world.apply_binding("renamed", by_arn(&format!("arn:aws:iam::{ACCOUNT}:role/other"))).await;
        }
        world.until_outdated("an edit of the one that uses the role", outdated).await;
        assert_eq!(world.writes(), [""; 0]);
    }
    world.hold.watches.end();
    world.until(&world.bindings(), "renamed", "its end", |binding| binding.is_none()).await;
    world.binding_is("user", "Ready").await;
    assert_eq!(world.role().unwrap().id, before.id, "the role stays for the one that uses it");
    world.stop().await;
    // Issuer `next` was never bootstrapped.
    world.sim.clear_calls();
}

#[tokio::test]
async fn while_the_events_of_a_namespace_are_lost_its_former_labels_change_nothing() {
    let mut world = World::bootstrapped().await;
    world.timings.role_resync = Duration::from_millis(200);
    world.service_account(&world.namespace, "late").await;
    let mut spec = world.spec();
    let selector = json!({"selector": {"matchLabels": {"team": "a"}}});
    spec.grants[0].namespaces = serde_json::from_value(selector).unwrap();
    world.apply_issuer(&spec).await;
    world.label_namespace(json!({"team": "a"})).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let before = world.sim.state().roles.len();
    world
        .nothing_is_written_without("namespaces", "another label", || async {
            world.label_namespace(json!({"team": "b"})).await;
            let late = json!({"serviceAccountName": "late", "role": {"policyARNs": [QUEUE]}});
            world.apply_binding("late", late).await;
        })
        .await;
    world.binding_is("late", "WaitingForGrant").await;
    world.binding_is("app", "GrantLost").await;
    assert_eq!(
        world.sim.state().roles.len(),
        before,
        "no role was made for a namespace that is selected no longer"
    );
    world.label_namespace(json!({"team": "a"})).await;
    for name in ["app", "late"] {
        world.binding_is(name, "Ready").await;
        world.unbind(name).await;
    }
    world.stop().await;
}

/// The operator has a version of the binding that is one edit too old, as where a tenant edits in a loop.
#[tokio::test]
async fn edits_without_an_effect_keep_no_role_from_its_end() {
    let mut world = World::with_grant_loss(4).await;
    let with = |policy: &str, seconds: u32| {
        spec(&json!({"role": {"policyARNs": [policy]}, "tokenExpirationSeconds": seconds}))
    };
    world.apply_binding("app", with(STORAGE, 3600)).await;
    world.binding_is("app", "Ready").await;
    let mut none = world.spec();
    none.grants[0].policy_arns = vec![QUEUE.to_owned()];
    world.apply_issuer(&none).await;
    world.binding_is("app", "GrantLost").await;
    world.hold.watches.silence("podidentitybindings");
    world.apply_binding("app", with(STORAGE, 4000)).await;
    let role = world.role_name("app");
    let is_revoked =
        |state: &aws_sim::State| state.role(&role).unwrap().inline.contains_key("podidentity-revoked");
    world.until_aws("the revocation", is_revoked).await;
    world.hold.watches.end();
    world.binding_is("app", "Revoked").await;

    // A specification that is granted restores the role.
    world.apply_binding("app", with(QUEUE, 3600)).await;
    world.binding_is("app", "Ready").await;
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
    world.until(&world.bindings(), "app", "its end", |binding| binding.is_none()).await;

    // The operator sees the deletion, and not the edit after it.
    world.apply_binding("app", with(QUEUE, 3600)).await;
    world.binding_is("app", "Ready").await;
    let denied =
        aws_sim::FaultKind::Error { status: 403, code: "AccessDenied".into(), message: String::new() };
    world.sim.inject(aws_sim::Fault::on("iam", "UpdateAssumeRolePolicy", denied));
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    world.hold.watches.silence("podidentitybindings");
    world.apply_binding("app", with(QUEUE, 4000)).await;
    world.sim.clear_faults();
    world.until_aws("the end of the role", |state| state.role(&role).is_none()).await;
    world.hold.watches.end();
    world.until(&world.bindings(), "app", "its end", |binding| binding.is_none()).await;
    world.stop().await;
}

/// The operator shows that a grant is lost, then that it is back, and does not see that it has shown the latter.
#[tokio::test]
async fn a_second_loss_has_its_own_time() {
    let mut world = World::with_grant_loss(4).await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let mut none = world.spec();
    none.grants.clear();
    world.apply_issuer(&none).await;
    world.binding_is("app", "GrantLost").await;
    let first = world.binding("app").await.status.unwrap().revoke_at.unwrap().0;
    world.hold.watches.silence("podidentitybindings");
    world.apply_issuer(&world.spec()).await;
    world
        .until(&world.bindings(), "app", "the end of the loss", |binding| {
            binding
                .and_then(|binding| binding.status.as_ref())
                .is_some_and(|status| status.revoke_at.is_none())
        })
        .await;
    let is_over = || async {
        anyhow::ensure!(k8s_openapi::jiff::Timestamp::now() > first, "not yet");
        Ok(())
    };
    until("the time of the first loss", Duration::from_secs(15), is_over).await.unwrap();
    world.sim.clear_calls();
    let before = world.outdated();
    world.apply_issuer(&none).await;
    world.until_outdated("a second loss", before).await;
    assert_eq!(world.writes(), [""; 0]);
    world.hold.watches.end();
    world.apply_issuer(&world.spec()).await;
    world.binding_is("app", "Ready").await;
    world.unbind("app").await;
    world.stop().await;
}
