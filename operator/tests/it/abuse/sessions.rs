//! What a session can do that a tenant gets by its bindings: with every right that a wide grant allows, and with roles of others.

use aws_config::Region;
use aws_credential_types::Credentials;
use aws_sdk_s3::error::ProvideErrorMetadata;
use crds::names::{boundary_arn, canary_role_arn, operator_role_arn};
use serde_json::json;

use super::{ADMINISTRATOR, FREE, Grants, Tenancy, role_arn};
use crate::issuer::provider_arn;
use crate::world::{ACCOUNT, BUCKET, CLUSTER, REGION, World};

const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

/// A role that allows everything but for its boundary: its session reads and writes data, and changes nothing that identities rest on.
#[tokio::test]
async fn a_session_of_a_role_with_every_right_changes_no_right_and_no_key() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    tenancy.grant(Grants::Wide).await;
    let document: serde_json::Value = serde_json::from_str(EVERYTHING).unwrap();
    let role = json!({"inlinePolicies": [{"name": "all", "document": document}]});
    tenancy.apply("try", &json!({"serviceAccountName": FREE, "role": role})).await.unwrap();
    let world = &tenancy.world;
    world.binding_is("try", "Ready").await;
    let (own, neighbours) = (world.role_name(FREE), role_arn(&tenancy.neighbour, "app"));
    let arn = role_arn(&world.namespace, FREE);
    let session = world.exchange(&world.namespace, FREE, &arn).await.unwrap();
    let (iam, s3) = clients(world, &session);
    let before = json!(world.sim.state());
    // The control: the rights are there.
    assert_eq!(world.reads(session).await, Ok(()));
    s3.put_object().bucket("data").key("own").body(b"x".to_vec().into()).send().await.unwrap();
    world.sim.change(|state| state.buckets.get_mut("data").unwrap().objects.remove("own"));

    let boundary = boundary_arn("aws", ACCOUNT, CLUSTER);
    let neighbour_role = neighbours.rsplit('/').next().unwrap();
    let mut attempts = 0;
    macro_rules! refused {
        ($($what:literal: $call:expr;)*) => {$(
            attempts += 1;
            match $call.send().await {
                Ok(_) => panic!("{}: allowed", $what),
                Err(error) => assert_eq!(error.code(), Some("AccessDenied"), "{}: {error:?}", $what),
            }
        )*};
    }
    refused! {
        // The signing keys.
        "the keys": s3.put_object().bucket(BUCKET).key("homelab/openid/v1/jwks").body(b"forged".to_vec().into());
        "the discovery document": s3.put_object().bucket(BUCKET).key("homelab/.well-known/openid-configuration")
            .body(b"forged".to_vec().into());
        "another object of the bucket": s3.put_object().bucket(BUCKET).key("x").body(b"x".to_vec().into());
        "the keys, deleted": s3.delete_object().bucket(BUCKET).key("homelab/openid/v1/jwks");
        "the bucket's policy": s3.put_bucket_policy().bucket(BUCKET).policy(EVERYTHING);
        "the bucket's policy, deleted": s3.delete_bucket_policy().bucket(BUCKET);
        "the bucket": s3.delete_bucket().bucket(BUCKET);
        // The boundary.
        "the boundary's document": iam.create_policy_version().policy_arn(&boundary).policy_document(EVERYTHING)
            .set_as_default(true);
        "the boundary, deleted": iam.delete_policy().policy_arn(&boundary);
        "the role's boundary": iam.put_role_permissions_boundary().role_name(&own).permissions_boundary(ADMINISTRATOR);
        // The role's own rights and trust.
        "own trust": iam.update_assume_role_policy().role_name(&own).policy_document(EVERYTHING);
        "own inline policy": iam.put_role_policy().role_name(&own).policy_name("x").policy_document(EVERYTHING);
        "own tags": iam.untag_role().role_name(&own).tag_keys("podidentity.dev/name");
        "own role": iam.delete_role().role_name(&own);
        // Roles of others.
        "the neighbour's trust": iam.update_assume_role_policy().role_name(neighbour_role).policy_document(EVERYTHING);
        "the neighbour's policies": iam.attach_role_policy().role_name(neighbour_role).policy_arn(ADMINISTRATOR);
        "the operator's trust": iam.update_assume_role_policy().role_name("podidentity-operator.homelab")
            .policy_document(EVERYTHING);
        // Providers and roles of its own.
        "the provider": iam.delete_open_id_connect_provider().open_id_connect_provider_arn(provider_arn());
        "another provider": iam.create_open_id_connect_provider().url("https://attacker.example.com")
            .client_id_list("sts.amazonaws.com");
        "a role": iam.create_role().role_name("x").assume_role_policy_document(EVERYTHING);
        "a policy": iam.create_policy().policy_name("x").policy_document(EVERYTHING);
    }
    assert_eq!(attempts, 21);
    assert_eq!(json!(world.sim.state()), before);
    tenancy.remove("try").await;
    tenancy.world.stop().await;
}

/// `roleARN` may name any role. Its trust policy decides, not the binding.
#[tokio::test]
async fn a_role_of_others_gives_no_session_however_it_is_named() {
    let mut tenancy = Tenancy::new(World::new().await).await;
    let world = &tenancy.world;
    let roles = [
        role_arn(&tenancy.neighbour, "app"),
        role_arn(&world.namespace, "app"),
        operator_role_arn("aws", ACCOUNT, CLUSTER),
        canary_role_arn("aws", ACCOUNT, CLUSTER),
        format!("arn:aws:iam::{ACCOUNT}:role/admin"),
        format!("arn:aws:iam::{ACCOUNT}:role/podidentity/office/office.x"),
    ];
    let others = tenancy.others().await;
    for arn in &roles {
        tenancy.apply("try", &json!({"serviceAccountName": FREE, "roleARN": arn})).await.unwrap();
        world.binding_is("try", "Ready").await;
        assert_eq!(world.annotations(FREE).await["eks.amazonaws.com/role-arn"], *arn);
        let refused = world.exchange(&world.namespace, FREE, arn).await;
        assert_eq!(refused.unwrap_err(), "AccessDenied", "{arn}");
        tenancy.remove("try").await;
    }
    assert_eq!(tenancy.others().await, others);
    assert_eq!(world.annotations(FREE).await, [].into());
    tenancy.world.stop().await;
}

fn clients(world: &World, session: &Credentials) -> (aws_sdk_iam::Client, aws_sdk_s3::Client) {
    let (http, region) = (aws_sim::sdk::http_client(&world.sim), Region::new(REGION));
    let iam = aws_sdk_iam::Config::builder()
        .behavior_version(aws_sdk_iam::config::BehaviorVersion::latest())
        .region(region.clone())
        .http_client(http.clone())
        .credentials_provider(session.clone())
        .build();
    let s3 = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(region.clone())
        .http_client(http.clone())
        .credentials_provider(session.clone())
        .build();
    (aws_sdk_iam::Client::from_conf(iam), aws_sdk_s3::Client::from_conf(s3))
}
