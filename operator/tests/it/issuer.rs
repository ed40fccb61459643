//! `OidcIssuer`: what is looked at, what is put back, what is refused, and what outlives it.

use std::time::Duration;

use aws_sim::{Fault, FaultKind, State};
use bytes::Bytes;
use crds::condition::ConditionType as C;
use crds::{OidcIssuer, Reason};
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::json;

use crate::world::{ACCOUNT, BUCKET, World, apply, counts, held};

const HOST: &str = "oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com";

fn provider_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{HOST}/homelab")
}

/// Everything that a managed issuer keeps true; two equal ones are equally good.
fn managed(state: &State) -> serde_json::Value {
    let bucket = &state.buckets[BUCKET];
    json!({
        "bucket": bucket,
        "bodies": bucket.objects.values().map(|o| String::from_utf8_lossy(&o.body).into_owned()).collect::<Vec<_>>(),
        "provider": state.providers[&provider_arn()],
    })
}

#[tokio::test]
async fn after_bootstrap_the_operator_only_looks_and_exchanges_a_real_token() {
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
    let exchanged = world.sim.calls().iter().filter(|c| c.action == "AssumeRoleWithWebIdentity").count();
    assert_eq!(exchanged, 1);

    let issuer = world.issuers().get("default").await.unwrap();
    assert!(held(&issuer));
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
    world.until_looked().await;
    world.until_called("AssumeRoleWithWebIdentity", 1).await;
    assert_eq!(world.writes(), [""; 0]);
    world.stop().await;
    assert_eq!(world.issuers().get("default").await.unwrap().resource_version(), version);
    assert_eq!(world.binding("app").await.resource_version(), bound);
}

