//! A cluster that is made anew, restored from an older backup, or renamed.

use std::time::Duration;

use crds::names::{annotation::ROLE_ARN, operator_role_arn, role_name};
use crds::{PodIdentityBinding, RoleDeletionPolicy};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::bootstrap::writes;
use crate::world::{ACCOUNT, QUEUE, STORAGE, World};

/// A cluster that was made anew or restored from a backup of other objects: same name, same account, nothing of ours in etcd.
#[tokio::test]
async fn a_cluster_that_is_made_anew_uses_its_roles_again() {
    let mut world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let (role, annotations) = (world.role().unwrap(), world.annotations("app").await);
    world.stop().await;
    let state = json!(world.sim.state());
    world.delete_objects().await;
    world.accounts().delete("app", &DeleteParams::default()).await.unwrap();
    world.service_account(&world.namespace, "app").await;

    world.start().await;
    world.apply_issuer(&world.spec()).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), ["CreateRole"], "IAM answers that it exists, and it is read");
    assert_eq!((json!(world.sim.state()), world.annotations("app").await), (state, annotations));
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    world.unbind("app").await;
    world.stop().await;
}

impl World {
    /// Puts a binding back as a backup has it, with status and finalizer, under another uid, and takes the annotations from its
    /// `ServiceAccount`. No operator runs.
    async fn restore(&self, backup: &PodIdentityBinding) {
        let mut object = backup.clone();
        let metadata = &mut object.metadata;
        (metadata.uid, metadata.resource_version, metadata.managed_fields) = (None, None, None);
        (metadata.creation_timestamp, metadata.generation) = (None, None);
        let created = self.bindings().create(&PostParams::default(), &object).await.unwrap();
        object.metadata.resource_version = created.resource_version();
        self.bindings().replace_status(&object.name_any(), &PostParams::default(), &object).await.unwrap();
        self.accounts().delete("app", &DeleteParams::default()).await.unwrap();
        self.service_account(&self.namespace, "app").await;
    }
}

/// Its bindings have an older specification, and a status of that time.
#[tokio::test]
async fn after_a_restore_from_an_older_backup_the_same_role_has_what_the_backup_specifies() {
    // To the operator the role is as the status says until it reads it again: a difference is drift.
    let mut world = World::ready_with(|timings| {
        (timings.grant_loss, timings.role_resync) = (Duration::ZERO, Duration::from_millis(500));
    })
    .await;
    let role = |policies: &[&str], more: serde_json::Value| {
        let mut spec = json!({"serviceAccountName": "app", "role": {"policyARNs": policies}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let mut none = world.spec();
    none.grants.clear();
    // What is in the backup, whether it is of a time without its grant, what came later, and the policies in the end.
    let rows = [
        ("an edit", role(&[STORAGE], json!({})), false, role(&[QUEUE], json!({})), vec![STORAGE]),
        ("fewer rights", role(&[], json!({})), false, role(&[STORAGE, QUEUE], json!({})), vec![]),
        ("its revocation", role(&[STORAGE], json!({})), true, role(&[QUEUE], json!({})), vec![STORAGE]),
        (
            "another end",
            role(&[STORAGE], json!({"deletionPolicy": "Retain"})),
            false,
            role(&[QUEUE], json!({"driftPolicy": "ReportOnly"})),
            vec![STORAGE],
        ),
    ];
    for (row, before, is_revoked, after, policies) in rows {
        world.apply_binding("app", before).await;
        world.binding_is("app", "Ready").await;
        if is_revoked {
            world.apply_issuer(&none).await;
            world.binding_is("app", "Revoked").await;
        }
        let backup = world.binding("app").await;
        world.apply_issuer(&world.spec()).await;
        world.apply_binding("app", after).await;
        world.binding_is("app", "Ready").await;
        let role = world.role().unwrap();
        world.stop().await;
        world.delete_objects().await;
        world.restore(&backup).await;
        world.sim.clear_calls();
        world.apply_issuer(&world.spec()).await;
        world.start().await;
        let name = world.role_name("app");
        let is_restored =
            |state: &aws_sim::State| state.role(&name).is_some_and(|role| role.attached == policies);
        world.until_aws(row, is_restored).await;
        let annotated = |account: Option<&k8s_openapi::api::core::v1::ServiceAccount>| {
            account.is_some_and(|account| account.annotations().get(ROLE_ARN) == Some(&role.arn))
        };
        world.until(&world.accounts(), "app", row, annotated).await;
        world.binding_is("app", "Ready").await;
        world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
        assert_eq!(world.role().unwrap().id, role.id, "{row}");
        let ends = world.counts();
        assert_eq!((ends.get("iam:CreateRole"), ends.get("iam:DeleteRole")), (None, None), "{row}");
        // As the backup says.
        world.unbind("app").await;
        let is_kept = backup.spec.deletion_policy == RoleDeletionPolicy::Retain;
        assert_eq!(world.role().is_some(), is_kept, "{row}");
    }
    world.stop().await;
}

/// `spec.clusterName` cannot change, and what carries the name of one cluster is never taken for another: docs/install.md, "Renaming a
/// cluster".
#[tokio::test]
async fn a_cluster_is_renamed_after_its_former_name_has_left_aws() {
    let mut world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let mut renamed = world.spec();
    renamed.cluster_name = "office".into();
    // API servers go on with the issuer URL that they have.
    renamed.s3.as_mut().unwrap().prefix = Some("homelab".into());
    assert_eq!(renamed.issuer_url(), world.spec().issuer_url());
    world.sim.clear_calls();
    let state = json!(world.sim.state());
    let refused = world.bootstrap(&renamed).await.unwrap_err().to_string();
    assert!(refused.contains("cluster homelab") && refused.contains("Nothing was changed"), "{refused}");
    assert_eq!((writes(&world), json!(world.sim.state())), (Vec::new(), state));

    world.unbind("app").await;
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world
        .until(&world.issuers(), "default", "its end", |issuer: Option<&crds::OidcIssuer>| issuer.is_none())
        .await;
    world.stop().await;
    world.teardown(&world.spec(), false).await.unwrap();
    world.bootstrap(&renamed).await.unwrap();
    let own = operator_role_arn("aws", ACCOUNT, "office");
    let own = world.exchange(&world.system, "podidentity-operator", &own).await.unwrap();
    world.start_as(own).await;
    world.apply_issuer(&renamed).await;
    world.issuer_is("Ready").await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let name = role_name("office", &world.namespace, "app");
    let role = world.sim.state().role(&name).cloned().unwrap();
    assert_eq!(world.annotations("app").await[ROLE_ARN], role.arn);
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    let state = world.sim.state();
    let owners =
        state.buckets.values().map(|bucket| &bucket.tags).chain(state.providers.values().map(|p| &p.tags));
    let owners: Vec<&String> = owners.filter_map(|tags| tags.get("podidentity.dev/cluster")).collect();
    assert_eq!(owners, ["office"; 2], "bucket and provider");
    let named = state.roles.keys().chain(state.policies.keys()).filter(|name| name.contains("homelab"));
    assert_eq!(named.collect::<Vec<_>>(), [""; 0], "nothing has the former name");
    let is_denied =
        |call: &aws_sim::Call| call.denied && call.principal.contains("podidentity-operator.office");
    let denied: Vec<_> = world.sim.calls().into_iter().filter(is_denied).collect();
    assert!(denied.is_empty(), "{denied:#?}");
    world.unbind("app").await;
    assert!(world.sim.state().role(&name).is_none());
    world.stop().await;
}
