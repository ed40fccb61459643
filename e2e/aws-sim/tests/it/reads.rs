//! Reads of S3 that answer as AWS does: to the owner, to a session, and to a request without credentials.

use crate::clients::{ACCOUNT, Clients, outcome};
use crate::exchange::{BUCKET, Case};

#[tokio::test]
async fn a_buckets_configuration_is_read_with_the_right_of_each_operation() {
    let case = Case::valid();
    let admin = Clients::of_administrator(&case.sim).s3;
    assert_eq!(
        admin
            .get_bucket_location()
            .bucket(BUCKET)
            .send()
            .await
            .unwrap()
            .location_constraint()
            .unwrap()
            .as_str(),
        "eu-central-1"
    );
    assert_eq!(admin.get_bucket_versioning().bucket(BUCKET).send().await.unwrap().status(), None);
    let acl = admin.get_bucket_acl().bucket(BUCKET).send().await.unwrap();
    assert_eq!(acl.owner().unwrap().id(), Some(ACCOUNT));
    let [grant] = acl.grants() else { panic!("{acl:?}") };
    assert_eq!(grant.permission().unwrap().as_str(), "FULL_CONTROL");

    for (action, expected) in [
        ("s3:GetBucketLocation", ["ok", "AccessDenied", "AccessDenied", "AccessDenied", "AccessDenied"]),
        ("s3:GetBucketVersioning", ["AccessDenied", "ok", "AccessDenied", "AccessDenied", "AccessDenied"]),
        ("s3:GetBucketAcl", ["AccessDenied", "AccessDenied", "ok", "AccessDenied", "AccessDenied"]),
        ("s3:ListBucket", ["AccessDenied", "AccessDenied", "AccessDenied", "ok", "AccessDenied"]),
        ("s3:ListAllMyBuckets", ["AccessDenied", "AccessDenied", "AccessDenied", "AccessDenied", "ok"]),
    ] {
        let case = Case::valid().may(action, "*");
        let s3 = case.session().await.s3;
        let found = [
            outcome(s3.get_bucket_location().bucket(BUCKET).send().await),
            outcome(s3.get_bucket_versioning().bucket(BUCKET).send().await),
            outcome(s3.get_bucket_acl().bucket(BUCKET).send().await),
            outcome(s3.list_objects_v2().bucket(BUCKET).send().await),
            outcome(s3.list_buckets().send().await),
        ];
        assert_eq!(found, expected, "{action}");
    }
}

#[tokio::test]
async fn an_anonymous_caller_lists_nothing() {
    let case = Case::valid();
    let bucket = format!("https://{BUCKET}.s3.eu-central-1.amazonaws.com/");
    for url in [
        bucket.clone(),
        format!("{bucket}?list-type=2"),
        format!("{bucket}?versions"),
        format!("{bucket}?acl"),
        format!("{bucket}?location"),
        "https://s3.eu-central-1.amazonaws.com/".to_owned(),
    ] {
        let request = http::Request::get(&url).body(bytes::Bytes::new()).unwrap();
        let response = case.sim.handle(request).await.unwrap();
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        assert_eq!(response.status(), 403, "{url} {body}");
        assert!(body.contains("<Code>AccessDenied</Code>"), "{url} {body}");
    }
}
