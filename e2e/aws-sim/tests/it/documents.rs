//! Limits of policy documents, and which policies a role may have.

use aws_sim::Sim;
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, trust};
use crate::exchange::Case;

/// A document of exactly that size without white space, and with much white space.
fn sized(document: &Value, size: usize) -> String {
    let mut document = document.clone();
    document["Statement"][0]["Sid"] = json!("");
    let missing = size - document.to_string().len();
    document["Statement"][0]["Sid"] = json!("x".repeat(missing));
    format!("{document:#}{}", " ".repeat(1000))
}

fn inline_size(sim: &Sim) -> usize {
    sim.state().roles["app"].inline.values().map(|document| document.to_string().len()).sum()
}

#[tokio::test]
async fn documents_have_their_limits_without_white_space() {
    let aws = Clients::administrator();
    let policy = allow("s3:GetObject", "*");
    aws.sim.put_role("/", "app", trust(), &[]);
    let create = async |name: &str, size: usize| {
        let create = aws.iam.create_policy().policy_name(name);
        outcome(create.policy_document(sized(&policy, size)).send().await)
    };
    assert_eq!(create("most", 6144).await, "ok");
    assert_eq!(create("more", 6145).await, "LimitExceeded");
    let version = async |size: usize| {
        let create =
            aws.iam.create_policy_version().policy_arn(format!("arn:aws:iam::{ACCOUNT}:policy/most"));
        outcome(create.policy_document(sized(&policy, size)).send().await)
    };
    assert_eq!(version(6144).await, "ok");
    assert_eq!(version(6145).await, "LimitExceeded");
    let update = async |size: usize| {
        let update = aws.iam.update_assume_role_policy().role_name("app");
        outcome(update.policy_document(sized(&trust(), size)).send().await)
    };
    assert_eq!(update(2048).await, "ok");
    assert_eq!(update(2049).await, "LimitExceeded");

    let put = async |name: &str, size: usize| {
        let put = aws.iam.put_role_policy().role_name("app").policy_name(name);
        outcome(put.policy_document(sized(&policy, size)).send().await)
    };
    assert_eq!(put("one", 10_241).await, "LimitExceeded");
    assert_eq!(put("one", 5000).await, "ok");
    assert_eq!(put("two", 5241).await, "LimitExceeded", "all inline policies of the role count");
    assert_eq!(put("two", 5240).await, "ok");
    assert_eq!(put("one", 5000).await, "ok", "what it replaces does not count");
    assert_eq!(inline_size(&aws.sim), 10_240);

    aws.bucket().await;
    let bucket = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
    }]});
    let put = async |size: usize| {
        let mut document = bucket.clone();
        document["Statement"][0]["Sid"] = json!("");
        document["Statement"][0]["Sid"] = json!("-".repeat(size - document.to_string().len()));
        outcome(aws.s3.put_bucket_policy().bucket(BUCKET).policy(document.to_string()).send().await)
    };
    assert_eq!(put(20 * 1024).await, "ok");
    assert_eq!(put(20 * 1024 + 1).await, "MalformedPolicy");
}

#[tokio::test]
async fn every_document_is_parsed_strictly() {
    let aws = Clients::administrator();
    let arn = aws.sim.put_managed_policy("p", allow("s3:*", "*"));
    aws.sim.put_role("/", "app", trust(), &[]);
    aws.bucket().await;
    let malformed = |document: &Value| {
        let mut document = document.clone();
        document["Statement"][0]["Conditions"] = json!({});
        document.to_string()
    };
    let (policy, trusting) = (malformed(&allow("s3:*", "*")), malformed(&trust()));
    let expected = "MalformedPolicyDocument";
    let create = aws.iam.create_role().role_name("r").assume_role_policy_document(&trusting).send().await;
    assert_eq!(outcome(create), expected);
    let update = aws.iam.update_assume_role_policy().role_name("app").policy_document(&trusting).send().await;
    assert_eq!(outcome(update), expected);
    let create = aws.iam.create_policy().policy_name("q").policy_document(&policy).send().await;
    assert_eq!(outcome(create), expected);
    let create = aws.iam.create_policy_version().policy_arn(arn).policy_document(&policy).send().await;
    assert_eq!(outcome(create), expected);
    let put =
        aws.iam.put_role_policy().role_name("app").policy_name("i").policy_document(&policy).send().await;
    assert_eq!(outcome(put), expected);
    let bucket = malformed(&json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
    }]}));
    let put = aws.s3.put_bucket_policy().bucket(BUCKET).policy(bucket).send().await;
    assert_eq!(outcome(put), "MalformedPolicy");
}

