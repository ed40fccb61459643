//! Questions about AWS on which public evidence is split: the operator works under every answer. Each setting of the stand-in
//! (`aws_sim::Behaviour`) is used here once, by what depends on it.

use std::time::Duration;

use aws_sim::{Behaviour, Encryption, ListRolesOn, MissingRole, PublicPolicyDenial};
use crds::condition::ConditionType as C;
use crds::{OidcIssuer, Reason};
use kube::api::DeleteParams;
use serde_json::json;

use crate::issuer::managed;
use crate::world::{ACCOUNT, BUCKET, QUEUE, STORAGE, World};

/// Somebody has put another boundary on a role while the operator did not run. IAM may refuse to change its trust policy then.
#[tokio::test]
async fn a_role_with_another_boundary_is_removed_under_either_answer() {
    for boundary_key in [true, false] {
        let mut world = World::ready().await;
        world.sim.behave(|behaviour| behaviour.boundary_key = boundary_key);
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
        world.stop().await;
        world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
        let name = world.role_name("app").to_lowercase();
        world.sim.change(|state| {
            state.roles.get_mut(&name).unwrap().boundary =
                Some("arn:aws:iam::aws:policy/AdministratorAccess".into());
        });
        world.sim.clear_calls();
        world.start().await;
        let gone = |binding: Option<&crds::PodIdentityBinding>| binding.is_none();
        world.until(&world.bindings(), "app", "its end", gone).await;
        assert!(world.role().is_none());
        // Where IAM refuses to close the trust policy, it is asked once.
        let calls = world.operators().into_iter().filter(|call| call.write);
        let calls: Vec<(String, u16)> = calls.map(|call| (call.action, call.status)).collect();
        let refused =
            boundary_key.then_some([("UpdateAssumeRolePolicy", 403), ("PutRolePermissionsBoundary", 200)]);
        let then = if boundary_key {
            vec![("UpdateAssumeRolePolicy", 200)]
        } else {
            vec![("UpdateAssumeRolePolicy", 200), ("PutRolePermissionsBoundary", 200)]
        };
        let last = [("DetachRolePolicy", 200), ("DeleteRole", 200)];
        let expected = refused.into_iter().flatten().chain(then).chain(last);
        let expected: Vec<(String, u16)> =
            expected.map(|(action, status)| (action.to_owned(), status)).collect();
        assert_eq!(calls, expected, "{boundary_key}");
        world.sim.clear_calls(); // what was denied is expected
        world.stop().await;
    }
}

const CANARY: &str = "homelab/podidentity-canary";

/// A role is made, drifts in every way that needs a right, is lost, and is removed.
#[tokio::test]
async fn a_role_is_made_kept_and_removed_under_either_answer() {
    type Answer = fn(&mut Behaviour);
    let answers: [(&str, Answer); 6] = [
        ("as documented", |_| {}),
        ("no key of the boundary on trust and deletion", |b| b.boundary_key = false),
        ("a missing role is authorised on *", |b| b.missing_role = MissingRole::Any),
        ("ListRoles is authorised on *", |b| b.list_roles = ListRolesOn::Any),
        ("a trust policy that only denies is refused", |b| b.deny_only_trust = false),
        ("one item on each page of every list", |b| b.page_size = Some(1)),
    ];
    for (answer, change) in answers {
        let world = World::ready_with(|t| {
            (t.role_resync, t.role_sweep) = (Duration::from_millis(100), Duration::from_millis(500));
        })
        .await;
        world.sim.behave(change);
        world.bind("app", &[STORAGE, QUEUE]).await;
        world.binding_is("app", "Ready").await;
        let name = world.role_name("app");
        let good = json!(world.role());
        world.sim.change(|s| {
            let role = s.roles.get_mut(&name).unwrap();
            role.trust = json!({"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"},
            ]});
            role.description = "drifted".into();
        });
        world.until_aws(answer, |s| json!(s.role(&name)) == good).await;
        // The role is lost: it is made anew.
        world.sim.change(|s| s.roles.remove(&name));
        world.until_aws(answer, |s| s.role(&name).is_some_and(|r| r.attached.len() == 2)).await;
        world.binding_is("app", "Ready").await;
        // It is removed whatever the trust policy may be, and lets nothing in meanwhile.
        world.sim.clear_calls();
        world.unbind("app").await;
        assert!(world.role().is_none(), "{answer}");
        let trusts = world.operators().into_iter().filter(|c| c.action == "UpdateAssumeRolePolicy");
        let put = trusts.filter(|c| c.status == 200).count();
        assert_eq!(put, 1, "{answer}");
        // A role that is missing when its binding goes.
        world.bind("app", &[STORAGE]).await;
        world.binding_is("app", "Ready").await;
        world.sim.change(|s| s.roles.remove(&name));
        world.unbind("app").await;
        assert!(world.role().is_none(), "{answer}");
        // What is denied under an answer must not hold anything up.
        world.sim.clear_calls();
    }
}

