//! Reads of IAM, and STS, under a lag.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, trust};
use crate::exchange::{Case, provider_arn};

/// No test waits this long: under this lag, a read sees nothing of what the test did.
const HOURS: u64 = 3_600_000;

#[tokio::test]
async fn without_a_lag_reads_see_the_present() {
    let aws = Clients::administrator();
    assert_eq!(aws.role("app", "/", &trust()).await, "ok");
    assert_eq!(outcome(aws.iam.get_role().role_name("app").send().await), "ok");
}

#[tokio::test]
async fn under_a_lag_reads_see_each_entity_as_it_was_and_writes_see_the_present() {
    let aws = Clients::administrator();
    aws.sim.put_role("/", "old", trust(), &[]);
    let policy = aws.sim.put_managed_policy("p", allow("s3:*", "*"));
    aws.sim.behave(|behaviour| behaviour.lag_milliseconds = HOURS);
    let get = async |name: &str| outcome(aws.iam.get_role().role_name(name).send().await);
    let names = async || {
        let listed = aws.iam.list_roles().send().await.unwrap();
        listed.roles().iter().map(|role| role.role_name().to_owned()).collect::<Vec<_>>()
    };

    assert_eq!(aws.role("new", "/", &trust()).await, "ok");
    assert_eq!(get("new").await, "NoSuchEntity", "made less than the lag ago");
    assert_eq!(aws.role("new", "/", &trust()).await, "EntityAlreadyExists", "a write sees the present");
    assert_eq!(names().await, ["old"]);

    let attached = async || {
        let listed = aws.iam.list_attached_role_policies().role_name("old").send().await.unwrap();
        listed.attached_policies().len()
    };
    aws.iam.attach_role_policy().role_name("old").policy_arn(&policy).send().await.unwrap();
    assert_eq!(attached().await, 0);
    let put = aws.iam.put_role_policy().role_name("old").policy_name("inline");
    put.policy_document(allow("s3:*", "*").to_string()).send().await.unwrap();
    let listed = aws.iam.list_role_policies().role_name("old").send().await.unwrap();
    assert!(listed.policy_names().is_empty());
    let read = aws.iam.get_role_policy().role_name("old").policy_name("inline").send().await;
    assert_eq!(outcome(read), "NoSuchEntity");
    let version = aws.iam.create_policy_version().policy_arn(&policy).set_as_default(true);
    version.policy_document(allow("s3:Get*", "*").to_string()).send().await.unwrap();
    let default = aws.iam.get_policy().policy_arn(&policy).send().await.unwrap();
    assert_eq!(default.policy().unwrap().default_version_id(), Some("v1"));

    aws.iam.detach_role_policy().role_name("old").policy_arn(&policy).send().await.unwrap();
    aws.iam.delete_role_policy().role_name("old").policy_name("inline").send().await.unwrap();
    aws.iam.delete_role().role_name("old").send().await.unwrap();
    assert_eq!(get("old").await, "ok", "deleted less than the lag ago");
    assert_eq!(outcome(aws.iam.delete_role().role_name("old").send().await), "NoSuchEntity");

    let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com");
    aws.iam.create_open_id_connect_provider().url(&url).send().await.unwrap();
    let arn = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{}", url.trim_start_matches("https://"));
    let provider = aws.iam.get_open_id_connect_provider().open_id_connect_provider_arn(&arn);
    assert_eq!(outcome(provider.clone().send().await), "NoSuchEntity");
    let listed = aws.iam.list_open_id_connect_providers().send().await.unwrap();
    assert!(listed.open_id_connect_provider_list().is_empty());

    aws.sim.behave(|behaviour| behaviour.lag_milliseconds = 0);
    assert_eq!(get("new").await, "ok");
    assert_eq!(get("old").await, "NoSuchEntity");
    assert_eq!(outcome(provider.send().await), "ok");
}

#[tokio::test]
async fn a_direct_change_is_settled_at_once_and_only_for_what_it_changes() {
    let aws = Clients::administrator();
    aws.sim.behave(|behaviour| behaviour.lag_milliseconds = HOURS);
    assert_eq!(aws.role("app", "/", &trust()).await, "ok");
    assert_eq!(aws.role("other", "/", &trust()).await, "ok");
    aws.sim.change(|state| state.roles.get_mut("app").unwrap().description = "settled".into());
    let get = async |name: &str| outcome(aws.iam.get_role().role_name(name).send().await);
    assert_eq!(get("app").await, "ok");
    assert_eq!(get("other").await, "NoSuchEntity");
    aws.sim.put_role("/", "direct", trust(), &[]);
    assert_eq!(get("direct").await, "ok");
}

#[tokio::test]
async fn the_lag_ends_when_it_has_passed() {
    let aws = Clients::administrator();
    let lag = Duration::from_millis(200);
    aws.sim.behave(|behaviour| behaviour.lag_milliseconds = 200);
    let before = Instant::now();
    assert_eq!(aws.role("app", "/", &trust()).await, "ok");
    let made = Instant::now();
    loop {
        let asked = Instant::now();
        let found = outcome(aws.iam.get_role().role_name("app").send().await);
        if found == "ok" {
            assert!(before.elapsed() >= lag, "it was seen too early");
            break;
        }
        assert_eq!(found, "NoSuchEntity");
        assert!(asked - made < lag, "it was not seen after the lag");
    }
}

#[tokio::test]
async fn sts_sees_roles_as_late_as_reads_do() {
    let case = Case::valid();
    case.sim.behave(|behaviour| behaviour.lag_milliseconds = HOURS);
    let admin = Clients::of_administrator(&case.sim);
    let denied = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "sts:*",
    }]});
    let update = admin.iam.update_assume_role_policy().role_name("homelab.vault");
    update.policy_document(denied.to_string()).send().await.unwrap();
    assert_eq!(case.assume().await.0, 200, "the former trust policy");
    let arn = provider_arn();
    admin.iam.delete_open_id_connect_provider().open_id_connect_provider_arn(&arn).send().await.unwrap();
    assert_eq!(case.assume().await.0, 200, "the provider that was deleted");
    case.sim.behave(|behaviour| behaviour.lag_milliseconds = 0);
    assert_eq!(case.assume().await.0, 400);
}

#[tokio::test]
async fn a_role_that_a_read_does_not_see_is_authorised_as_a_missing_one() {
    let path = "/podidentity/homelab/";
    let case = Case::valid().may("iam:*", "arn:aws:iam::111122223333:role/podidentity/*");
    case.sim.behave(|behaviour| behaviour.lag_milliseconds = HOURS);
    let session = case.session().await;
    assert_eq!(session.role("new", path, &trust()).await, "ok");
    let get = async || outcome(session.iam.get_role().role_name("new").send().await);
    assert_eq!(get().await, "AccessDenied", "role/new, whose path is unknown");
    case.inline("more", allow("iam:GetRole", "arn:aws:iam::111122223333:role/new"));
    assert_eq!(get().await, "NoSuchEntity");
    let attach = session.iam.attach_role_policy().role_name("new");
    let attach = attach.policy_arn("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess").send().await;
    assert_eq!(outcome(attach), "ok", "a write sees it with its path");
}
