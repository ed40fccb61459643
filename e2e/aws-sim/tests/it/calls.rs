//! IAM and S3 through the AWS SDK: what AWS refuses is refused with AWS's error codes, and every policy is evaluated.

use aws_credential_types::Credentials;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketNamespace, CreateBucketConfiguration, PublicAccessBlockConfiguration,
};
use serde_json::{Value, json};

use crate::clients::{ACCOUNT, BUCKET, Clients, allow, outcome, public, trust};

#[tokio::test]
async fn iam_refuses_what_iam_refuses() {
    let aws = Clients::administrator();
    assert_eq!(aws.role("app", "/", &trust()).await, "ok");
    assert_eq!(
        aws.role("APP", "/other/", &trust()).await,
        "EntityAlreadyExists",
        "names ignore case and path"
    );
    assert_eq!(aws.role(&"a".repeat(65), "/", &trust()).await, "ValidationError");
    assert_eq!(aws.role("a:b", "/", &trust()).await, "ValidationError");
    assert_eq!(aws.role("b", "no-slash", &trust()).await, "ValidationError");
    assert_eq!(
        aws.role("b", "/", &json!({"Version": "2012-10-17", "Statement": []})).await,
        "MalformedPolicyDocument"
    );
    let mut long = trust();
    long["Statement"][0]["Sid"] = json!("x".repeat(2048));
    assert_eq!(aws.role("b", "/", &long).await, "LimitExceeded");

    let attach = async |arn: String| {
        outcome(aws.iam.attach_role_policy().role_name("app").policy_arn(arn).send().await)
    };
    assert_eq!(attach(format!("arn:aws:iam::{ACCOUNT}:policy/missing")).await, "NoSuchEntity");
    for n in 0..10 {
        let arn = aws.sim.put_managed_policy(&format!("p{n}"), allow("s3:GetObject", "*"));
        assert_eq!(attach(arn.clone()).await, "ok");
        assert_eq!(attach(arn).await, "ok", "attaching again changes nothing");
    }
    let eleventh = aws.sim.put_managed_policy("p10", allow("s3:GetObject", "*"));
    assert_eq!(attach(eleventh).await, "LimitExceeded");
    assert_eq!(outcome(aws.iam.delete_role().role_name("app").send().await), "DeleteConflict");
    assert_eq!(outcome(aws.iam.get_role().role_name("missing").send().await), "NoSuchEntity");

    let policy = async |name: &str, path: &str| {
        let made = aws.iam.create_policy().policy_name(name).path(path);
        outcome(made.policy_document(allow("s3:*", "*").to_string()).send().await)
    };
    assert_eq!(policy("boundary", "/one/").await, "ok");
    assert_eq!(
        policy("boundary", "/two/").await,
        "EntityAlreadyExists",
        "names are unique whatever their path"
    );
    let arn = format!("arn:aws:iam::{ACCOUNT}:policy/one/boundary");
    let version = async || {
        let made = aws.iam.create_policy_version().policy_arn(&arn).set_as_default(true);
        outcome(made.policy_document(allow("s3:*", "*").to_string()).send().await)
    };
    for _ in 0..4 {
        assert_eq!(version().await, "ok");
    }
    assert_eq!(version().await, "LimitExceeded");
    assert_eq!(
        outcome(aws.iam.delete_policy_version().policy_arn(&arn).version_id("v5").send().await),
        "DeleteConflict"
    );
    assert_eq!(
        outcome(aws.iam.delete_policy().policy_arn(&arn).send().await),
        "DeleteConflict",
        "it has versions"
    );

    for url in [
        "http://x.example.com",
        "https://x.example.com/",
        "https://x.example.com:8443",
        "https://x.example.com?a=b",
    ] {
        let made = aws.iam.create_open_id_connect_provider().url(url).send().await;
        assert_eq!(outcome(made), "InvalidInput", "{url}");
    }
    aws.sim.behave(|behaviour| behaviour.contact_provider = false);
    let provider = async || {
        outcome(aws.iam.create_open_id_connect_provider().url("https://x.example.com/a").send().await)
    };
    assert_eq!(provider().await, "ok");
    assert_eq!(provider().await, "EntityAlreadyExists");
}

