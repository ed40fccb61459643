//! An operator starts with an old list, and gets no event after it.

use std::time::Duration;

use cluster::until;
use crds::{DeletionPolicy, OidcIssuer, OidcIssuerSpec};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::spec;
use crate::world::{ACCOUNT, BINDINGS, ISSUERS, NAMESPACES, QUEUE, STORAGE, World};

impl World {
    /// The list of all objects of a kind, as the API server answers the operator now.
    async fn list(&self, path: &str) -> String {
        // The operator reads no more than the metadata of namespaces.
        let accept = match path {
            NAMESPACES => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            _ => "application/json",
        };
        let request = http::Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        self.client.request_text(request).await.unwrap()
    }

    /// Starts the operator with an old list. It has a reason to change the role of `app`, and does not do it. Returns whether passes over
    /// issuers were outdated, too.
    async fn starts_with(&mut self, path: &'static str, list: String, row: &str) -> bool {
        let name = self.role_name("app").to_lowercase();
        self.sim.change(|state| row.clone_into(&mut state.roles.get_mut(&name).unwrap().description));
        let state = json!(self.sim.state());
        // Without an issuer there is nothing that a binding can be compared with.
        let is_empty = path == ISSUERS && !list.contains("clusterName");
        self.hold.show(path, Some(list));
        self.start().await;
        let passed = || async {
            let (issuers, bindings) =
                (self.passes("OidcIssuer", None), self.passes("PodIdentityBinding", Some("ok")));
            let is_compared = issuers > 0 && self.outdated() >= 3;
            anyhow::ensure!(is_compared || (is_empty && bindings > 0), "{}", self.metrics.text());
            Ok(())
        };
        until(row, Duration::from_secs(15), passed).await.unwrap();
        assert_eq!(self.writes(), [""; 0], "{row}");
        assert_eq!(json!(self.sim.state()), state, "{row}");
        let issuers = self.passes("OidcIssuer", Some("outdated"));
        self.kill().await;
        self.hold.show(path, None);
        issuers > 0
    }
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
            lists.push(("deleting", world.list(BINDINGS).await));
            world.start().await;
            world.until(&world.bindings(), "app", "its deletion", |binding| binding.is_none()).await;
        } else {
            world.apply_binding("app", spec(version)).await;
            world.binding_is("app", "Ready").await;
        }
        lists.push(("reconciled", world.list(BINDINGS).await));
    }
    lists.pop();
    world.stop().await;
    let state = json!(world.sim.state());

    let mut outdated = Vec::new();
    for (number, (kind, list)) in lists.into_iter().enumerate() {
        let exists = list.contains("serviceAccountName");
        world.hold.show(BINDINGS, Some(list));
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

    world.hold.show(BINDINGS, None);
    world.start().await;
    world.until_reconciled().await;
    world.binding_is("app", "Ready").await;
    assert_eq!((world.writes(), json!(world.sim.state())), (Vec::new(), state));
    world.unbind("app").await;
}

#[tokio::test]
async fn no_earlier_version_of_an_issuer_changes_anything_in_aws() {
    let mut world = World::ready_with(|timings| timings.grant_loss = Duration::ZERO).await;
    let with = |change: fn(&mut OidcIssuerSpec)| {
        let mut spec = world.spec();
        change(&mut spec);
        spec
    };
    // What each one says of the binding.
    let versions = [
        (world.spec(), "Ready"),
        (with(|spec| spec.audiences.push("vault".into())), "Ready"),
        (with(|spec| spec.grants[0].policy_arns = vec![QUEUE.to_owned()]), "Revoked"),
        (with(|spec| drop(spec.tags.insert("team".into(), "storage".into()))), "Ready"),
        (with(|spec| spec.grants.clear()), "Revoked"),
        (with(|spec| spec.deletion_policy = DeletionPolicy::Delete), "Ready"),
    ];
    world.bind("app", &[STORAGE]).await;
    let mut lists = Vec::new();
    for (version, reason) in &versions {
        world.apply_issuer(version).await;
        world.issuer_is("Ready").await;
        world.binding_is("app", reason).await;
        lists.push((json!(version).to_string(), world.list(ISSUERS).await));
    }
    // An administrator said that the account is lost, and deleted the issuer; later it was made again.
    world.stop().await;
    let abandoned = Patch::Merge(json!({"metadata": {"annotations": {"podidentity.dev/abandon": "true"}}}));
    world.issuers().patch_metadata("default", &PatchParams::default(), &abandoned).await.unwrap();
    lists.push(("abandoned".into(), world.list(ISSUERS).await));
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    lists.push(("abandoned, deleting".into(), world.list(ISSUERS).await));
    let found = Patch::Merge(json!({"metadata": {"annotations": null}}));
    world.issuers().patch_metadata("default", &PatchParams::default(), &found).await.unwrap();
    lists.push(("deleting".into(), world.list(ISSUERS).await));
    world.apply_issuer(&versions[0].0).await;
    world.start().await;
    world.unbind("app").await;
    let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
    world.until(&world.issuers(), "default", "its end", gone).await;
    lists.push(("no issuer".into(), world.list(ISSUERS).await));
    world.apply_issuer(&versions[0].0).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    world.stop().await;

    let (mut outdated, description) = (Vec::new(), world.role().unwrap().description);
    for (number, (row, list)) in lists.into_iter().enumerate() {
        if world.starts_with(ISSUERS, list, &row).await {
            outdated.push(number);
        }
    }
    // This one would have changed the provider, too: it has another audience. Tags are only added, and while a binding uses an issuer it does
    // not end.
    assert_eq!(outdated, [1]);
    world.ends_as_specified(&description).await;
}

#[tokio::test]
async fn no_earlier_labels_of_a_namespace_change_anything_in_aws() {
    let mut world = World::bootstrapped().await;
    world.timings.grant_loss = Duration::ZERO;
    let mut spec = world.spec();
    spec.grants[0].namespaces =
        serde_json::from_value(json!({"selector": {"matchLabels": {"team": "a"}}})).unwrap();
    world.apply_issuer(&spec).await;
    world.label_namespace(json!({"team": "a"})).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let description = world.role().unwrap().description;
    let granted = world.list(NAMESPACES).await;
    world.label_namespace(json!({"team": "b"})).await;
    world.binding_is("app", "Revoked").await;
    world.stop().await;
    world.starts_with(NAMESPACES, granted, "the namespace was selected").await;

    let others = world.list(NAMESPACES).await;
    world.label_namespace(json!({"team": "a"})).await;
    world.start().await;
    world.binding_is("app", "Ready").await;
    world.stop().await;
    world.starts_with(NAMESPACES, others, "the namespace was not selected").await;
    world.ends_as_specified(&description).await;
}

impl World {
    /// Starts the operator as it is. Puts the role as specified with one write, and ends the binding.
    async fn ends_as_specified(&mut self, description: &str) {
        self.start().await;
        let name = self.role_name("app");
        let as_specified =
            |state: &aws_sim::State| state.role(&name).is_some_and(|role| role.description == description);
        self.until_aws("the role as specified", as_specified).await;
        self.binding_is("app", "Ready").await;
        assert_eq!(self.writes(), ["UpdateRole"]);
        self.unbind("app").await;
        self.stop().await;
    }
}
