//! `operator bootstrap` and `operator teardown`: both can be run again, and change nothing if a check fails.

use aws_sim::{Fault, FaultKind, Sim};
use kube::{Client, Config};
use operator::cli::{Mode, Output};
use operator::dry_run::Ended;
use operator::teardown::Ask;
use serde_json::{Value, json};

use crate::world::{ACCOUNT, BUCKET, Flags, World};

pub fn writes(world: &World) -> Vec<String> {
    world.sim.calls().into_iter().filter(|c| c.write).map(|c| c.action).collect()
}

#[tokio::test]
async fn bootstrap_creates_everything_once_and_prints_the_next_steps() {
    let world = World::new().await;
    let planned = world
        .bootstrap_with(&world.spec(), Flags { dry_run: true, ..Flags::default() }, &world.client)
        .await
        .unwrap();
    assert_eq!(writes(&world), [""; 0], "a dry run only reads");
    for part in
        ["bucket policy", "OIDC provider", "permissions boundary", "operator's role", "nothing was changed"]
    {
        assert!(planned.contains(part), "{planned}");
    }
    let printed = world.bootstrap(&world.spec()).await.unwrap();
    assert_eq!(
        writes(&world),
        [
            "CreateBucket",
            "PutBucketPolicy",
            "PutPublicAccessBlock",
            "PutBucketPolicy",
            "PutObject",
            "PutObject",
            "CreateOpenIDConnectProvider",
            "PutObject", // the canary
            "CreatePolicy",
            "CreateRole",
            "PutRolePolicy",
            "CreateRole",
            "PutRolePolicy",
        ]
    );
    for part in [
        "--service-account-issuer=https://oidc-111122223333-eu-central-1-an.s3.eu-central-1.amazonaws.com/homelab",
        "roleARN: arn:aws:iam::111122223333:role/podidentity-system/podidentity-operator.homelab",
        "region: eu-central-1",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    world.sim.clear_calls();
    let again = world.bootstrap(&world.spec()).await.unwrap();
    assert!(again.contains("everything is as specified"), "{again}");
    assert_eq!(writes(&world), [""; 0]);

    // It corrects what was changed, and only that.
    world.sim.change(|s| {
        let role = s.roles.get_mut("podidentity-operator.homelab").unwrap();
        role.inline.clear();
        let (_, boundary) = s.policies.iter_mut().find(|(arn, _)| arn.ends_with("homelab.boundary")).unwrap();
        boundary.versions[0].1 = json!({"Version": "2012-10-17", "Statement": []});
    });
    world.bootstrap(&world.spec()).await.unwrap();
    assert_eq!(writes(&world), ["CreatePolicyVersion", "PutRolePolicy"]);
}

#[tokio::test]
async fn a_failed_check_is_reported_and_nothing_is_changed() {
    let world = World::new().await;
    let refused = async |spec| world.bootstrap(&spec).await.unwrap_err();
    let assert_error = |error: anyhow::Error, parts: &[&str]| {
        let error = format!("{error:#}");
        for part in parts.iter().chain(&["othing was changed"]) {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(writes(&world), [""; 0]);
    };

    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().bucket = "oidc-999999999999-eu-central-1-an".into();
    assert_error(refused(spec).await, &["account 999999999999", "account 111122223333"]);

    // An API server that does not answer.
    let unreachable = Client::try_from(Config::new("https://127.0.0.1:9".parse().unwrap())).unwrap();
    let error = world.bootstrap_with(&world.spec(), Flags::default(), &unreachable).await.unwrap_err();
    assert_error(error, &["the API server does not show its issuer and keys: the connection was refused"]);

    // Invalid credentials, and AWS out of reach.
    let invalid = FaultKind::Error {
        status: 403,
        code: "InvalidClientTokenId".into(),
        message: "The security token included in the request is invalid.".into(),
    };
    world.sim.inject(Fault::on("sts", "GetCallerIdentity", invalid));
    assert_error(refused(world.spec()).await, &["security token"]);
    world.sim.clear_faults();
    world.sim.inject(Fault::on("sts", "GetCallerIdentity", FaultKind::LostRequest));
    assert_error(refused(world.spec()).await, &["sts:GetCallerIdentity failed: connection reset"]);
    world.sim.clear_faults();

    // A bucket of another account, and a bucket of our account with another owner.
    world.sim.put_bucket(BUCKET, "999999999999");
    assert_error(refused(world.spec()).await, &[BUCKET, "another AWS account"]);
    world.sim.put_bucket(BUCKET, ACCOUNT);
    assert_error(refused(world.spec()).await, &[BUCKET, "belongs to somebody else"]);
    world.sim.change(|s| s.buckets.clear());

    // The operator's role of another cluster with the same name.
    let name = crds::names::operator_role_name("homelab");
    world.sim.put_role("/podidentity-system/", &name, json!({}), &[]);
    assert_error(refused(world.spec()).await, &[&name, "belongs to somebody else"]);
}

#[tokio::test]
async fn teardown_deletes_what_bootstrap_created_and_is_refused_while_roles_of_bindings_remain() {
    let mut world = World::ready().await;
    let before = world.sim.state().policies.len();
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role_name("app");
    let count = |world: &World| writes(world).len();
    let before_teardown = count(&world);
    let error = world.teardown(&world.spec(), false).await.unwrap_err().to_string();
    assert!(error.contains(&role) && error.contains("Nothing was changed"), "{error}");
    assert_eq!(count(&world), before_teardown);
    world.unbind("app").await;
    world.stop().await;

    world.sim.clear_calls();
    let planned = world.teardown(&world.spec(), true).await.unwrap();
    assert!(planned.contains("OIDC provider") && planned.contains("dry run"), "{planned}");
    assert_eq!(writes(&world), [""; 0]);
    world.teardown(&world.spec(), false).await.unwrap();
    assert_eq!(
        writes(&world),
        [
            "DeleteOpenIDConnectProvider",
            "DeleteObject",
            "DeleteObject",
            "DeleteObject",
            "DeleteBucket",
            "DeleteRolePolicy",
            "DeleteRole",
            "DeleteRolePolicy",
            "DeleteRole",
            "DeletePolicy",
        ]
    );
    let state = world.sim.state();
    assert!(state.roles.is_empty() && state.providers.is_empty() && state.buckets.is_empty());
    assert_eq!(state.policies.len(), before - 1);
    let again = world.teardown(&world.spec(), false).await.unwrap();
    assert!(again.contains("nothing left to remove"), "{again}");

    // Nothing of another owner is deleted.
    world.sim.put_bucket(BUCKET, ACCOUNT);
    world.sim.clear_calls();
    let error = world.teardown(&world.spec(), false).await.unwrap_err().to_string();
    assert!(error.contains("belongs to somebody else"), "{error}");
    assert_eq!(writes(&world), [""; 0]);
}

#[tokio::test]
async fn teardown_removes_nothing_if_aws_changes_before_the_answer() {
    let world = World::new().await;
    world.bootstrap(&world.spec()).await.unwrap();
    world.sim.clear_calls();
    let answered = async |answer: bool, meanwhile: fn(&Sim)| {
        let sim = world.sim.clone();
        let ask: Ask = Box::new(move |_, changes, cluster| {
            assert!(!changes.is_empty());
            assert_eq!(cluster, "homelab");
            meanwhile(&sim);
            Ok(answer)
        });
        world.teardown_asked(&world.spec(), ask).await
    };
    let refused = async |answer: bool, meanwhile: fn(&Sim), part: &str| {
        let error = answered(answer, meanwhile).await.unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("Nothing was changed"), "{error}");
        assert_eq!(writes(&world), [""; 0]);
    };
    refused(false, |_| {}, "not confirmed").await;
    // A binding gets a role.
    let role = |sim: &Sim| {
        sim.put_role("/podidentity/homelab/", "homelab.new", json!({}), &[]);
    };
    refused(true, role, "homelab.new. Delete their PodIdentityBindings first").await;
    world.sim.change(|state| state.roles.remove("homelab.new"));
    // Somebody else removes the bucket.
    let bucket = |sim: &Sim| sim.change(|state| state.buckets.clear());
    refused(true, bucket, "AWS has changed since the question").await;
    answered(true, |_| {}).await.unwrap();
    let state = world.sim.state();
    assert!(state.roles.is_empty() && state.providers.is_empty());
}

#[tokio::test]
async fn a_second_run_waits_for_what_iam_does_not_show_yet() {
    let world = World::new().await;
    world.sim.behave(|behaviour| behaviour.lag_milliseconds = 1500);
    world.bootstrap(&world.spec()).await.unwrap();
    world.bootstrap(&world.spec()).await.unwrap();
    let state = world.sim.state();
    assert_eq!((state.roles.len(), state.providers.len()), (2, 1));
    let created = |c: &&aws_sim::Call| c.action == "CreateRole" && c.status == 200;
    assert_eq!(world.sim.calls().iter().filter(created).count(), 2);
}

#[tokio::test]
async fn keys_of_another_cluster_are_not_replaced_by_mistake() {
    let world = World::new().await;
    let mut spec = world.spec();
    spec.s3.as_mut().unwrap().bucket = "other-111122223333-eu-central-1-an".into(); // this API server issues under another URL
    world.bootstrap(&spec).await.unwrap();
    let jwk = json!({"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"});
    let jwks = json!({"keys": [jwk]}).to_string();
    world.sim.put_object(&spec.s3.as_ref().unwrap().bucket, "homelab/openid/v1/jwks", jwks);
    world.sim.clear_calls();
    let refused = world.bootstrap(&spec).await.unwrap_err().to_string();
    assert!(refused.contains("Is the kubeconfig the right one"), "{refused}");
    assert_eq!(writes(&world), [""; 0]);
    let flags = Flags { replace_keys: true, ..Flags::default() };
    world.bootstrap_with(&spec, flags, &world.client).await.unwrap();
    assert_eq!(writes(&world), ["PutObject"]);
}

/// `bootstrap` runs before the chart installs the CRDs.
#[tokio::test]
async fn a_cluster_without_our_crds_has_no_issuers() {
    let respond = |_: http::Request<kube::client::Body>| async {
        let body = kube::client::Body::from(b"404 page not found\n".to_vec());
        Ok::<_, std::convert::Infallible>(http::Response::builder().status(404).body(body).unwrap())
    };
    let client = Client::new(tower::service_fn(respond), "default");
    assert_eq!(operator::bootstrap::issuers_of(&client).await.unwrap(), []);
}

#[tokio::test]
async fn a_dry_run_in_json_has_old_beside_new_and_says_whether_something_would_change() {
    let world = World::new().await;
    let (ended, printed) =
        world.bootstrap_options(&world.spec(), Mode::DryRun(Output::Json), None).await.unwrap();
    assert_eq!(ended, Ended::WouldChange);
    let plan: Value = serde_json::from_str(&printed).unwrap();
    let attributes: Vec<&str> =
        plan["changes"].as_array().unwrap().iter().map(|c| c["attribute"].as_str().unwrap()).collect();
    assert!(attributes.starts_with(&["bucket", "bucket policy", "public-access block"]), "{attributes:?}");
    assert_eq!(writes(&world), [""; 0]);

    world.bootstrap(&world.spec()).await.unwrap();
    let (ended, printed) =
        world.bootstrap_options(&world.spec(), Mode::DryRun(Output::Json), None).await.unwrap();
    assert_eq!(
        (ended, serde_json::from_str::<Value>(&printed).unwrap()),
        (Ended::Done, json!({"changes": []}))
    );
    world.sim.change(|state| {
        let role = state.roles.get_mut("podidentity-operator.homelab").unwrap();
        role.inline.insert("podidentity-operator".into(), json!({"Version": "2012-10-17", "Statement": []}));
    });
    let (ended, printed) =
        world.bootstrap_options(&world.spec(), Mode::DryRun(Output::Json), None).await.unwrap();
    let plan: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(ended, Ended::WouldChange);
    assert_eq!(plan["changes"][0]["attribute"], "operator's permissions");
    assert_eq!(plan["changes"][0]["resource"], "podidentity-operator.homelab");
    assert_eq!(plan["changes"][0]["old"], json!({"Version": "2012-10-17", "Statement": []}));
    assert_eq!(plan["changes"][0]["new"]["Statement"][0]["Sid"], "IssuerBucket");
}

#[tokio::test]
async fn the_operators_own_roles_get_the_boundary_that_an_organisation_demands() {
    const BOUNDARY: &str = "arn:aws:iam::111122223333:policy/organisation";
    let world = World::new().await;
    world.sim.put_managed_policy(
        "organisation",
        json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Action": "*", "Resource": "*"},
        ]}),
    );
    let boundaries = || -> Vec<Option<String>> {
        world.sim.state().roles.values().map(|role| role.boundary.clone()).collect()
    };
    // Roles that exist without it get it, and those that have it keep it.
    world.bootstrap(&world.spec()).await.unwrap();
    assert_eq!(boundaries(), [None, None]);
    for expected in [2, 0] {
        world.sim.clear_calls();
        world.bootstrap_options(&world.spec(), Mode::Make, Some(BOUNDARY)).await.unwrap();
        assert_eq!(boundaries(), [Some(BOUNDARY.to_owned()), Some(BOUNDARY.to_owned())]);
        assert_eq!(writes(&world).len(), expected, "{:?}", writes(&world));
    }
    world.bootstrap(&world.spec()).await.unwrap();
    assert_eq!(boundaries(), [Some(BOUNDARY.to_owned()), Some(BOUNDARY.to_owned())]);
}

#[test]
fn a_wrong_option_does_not_end_as_a_dry_run_that_would_change_something() {
    for (arguments, code) in [
        (&["bootstrap", "--dry-run", "--no-such-option"][..], 1),
        (&["bootstrap", "--dry-run"], 1),
        (&[], 1),
        (&["--help"], 0),
        (&["bootstrap", "--help"], 0),
        (&["--version"], 0),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_operator")).args(arguments).output();
        assert_eq!(output.unwrap().status.code(), Some(code), "{arguments:?}");
    }
}