#[tokio::test]
async fn every_drifted_attribute_is_put_back_by_one_write() {
    type Spoil = fn(&mut State);
    fn bucket(state: &mut State) -> &mut aws_sim::world::Bucket {
        state.buckets.get_mut(BUCKET).unwrap()
    }
    fn provider(state: &mut State) -> &mut aws_sim::world::Provider {
        state.providers.get_mut(&provider_arn()).unwrap()
    }
    let table: [(&str, Spoil, &[&str]); 9] = [
        (
            "bucket ownership controls",
            |s| bucket(s).ownership = "ObjectWriter".into(),
            &["PutBucketOwnershipControls"],
        ),
        ("public-access block", |s| bucket(s).public_access_block = [false; 4], &["PutPublicAccessBlock"]),
        (
            "bucket policy",
            |s| {
                bucket(s).policy = None;
                bucket(s).policy_text = String::new();
            },
            &["PutBucketPolicy"],
        ),
        (
            "JWKS",
            |s| {
                let object = bucket(s).objects.get_mut("homelab/openid/v1/jwks").unwrap();
                object.body = Bytes::from_static(br#"{"keys":[]}"#);
                object.etag = "\"forged\"".into();
            },
            &["PutObject"],
        ),
        (
            "JWKS",
            |s| {
                bucket(s).objects.remove("homelab/openid/v1/jwks");
            },
            &["PutObject"],
        ),
        (
            "discovery document",
            |s| {
                let key = "homelab/.well-known/openid-configuration";
                bucket(s).objects.get_mut(key).unwrap().content_type = "text/html".into();
            },
            &["PutObject"],
        ),
        ("provider audiences", |s| provider(s).client_ids.clear(), &["AddClientIDToOpenIDConnectProvider"]),
        (
            "provider audiences",
            |s| provider(s).client_ids.push("stranger".into()),
            &["RemoveClientIDFromOpenIDConnectProvider"],
        ),
        (
            "OIDC provider",
            |s| {
                s.providers.remove(&provider_arn());
            },
            &["CreateOpenIDConnectProvider"],
        ),
    ];
    let world = World::ready_with(|t| t.issuer_resync = Duration::from_millis(100)).await;
    let good = managed(&world.sim.state());
    for (attribute, spoil, repair) in table {
        world.sim.clear_calls();
        world.sim.change(spoil);
        let good_again =
            |state: &State| state.providers.contains_key(&provider_arn()) && managed(state) == good;
        world.until_aws(&format!("{attribute} to be put back"), good_again).await;
        assert_eq!(world.writes(), repair, "{attribute}");
        let holds = |issuer: Option<&OidcIssuer>| issuer.is_some();
        world.until(&world.issuers(), "default", "its place", holds).await;
    }
    world.issuer_is("Ready").await;
    let noted = || async {
        let notes = world.events("default", Reason::DriftCorrected).await.join("\n");
        let attributes =
            ["ownership controls", "public-access block", "bucket policy", "JWKS", "discovery document"];
        for attribute in attributes.iter().chain(&["provider audiences", "OIDC provider"]) {
            anyhow::ensure!(notes.contains(attribute), "no event names {attribute}: {notes}");
        }
        Ok(())
    };
    cluster::until("events", Duration::from_secs(20), noted).await.unwrap();
    let metrics = world.metrics.text();
    assert!(metrics.contains(r#"drift_repairs_total{kind="OidcIssuer",attribute="JWKS"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_lost_bucket_is_made_anew_fenced_before_it_is_public() {
    let mut world = World::bootstrapped().await;
    let good = managed(&world.sim.state());
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
    world.sim.change(|s| {
        s.buckets.remove(BUCKET);
        s.providers.clear();
    });
    world.apply_issuer(&world.spec()).await;
    world.start_as(credentials).await;
    world.issuer_is("Ready").await;
    assert_eq!(managed(&world.sim.state()), good);
    assert_eq!(
        world.writes(),
        [
            "CreateBucket",
            "PutBucketPolicy", // the fence
            "PutPublicAccessBlock",
            "PutBucketPolicy",
            "PutObject", // keys before the document that names them
            "PutObject",
            "CreateOpenIDConnectProvider",
        ]
    );
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_left_alone_and_its_owner_is_named() {
    let mut world = World::bootstrapped().await;
    // A second cluster of the same name in the same account: same path, other issuer.
    world.sim.change(|s| {
        let tags = &mut s.providers.get_mut(&provider_arn()).unwrap().tags;
        tags.insert("podidentity.dev/cluster".into(), "other".into());
        tags.insert("podidentity.dev/issuer".into(), "https://other.example.com".into());
    });
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("NotOwned").await;
    let (status, _, message) = world.issuer_condition(C::Stalled).await;
    assert_eq!(status, "True");
    for part in ["OIDC provider", "cluster other", "https://other.example.com"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(world.writes(), [""; 0]);

    // A bucket without our tags, in our account.
    world.stop().await;
    world.sim.change(|s| {
        let bucket = s.buckets.get_mut(BUCKET).unwrap();
        bucket.tags.clear();
    });
    world.start().await;
    let named = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions);
        conditions.is_some_and(|c| c.iter().any(|c| c.message.contains(&format!("bucket {BUCKET} exists"))))
    };
    world.until(&world.issuers(), "default", "the bucket's name", named).await;
    assert_eq!(world.writes(), [""; 0]);

    // A bucket of another account.
    world.stop().await;
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
    world.sim.put_bucket(BUCKET, "999999999999");
    world.start_as(credentials).await;
    let named = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| &s.conditions);
        conditions.is_some_and(|c| c.iter().any(|c| c.message.contains("belongs to another AWS account")))
    };
    world.until(&world.issuers(), "default", "the other account", named).await;
    assert_eq!(world.writes(), [""; 0]);
}

#[tokio::test]
async fn an_api_server_with_another_issuer_is_told_the_exact_flags() {
    let mut world = World::new().await;
    let mut spec = world.spec();
    spec.s3.bucket = "other-111122223333-eu-central-1-an".into();
    world.bootstrap(&spec).await.unwrap();
    world.apply_issuer(&spec).await;
    // Its own token is of the API server's issuer: as in a cluster where the flags are not set yet, it has other
    // credentials. Here: none that work.
    let nobody = aws_credential_types::Credentials::new("AKIANOBODY", "nothing", None, None, "nobody");
    world.start_as(nobody).await;
    let flags = |i: Option<&OidcIssuer>| {
        let conditions = i.and_then(|i| i.status.as_ref()).map(|s| s.conditions.as_slice());
        let found = conditions.and_then(|c| crds::condition::find(c, C::IssuerMatches));
        found.is_some_and(|c| {
            c.status == "False"
                && c.reason == "IssuerMismatch"
                && c.message.contains(&format!("--service-account-issuer={}", spec.issuer_url()))
                && c.message.contains(&format!("--service-account-issuer=https://{HOST}/homelab"))
        })
    };
    world.until(&world.issuers(), "default", "the flags", flags).await;
}

#[tokio::test]
async fn ready_is_taken_back_only_by_evidence_that_is_seen_twice() {
    let mut world = World::ready_with(|t| {
        t.verify_period = Duration::from_millis(200);
        t.verify_retry = Duration::from_secs(2);
        t.not_yet_window = Duration::ZERO;
    })
    .await;
    // Time-outs and bad days of AWS are no evidence.
    world.sim.inject(Fault::on("sts", "AssumeRoleWithWebIdentity", FaultKind::server_error()).times(6));
    let before = world.sim.calls().iter().filter(|call| call.action == "AssumeRoleWithWebIdentity").count();
    world.until_called("AssumeRoleWithWebIdentity", before + 4).await;
    world.issuer_is("Ready").await;

    // A refusal is; but it must stand.
    let refused = FaultKind::Error {
        status: 400,
        code: "InvalidIdentityToken".into(),
        message: "No OpenIDConnect provider found in your account".into(),
    };
    world.sim.clear_faults();
    world.sim.inject(Fault::on("sts", "AssumeRoleWithWebIdentity", refused).times(1));
    let exchange = |status: &'static str| {
        move |i: Option<&OidcIssuer>| {
            let conditions = i.and_then(|i| i.status.as_ref()).map(|s| s.conditions.as_slice());
            conditions
                .and_then(|c| crds::condition::find(c, C::TokenExchangeVerified))
                .is_some_and(|c| c.status == status)
        }
    };
    world.until(&world.issuers(), "default", "one refusal", exchange("False")).await;
    world.issuer_is("Ready").await; // in the same status
    world.until(&world.issuers(), "default", "the exchange to work again", exchange("True")).await;
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
async fn an_account_wide_block_of_public_policies_is_named() {
    let mut world = World::ready_with(|t| {
        t.issuer_resync = Duration::from_millis(100);
        t.not_yet_window = Duration::from_millis(200);
    })
    .await;
    world.sim.inject(Fault::on("s3", "PutBucketPolicy", FaultKind::Error {
        status: 403,
        code: "AccessDenied".into(),
        message: "User is not authorized to perform: s3:PutBucketPolicy because public policies are blocked by the \
                  BlockPublicPolicy block public access setting."
            .into(),
    }));
    world.sim.change(|s| {
        let bucket = s.buckets.get_mut(BUCKET).unwrap();
        (bucket.policy, bucket.policy_text) = (None, String::new());
    });
    world.issuer_is("PublicAccessBlocked").await;
    let (_, _, message) = world.issuer_condition(C::Stalled).await;
    assert!(message.contains("turn off BlockPublicPolicy"), "{message}");
    world.sim.clear_faults();
    world.issuer_is("Ready").await;
    world.stop().await;
}

#[tokio::test]
async fn an_edit_that_cannot_work_is_refused_and_breaks_nothing() {
    let world = World::ready().await;
    let good = managed(&world.sim.state());
    let mut spec = world.spec();
    spec.s3.bucket = "another-bucket".into();
    let refused = apply(&world.issuers(), "default", json!(spec)).await.unwrap_err().to_string();
    assert!(refused.contains("immutable while spec.issuerURL is absent"), "{refused}");

    // A good edit: one audience more, and it is registered.
    let mut spec = world.spec();
    spec.audiences.push("vault".into());
    world.sim.clear_calls();
    world.apply_issuer(&spec).await;
    world.issuer_is("Ready").await;
    assert_eq!(world.writes(), ["AddClientIDToOpenIDConnectProvider"]);
    world.apply_issuer(&world.spec()).await;
    world.until_aws("the audience to go", |s| s.providers[&provider_arn()].client_ids.len() == 1).await;
    assert_eq!(managed(&world.sim.state()), good);
}

#[tokio::test]
async fn deletion_waits_for_bindings_and_retains_everything_in_aws() {
    let world = World::ready().await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let good = managed(&world.sim.state());
    world.sim.clear_calls();
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.issuer_is("DeletionBlocked").await;
    let (_, _, message) = world.issuer_condition(C::Ready).await;
    assert!(message.contains(&format!("{}/app", world.namespace)), "{message}");

    // It takes no new bindings meanwhile.
    world.service_account(&world.namespace, "late").await;
    let spec = json!({"serviceAccountName": "late", "role": {"policyARNs": []}});
    world.apply_binding("late", spec).await;
    world.binding_is("late", "DependencyNotReady").await;
    assert_eq!(world.writes(), [""; 0]);

    world.unbind("app").await;
    let waits_for_late = |issuer: Option<&OidcIssuer>| {
        let conditions = issuer.and_then(|i| i.status.as_ref()).map(|s| s.conditions.as_slice());
        conditions.is_some_and(|c| c.iter().any(|c| c.message.contains("1 PodIdentityBinding(s)")))
            && conditions.is_some_and(|c| c.iter().any(|c| c.message.contains("/late.")))
    };
    world.until(&world.issuers(), "default", "its wait for one more", waits_for_late).await;

    // The last never had our finalizer: it goes without ever having been "being deleted".
    world.unbind("late").await;
    let gone = |i: Option<&OidcIssuer>| i.is_none();
    world.until(&world.issuers(), "default", "its end", gone).await;
    assert_eq!(managed(&world.sim.state()), good);
    let of_issuer: Vec<String> =
        world.operators().into_iter().filter(|c| c.write && c.service == "s3").map(|c| c.action).collect();
    assert_eq!(of_issuer, [""; 0]);
}

#[tokio::test]
async fn an_issuer_that_is_made_again_inherits_no_failures() {
    let mut world = World::bootstrapped().await;
    (world.timings.backoff_min, world.timings.backoff_max) =
        (Duration::from_millis(400), Duration::from_mins(10));
    let why = "User: x is not authorized to perform: s3:GetBucketTagging";
    let denied = FaultKind::Error { status: 403, code: "AccessDenied".into(), message: why.into() };
    world.sim.inject(Fault::on("s3", "GetBucketTagging", denied));
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    // 0.4, 0.8, 1.6 and 3.2 s; the next wait would be 6.4 s.
    world.until_called("GetBucketTagging", 5).await;
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "default", "its end", |i: Option<&OidcIssuer>| i.is_none()).await;

    world.sim.clear_calls();
    world.apply_issuer(&world.spec()).await;
    // 0.4 and 0.8 s; with the failures of the first one it would be 6.4 and 12.8 s, beyond the limit.
    world.until_called("GetBucketTagging", 3).await;
    world.sim.clear_faults();
    world.issuer_is("Ready").await;
    world.stop().await;
}

#[tokio::test]
async fn whose_the_credentials_are_is_asked_again() {
    let world = World::ready_with(|t| {
        (t.identity_refresh, t.issuer_resync) = (Duration::from_millis(200), Duration::from_millis(100));
    })
    .await;
    world.until_called("GetCallerIdentity", 3).await;
    world.issuer_is("Ready").await;
}
