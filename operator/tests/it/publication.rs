//! What an issuer publishes in AWS: drift is corrected, lost resources are created again, and resources of other owners are not
//! changed.

use std::time::Duration;

use aws_sim::{Fault, FaultKind, State};
use bytes::Bytes;
use crds::condition::ConditionType as C;
use crds::{OidcIssuer, Reason};

use crate::issuer::{managed, provider_arn};
use crate::world::{ACCOUNT, BUCKET, World};

#[tokio::test]
async fn every_drifted_attribute_is_corrected_by_one_write() {
    type Change = fn(&mut State);
    fn bucket(state: &mut State) -> &mut aws_sim::world::Bucket {
        state.buckets.get_mut(BUCKET).unwrap()
    }
    fn provider(state: &mut State) -> &mut aws_sim::world::Provider {
        state.providers.get_mut(&provider_arn()).unwrap()
    }
    let table: [(&str, Change, &[&str]); 9] = [
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
            |s| provider(s).client_ids.push("other-audience".into()),
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
    let expected = managed(&world.sim.state());
    for (attribute, change, writes) in table {
        world.sim.clear_calls();
        world.sim.change(change);
        let corrected =
            |state: &State| state.providers.contains_key(&provider_arn()) && managed(state) == expected;
        world.until_aws(&format!("the correction of {attribute}"), corrected).await;
        assert_eq!(world.writes(), writes, "{attribute}");
    }
    world.issuer_is("Ready").await;
    let check = || async {
        let notes = world.events("default", Reason::DriftCorrected).await.join("\n");
        let attributes =
            ["ownership controls", "public-access block", "bucket policy", "JWKS", "discovery document"];
        for attribute in attributes.iter().chain(&["provider audiences", "OIDC provider"]) {
            anyhow::ensure!(notes.contains(attribute), "no event names {attribute}: {notes}");
        }
        Ok(())
    };
    cluster::until("events", Duration::from_secs(20), check).await.unwrap();
    let metrics = world.metrics.text();
    assert!(metrics.contains(r#"drift_repairs_total{kind="OidcIssuer",attribute="JWKS"} 2"#), "{metrics}");
}

#[tokio::test]
async fn a_lost_bucket_is_created_again_and_protected_before_it_is_public() {
    let mut world = World::bootstrapped().await;
    let expected = managed(&world.sim.state());
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await.unwrap();
    world.sim.change(|s| {
        s.buckets.remove(BUCKET);
        s.providers.clear();
    });
    world.apply_issuer(&world.spec()).await;
    world.start_as(credentials).await;
    world.issuer_is("Ready").await;
    assert_eq!(managed(&world.sim.state()), expected);
    assert_eq!(
        world.writes(),
        [
            "CreateBucket",
            "PutBucketPolicy", // denies writes by pods; not public yet
            "PutPublicAccessBlock",
            "PutBucketPolicy",
            "PutObject", // the keys before the document that names them
            "PutObject",
            "CreateOpenIDConnectProvider",
        ]
    );
}

#[tokio::test]
async fn resources_of_other_owners_are_not_changed_and_the_owner_is_named() {
    let mut world = World::bootstrapped().await;
    // Another cluster of the same name in the account: the same path, another issuer.
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

    // A bucket in our account without our tags.
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
async fn an_account_wide_block_of_public_policies_is_named() {
    let mut world = World::ready_with(|t| {
        t.issuer_resync = Duration::from_millis(100);
        t.not_yet_window = Duration::from_millis(200);
    })
    .await;
    let named = "User is not authorized to perform: s3:PutBucketPolicy because public policies are blocked by the \
                 BlockPublicPolicy block public access setting.";
    for message in [named, "Access Denied"] {
        world.sim.inject(Fault::on(
            "s3",
            "PutBucketPolicy",
            FaultKind::Error { status: 403, code: "AccessDenied".into(), message: message.into() },
        ));
        world.sim.change(|s| {
            let bucket = s.buckets.get_mut(BUCKET).unwrap();
            (bucket.policy, bucket.policy_text) = (None, String::new());
        });
        world.issuer_is("PublicAccessBlocked").await;
        let (_, _, message) = world.issuer_condition(C::Stalled).await;
        assert!(message.contains("BlockPublicPolicy"), "{message}");
        world.sim.clear_faults();
        world.issuer_is("Ready").await;
    }
    world.stop().await;
}
