//! `OidcIssuer`: verification, edits, deletion, and a restart of the operator. What it publishes in AWS is in `publication.rs`.

use std::time::Duration;

use aws_sim::{Fault, FaultKind, State};
use crds::OidcIssuer;
use crds::Reason;
use crds::condition::ConditionType as C;
use crds::conditions::Status;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{ACCOUNT, BUCKET, World, apply, counts, has_finalizer};

const HOST: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com";

pub fn provider_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}/homelab")
}

/// Everything in AWS that the operator manages for the issuer: all but the canary object, which `bootstrap` writes.
pub fn managed(state: &State) -> serde_json::Value {
    let mut bucket = state.buckets[BUCKET].clone();
    bucket.objects.remove("homelab/podidentity-canary");
    json!({
        "bucket": bucket,
        "bodies": bucket.objects.values().map(|o| String::from_utf8_lossy(&o.body).into_owned()).collect::<Vec<_>>(),
        "provider": state.providers[&provider_arn()],
    })
}

#[tokio::test]
async fn after_bootstrap_the_operator_only_reads_and_exchanges_a_token() {
    let mut world = World::bootstrapped().await;
    let before = managed(&world.sim.state());
    world.start().await;
    world.apply_issuer(&world.spec()).await;
    world.issuer_is("Ready").await;

    assert_eq!(managed(&world.sim.state()), before);
    assert_eq!(
        world.counts(),
        counts(&[
            ("iam:GetOpenIDConnectProvider", 1),
            ("s3:GetBucketOwnershipControls", 1),
            ("s3:GetBucketPolicy", 1),
            ("s3:GetBucketTagging", 1),
            ("s3:GetObject", 2),
            ("s3:GetPublicAccessBlock", 1),
            ("sts:GetCallerIdentity", 1),
        ])
    );
    let exchanges = world.sim.calls().into_iter().filter(|c| c.action == "AssumeRoleWithWebIdentity");
    let roles: Vec<String> = exchanges.map(|c| c.resource).collect();
    let role = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/podidentity-system/{name}.homelab");
    assert_eq!(roles, [role("podidentity-operator"), role("podidentity-canary")]);

    let issuer = world.issuers().get("default").await.unwrap();
    assert!(has_finalizer(&issuer));
    let status = issuer.status.unwrap();
    assert_eq!(status.issuer_url.as_deref(), Some(format!("https://{HOST}/homelab").as_str()));
    assert_eq!(status.account_id.as_deref(), Some(ACCOUNT));
    assert_eq!(status.partition.as_deref(), Some("aws"));
    assert_eq!(status.provider_arn.as_deref(), Some(provider_arn().as_str()));
    assert!(status.published_digest.is_some_and(|digest| digest.len() == 64));
    for type_ in [
        C::IssuerMatches,
        C::Published,
        C::ProviderRegistered,
        C::PubliclyReachable,
        C::TokenExchangeVerified,
        C::BucketFenced,
    ] {
        assert_eq!(world.issuer_condition(type_).await.0, "True", "{}", type_.as_str());
    }
}

#[tokio::test]
async fn a_restart_writes_nothing() {
    let mut world = World::ready().await;
    let version = world.issuers().get("default").await.unwrap().resource_version();
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let bound = world.binding("app").await.resource_version();
    world.stop().await;

    world.start().await;
    world.until_reconciled().await;
    world.until_called("AssumeRoleWithWebIdentity", 1).await;
    assert_eq!(world.writes(), [""; 0]);
    world.stop().await;
    assert_eq!(world.issuers().get("default").await.unwrap().resource_version(), version);
    assert_eq!(world.binding("app").await.resource_version(), bound);
}

#[tokio::test]
async fn an_issuer_mismatch_names_the_flags_of_the_api_server() {
    let mut world = World::new().await;
    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().bucket = "other-111122223333-eu-central-1-an".into();
    world.bootstrap(&spec).await.unwrap();
    world.apply_issuer(&spec).await;
    // The operator's own token has another issuer, so it cannot be exchanged. As in a cluster whose flags are not set yet, the
    // operator has no valid credentials.
    let invalid = aws_credential_types::Credentials::new("AKIAINVALID", "invalid", None, None, "invalid");
    world.start_as(invalid).await;
    let flags = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
        let found = conditions.and_then(|c| crds::conditions::find(c, C::IssuerMatches));
        found.is_some_and(|c| {
            c.status == Status::False
                && c.reason == Reason::IssuerMismatch
                && c.message.contains(&format!("--service-account-issuer={}", spec.issuer_url()))
                && c.message.contains(&format!("--service-account-issuer=https://{HOST}/homelab"))
        })
    };
    world.until(&world.issuers(), "default", "the flags", flags).await;
}