#[tokio::test]
async fn s3_refuses_what_s3_refuses() {
    let aws = Clients::administrator();
    for (name, expected) in [
        ("other-999999999999-eu-central-1-an", "InvalidBucketName"), // of another account
        ("Upper", "InvalidBucketName"),
    ] {
        let made = aws.s3.create_bucket().bucket(name).bucket_namespace(BucketNamespace::AccountRegional);
        let configuration =
            CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::EuCentral1);
        assert_eq!(
            outcome(made.create_bucket_configuration(configuration.build()).send().await),
            expected,
            "{name}"
        );
    }
    aws.bucket().await;
    assert_eq!(aws.put("open").await, "ok");
    assert_eq!(aws.put("closed").await, "ok");
    assert_eq!(aws.anonymous_read("open").await, 403);

    let policy = async |document: &Value| {
        outcome(aws.s3.put_bucket_policy().bucket(BUCKET).policy(document.to_string()).send().await)
    };
    assert_eq!(policy(&public()).await, "AccessDenied", "BlockPublicPolicy");
    let of_another_bucket = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": format!("arn:aws:s3:::{BUCKET}-other/*"),
    }});
    assert_eq!(policy(&of_another_bucket).await, "MalformedPolicy");
    let open = async |restrict: bool| {
        let block = PublicAccessBlockConfiguration::builder()
            .block_public_policy(false)
            .restrict_public_buckets(restrict);
        let put = aws.s3.put_public_access_block().bucket(BUCKET);
        put.public_access_block_configuration(block.build()).send().await.unwrap();
    };
    open(true).await;
    assert_eq!(policy(&public()).await, "ok");
    assert_eq!(aws.anonymous_read("open").await, 403, "RestrictPublicBuckets");
    open(false).await;
    assert_eq!(aws.anonymous_read("open").await, 200);
    assert_eq!(aws.anonymous_read("closed").await, 403);
    assert_eq!(aws.anonymous_read("missing").await, 403, "without ListBucket, a missing key is not visible");

    let get = aws.s3.get_object().bucket(BUCKET).key("open").expected_bucket_owner("999999999999");
    assert_eq!(outcome(get.send().await), "AccessDenied");
    let put = aws.s3.put_object().bucket(BUCKET).key("open").if_none_match("*");
    assert_eq!(outcome(put.send().await), "PreconditionFailed");
    let put = aws.s3.put_object().bucket(BUCKET).key("open").if_match("\"stale\"");
    assert_eq!(outcome(put.send().await), "PreconditionFailed");
    assert_eq!(outcome(aws.s3.delete_bucket().bucket(BUCKET).send().await), "BucketNotEmpty");
    assert_eq!(
        outcome(aws.s3.get_bucket_cors().bucket(BUCKET).send().await),
        "NotImplemented",
        "an unknown operation is refused, not guessed"
    );
}

#[tokio::test]
async fn a_wrong_signature_is_refused() {
    let aws = Clients::administrator();
    let keys = aws.sim.administrator();
    let with = |id: &str, secret: &str, token: Option<&str>| {
        Clients::of(&aws.sim, Credentials::new(id, secret, token.map(str::to_owned), None, "test"))
    };
    let get = async |clients: Clients| outcome(clients.iam.get_role().role_name("x").send().await);
    assert_eq!(get(with(&keys.access_key_id, &keys.secret_access_key, None)).await, "NoSuchEntity");
    assert_eq!(get(with(&keys.access_key_id, "wrong", None)).await, "SignatureDoesNotMatch");
    assert_eq!(get(with("AKIAUNKNOWN", &keys.secret_access_key, None)).await, "InvalidClientTokenId");
    aws.sim.shift_clock(3600);
    assert_eq!(get(with(&keys.access_key_id, &keys.secret_access_key, None)).await, "SignatureDoesNotMatch");
}
