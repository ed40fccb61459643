//! IAM under each behaviour: the settings that tests of the product choose between.

use std::sync::Arc;

use aws_sdk_iam::config::retry::RetryConfig;
use aws_sim::{CallRate, ListRolesOn, MissingRole, Settings, Sim};
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, trust};
use crate::exchange::Case;

/// All roles under a path, and their own names without it.
const ROLES: &str = "arn:aws:iam::111122223333:role/*";

#[tokio::test]
async fn a_missing_role_is_authorised_by_its_name_or_on_everything() {
    for (on, resource, expected) in [
        (MissingRole::Name, ROLES, "NoSuchEntity"),
        (MissingRole::Any, ROLES, "AccessDenied"),
        (MissingRole::Any, "*", "NoSuchEntity"),
    ] {
        let case = Case::valid().may("iam:*", resource);
        case.sim.behave(|behaviour| behaviour.missing_role = on);
        let session = case.session().await;
        let get = async |name: &str| outcome(session.iam.get_role().role_name(name).send().await);
        assert_eq!(get("missing").await, expected, "{on:?} {resource}");
        assert_eq!(get("homelab.vault").await, "ok", "a role that exists");
    }
}

#[tokio::test]
async fn list_roles_is_authorised_on_the_path_or_on_everything() {
    for (on, resource, expected) in [
        (ListRolesOn::Path, "arn:aws:iam::111122223333:role/podidentity/*", "ok"),
        (ListRolesOn::Any, "arn:aws:iam::111122223333:role/podidentity/*", "AccessDenied"),
        (ListRolesOn::Any, "*", "ok"),
    ] {
        let case = Case::valid().may("iam:ListRoles", resource);
        case.sim.behave(|behaviour| behaviour.list_roles = on);
        let listed = case.session().await.iam.list_roles().path_prefix("/podidentity/").send().await;
        assert_eq!(outcome(listed), expected, "{on:?} {resource}");
    }
}

#[tokio::test]
async fn a_trust_policy_that_only_denies_is_accepted_or_refused() {
    let denies = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRoleWithWebIdentity",
    }]});
    for (accepted, expected) in [(true, "ok"), (false, "MalformedPolicyDocument")] {
        let aws = Clients::administrator();
        aws.sim.behave(|behaviour| behaviour.deny_only_trust = accepted);
        aws.sim.put_role("/", "app", trust(), &[]);
        assert_eq!(aws.role("denied", "/", &denies).await, expected);
        let update = async |document: &Value| {
            let update = aws.iam.update_assume_role_policy().role_name("app");
            outcome(update.policy_document(document.to_string()).send().await)
        };
        assert_eq!(update(&denies).await, expected);
        assert_eq!(update(&trust()).await, "ok");
    }
}

#[tokio::test]
async fn three_operations_have_the_boundary_key_or_not() {
    for (present, expected) in [(true, "ok"), (false, "AccessDenied")] {
        let case = Case::valid();
        case.sim.behave(|behaviour| behaviour.boundary_key = present);
        let boundary = case.sim.put_managed_policy("boundary", allow("*", "*"));
        let mut may = allow("iam:*", "*");
        may["Statement"][0]["Condition"] = json!({"StringEquals": {"iam:PermissionsBoundary": boundary}});
        case.inline("may", may);
        case.sim.put_role("/", "app", trust(), &[]);
        case.sim.change(|state| state.roles.get_mut("app").unwrap().boundary = Some(boundary));
        let iam = case.session().await.iam;
        assert_eq!(outcome(iam.get_role().role_name("app").send().await), "ok");
        let update = iam.update_assume_role_policy().role_name("app").policy_document(trust().to_string());
        assert_eq!(outcome(update.send().await), expected);
        assert_eq!(outcome(iam.update_role().role_name("app").send().await), expected);
        assert_eq!(outcome(iam.delete_role().role_name("app").send().await), expected);
    }
}

#[tokio::test]
async fn the_quota_of_roles_is_that_of_the_behaviour() {
    let aws = Clients::administrator();
    aws.sim.behave(|behaviour| behaviour.role_quota = 1);
    assert_eq!(aws.role("one", "/", &trust()).await, "ok");
    assert_eq!(aws.role("two", "/", &trust()).await, "LimitExceeded");
    aws.iam.delete_role().role_name("one").send().await.unwrap();
    assert_eq!(aws.role("two", "/", &trust()).await, "ok");
}

