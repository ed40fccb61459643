//! Several accounts: the access key, and in the exchange of a token the role's ARN, decide whose IAM answers.

use aws_sim::{Provider, Tags};
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, Clients, allow, outcome, trust};
use crate::exchange::{BUCKET, Case, HOST, provider_arn};

const OTHER: &str = "999999999999";

#[tokio::test]
async fn each_account_has_roles_of_its_own() {
    let one = Clients::administrator();
    let two = Clients::of_administrator(&one.sim.account(OTHER));
    assert_eq!(one.role("app", "/", &trust()).await, "ok");
    assert_eq!(outcome(two.iam.get_role().role_name("app").send().await), "NoSuchEntity");
    assert_eq!(two.role("app", "/", &trust()).await, "ok", "the same name");
    let found = two.iam.get_role().role_name("app").send().await.unwrap();
    assert_eq!(found.role().unwrap().arn(), format!("arn:aws:iam::{OTHER}:role/app"));
    one.iam.delete_role().role_name("app").send().await.unwrap();
    assert!(one.sim.state().roles.is_empty());
    assert_eq!(two.sim.state().roles.len(), 1);
    assert_eq!(two.sim.settings().account, OTHER);
    let others = one.sim.calls().into_iter().filter(|call| call.principal.contains(OTHER)).count();
    assert_eq!(others, 3, "one log, which names the callers' accounts");
}

#[tokio::test]
async fn a_token_is_exchanged_for_a_role_of_another_account_that_has_the_provider() {
    let mut case = Case::valid();
    let other = case.sim.account(OTHER);
    // The trust policy names the bucket's host, which has the first account's id in it.
    let mut document: Value = case.sim.state().role("homelab.vault").unwrap().trust.clone();
    document["Statement"][0]["Principal"] = json!({"Federated": provider_arn().replacen(ACCOUNT, OTHER, 1)});
    case.role = other.put_role("/", "data", document, &[]);
    let (status, body) = case.assume().await;
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("No OpenIDConnect provider found"), "{body}");

    let provider = Provider {
        url: format!("{HOST}/homelab"),
        client_ids: vec!["sts.amazonaws.com".into()],
        tags: Tags::new(),
    };
    other.change(|state| state.providers.insert(provider_arn().replacen(ACCOUNT, OTHER, 1), provider));
    other.change(|state| {
        let role = state.roles.get_mut("data").unwrap();
        role.inline.insert("may".into(), allow("*", "*"));
    });
    let session = case.session().await;
    assert_eq!(outcome(session.iam.get_role().role_name("data").send().await), "ok", "of its own account");
    assert_eq!(outcome(session.iam.get_role().role_name("homelab.vault").send().await), "NoSuchEntity");

    // A bucket of the first account: both sides must allow.
    let read =
        async || outcome(session.s3.get_object().bucket(BUCKET).key("homelab/openid/v1/jwks").send().await);
    assert_eq!(read().await, "ok", "its public policy allows");
    let list = session.s3.list_objects_v2().bucket(BUCKET).send().await;
    assert_eq!(outcome(list), "AccessDenied", "its policy does not");
    case.sim.change(|state| state.buckets.get_mut(BUCKET).unwrap().policy = None);
    assert_eq!(read().await, "AccessDenied");
    let admin =
        Clients::of_administrator(&case.sim).s3.get_object().bucket(BUCKET).key("homelab/openid/v1/jwks");
    assert_eq!(outcome(admin.send().await), "ok", "the first account's administrator");
}

#[tokio::test]
async fn the_lag_is_that_of_each_account() {
    let one = Clients::administrator();
    let two = Clients::of_administrator(&one.sim.account(OTHER));
    one.sim.put_role("/", "app", trust(), &[]);
    one.sim.behave(|behaviour| behaviour.lag_milliseconds = 3_600_000);
    assert_eq!(two.role("app", "/", &trust()).await, "ok");
    assert_eq!(outcome(two.iam.get_role().role_name("app").send().await), "NoSuchEntity");
    assert_eq!(outcome(one.iam.get_role().role_name("app").send().await), "ok");
}
