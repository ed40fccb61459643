//! Constraints of parameters, as the SDK's clients see them.

use aws_sdk_iam::types::Tag;

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, trust};

fn tags(list: &[(&str, &str)]) -> Vec<Tag> {
    list.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build().unwrap()).collect()
}

#[tokio::test]
async fn every_call_that_sets_tags_refuses_those_that_iam_refuses() {
    let aws = Clients::administrator();
    let arn = aws.sim.put_managed_policy("p", allow("s3:*", "*"));
    aws.sim.put_role("/", "app", trust(), &[]);
    for (list, expected) in [
        (&[("issuer", "https://x/~y")][..], "ValidationError"),
        (&[("a~b", "")], "ValidationError"),
        (&[("Key", "1"), ("kEY", "2")], "InvalidInput"),
        (&[("aws:owner", "1")], "InvalidInput"),
    ] {
        let create = aws.iam.create_role().role_name("new").assume_role_policy_document(trust().to_string());
        assert_eq!(outcome(create.set_tags(Some(tags(list))).send().await), expected, "{list:?}");
        let create =
            aws.iam.create_policy().policy_name("new").policy_document(allow("s3:*", "*").to_string());
        assert_eq!(outcome(create.set_tags(Some(tags(list))).send().await), expected, "{list:?}");
        let create = aws.iam.create_open_id_connect_provider();
        let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com");
        assert_eq!(outcome(create.url(url).set_tags(Some(tags(list))).send().await), expected, "{list:?}");
        let tag = aws.iam.tag_role().role_name("app").set_tags(Some(tags(list)));
        assert_eq!(outcome(tag.send().await), expected, "{list:?}");
        let tag = aws.iam.tag_policy().policy_arn(&arn).set_tags(Some(tags(list)));
        assert_eq!(outcome(tag.send().await), expected, "{list:?}");
    }
    let state = aws.sim.state();
    assert_eq!((state.roles.len(), state.policies.len(), state.providers.len()), (1, 1, 0));
    assert!(state.roles["app"].tags.is_empty() && state.policies[&arn].tags.is_empty());
}

#[tokio::test]
async fn a_tag_replaces_one_in_another_case_and_a_resource_has_fifty_at_most() {
    let aws = Clients::administrator();
    aws.sim.put_role("/", "app", trust(), &[]);
    let tag = async |list: &[(&str, &str)]| {
        outcome(aws.iam.tag_role().role_name("app").set_tags(Some(tags(list))).send().await)
    };
    assert_eq!(tag(&[("Owner", "1")]).await, "ok");
    assert_eq!(tag(&[("owner", "2")]).await, "ok");
    let found = aws.sim.state().roles["app"].tags.clone();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("owner".to_owned(), "2".to_owned())]);
    let keys: Vec<String> = (0..49).map(|n| format!("k{n}")).collect();
    let more: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "")).collect();
    assert_eq!(tag(&more).await, "ok");
    assert_eq!(tag(&[("OWNER", "3")]).await, "ok", "it replaces one");
    assert_eq!(tag(&[("one-more", "")]).await, "LimitExceeded");
}

#[tokio::test]
async fn a_provider_has_a_hundred_audiences_at_most() {
    let aws = Clients::administrator();
    let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com");
    let create = async |count: usize| {
        let ids = (0..count).map(|n| format!("client{n}")).collect();
        outcome(
            aws.iam.create_open_id_connect_provider().url(&url).set_client_id_list(Some(ids)).send().await,
        )
    };
    assert_eq!(create(101).await, "LimitExceeded");
    assert_eq!(create(100).await, "ok");
    let arn = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{}", url.trim_start_matches("https://"));
    let add = async |id: &str| {
        let add = aws.iam.add_client_id_to_open_id_connect_provider().open_id_connect_provider_arn(&arn);
        outcome(add.client_id(id).send().await)
    };
    assert_eq!(add("client5").await, "ok", "it is there already");
    assert_eq!(add("client100").await, "LimitExceeded");
}

#[tokio::test]
async fn a_known_parameter_that_is_not_supported_is_refused() {
    let aws = Clients::administrator();
    let create = aws.iam.create_policy().policy_name("p").policy_document(allow("s3:*", "*").to_string());
    assert_eq!(outcome(create.description("text").send().await), "NotImplemented");
}

#[tokio::test]
async fn a_missing_boundary_has_awss_message() {
    let aws = Clients::administrator();
    let arn = format!("arn:aws:iam::{ACCOUNT}:policy/missing");
    let create = aws.iam.create_role().role_name("app").assume_role_policy_document(trust().to_string());
    let error = create.permissions_boundary(&arn).send().await.unwrap_err().into_service_error();
    assert_eq!(error.meta().code(), Some("NoSuchEntity"));
    let expected = format!("Scope ARN: {arn} does not exist or is not attachable.");
    assert_eq!(error.meta().message(), Some(expected.as_str()));
}

#[tokio::test]
async fn attached_policies_are_listed_by_path() {
    let aws = Clients::administrator();
    let arns = ["arn:aws:iam::111122223333:policy/a/p", "arn:aws:iam::111122223333:policy/p"];
    aws.sim.put_role("/", "app", trust(), &arns);
    let list =
        aws.iam.list_attached_role_policies().role_name("app").path_prefix("/a/").send().await.unwrap();
    let found: Vec<_> = list.attached_policies().iter().filter_map(|p| p.policy_arn()).collect();
    assert_eq!(found, &arns[..1]);
}