#[tokio::test]
async fn only_policies_of_the_account_and_of_aws_can_be_attached() {
    let aws = Clients::administrator();
    aws.sim.put_role("/", "app", trust(), &[]);
    let own = aws.sim.put_managed_policy("p", allow("s3:*", "*"));
    let foreign = own.replace(ACCOUNT, "999999999999");
    aws.sim.change(|state| state.policies.insert(foreign.clone(), state.policies[&own].clone()));
    let attach =
        async |arn: &str| outcome(aws.iam.attach_role_policy().role_name("app").policy_arn(arn).send().await);
    let boundary = async |arn: &str| {
        let put = aws.iam.put_role_permissions_boundary().role_name("app");
        outcome(put.permissions_boundary(arn).send().await)
    };
    let created = async |arn: &str| {
        let create = aws.iam.create_role().role_name("new").assume_role_policy_document(trust().to_string());
        outcome(create.permissions_boundary(arn).send().await)
    };
    let service = "arn:aws:iam::aws:policy/aws-service-role/AmazonECSServiceRolePolicy";
    for (arn, expected) in [
        (own.as_str(), "ok"),
        ("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess", "ok"),
        (service, "PolicyNotAttachable"),
        (&foreign, "NoSuchEntity"),
        ("arn:aws:iam::aws:policy/Missing", "NoSuchEntity"),
        ("arn:aws:iam::111122223333:role/app", "InvalidInput"),
    ] {
        assert_eq!(attach(arn).await, expected, "{arn}");
        assert_eq!(boundary(arn).await, expected, "{arn}");
    }
    assert_eq!(created(service).await, "NoSuchEntity", "PolicyNotAttachable is not declared");
    assert_eq!(created(&foreign).await, "NoSuchEntity");
}

#[tokio::test]
async fn versions_have_dates_that_increase_and_ids_that_do_not_come_again() {
    let aws = Clients::administrator();
    let create = aws.iam.create_policy().policy_name("p").policy_document(allow("s3:*", "*").to_string());
    let arn = create.send().await.unwrap().policy().unwrap().arn().unwrap().to_owned();
    let add = async || {
        let create = aws.iam.create_policy_version().policy_arn(&arn);
        let added = create.policy_document(allow("s3:*", "*").to_string()).send().await.unwrap();
        added.policy_version().unwrap().version_id().unwrap().to_owned()
    };
    assert_eq!((add().await, add().await), ("v2".to_owned(), "v3".to_owned()));
    aws.iam.delete_policy_version().policy_arn(&arn).version_id("v3").send().await.unwrap();
    assert_eq!(add().await, "v4");
    let listed = aws.iam.list_policy_versions().policy_arn(&arn).send().await.unwrap();
    let dates: Vec<_> = listed
        .versions()
        .iter()
        .map(|version| (version.create_date().unwrap().secs(), version.version_id().unwrap()))
        .collect();
    assert_eq!(dates.iter().map(|(_, id)| *id).collect::<Vec<_>>(), ["v4", "v2", "v1"]);
    assert!(dates.is_sorted_by(|newer, older| newer.0 > older.0), "{dates:?}");
    let now = jiff::Timestamp::now().as_second();
    assert!(dates.iter().all(|(date, _)| (date - now).abs() < 60), "{dates:?}");
}

#[tokio::test]
async fn a_policy_with_tags_needs_the_right_to_tag() {
    for (action, expected) in [("iam:CreatePolicy", "AccessDenied"), ("iam:*Policy", "ok")] {
        let iam = Case::valid().may(action, "*").session().await.iam;
        let create = async |name: &str, tags: Option<Vec<aws_sdk_iam::types::Tag>>| {
            let create =
                iam.create_policy().policy_name(name).policy_document(allow("s3:*", "*").to_string());
            outcome(create.set_tags(tags).send().await)
        };
        assert_eq!(create("without", None).await, "ok");
        let tag = aws_sdk_iam::types::Tag::builder().key("a").value("b").build().unwrap();
        assert_eq!(create("with", Some(vec![tag])).await, expected, "{action}");
    }
}

#[tokio::test]
async fn a_role_in_an_instance_profile_cannot_be_deleted() {
    let aws = Clients::administrator();
    aws.sim.put_role("/", "app", trust(), &[]);
    aws.sim.change(|state| state.roles.get_mut("app").unwrap().instance_profiles = vec!["nodes".into()]);
    let delete = async || outcome(aws.iam.delete_role().role_name("app").send().await);
    assert_eq!(delete().await, "DeleteConflict");
    aws.sim.change(|state| state.roles.get_mut("app").unwrap().instance_profiles.clear());
    assert_eq!(delete().await, "ok");
}
