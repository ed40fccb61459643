//! An operator with an old copy of bindings, issuers or namespaces, as an API server may give it whose own copy is late: it starts with
//! one, or its watches lose events. Nothing is changed in AWS for a specification, a grant or labels that are not the newest.

use std::time::Duration;

use cluster::until;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::world::{ACCOUNT, BINDINGS, QUEUE, STORAGE, World};

impl World {
    /// The list of all bindings, as the API server answers it now.
    async fn list(&self) -> String {
        let request = http::Request::get(BINDINGS).body(Vec::new()).unwrap();
        self.client.request_text(request).await.unwrap()
    }
}

fn spec(fields: &Value) -> Value {
    let mut spec = json!({"serviceAccountName": "app"});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    spec
}

#[tokio::test]
async fn no_earlier_version_of_a_binding_changes_anything_in_aws() {
    let other = format!("arn:aws:iam::{ACCOUNT}:role/other");
    // The last one is what holds; `null` is the deletion of the binding.
    let versions = [
        json!({"role": {"policyARNs": [STORAGE]}}),
        json!({"role": {"policyARNs": [STORAGE, QUEUE]}}),
        json!({"role": {"policyARNs": [QUEUE], "maxSessionDuration": "1h", "description": "x"}}),
        json!({"roleARN": other}),
        json!({"role": {"policyARNs": [QUEUE]}, "deletionPolicy": "Retain"}),
        Value::Null,
        json!({"role": {"policyARNs": [STORAGE]}, "deletionPolicy": "Retain"}),
        json!({"role": {"policyARNs": [STORAGE, QUEUE]}}),
    ];
    let mut world = World::ready().await;
    let mut lists = Vec::new();
    for version in &versions {
        if version.is_null() {
            // As it is while its deletion waits, too.
            world.stop().await;
            world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
            lists.push(("deleting", world.list().await));
            world.start().await;
            world.until(&world.bindings(), "app", "its deletion", |binding| binding.is_none()).await;
        } else {
            world.apply_binding("app", spec(version)).await;
            world.binding_is("app", "Ready").await;
        }
        lists.push(("reconciled", world.list().await));
    }
    lists.pop();
    world.stop().await;
    let state = json!(world.sim.state());

    let mut outdated = Vec::new();
    for (number, (kind, list)) in lists.into_iter().enumerate() {
        let exists = list.contains("serviceAccountName");
        world.hold.show_bindings(Some(list));
        world.start().await;
        let row = format!("version {number}, {kind}");
        let passed = || async {
            let text = world.metrics.text();
            let issuer = text.contains("reconciles_total{kind=\"OidcIssuer\",outcome=\"ok\"}");
            let (ok, outdated) = (
                world.passes("PodIdentityBinding", Some("ok")),
                world.passes("PodIdentityBinding", Some("outdated")),
            );
            anyhow::ensure!(issuer && (!exists || ok >= 1 || outdated >= 3), "{text}");
            Ok(())
        };
        until(&format!("passes with {row}"), Duration::from_secs(15), passed).await.unwrap();
        if world.passes("PodIdentityBinding", Some("outdated")) > 0 {
            outdated.push(number);
        }
        assert_eq!(world.writes(), [""; 0], "{row}");
        assert_eq!(json!(world.sim.state()), state, "{row}");
        world.kill().await;
    }
    // These would have changed the role: another description, a role of another tool, a deletion. The others have no binding, or say that
    // the role was as specified, and the list of roles shows no difference.
    assert_eq!(outdated, [2, 3, 5]);

    world.hold.show_bindings(None);
    world.start().await;
    world.until_reconciled().await;
    world.binding_is("app", "Ready").await;
    assert_eq!((world.writes(), json!(world.sim.state())), (Vec::new(), state));
    world.unbind("app").await;
}

impl World {
    fn outdated(&self) -> u64 {
        self.passes("PodIdentityBinding", Some("outdated"))
    }

    /// The operator gets no event of that kind, and `change` changes what such events would show. Then somebody changes the role of `app`:
    /// the operator has a reason to write. It does not, and the account stays as it is until the operator knows what it missed.
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
        let refused = || async {
            let outdated = self.outdated() - before;
            anyhow::ensure!(outdated >= 3, "{outdated} passes were outdated");
            Ok(())
        };
        until(row, Duration::from_secs(15), refused).await.unwrap();
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
        world.binding_is("app", "Ready").await;
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
    world.binding_is("late", "NotGranted").await;
    world.binding_is("app", "Ready").await;
    assert_eq!(roles(), before, "no role was made for what is granted no longer");

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
    world.stop().await;
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
    world.binding_is("late", "NotGranted").await;
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
