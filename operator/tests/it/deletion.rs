//! Binding, `ServiceAccount` and issuer are deleted in any order, also with `kubectl delete -f` and in a namespace that is being deleted. And
//! the `ServiceAccount` alone is deleted, created again and replaced.

use crds::condition::ConditionType as C;
use crds::names::annotation::ROLE_ARN;
use crds::{OidcIssuer, PodIdentityBinding};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::world::{STORAGE, World, kubectl};

impl World {
    async fn delete(&self, kind: &str) {
        let parameters = DeleteParams::default();
        match kind {
            "binding" => self.bindings().delete("app", &parameters).await.map(|_| ()),
            "account" => self.accounts().delete("app", &parameters).await.map(|_| ()),
            _ => self.issuers().delete("default", &parameters).await.map(|_| ()),
        }
        .unwrap();
    }

    /// Applies the binding and waits until role and annotations are there. Clears the recorded calls.
    async fn has_binding(&self) {
        self.bind("app", &[STORAGE]).await;
        self.binding_is("app", "Ready").await;
        self.is_annotated().await;
        self.sim.clear_calls();
    }

    async fn is_annotated(&self) {
        let annotated = |account: Option<&ServiceAccount>| {
            account.is_some_and(|a| a.annotations().contains_key(ROLE_ARN))
        };
        self.until(&self.accounts(), "app", "its annotation", annotated).await;
    }

    async fn until_account_is_missed(&self) {
        let missed = |binding: Option<&PodIdentityBinding>| {
            let status = binding.and_then(|binding| binding.status.as_ref());
            let found =
                status.and_then(|s| crds::conditions::find(&s.conditions, C::ServiceAccountAnnotated));
            found.is_some_and(|found| found.reason == crds::Reason::ServiceAccountNotFound)
        };
        self.until(&self.bindings(), "app", "the ServiceAccount to be missed", missed).await;
        self.binding_is("app", "Ready").await;
    }

    /// Waits until binding and issuer have ended. Nothing of the binding is left, and nothing was made anew.
    async fn has_ended(&self, row: &str) {
        self.until(&self.bindings(), "app", row, |binding: Option<&PodIdentityBinding>| binding.is_none())
            .await;
        self.until(&self.issuers(), "default", row, |issuer: Option<&OidcIssuer>| issuer.is_none()).await;
        let counts = self.counts();
        assert_eq!((counts.get("iam:CreateRole"), counts.get("iam:DeleteRole")), (None, Some(&1)), "{row}");
        assert!(self.role().is_none(), "{row}");
        assert!(self.accounts().get_opt("app").await.unwrap().is_none(), "{row}: the ServiceAccount");
    }
}

#[tokio::test]
async fn in_whatever_order_the_objects_are_deleted_nothing_is_left() {
    let mut world = World::ready().await;
    for order in [
        ["binding", "account", "issuer"],
        ["binding", "issuer", "account"],
        ["account", "binding", "issuer"],
        ["account", "issuer", "binding"],
        ["issuer", "binding", "account"],
        ["issuer", "account", "binding"],
    ] {
        world.has_binding().await;
        for kind in order {
            world.delete(kind).await;
        }
        world.has_ended(&format!("{order:?}")).await;
        world.service_account(&world.namespace, "app").await;
        world.apply_issuer(&world.spec()).await;
        world.issuer_is("Ready").await;
    }
    world.stop().await;
}

/// All objects are in one file.
#[tokio::test]
async fn kubectl_deletes_a_file_with_everything() {
    let mut world = World::ready().await;
    world.has_binding().await;
    let (api, namespace) = ("podidentity.dev/v1alpha1", &world.namespace);
    let all = [
        json!({"apiVersion": api, "kind": "OidcIssuer", "metadata": {"name": "default"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": namespace}}),
        json!({"apiVersion": api, "kind": "PodIdentityBinding", "metadata": {"name": "app", "namespace": namespace}}),
    ];
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), json!({"apiVersion": "v1", "kind": "List", "items": all}).to_string())
        .unwrap();
    // It waits until all objects have ended.
    let output =
        kubectl(&["delete", "--timeout=60s", "-f", file.path().to_str().unwrap()]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    world.has_ended("a file").await;
    world.stop().await;
}

/// No controller ends the namespace here: it stays as it is while its objects are deleted, and nothing can be created in it.
#[tokio::test]
async fn in_a_namespace_that_is_being_deleted_the_binding_ends_and_its_service_account_is_not_made_again() {
    let mut world = World::ready().await;
    world.has_binding().await;
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.delete(&world.namespace, &DeleteParams::default()).await.unwrap();
    world.delete("account").await;
    world.until_account_is_missed().await;
    assert_eq!(world.writes(), [""; 0], "the role stays until its binding is deleted");
    world.delete("binding").await;
    world.delete("issuer").await;
    world.has_ended("a namespace").await;
    world.stop().await;
}

#[tokio::test]
async fn a_service_account_that_is_made_anew_or_replaced_is_annotated_again() {
    let mut world = World::ready().await;
    world.has_binding().await;
    world.delete("account").await;
    world.until_account_is_missed().await;
    world.service_account(&world.namespace, "app").await;
    world.is_annotated().await;
    // As `kubectl replace` does: the object is written without the annotations and without `managedFields`.
    let mut account = world.accounts().get("app").await.unwrap();
    (account.metadata.annotations, account.metadata.managed_fields) = (None, None);
    account.metadata.resource_version = None;
    let replaced = world.accounts().replace("app", &PostParams::default(), &account).await.unwrap();
    assert!(replaced.metadata.annotations.is_none());
    world.is_annotated().await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), [""; 0], "nothing of it concerns the role");
    world.unbind("app").await;
    world.stop().await;
}