#[tokio::test]
async fn a_ready_issuer_is_not_ready_only_after_two_refusals() {
    let mut world = World::ready_with(|t| {
        t.verify_period = Duration::from_millis(200);
        t.verify_retry = Duration::from_secs(2);
        t.not_yet_window = Duration::ZERO;
    })
    .await;
    // Failures of AWS do not show that the issuer is wrong.
    world.sim.inject(Fault::on("sts", "AssumeRoleWithWebIdentity", FaultKind::server_error()).times(6));
    let before = world.sim.calls().iter().filter(|call| call.action == "AssumeRoleWithWebIdentity").count();
    world.until_called("AssumeRoleWithWebIdentity", before + 4).await;
    world.issuer_is("Ready").await;

    // A refusal does, if it is repeated.
    let refused = FaultKind::Error {
        status: 400,
        code: "InvalidIdentityToken".into(),
        message: "No OpenIDConnect provider found in your account".into(),
    };
    world.sim.clear_faults();
    world.sim.inject(Fault::on("sts", "AssumeRoleWithWebIdentity", refused).times(1));
    let exchange = |status: &'static str| {
        move |i: Option<&OidcIssuer>| {
            let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
            conditions
                .and_then(|c| crds::conditions::find(c, C::TokenExchangeVerified))
                .is_some_and(|c| c.status.as_str() == status)
        }
    };
    world.until(&world.issuers(), "default", "TokenExchangeVerified=False", exchange("False")).await;
    world.issuer_is("Ready").await; // in the same status
    world.until(&world.issuers(), "default", "TokenExchangeVerified=True", exchange("True")).await;
    world.issuer_is("Ready").await;

    world.sim.inject(Fault::on(
        "sts",
        "AssumeRoleWithWebIdentity",
        FaultKind::Error {
            status: 400,
            code: "InvalidIdentityToken".into(),
            message: "No OpenIDConnect provider found in your account".into(),
        },
    ));
    world.issuer_is("TokenExchangeFailed").await;
    world.sim.clear_faults();
    world.issuer_is("Ready").await;
    world.stop().await;
}

#[tokio::test]
async fn an_invalid_edit_is_refused_and_a_valid_one_is_applied() {
    let world = World::ready().await;
    let expected = managed(&world.sim.state());
    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().bucket = "another-bucket".into();
    let refused = apply(&world.issuers(), "default", json!(spec)).await.unwrap_err().to_string();
    assert!(refused.contains("immutable while spec.issuerURL is absent"), "{refused}");

    // A valid edit: one more audience, which is registered.
    let mut spec = world.spec();
    spec.audiences.push("vault".into());
    world.sim.clear_calls();
    world.apply_issuer(&spec).await;
    world.issuer_is("Ready").await;
    assert_eq!(world.writes(), ["AddClientIDToOpenIDConnectProvider"]);
    world.apply_issuer(&world.spec()).await;
    world
        .until_aws("the removal of the audience", |s| s.providers[&provider_arn()].client_ids.len() == 1)
        .await;
    assert_eq!(managed(&world.sim.state()), expected);
}

