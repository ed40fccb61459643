//! What a tenant can try in several steps: another status, annotations, finalizers, labels, hand-overs.

use crds::PodIdentityBinding;
use crds::condition::ConditionType as C;
use crds::names::{ABANDON_ANNOTATION, CONFIRM_ANNOTATION, FINALIZER};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{FREE, Grants, Tenancy, create, role_arn};
use crate::world::{STORAGE, World};

fn bound() -> Value {
    json!({"serviceAccountName": FREE, "role": {"policyARNs": [STORAGE]}})
}

fn merge(object: &Value) -> Patch<&Value> {
    Patch::Merge(object)
}

impl Tenancy {
    /// The tenant's bindings, as the tenant.
    fn own(&self) -> Api<PodIdentityBinding> {
        Api::namespaced(self.tenant.clone(), &self.world.namespace)
    }

    /// Replaces the specification, as the tenant.
    pub(super) async fn edit(&self, name: &str, spec: &Value) {
        let patch =
            serde_json::from_value(json!([{"op": "replace", "path": "/spec", "value": spec}])).unwrap();
        self.own().patch(name, &PatchParams::default(), &Patch::<()>::Json(patch)).await.unwrap();
    }

    /// The neighbour's role and a status that claims it, with a revocation that never comes.
    fn forged(&self) -> Value {
        let arn = role_arn(&self.neighbour, "app");
        json!({"status": {
            "observedGeneration": 1, "roleARN": arn, "roleName": arn.rsplit('/').next().unwrap(),
            "revokeAt": "2999-01-01T00:00:00Z",
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "forged",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }})
    }
}

/// A tenant has no right to the status; and whoever has, as a restored backup, gets nothing by it.
#[tokio::test]
async fn a_status_that_names_the_neighbours_role_moves_nothing() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let (world, forged) = (&tenancy.world, tenancy.forged());
    let others = tenancy.others().await;
    world.sim.clear_calls();
    let parameters = PatchParams::default();
    let mut object = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": "try"}, "spec": bound(),
    });
    object["status"] = forged["status"].clone();
    // In the object itself the API server drops it.
    create(&tenancy.tenant, &tenancy.path(), &object).await.unwrap();
    world.binding_is("try", "Ready").await;
    let own = role_arn(&world.namespace, FREE);
    let status = || async { world.binding("try").await.status.unwrap() };
    assert_eq!(status().await.role_arn.as_deref(), Some(own.as_str()));
    assert_eq!(status().await.revoke_at, None);
    let refused = tenancy.own().patch_status("try", &parameters, &merge(&forged)).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");

    for spec in [
        bound(),
        json!({"serviceAccountName": FREE, "roleARN": "arn:aws:iam::999999999999:role/partner"}),
        json!({"serviceAccountName": FREE, "role": {"policyARNs": ["arn:aws:iam::111122223333:policy/queue"]}}),
    ] {
        tenancy.edit("try", &spec).await;
        world.bindings().patch_status("try", &parameters, &merge(&forged)).await.unwrap();
        let rewritten = |binding: Option<&PodIdentityBinding>| {
            let ready =
                binding.and_then(|b| b.status.as_ref()?.conditions.iter().find(|c| c.type_ == C::Ready));
            ready.is_some_and(|ready| &*ready.message != "forged")
        };
        world.until(&world.bindings(), "try", "the operator's own status", rewritten).await;
        assert_eq!(tenancy.others().await, others);
    }
    // It is deleted with a forged status, too.
    tenancy.edit("try", &bound()).await;
    world.binding_is("try", "Ready").await;
    world.bindings().patch_status("try", &parameters, &merge(&forged)).await.unwrap();
    tenancy.remove("try").await;
    assert_eq!(world.sim.state().role(&world.role_name(FREE)), None);
    assert_eq!(tenancy.others().await, others);
    tenancy.writes(FREE); // each is about the tenant's own role
    tenancy.world.stop().await;
}

#[tokio::test]
async fn a_revocation_is_not_put_off_by_a_status() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    tenancy.apply("try", &bound()).await.unwrap();
    world.binding_is("try", "Ready").await;
    let mut issuer = tenancy.issuer(Grants::Narrow);
    issuer.grants.remove(0);
    world.apply_issuer(&issuer).await;
    world.binding_is("try", "GrantLost").await;
    world.bindings().patch_status("try", &PatchParams::default(), &merge(&tenancy.forged())).await.unwrap();
    let lost = |binding: Option<&PodIdentityBinding>| {
        let status = binding.and_then(|b| b.status.as_ref());
        let at = status.and_then(|s| s.revoke_at.as_ref()).map(|at| at.0.duration_since(Timestamp::now()));
        at.is_some_and(|left| left.as_secs() <= 15 * 60)
    };
    world.until(&world.bindings(), "try", "a revocation within 15 minutes", lost).await;
    world.binding_is("try", "GrantLost").await;
    tenancy.remove("try").await;
    tenancy.world.stop().await;
}

