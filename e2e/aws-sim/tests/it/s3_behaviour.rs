//! S3 under each behaviour: the settings that tests of the product choose between.

use std::time::{Duration, Instant};

use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketNamespace, CreateBucketConfiguration, PublicAccessBlockConfiguration,
    ServerSideEncryption, Tag,
};
use aws_sim::{Encryption, PublicPolicyDenial, Settings, Sim};
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, public};
use crate::exchange::Case;

const OTHER: &str = "999999999999";

impl Clients {
    async fn put_policy(&self, document: &Value) -> String {
        outcome(self.s3.put_bucket_policy().bucket(BUCKET).policy(document.to_string()).send().await)
    }

    async fn lift_block(&self) {
        let block = PublicAccessBlockConfiguration::builder().block_public_policy(false);
        let put = self.s3.put_public_access_block().bucket(BUCKET);
        put.public_access_block_configuration(block.build()).send().await.unwrap();
    }

    /// With a bucket that a public policy opens.
    async fn with_public_bucket() -> Self {
        let aws = Self::administrator();
        aws.bucket().await;
        aws.lift_block().await;
        assert_eq!(aws.put_policy(&public()).await, "ok");
        aws
    }
}

fn tags(value: &str) -> Vec<Tag> {
    vec![Tag::builder().key("owner").value(value).build().unwrap()]
}

#[tokio::test]
async fn tags_in_create_bucket_are_set_or_ignored() {
    for (set, expected) in [(true, "ok"), (false, "NoSuchTagSet")] {
        let aws = Clients::administrator();
        aws.sim.behave(|behaviour| behaviour.create_bucket_tags = set);
        let configuration = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::EuCentral1)
            .set_tags(Some(tags("me")));
        let create = aws.s3.create_bucket().bucket(BUCKET).bucket_namespace(BucketNamespace::AccountRegional);
        create.create_bucket_configuration(configuration.build()).send().await.unwrap();
        assert_eq!(outcome(aws.s3.get_bucket_tagging().bucket(BUCKET).send().await), expected);
    }
}

#[tokio::test]
async fn an_object_s_own_metadata_is_stored_up_to_two_kilobytes() {
    let aws = Clients::administrator();
    aws.bucket().await;
    let put = async |value: &str| {
        let put = aws.s3.put_object().bucket(BUCKET).key("key").metadata("note", value);
        outcome(put.body(b"x".to_vec().into()).send().await)
    };
    assert_eq!(put("first").await, "ok");
    let read = async || {
        let object = aws.s3.get_object().bucket(BUCKET).key("key").send().await.unwrap();
        object.metadata.unwrap_or_default().remove("note")
    };
    assert_eq!(read().await.as_deref(), Some("first"));
    assert_eq!(put(&"x".repeat(2044)).await, "ok");
    assert_eq!(put(&"x".repeat(2045)).await, "MetadataTooLarge");
    // A new object has none of the former one's.
    aws.s3.put_object().bucket(BUCKET).key("key").body(b"x".to_vec().into()).send().await.unwrap();
    assert_eq!(read().await, None);
}

#[tokio::test]
async fn us_east_1_has_no_location_constraint_and_creates_an_own_bucket_again() {
    let sim = Sim::new(Settings { region: "us-east-1".into(), ..Settings::default() });
    let aws = Clients::of_administrator(&sim);
    let create = async |location: Option<BucketLocationConstraint>, owner: &str| {
        let configuration = CreateBucketConfiguration::builder()
            .set_location_constraint(location)
            .set_tags(Some(tags(owner)))
            .build();
        outcome(
            aws.s3.create_bucket().bucket("plain").create_bucket_configuration(configuration).send().await,
        )
    };
    assert_eq!(create(Some("us-east-1".into()), "me").await, "InvalidLocationConstraint");
    assert_eq!(
        create(Some(BucketLocationConstraint::EuCentral1), "me").await,
        "IllegalLocationConstraintException"
    );
    assert_eq!(create(None, "me").await, "ok");
    assert_eq!(create(None, "somebody").await, "ok");
    assert_eq!(sim.state().buckets["plain"].tags["owner"], "me", "nothing changed");
    let location = aws.s3.get_bucket_location().bucket("plain").send().await.unwrap();
    assert_eq!(location.location_constraint().map_or("", BucketLocationConstraint::as_str), "");

    let elsewhere = Clients::administrator();
    let made = elsewhere.s3.create_bucket().bucket("plain").send().await;
    assert_eq!(outcome(made), "IllegalLocationConstraintException", "unspecified");
    elsewhere.bucket().await;
    let location = elsewhere.s3.get_bucket_location().bucket(BUCKET).send().await.unwrap();
    assert_eq!(location.location_constraint(), Some(&BucketLocationConstraint::EuCentral1));
}

