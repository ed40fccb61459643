//! A lost AWS account: an administrator's annotation lets bindings and issuer end without a call of AWS.

use aws_credential_types::Credentials;
use crds::names::ABANDON_ANNOTATION;
use crds::{OidcIssuer, PodIdentityBinding, Reason};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::issuer::provider_arn;
use crate::world::{BUCKET, STORAGE, World};

impl World {
    async fn annotate_issuer(&self, value: &str) {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {(ABANDON_ANNOTATION): value}}}));
        self.issuers().patch_metadata("default", &PatchParams::default(), &patch).await.unwrap();
    }

    /// As where nobody has rights in the account any more.
    async fn start_without_rights(&mut self) {
        self.start_as(Credentials::new("AKIALOST", "lost", None, None, "test")).await;
    }
}

#[tokio::test]
async fn an_abandoned_issuer_and_its_bindings_end_without_aws() {
    let mut world = World::ready().await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    assert!(!world.annotations("app").await.is_empty());
    world.stop().await;
    let before = world.sim.state();
    // Its last edit was refused: the role is of the former issuer.
    let edited =
        json!({"serviceAccountName": "app", "issuerRef": {"name": "nowhere"}, "role": {"policyARNs": []}});
    world.apply_binding("app", edited).await;
    world.start_without_rights().await;
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    // Another value says nothing.
    world.annotate_issuer("yes").await;
    world.stop().await;

    world.sim.clear_calls();
    world.start_without_rights().await;
    world.until_called("GetCallerIdentity", 1).await;
    world.binding_is("app", "DeletionBlocked").await;
    // The annotation alone wakes what waits.
    world.annotate_issuer("true").await;
    let gone = |binding: Option<&PodIdentityBinding>| binding.is_none();
    world.until(&world.bindings(), "app", "its end", gone).await;
    assert!(world.annotations("app").await.is_empty());
    let left = format!(
        "annotation podidentity.dev/abandon of OidcIssuer default is true: AWS is not asked, and this stays there: role {}",
        role.arn
    );
    assert_eq!(world.events("app", Reason::Abandoned).await, [left]);

    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    let gone = |issuer: Option<&OidcIssuer>| issuer.is_none();
    world.until(&world.issuers(), "default", "its end", gone).await;
    let left = format!(
        "annotation podidentity.dev/abandon is true: AWS is not asked, and this stays there: OIDC provider {}, bucket {BUCKET}",
        provider_arn()
    );
    assert_eq!(world.events("default", Reason::Abandoned).await, [left]);
    assert_eq!(json!(world.sim.state().roles), json!(before.roles));
    assert_eq!(json!(world.sim.state().buckets), json!(before.buckets));
    // But for the questions for its own account and for roles without a binding, nothing was asked.
    let others = world.sim.calls().into_iter().map(|call| call.action);
    let others: Vec<String> =
        others.filter(|action| !matches!(action.as_str(), "GetCallerIdentity" | "ListRoles")).collect();
    assert_eq!(others, [""; 0]);
    world.stop().await;
}