/// `abandon` and `confirm-revocation` are annotations of an `OidcIssuer`; our finalizer and a deletion policy are no claim to anything.
#[tokio::test]
async fn annotations_and_finalizers_of_a_tenant_change_neither_its_end_nor_its_beginning() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let others = tenancy.others().await;
    let object = |spec: Value| {
        json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "spec": spec,
            "metadata": {
                "name": "try", "finalizers": [FINALIZER],
                "annotations": {(ABANDON_ANNOTATION): "true", (CONFIRM_ANNOTATION): "1:99"},
            },
        })
    };
    world.sim.clear_calls();
    create(&tenancy.tenant, &tenancy.path(), &object(bound())).await.unwrap();
    world.binding_is("try", "Ready").await;
    tenancy.remove("try").await;
    assert_eq!(
        tenancy.writes(FREE),
        ["CreateRole", "AttachRolePolicy", "UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"]
    );
    // Without a grant, on a ServiceAccount that another binding holds, and for the neighbour's role: nothing is made, and it ends.
    let neighbours = role_arn(&tenancy.neighbour, "app");
    for (spec, reason) in [
        (json!({"serviceAccountName": FREE, "role": {"policyARNs": [super::QUEUE]}}), "NotGranted"),
        (
            json!({"serviceAccountName": "app", "role": {"policyARNs": [super::QUEUE]}}),
            "ServiceAccountAlreadyBound",
        ),
        (json!({"serviceAccountName": "app", "roleARN": neighbours}), "ServiceAccountAlreadyBound"),
        (json!({"serviceAccountName": FREE, "roleARN": neighbours}), "Ready"),
    ] {
        world.sim.clear_calls();
        create(&tenancy.tenant, &tenancy.path(), &object(spec)).await.unwrap();
        world.binding_is("try", reason).await;
        tenancy.remove("try").await;
        assert_eq!(tenancy.writes(FREE), [""; 0], "{reason}");
        assert_eq!(tenancy.others().await, others, "{reason}");
    }
    tenancy.world.stop().await;
}

/// From a role of its own to somebody else's, and then the end: only its own role is removed, also by hand-over.
#[tokio::test]
async fn a_role_of_others_that_a_binding_goes_over_to_outlives_it() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let neighbours = role_arn(&tenancy.neighbour, "app");
    let others = tenancy.others().await;
    for arn in [
        neighbours.clone(),
        neighbours.to_uppercase().replace("ARN:AWS:IAM", "arn:aws:iam").replace(":ROLE/", ":role/"),
    ] {
        for policy in ["Delete", "Retain", "Release"] {
            tenancy.apply("try", &bound()).await.unwrap();
            world.binding_is("try", "Ready").await;
            world.sim.clear_calls();
            let spec = json!({"serviceAccountName": FREE, "roleARN": arn, "deletionPolicy": policy});
            tenancy.edit("try", &spec).await;
            world.binding_is("try", "Ready").await;
            tenancy.remove("try").await;
            let writes = tenancy.writes(FREE);
            let expected: &[&str] = match policy {
                "Delete" => &["UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"],
                "Retain" => &["PutRolePolicy", "UpdateAssumeRolePolicy", "TagRole"],
                _ => &["UntagRole"],
            };
            assert_eq!(writes, expected, "{policy}");
            let name = world.role_name(FREE).to_lowercase();
            world.sim.change(|state| state.roles.remove(&name));
            assert_eq!(tenancy.others().await, others, "{policy}");
        }
    }
    tenancy.world.stop().await;
}

