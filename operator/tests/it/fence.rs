//! Pods must not replace the published keys, however AWS spells the session's provider; and where the bucket's policy has no
//! effect, the status says so.

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sim::FederatedProviderForm;
use crds::condition::ConditionType as C;
use crds::conditions::Status;
use crds::{OidcIssuer, Reason};
use serde_json::json;

use crate::issuer::{managed, provider_arn};
use crate::world::{ACCOUNT, BUCKET, REGION, World};

const JWKS: &str = "homelab/openid/v1/jwks";
const HOST: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com";
const S3_FULL: &str = "arn:aws:iam::aws:policy/AmazonS3FullAccess";

/// A session of `ServiceAccount` `app` with a role that allows `s3:*`, made elsewhere at that path.
async fn session_with_every_right_on_s3(world: &World, path: &str) -> Credentials {
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"Federated": provider_arn()},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {
            (format!("{HOST}/homelab:sub")): format!("system:serviceaccount:{}:app", world.namespace),
        }},
    }]});
    let arn = world.sim.put_role(path, "attacker", trust, &[S3_FULL]);
    world.exchange(&world.namespace, "app", &arn).await.unwrap()
}

/// Tries to replace the published keys.
async fn attack(world: &World, session: Credentials) -> bool {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(Region::new(REGION))
        .http_client(aws_sim::sdk::http_client(&world.sim))
        .credentials_provider(session)
        .build();
    let s3 = aws_sdk_s3::Client::from_conf(config);
    s3.get_object().bucket(BUCKET).key(JWKS).send().await.expect("the role allows to read");
    s3.put_object().bucket(BUCKET).key(JWKS).body(b"forged".to_vec().into()).send().await.is_ok()
}

#[tokio::test]
async fn the_attack_fails_or_the_fence_is_not_true_whatever_the_form_of_the_key() {
    for form in [
        FederatedProviderForm::Arn,
        FederatedProviderForm::HostPath,
        FederatedProviderForm::Url,
        FederatedProviderForm::Absent,
    ] {
        let mut world = World::bootstrapped().await;
        world.sim.behave(|behaviour| behaviour.federated_provider = form);
        world.timings.not_yet_window = std::time::Duration::ZERO;
        world.apply_issuer(&world.spec()).await;
        world.start().await;
        world.issuer_is("Ready").await;
        let (status, reason, _) = world.issuer_condition(C::BucketFenced).await;
        let expected = match form {
            FederatedProviderForm::Absent => ("False", "FenceIneffective"),
            _ => ("True", "Verified"),
        };
        assert_eq!((status.as_str(), reason.as_str()), expected, "{form:?}");
        let metric = format!(
            "podidentity_operator_bucket_fence_ineffective{{issuer=\"default\"}} {}\n",
            i32::from(status == "False")
        );
        assert!(world.metrics.text().contains(&metric), "{form:?}");
        if status == "False" {
            let noted = || async {
                anyhow::ensure!(!world.events("default", Reason::FenceIneffective).await.is_empty());
                Ok(())
            };
            cluster::until("the event", std::time::Duration::from_secs(15), noted).await.unwrap();
        }
        world.stop().await;

        let before = managed(&world.sim.state());
        // A role that an operator made, of this or another cluster: kept out under every form.
        for path in ["/podidentity/homelab/", "/podidentity/office/"] {
            let session = session_with_every_right_on_s3(&world, path).await;
            assert!(!attack(&world, session).await, "{form:?} {path}");
        }
        // A role made elsewhere: only the statement about sessions of the issuer keeps it out.
        let session = session_with_every_right_on_s3(&world, "/terraform/").await;
        let replaced = attack(&world, session).await;
        assert!(
            !replaced || status != "True",
            "{form:?}: the keys were replaced although the fence is said to hold"
        );
        assert_eq!(replaced, form == FederatedProviderForm::Absent, "{form:?}");
        if !replaced {
            assert_eq!(managed(&world.sim.state()), before);
        }
    }
}

#[tokio::test]
async fn without_a_canary_the_fence_is_unknown_and_bootstrap_brings_it_back() {
    let mut world = World::bootstrapped().await;
    world.sim.change(|s| s.roles.remove("podidentity-canary.homelab"));
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    let (status, reason, message) = world.issuer_condition(C::BucketFenced).await;
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "CanaryMissing"), "{message}");
    world.stop().await;

    // The role without its object.
    world.bootstrap(&world.spec()).await.unwrap();
    let canary = "homelab/podidentity-canary";
    world.sim.change(|s| s.buckets.get_mut(BUCKET).unwrap().objects.remove(canary));
    let no_status = serde_json::from_value(json!([{"op": "remove", "path": "/status"}])).unwrap();
    let patch = kube::api::Patch::<()>::Json(no_status);
    world.issuers().patch_status("default", &kube::api::PatchParams::default(), &patch).await.unwrap();
    world.start().await;
    let missing = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
        let fenced = conditions.and_then(|c| crds::conditions::find(c, C::BucketFenced));
        fenced.is_some_and(|c| c.reason == Reason::CanaryMissing)
    };
    world.until(&world.issuers(), "default", "CanaryMissing", missing).await;
    world.stop().await;

    world.bootstrap(&world.spec()).await.unwrap();
    world.start().await;
    let fenced = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions[..]);
        conditions
            .and_then(|c| crds::conditions::find(c, C::BucketFenced))
            .is_some_and(|c| c.status == Status::True)
    };
    world.until(&world.issuers(), "default", "BucketFenced=True", fenced).await;
    assert_eq!(world.issuer_condition(C::Ready).await.0, "True");
    let trust = &world.sim.state().roles["podidentity-canary.homelab"].trust;
    assert!(trust.to_string().contains("podidentity-operator"), "only the operator may assume it");
    assert_eq!(world.sim.state().buckets[BUCKET].owner, ACCOUNT);
}