#[tokio::test]
async fn the_refusal_of_a_public_policy_is_long_or_bare() {
    for (wording, named) in [(PublicPolicyDenial::Long, true), (PublicPolicyDenial::Bare, false)] {
        let aws = Clients::administrator();
        aws.sim.behave(|behaviour| behaviour.public_policy_denial = wording);
        aws.bucket().await;
        let refused =
            aws.s3.put_bucket_policy().bucket(BUCKET).policy(public().to_string()).send().await.unwrap_err();
        let error = refused.into_service_error();
        assert_eq!(error.meta().code(), Some("AccessDenied"));
        let message = error.meta().message().unwrap();
        assert_eq!(message.contains("BlockPublicPolicy"), named, "{message}");
        assert_eq!(message == "Access Denied", !named, "{message}");
    }
}

#[tokio::test]
async fn the_accounts_block_refuses_public_policies_and_silences_those_that_there_are() {
    let aws = Clients::with_public_bucket().await;
    aws.put("open").await;
    assert_eq!(aws.anonymous_read("open").await, 200);
    aws.sim.behave(|behaviour| behaviour.account_public_access_block = true);
    assert_eq!(aws.anonymous_read("open").await, 403);
    assert_eq!(aws.put_policy(&public()).await, "AccessDenied");
    let limited = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": format!("arn:aws:iam::{ACCOUNT}:root")},
        "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/*"),
    }]});
    assert_eq!(aws.put_policy(&limited).await, "ok", "a policy that is not public");
}

#[tokio::test]
async fn the_former_block_stays_in_force_while_the_new_one_settles() {
    let aws = Clients::administrator();
    aws.bucket().await;
    let settling = Duration::from_millis(200);
    aws.sim.behave(|behaviour| behaviour.settling_milliseconds = 200);
    let before = Instant::now();
    aws.lift_block().await;
    let lifted = Instant::now();
    let read = aws.s3.get_public_access_block().bucket(BUCKET).send().await.unwrap();
    assert_eq!(read.public_access_block_configuration().unwrap().block_public_policy(), Some(false));
    loop {
        let asked = Instant::now();
        if aws.put_policy(&public()).await == "ok" {
            assert!(before.elapsed() >= settling, "the new block was in force too early");
            break;
        }
        assert!(asked - lifted < settling, "the new block did not come into force");
    }
}

#[tokio::test]
async fn objects_under_kms_cannot_be_read_anonymously() {
    let aws = Clients::with_public_bucket().await;
    aws.sim.behave(|behaviour| behaviour.default_encryption = Encryption::Kms);
    aws.put("open").await;
    let url = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com/open");
    let request = http::Request::get(url).body(bytes::Bytes::new()).unwrap();
    let response = aws.sim.handle(request).await.unwrap();
    assert_eq!(response.status(), 400);
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    assert!(body.contains("<Code>InvalidArgument</Code>"), "{body}");
    let read = aws.s3.get_object().bucket(BUCKET).key("open").send().await.unwrap();
    assert_eq!(read.server_side_encryption(), Some(&ServerSideEncryption::AwsKms), "the owner reads it");

    let put =
        aws.s3.put_object().bucket(BUCKET).key("open").server_side_encryption(ServerSideEncryption::Aes256);
    let put = put.send().await.unwrap();
    assert_eq!(put.server_side_encryption(), Some(&ServerSideEncryption::Aes256));
    assert_eq!(aws.anonymous_read("open").await, 200, "the request's encryption wins");
}