#[tokio::test]
async fn every_list_comes_in_pages() {
    let aws = Clients::administrator();
    aws.sim.behave(|behaviour| behaviour.page_size = Some(1));
    let policies: Vec<String> =
        (0..3).map(|n| aws.sim.put_managed_policy(&format!("p{n}"), allow("s3:*", "*"))).collect();
    for name in ["a", "B", "c"] {
        let attached: Vec<&str> = policies.iter().map(String::as_str).collect();
        aws.sim.put_role("/", name, trust(), &attached);
        aws.sim.change(|state| {
            let role = state.roles.get_mut(&name.to_lowercase()).unwrap();
            role.inline.insert("one".into(), allow("s3:*", "*"));
            role.inline.insert("two".into(), allow("s3:*", "*"));
        });
    }
    for _ in 0..2 {
        let version = aws.iam.create_policy_version().policy_arn(&policies[0]);
        version.policy_document(allow("s3:*", "*").to_string()).send().await.unwrap();
    }

    let pages = aws.iam.list_roles().into_paginator().send().try_collect().await.unwrap();
    assert!(pages.iter().all(|page| page.roles().len() == 1));
    assert_eq!(pages.iter().map(|p| p.roles()[0].role_name()).collect::<Vec<_>>(), ["a", "B", "c"]);
    let pages = aws
        .iam
        .list_attached_role_policies()
        .role_name("a")
        .into_paginator()
        .send()
        .try_collect()
        .await
        .unwrap();
    let attached: Vec<_> = pages.iter().filter_map(|p| p.attached_policies()[0].policy_arn()).collect();
    assert_eq!(attached, policies);
    let pages =
        aws.iam.list_role_policies().role_name("a").into_paginator().send().try_collect().await.unwrap();
    assert_eq!(pages.iter().map(|p| p.policy_names()[0].as_str()).collect::<Vec<_>>(), ["one", "two"]);
    let pages = aws
        .iam
        .list_policy_versions()
        .policy_arn(&policies[0])
        .into_paginator()
        .send()
        .try_collect()
        .await
        .unwrap();
    let versions: Vec<_> = pages.iter().filter_map(|p| p.versions()[0].version_id()).collect();
    assert_eq!(versions, ["v3", "v2", "v1"]);
}

#[tokio::test]
async fn a_new_provider_needs_a_host_that_answers() {
    let create = async |sim: &Sim, url: &str| {
        let aws = Clients::of_administrator(sim);
        outcome(aws.iam.create_open_id_connect_provider().url(url).send().await)
    };
    let in_process = Sim::new(Settings::default());
    let refused = "OpenIdIdpCommunicationError";
    let own = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com");
    assert_eq!(create(&in_process, &own).await, "ok", "S3 answers, whether the bucket exists or not");
    assert_eq!(create(&in_process, "https://x.example.com").await, refused);
    assert!(
        !in_process
            .state()
            .providers
            .contains_key(&format!("arn:aws:iam::{ACCOUNT}:oidc-provider/x.example.com"))
    );
    in_process.behave(|behaviour| behaviour.contact_provider = false);
    assert_eq!(create(&in_process, "https://x.example.com").await, "ok");

    let reached = Sim::new(Settings::default());
    let answer = |url: String| -> Result<(u16, bytes::Bytes), String> {
        assert_eq!(url, "https://y.example.com/a/.well-known/openid-configuration");
        Ok((404, bytes::Bytes::new()))
    };
    reached.fetch_with(Arc::new(move |url| Box::pin(async move { answer(url) })));
    assert_eq!(create(&reached, "https://y.example.com/a").await, "ok", "any answer is contact");
}

#[tokio::test]
async fn iam_throttles_what_exceeds_its_rate_and_nothing_else() {
    let aws = Clients::administrator();
    aws.sim.put_role("/", "app", trust(), &[]);
    let get = async || {
        let once = aws_sdk_iam::config::Builder::default().retry_config(RetryConfig::disabled());
        let request = aws.iam.get_role().role_name("app").customize().config_override(once);
        outcome(request.send().await)
    };
    // So slow that nothing is added meanwhile.
    aws.sim.behave(|behaviour| behaviour.iam_rate = Some(CallRate { per_second: 0, burst: 2 }));
    assert_eq!([get().await, get().await, get().await], ["ok", "ok", "Throttling"]);
    assert_eq!(aws.put("x").await, "NoSuchBucket", "S3 has limits of its own");
    let refused: Vec<_> = aws.sim.calls().into_iter().filter(|call| call.status == 400).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(!refused[0].denied && refused[0].at <= aws.sim.elapsed(), "{refused:?}");
    // What was used up comes back with time.
    aws.sim.behave(|behaviour| behaviour.iam_rate = Some(CallRate { per_second: 1000, burst: 2 }));
    while get().await != "ok" {
        tokio::task::yield_now().await;
    }
    let answered =
        aws.sim.calls().iter().filter(|call| call.action == "GetRole" && call.status == 200).count();
    assert_eq!(answered, 3);
}