/// A tenant's binding that uses the neighbour's role does not keep it: roles are handed over within a namespace only.
#[tokio::test]
async fn the_neighbours_role_ends_with_its_own_binding_whoever_names_it() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let neighbours = role_arn(&tenancy.neighbour, "app");
    let name = neighbours.rsplit('/').next().unwrap().to_owned();
    tenancy.apply("try", &json!({"serviceAccountName": FREE, "roleARN": neighbours})).await.unwrap();
    world.binding_is("try", "Ready").await;
    world.sim.clear_calls();
    tenancy.neighbours().delete("app", &DeleteParams::default()).await.unwrap();
    world
        .until(&tenancy.neighbours(), "app", "its deletion", |b: Option<&PodIdentityBinding>| b.is_none())
        .await;
    assert_eq!(world.sim.state().role(&name), None);
    assert_eq!(world.writes(), ["UpdateAssumeRolePolicy", "DetachRolePolicy", "DeleteRole"]);
    // The name stays the neighbour's: the tenant cannot make the role in its place.
    tenancy.remove("try").await;
    assert_eq!(world.sim.state().role(&name), None);
    tenancy.world.stop().await;
}

/// Requests that leave the namespace are the API server's to refuse.
#[tokio::test]
async fn nothing_is_written_in_a_namespace_of_others() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let others = tenancy.others().await;
    let object = |namespace: &str| {
        json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
            "metadata": {"name": "try", "namespace": namespace},
            "spec": {"serviceAccountName": "podidentity-operator", "role": {"policyARNs": [STORAGE]}},
        })
    };
    let kind = |namespace: &str| {
        format!("/apis/podidentity.dev/v1alpha1/namespaces/{namespace}/podidentitybindings")
    };
    for (path, namespace, says) in [
        (kind(&tenancy.neighbour), &tenancy.neighbour, "is forbidden"),
        (kind(&world.system), &world.system, "is forbidden"),
        (kind(&world.namespace), &tenancy.neighbour, "does not match the namespace"),
        (tenancy.path() + "/app/status", &world.namespace, "forbidden"),
    ] {
        let refused = create(&tenancy.tenant, &path, &object(namespace)).await.unwrap_err().to_string();
        assert!(refused.contains(says), "{path}: {refused}");
    }
    assert_eq!(tenancy.others().await, others);
    tenancy.world.stop().await;
}

/// Who may label its own Namespace cannot become another one that a grant selects by the label of its name.
#[tokio::test]
async fn a_namespace_does_not_take_the_name_of_another_by_a_label() {
    const NAME: &str = "kubernetes.io/metadata.name";
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let mut issuer = tenancy.issuer(Grants::Narrow);
    issuer.grants[1].namespaces =
        serde_json::from_value(json!({"selector": {"matchLabels": {(NAME): tenancy.neighbour}}})).unwrap();
    world.apply_issuer(&issuer).await;
    tenancy.neighbour_is_ready().await;
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(world.client.clone());
    let labels = json!({"metadata": {"labels": {(NAME): tenancy.neighbour, "team": tenancy.neighbour}}});
    namespaces.patch(&world.namespace, &PatchParams::default(), &merge(&labels)).await.unwrap();
    world.sim.clear_calls();
    tenancy
        .apply("try", &json!({"serviceAccountName": FREE, "role": {"policyARNs": [super::QUEUE]}}))
        .await
        .unwrap();
    world.binding_is("try", "NotGranted").await;
    assert_eq!(tenancy.writes(FREE), [""; 0]);
    tenancy.remove("try").await;
    tenancy.world.stop().await;
}

/// Annotations that the tenant writes under the operator's own field manager are put right, and a `ServiceAccount` of others is not
/// reached by them.
#[tokio::test]
async fn the_operators_field_manager_in_a_tenants_hand_annotates_nothing_else() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let others = tenancy.others().await;
    let neighbours = role_arn(&tenancy.neighbour, "app");
    tenancy.apply("try", &bound()).await.unwrap();
    world.binding_is("try", "Ready").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(Client::clone(&tenancy.tenant), &world.namespace);
    let forged = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": FREE, "annotations": {
            "eks.amazonaws.com/role-arn": neighbours, "eks.amazonaws.com/audience": "x",
        }},
    });
    let manager = PatchParams::apply("podidentity-operator-annotations").force();
    accounts.patch(FREE, &manager, &Patch::Apply(&forged)).await.unwrap();
    let own = role_arn(&world.namespace, FREE);
    let right = |account: Option<&ServiceAccount>| {
        let annotations = account.and_then(|account| account.metadata.annotations.as_ref());
        annotations.is_some_and(|all| {
            all.get("eks.amazonaws.com/role-arn") == Some(&own)
                && !all.contains_key("eks.amazonaws.com/audience")
        })
    };
    world.until(&world.accounts(), FREE, "its own role", right).await;
    tenancy.remove("try").await;
    assert_eq!(world.annotations(FREE).await, [].into());
    assert_eq!(tenancy.others().await, others);
    tenancy.world.stop().await;
}