#[tokio::test]
async fn a_versioned_bucket_keeps_what_is_deleted() {
    let aws = Clients::administrator();
    aws.sim.behave(|behaviour| behaviour.versioned_buckets = true);
    aws.bucket().await;
    let status = aws.s3.get_bucket_versioning().bucket(BUCKET).send().await.unwrap();
    assert_eq!(status.status().unwrap().as_str(), "Enabled");
    let get = async || outcome(aws.s3.get_object().bucket(BUCKET).key("k").send().await);
    let put = async || {
        let put = aws.s3.put_object().bucket(BUCKET).key("k").body(b"x".to_vec().into()).send().await;
        put.unwrap().version_id().unwrap().to_owned()
    };
    let (first, second) = (put().await, put().await);
    let marker = aws.s3.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(marker.delete_marker(), Some(true));
    let marker = marker.version_id().unwrap().to_owned();
    assert_eq!(get().await, "NoSuchKey");
    assert_eq!(outcome(aws.s3.delete_bucket().bucket(BUCKET).send().await), "BucketNotEmpty");

    aws.sim.behave(|behaviour| behaviour.page_size = Some(1));
    let mut listed = Vec::new();
    let (mut key, mut version) = (None, None);
    loop {
        let list = aws.s3.list_object_versions().bucket(BUCKET);
        let page = list.set_key_marker(key).set_version_id_marker(version).send().await.unwrap();
        let versions = page.versions().iter().map(|v| (v.version_id(), v.is_latest(), false));
        let markers = page.delete_markers().iter().map(|v| (v.version_id(), v.is_latest(), true));
        let page_of: Vec<_> = versions
            .chain(markers)
            .map(|(id, latest, marker)| (id.unwrap().to_owned(), latest, marker))
            .collect();
        assert_eq!(page_of.len(), 1);
        listed.extend(page_of);
        (key, version) =
            (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
        if page.is_truncated() != Some(true) {
            break;
        }
    }
    let (newest, older) = (Some(true), Some(false));
    assert_eq!(
        listed,
        [(marker.clone(), newest, true), (second.clone(), older, false), (first.clone(), older, false)]
    );

    let delete = async |id: &str| {
        aws.s3.delete_object().bucket(BUCKET).key("k").version_id(id).send().await.unwrap();
    };
    delete(&marker).await;
    assert_eq!(get().await, "ok", "without its marker the newest version is visible");
    delete(&second).await;
    assert_eq!(get().await, "ok");
    delete(&first).await;
    assert_eq!(get().await, "NoSuchKey");
    assert_eq!(outcome(aws.s3.delete_bucket().bucket(BUCKET).send().await), "ok");
}

#[tokio::test]
async fn versions_have_rights_of_their_own() {
    let case = Case::valid().may("s3:ListBucket", "*");
    case.inline("delete", allow("s3:DeleteObject", "*"));
    let s3 = case.session().await.s3;
    let bucket = crate::exchange::BUCKET;
    assert_eq!(outcome(s3.list_objects_v2().bucket(bucket).send().await), "ok");
    assert_eq!(outcome(s3.list_object_versions().bucket(bucket).send().await), "AccessDenied");
    let delete = s3.delete_object().bucket(bucket).key("k");
    assert_eq!(outcome(delete.clone().send().await), "ok");
    assert_eq!(outcome(delete.version_id("null").send().await), "AccessDenied");
}

#[tokio::test]
async fn lists_of_objects_and_buckets_come_in_pages() {
    let aws = Clients::administrator();
    aws.sim.behave(|behaviour| behaviour.page_size = Some(1));
    aws.sim.put_bucket("another", ACCOUNT);
    aws.sim.put_bucket("foreign", OTHER);
    aws.bucket().await;
    for key in ["a", "b/c", "b/d"] {
        aws.put(key).await;
    }
    let list = aws.s3.list_objects_v2().bucket(BUCKET).prefix("b/").into_paginator();
    let pages = list.send().try_collect().await.unwrap();
    let keys: Vec<_> = pages.iter().map(|page| page.contents()[0].key().unwrap()).collect();
    assert_eq!(keys, ["b/c", "b/d"]);
    let pages = aws.s3.list_buckets().into_paginator().send().try_collect().await.unwrap();
    let names: Vec<_> = pages.iter().map(|page| page.buckets()[0].name().unwrap()).collect();
    assert_eq!(names, ["another", BUCKET], "those of this account");
}

#[tokio::test]
async fn a_bucket_of_another_account_answers_by_its_own_policy() {
    let case = Case::valid().may("s3:*", "*");
    case.sim.put_bucket("foreign", OTHER);
    case.sim.put_object("foreign", "open", "x");
    let session = case.session().await.s3;
    let admin = Clients::of_administrator(&case.sim).s3;
    let read =
        async |s3: &aws_sdk_s3::Client| outcome(s3.get_object().bucket("foreign").key("open").send().await);
    let anonymous = async || {
        let url = "https://foreign.s3.eu-central-1.amazonaws.com/open";
        case.sim.handle(http::Request::get(url).body(bytes::Bytes::new()).unwrap()).await.unwrap().status()
    };
    assert_eq!(read(&session).await, "AccessDenied", "our side allows, its side does not");
    assert_eq!(read(&admin).await, "AccessDenied");
    assert_eq!(anonymous().await, 403);

    let policy = |block: bool| {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:GetBucketPolicy"],
            "Resource": ["arn:aws:s3:::foreign", "arn:aws:s3:::foreign/*"],
        }]});
        case.sim.change(|state| {
            let bucket = state.buckets.get_mut("foreign").unwrap();
            bucket.policy = Some(policy);
            bucket.public_access_block = [block; 4];
        });
    };
    policy(false);
    assert_eq!(read(&session).await, "ok");
    assert_eq!(read(&admin).await, "ok");
    assert_eq!(anonymous().await, 200);
    let expected = session.get_object().bucket("foreign").key("open").expected_bucket_owner(ACCOUNT);
    assert_eq!(outcome(expected.send().await), "AccessDenied");
    let get_policy = session.get_bucket_policy().bucket("foreign").send().await;
    assert_eq!(outcome(get_policy), "MethodNotAllowed", "only the owner's account may");
    case.sim.change(|state| drop(state.roles.get_mut("homelab.vault").unwrap().inline.remove("may")));
    assert_eq!(read(&session).await, "AccessDenied", "its side allows, ours does not");
    policy(true);
    assert_eq!(read(&admin).await, "AccessDenied", "RestrictPublicBuckets");
    assert_eq!(anonymous().await, 403);
}
