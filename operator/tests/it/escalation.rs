//! Calls with the operator's stolen credentials: none gives rights that the operator does not have.

use aws_config::Region;
use aws_sdk_iam::types::Tag;
use aws_sdk_s3::error::ProvideErrorMetadata;
use crds::names::{boundary_arn, operator_role_arn};
use serde_json::{Value, json};

use crate::issuer::provider_arn;
use crate::world::{ACCOUNT, BUCKET, CLUSTER, REGION, World};

const ADMINISTRATOR: &str = "arn:aws:iam::aws:policy/AdministratorAccess";
const OPERATOR: &str = "podidentity-operator.homelab";
const PATH: &str = "/podidentity/homelab/";

fn allows_all() -> String {
    let all = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
    json!({"Version": "2012-10-17", "Statement": [all]}).to_string()
}

/// A trust policy that lets that role in, which the attacker has.
fn trusts_attacker() -> Value {
    json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Principal": {"AWS": operator_role_arn("aws", ACCOUNT, CLUSTER)},
        "Action": "sts:AssumeRole",
    }]})
}

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build().unwrap()
}

#[tokio::test]
async fn the_operators_credentials_give_no_rights_but_its_own() {
    let mut world = World::ready().await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let (role, boundary) = (world.role_name("app"), boundary_arn("aws", ACCOUNT, CLUSTER));
    let foreign = json!({"Version": "2012-10-17", "Statement": []});
    world.sim.put_role("/", "admin", foreign.clone(), &[ADMINISTRATOR]);
    world.sim.put_role("/podidentity/office/", "office.x", foreign.clone(), &[ADMINISTRATOR]);
    world.sim.put_role(PATH, "homelab.by-hand", foreign, &[ADMINISTRATOR]);
    world.sim.put_bucket("other", ACCOUNT);
    let (trust, all) = (trusts_attacker().to_string(), allows_all());

    let own_role = operator_role_arn("aws", ACCOUNT, CLUSTER);
    let session = world.exchange(&world.system, "podidentity-operator", &own_role).await.unwrap();
    let iam = aws_sdk_iam::Client::from_conf(
        aws_sdk_iam::Config::builder()
            .behavior_version(aws_sdk_iam::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(aws_sim::sdk::http_client(&world.sim))
            .credentials_provider(session.clone())
            .build(),
    );
    let s3 = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::Config::builder()
            .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
            .region(Region::new(REGION))
            .http_client(aws_sim::sdk::http_client(&world.sim))
            .credentials_provider(session)
            .build(),
    );
    let create = |path: &str, name: &str| {
        iam.create_role().path(path).role_name(name).assume_role_policy_document(&trust)
    };
    let cluster = || tag("podidentity.dev/cluster", CLUSTER);
    world.sim.clear_calls();
    let before = world.sim.state();
    let mut attempts = 0;
    macro_rules! refused {
        ($($what:literal: $call:expr;)*) => {$(
            attempts += 1;
            match $call.send().await {
                Ok(_) => panic!("{}: allowed", $what),
                Err(error) => assert!(
                    matches!(error.code(), Some("AccessDenied")), "{}: {error:?}", $what
                ),
            }
        )*};
    }
    refused! {
        // More rights for itself.
        "own role, inline": iam.put_role_policy().role_name(OPERATOR).policy_name("x").policy_document(&all);
        "own role, attached": iam.attach_role_policy().role_name(OPERATOR).policy_arn(ADMINISTRATOR);
        "own role, trust": iam.update_assume_role_policy().role_name(OPERATOR).policy_document(&trust);
        "own role, tag": iam.tag_role().role_name(OPERATOR).tags(cluster());
        "own role, deleted": iam.delete_role().role_name(OPERATOR);
        // A wider boundary.
        "boundary, version": iam.create_policy_version().policy_arn(&boundary).policy_document(&all).set_as_default(true);
        "boundary, deleted": iam.delete_policy().policy_arn(&boundary);
        "a policy": iam.create_policy().policy_name("x").policy_document(&all);
        "another boundary": iam.put_role_permissions_boundary().role_name(&role).permissions_boundary(ADMINISTRATOR);
        // A role with more rights.
        "no boundary": create(PATH, "homelab.x").tags(cluster());
        "another's boundary": create(PATH, "homelab.x").tags(cluster()).permissions_boundary(ADMINISTRATOR);
        "no tags": create(PATH, "homelab.x").permissions_boundary(&boundary);
        "another cluster's tag": create(PATH, "homelab.x").permissions_boundary(&boundary)
            .tags(tag("podidentity.dev/cluster", "office"));
        "a tag that another policy trusts": create(PATH, "homelab.x").permissions_boundary(&boundary)
            .tags(cluster()).tags(tag("team", "admin"));
        "another path": create("/", "homelab.x").tags(cluster()).permissions_boundary(&boundary);
        "another cluster's path": create("/podidentity/office/", "office.y").tags(cluster())
            .permissions_boundary(&boundary);
        "the boundary as rights": iam.attach_role_policy().role_name(&role).policy_arn(&boundary);
        // Roles of others.
        "admin's trust": iam.update_assume_role_policy().role_name("admin").policy_document(&trust);
        "admin's policies": iam.detach_role_policy().role_name("admin").policy_arn(ADMINISTRATOR);
        "another cluster's trust": iam.update_assume_role_policy().role_name("office.x").policy_document(&trust);
        "another cluster's tags": iam.tag_role().role_name("office.x").tags(cluster());
        "trust of an unbounded role": iam.update_assume_role_policy().role_name("homelab.by-hand").policy_document(&trust);
        "inline rights of an unbounded role": iam.put_role_policy().role_name("homelab.by-hand").policy_name("x")
            .policy_document(&all);
        "another cluster's role without its owner": iam.untag_role().role_name("office.x").tag_keys("podidentity.dev/cluster");
        "a tag of others on a role": iam.untag_role().role_name(&role).tag_keys("team");
        "rights of an unbounded role": iam.attach_role_policy().role_name("homelab.by-hand").policy_arn(ADMINISTRATOR);
        // What pods' identity rests on.
        "provider": iam.delete_open_id_connect_provider().open_id_connect_provider_arn(provider_arn());
        "another provider": iam.create_open_id_connect_provider().url("https://attacker.example.com")
            .client_id_list("sts.amazonaws.com");
        "bucket": s3.delete_bucket().bucket(BUCKET);
        "document": s3.delete_object().bucket(BUCKET).key("homelab/openid/v1/jwks");
        "canary": s3.put_object().bucket(BUCKET).key("homelab/podidentity-canary").body(b"x".to_vec().into());
        "another cluster's keys": s3.put_object().bucket(BUCKET).key("office/openid/v1/jwks").body(b"x".to_vec().into());
        "another bucket": s3.put_object().bucket("other").key("x").body(b"x".to_vec().into());
        "another bucket's policy": s3.put_bucket_policy().bucket("other").policy(&all);
        "another bucket's policy, deleted": s3.delete_bucket_policy().bucket(BUCKET);
    }
    // Each reached AWS and was refused there; the running operator was not.
    assert_eq!((attempts, world.sim.calls().iter().filter(|call| call.status == 403).count()), (35, 35));
    let of = |state: &aws_sim::State| {
        (json!(state.roles), json!(state.policies), json!(state.providers), json!(state.buckets))
    };
    assert_eq!(of(&world.sim.state()), of(&before));
    world.sim.clear_calls();
    world.stop().await;
}