/// The deletion is stopped between the trust policy and the role.
#[tokio::test]
async fn a_revoked_role_lets_nothing_in_where_a_trust_policy_must_allow_something() {
    let world = World::ready().await;
    world.sim.behave(|b| b.deny_only_trust = false);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap().arn;
    world.exchange(&world.namespace, "app", &role).await.unwrap();
    world.sim.change(|s| {
        let role = s.roles.get_mut(&world.role_name("app")).unwrap();
        role.instance_profiles.push("node".into());
    });
    world.bindings().delete("app", &DeleteParams::default()).await.unwrap();
    world.binding_is("app", "DeletionBlocked").await;
    assert_eq!(world.exchange(&world.namespace, "app", &role).await.unwrap_err(), "AccessDenied");
    world.sim.change(|s| {
        s.roles.get_mut(&world.role_name("app")).unwrap().instance_profiles.clear();
    });
    let gone = |b: Option<&crds::PodIdentityBinding>| b.is_none();
    world.until(&world.bindings(), "app", "its deletion", gone).await;
    assert!(world.role().is_none());
}

/// A default of SSE-KMS makes objects unreadable for everybody who has no right on the key.
#[tokio::test]
async fn documents_are_readable_whatever_the_buckets_default_encryption() {
    let mut world = World::new().await;
    world.sim.behave(|b| b.default_encryption = Encryption::Kms);
    world.bootstrap(&world.spec()).await.unwrap();
    world.timings.issuer_resync = Duration::from_millis(100);
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    assert_eq!(world.issuer_condition(C::PubliclyReachable).await.0, "True");
    let expected = managed(&world.sim.state());
    world.sim.clear_calls();
    world.sim.change(|s| {
        let objects = &mut s.buckets.get_mut(BUCKET).unwrap().objects;
        objects.get_mut("homelab/openid/v1/jwks").unwrap().encryption = Encryption::Kms;
    });
    world.until_aws("readable keys", |s| managed(s) == expected).await;
    let written: Vec<String> = world.writes();
    assert_eq!(written, ["PutObject"]);
    world.stop().await;
}

#[tokio::test]
async fn a_block_of_public_access_is_named_in_either_wording() {
    for wording in [PublicPolicyDenial::Long, PublicPolicyDenial::Bare] {
        let world = World::ready_with(|t| {
            t.issuer_resync = Duration::from_millis(100);
            t.not_yet_window = Duration::from_millis(200);
        })
        .await;
        world.sim.behave(|b| (b.public_policy_denial, b.account_public_access_block) = (wording, true));
        world.sim.change(|s| {
            let bucket = s.buckets.get_mut(BUCKET).unwrap();
            (bucket.policy, bucket.policy_text) = (None, String::new());
        });
        world.issuer_is("PublicAccessBlocked").await;
        assert_eq!(world.issuer_condition(C::Stalled).await.0, "True", "{wording:?}");
        world.sim.behave(|b| b.account_public_access_block = false);
        world.issuer_is("Ready").await;
        world.sim.clear_calls(); // refused by the block, not by the operator's policy
    }
}

#[tokio::test]
async fn bootstrap_waits_until_a_change_of_the_public_access_block_is_in_force() {
    let world = World::new().await;
    world.sim.behave(|b| b.settling_milliseconds = 2500);
    world.bootstrap(&world.spec()).await.unwrap();
    assert!(world.sim.state().buckets[BUCKET].policy.is_some());
}

#[tokio::test]
async fn teardown_removes_all_versions_and_goes_on_past_a_bucket_that_is_not_empty() {
    let mut world = World::new().await;
    world.sim.behave(|b| (b.versioned_buckets, b.page_size) = (true, Some(1)));
    world.bootstrap(&world.spec()).await.unwrap();
    world.timings.issuer_resync = Duration::from_millis(100);
    world.apply_issuer(&world.spec()).await;
    world.start().await;
    world.issuer_is("Ready").await;
    // More versions, and a delete marker.
    for _ in 0..2 {
        world.sim.change(|s| {
            let objects = &mut s.buckets.get_mut(BUCKET).unwrap().objects;
            objects.get_mut("homelab/openid/v1/jwks").unwrap().content_type = "text/html".into();
        });
        let repaired = |s: &aws_sim::State| {
            s.buckets[BUCKET].objects["homelab/openid/v1/jwks"].content_type == "application/json"
        };
        world.until_aws("the repair", repaired).await;
    }
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.until(&world.issuers(), "default", "its end", |i: Option<&OidcIssuer>| i.is_none()).await;
    world.stop().await;
    world.teardown(&world.spec(), false).await.unwrap();
    assert!(
        !world.sim.state().buckets.contains_key(BUCKET),
        "{:?}",
        world.sim.state().buckets[BUCKET].versions
    );

    // Somebody keeps something else in the bucket.
    world.bootstrap(&world.spec()).await.unwrap();
    world.sim.put_object(BUCKET, "somebody/else", "x");
    let printed = world.teardown(&world.spec(), false).await.unwrap();
    assert!(printed.contains(&format!("left in AWS: {BUCKET}")), "{printed}");
    let state = world.sim.state();
    assert!(state.roles.is_empty() && state.providers.is_empty(), "{:?}", state.roles.keys());
    assert_eq!(state.buckets[BUCKET].objects.keys().collect::<Vec<_>>(), ["somebody/else"]);
    world.sim.clear_calls();
}