#[tokio::test]
async fn deletion_waits_for_bindings_and_retains_everything_in_aws() {
    let world = World::ready().await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let expected = managed(&world.sim.state());
    world.sim.clear_calls();
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.issuer_is("DeletionBlocked").await;
    let (_, _, message) = world.issuer_condition(C::Ready).await;
    assert!(message.contains(&format!("{}/app", world.namespace)), "{message}");

    // It accepts no new bindings meanwhile.
    world.service_account(&world.namespace, "late").await;
    let spec = json!({"serviceAccountName": "late", "role": {"policyARNs": []}});
    world.apply_binding("late", spec).await;
    world.binding_is("late", "DependencyNotReady").await;
    assert_eq!(world.writes(), [""; 0]);

    world.unbind("app").await;
    let waits_for_late = |issuer: Option<&OidcIssuer>| {
        let conditions = issuer.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
        conditions.is_some_and(|c| c.iter().any(|c| c.message.contains("1 PodIdentityBinding(s)")))
            && conditions.is_some_and(|c| c.iter().any(|c| c.message.contains("/late.")))
    };
    world.until(&world.issuers(), "default", "the message to name one binding", waits_for_late).await;

    // The last binding never had our finalizer: it is deleted at once, without a deletionTimestamp.
    world.unbind("late").await;
    let deleted = |i: Option<&OidcIssuer>| i.is_none();
    world.until(&world.issuers(), "default", "its deletion", deleted).await;
    assert_eq!(managed(&world.sim.state()), expected);
    let bucket_writes: Vec<String> =
        world.operators().into_iter().filter(|c| c.write && c.service == "s3").map(|c| c.action).collect();
    assert_eq!(bucket_writes, [""; 0]);
}

#[tokio::test]
async fn an_issuer_that_is_deleted_by_mistake_keeps_its_pods_credentials() {
    let world = World::ready_with(|t| {
        (t.issuer_resync, t.api_server_poll) = (Duration::from_millis(100), Duration::from_millis(100));
        (t.verify_period, t.not_yet_window) = (Duration::from_millis(200), Duration::ZERO);
    })
    .await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    let expected = managed(&world.sim.state());
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.issuer_is("DeletionBlocked").await;

    // Somebody replaces the keys and removes the provider: both are put back while bindings use the issuer.
    world.sim.clear_calls();
    world.sim.put_object(BUCKET, "homelab/openid/v1/jwks", r#"{"keys":[]}"#);
    world.sim.change(|s| s.providers.clear());
    let repaired = |s: &State| s.providers.contains_key(&provider_arn()) && managed(s) == expected;
    world.until_aws("the repair", repaired).await;
    world.exchange(&world.namespace, "app", &role).await.unwrap();
    world.until_called("AssumeRoleWithWebIdentity", 2).await; // it goes on verifying
    assert_eq!(world.writes(), ["PutObject", "CreateOpenIDConnectProvider"]);
    assert_eq!(world.issuer_condition(C::Ready).await.0, "False");

    // The way back: without its finalizer the object ends, and it is applied again. The binding's role is not touched.
    let no_finalizer = json!({"metadata": {"finalizers": null}});
    let patch = kube::api::Patch::Merge(no_finalizer);
    world.issuers().patch("default", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.until(&world.issuers(), "default", "its end", |i: Option<&OidcIssuer>| i.is_none()).await;
    world.sim.clear_calls();
    world.apply_issuer(&world.spec()).await;
    world.issuer_is("Ready").await;
    world.binding_is("app", "Ready").await;
    assert_eq!(world.writes(), [""; 0]);
    world.unbind("app").await;
}

#[tokio::test]
async fn an_issuer_that_is_created_again_starts_without_failures() {
    let mut world = World::bootstrapped().await;
    (world.timings.backoff_min, world.timings.backoff_max) =
        (Duration::from_millis(400), Duration::from_mins(10));
    let message = "User: x is not authorized to perform: s3:GetBucketTagging";
    let denied = FaultKind::Error { status: 403, code: "AccessDenied".into(), message: message.into() };
    world.sim.inject(Fault::on("s3", "GetBucketTagging", denied));
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    // The delays are 0.4, 0.8, 1.6 and 3.2 s; the next would be 6.4 s.
    world.until_called("GetBucketTagging", 5).await;
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "default", "its deletion", |i: Option<&OidcIssuer>| i.is_none()).await;

    world.sim.clear_calls();
    world.apply_issuer(&world.spec()).await;
    // 0.4 and 0.8 s. With the failures of the deleted issuer the delays would be 6.4 and 12.8 s, longer than the limit.
    world.until_called("GetBucketTagging", 3).await;
    world.sim.clear_faults();
    world.issuer_is("Ready").await;
    world.stop().await;
}

#[tokio::test]
async fn the_identity_of_the_credentials_is_read_again() {
    let world = World::ready_with(|t| {
        (t.identity_refresh, t.issuer_resync) = (Duration::from_millis(200), Duration::from_millis(100));
    })
    .await;
    world.until_called("GetCallerIdentity", 3).await;
    world.issuer_is("Ready").await;
}