#[tokio::test]
async fn a_bucket_that_shows_no_tags_after_its_creation_gets_them() {
    let world = World::new().await;
    world.sim.behave(|b| b.create_bucket_tags = false);
    let printed = world.bootstrap(&world.spec()).await.unwrap();
    assert!(printed.contains("bucket's tags"), "{printed}");
    assert_eq!(world.sim.state().buckets[BUCKET].tags["podidentity.dev/cluster"], "homelab");
    let again = world.bootstrap(&world.spec()).await.unwrap();
    assert!(again.contains("everything is as specified"), "{again}");

    // One that was there before and has no tags is somebody else's, even if it is empty.
    world.sim.change(|s| s.buckets.clear());
    world.sim.put_bucket(BUCKET, ACCOUNT);
    world.sim.clear_calls();
    let refused = world.bootstrap(&world.spec()).await.unwrap_err().to_string();
    assert!(refused.contains("Nothing was changed"), "{refused}");
    assert!(world.sim.state().buckets[BUCKET].tags.is_empty());

    // The same where S3 answers the creation of an existing bucket with success, as us-east-1 does, and it is in use.
    let missing = aws_sim::FaultKind::Error {
        status: 404,
        code: "NoSuchBucket".into(),
        message: "The specified bucket does not exist".into(),
    };
    world.sim.put_object(BUCKET, "data", "x");
    world.sim.inject(aws_sim::Fault::on("s3", "GetBucketTagging", missing).times(1));
    let refused = world.bootstrap(&world.spec()).await.unwrap_err().to_string();
    assert!(refused.contains("somebody else uses it"), "{refused}");
    assert!(world.sim.state().buckets[BUCKET].tags.is_empty());
    world.sim.clear_calls();
}

#[tokio::test]
async fn an_issuer_that_iam_cannot_reach_is_named() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.issuer_url = Some("https://oidc.example.com/homelab".into());
    let failed = world.bootstrap(&spec).await.unwrap_err().to_string();
    assert!(failed.contains("https://oidc.example.com/homelab"), "{failed}");
    assert!(failed.contains("could not reach"), "{failed}");
    assert_eq!(world.sim.state().providers.len(), 0);
}

/// A restored or cloned cluster with the same file and the same flags, but other keys.
#[tokio::test]
async fn keys_of_another_cluster_stay_although_the_issuer_is_the_same() {
    let mut world = World::bootstrapped().await;
    let jwk = json!({"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"});
    let jwks = json!({"keys": [jwk]}).to_string();
    world.sim.put_object(BUCKET, "homelab/openid/v1/jwks", jwks.clone());
    let role = crds::names::operator_role_arn("aws", ACCOUNT, "homelab");
    let credentials = world.exchange(&world.system, "podidentity-operator", &role).await;
    assert_eq!(credentials.unwrap_err(), "InvalidIdentityToken", "STS knows the other cluster's keys only");
    let refused = world.bootstrap(&world.spec()).await.unwrap_err().to_string();
    assert!(refused.contains("no other cluster use this file"), "{refused}");

    // Nor does the operator replace them.
    world.timings.issuer_resync = Duration::from_millis(200);
    world.apply_issuer(&world.spec()).await;
    let administrator = world.sim.administrator();
    let keys = aws_credential_types::Credentials::new(
        administrator.access_key_id,
        administrator.secret_access_key,
        None,
        None,
        "administrator",
    );
    world.start_as(keys).await;
    world.issuer_is(Reason::ForeignKeys.as_str()).await;
    assert_eq!(world.issuer_condition(C::Stalled).await.0, "True");
    let body = world.sim.state().buckets[BUCKET].objects["homelab/openid/v1/jwks"].body.clone();
    assert_eq!(body, jwks.as_bytes());
    assert!(
        world.sim.calls().iter().all(|c| !c.write || c.resource.ends_with(CANARY)),
        "nothing was written"
    );

    // By a person's word only.
    let flags = crate::world::Flags { replace_keys: true, ..Default::default() };
    world.bootstrap_with(&world.spec(), flags, &world.client).await.unwrap();
    world.issuer_is("Ready").await;
    world.stop().await;
}
