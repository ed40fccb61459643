//! What the API server itself refuses at `kubectl apply`, each with the field named. A dry run: nothing is stored.

use crds::{OidcIssuer, PodIdentityBinding, PodIdentityBindingSpec};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use operator::issuer_file;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

use crate::world::{STORAGE, World, apply};

/// Sets `pointer` of a good object and applies it; `null` removes.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(field);
    } else {
        parent.insert(field.to_owned(), value);
    }
    object
}

async fn dry_run<K>(api: &Api<K>, object: &Value) -> Result<(), String>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().unwrap();
    let parameters = PatchParams { dry_run: true, ..PatchParams::apply("test").force() };
    api.patch(name, &parameters, &Patch::Apply(object)).await.map(|_| ()).map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_bad_issuer_is_refused_with_the_field_named() {
    let world = World::new().await;
    let api: Api<OidcIssuer> = world.issuers();
    let good = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": "default"},
        "spec": world.spec(),
    });
    dry_run(&api, &good).await.unwrap();
    let long = "x".repeat(64);
    for (pointer, value, says) in [
        ("/spec/clusterName", Value::Null, "spec.clusterName"),
        ("/spec/clusterName", json!(""), "spec.clusterName"),
        ("/spec/clusterName", json!("Home"), "spec.clusterName"),
        ("/spec/clusterName", json!("-home"), "spec.clusterName"),
        ("/spec/clusterName", json!("home.lab"), "spec.clusterName"),
        ("/spec/clusterName", json!("a23456789012345678901234567890123"), "spec.clusterName"),
        ("/spec/s3", Value::Null, "spec.issuerURL is required where spec.s3 is absent"),
        ("/spec/s3/management", json!("Shared"), "spec.s3.management"),
        ("/spec/provider", json!({"management": "existing"}), "spec.provider.management"),
        ("/spec/deletionPolicy", json!("Release"), "spec.deletionPolicy"),
        ("/spec/accountID", json!("1234567890"), "spec.accountID"),
        ("/spec/accountID", json!("12345678901a"), "an AWS account id has twelve digits"),
        ("/spec/tags", json!({"": "x"}), "a tag's key has 1 to 128"),
        ("/spec/tags", json!({("k".repeat(129)): "x"}), "a tag's key has 1 to 128"),
        ("/spec/tags", json!({"a": "v".repeat(257)}), "spec.tags"),
        ("/spec/tags", json!({"a": "new\nline"}), "a tag's value has letters"),
        ("/spec/permissionsBoundary", json!("arn:aws:iam::aws:policy/X"), "a boundary's ARN is"),
        ("/spec/permissionsBoundary", json!("arn:aws:iam::111122223333:role/x"), "a boundary's ARN is"),
        ("/spec/tags", json!({"aws:team": "x"}), "are reserved by AWS"),
        ("/spec/tags", json!({"podidentity.dev/cluster": "x"}), "show whose a resource is"),
        ("/spec/s3/bucket", json!("Bucket"), "spec.s3.bucket"),
        ("/spec/s3/bucket", json!("a"), "spec.s3.bucket"),
        ("/spec/s3/bucket", json!(long), "spec.s3.bucket"),
        ("/spec/s3/bucket", json!("with.dots"), "spec.s3.bucket must not contain dots"),
        ("/spec/s3/region", json!("Frankfurt"), "spec.s3.region"),
        ("/spec/s3/prefix", json!("/x"), "spec.s3.prefix"),
        ("/spec/s3/prefix", json!("a~b"), "a prefix has letters"),
        ("/spec/s3/region", json!("us-iso-east-1"), "not a region of the partitions"),
        ("/spec/s3/region", json!("eu-isoe-west-1"), "not a region of the partitions"),
        ("/spec/s3/bucket", json!("two..dots"), "single dots"),
        ("/spec/s3/bucket", json!("192.168.5.4"), "not formatted as an IP address"),
        ("/spec/s3/bucket", json!("xn--bucket"), "S3 reserves bucket names"),
        ("/spec/s3/bucket", json!("amzn-s3-demo-bucket"), "S3 reserves bucket names"),
        ("/spec/s3/bucket", json!("bucket-s3alias"), "S3 reserves bucket names"),
        ("/spec/s3/bucket", json!("bucket--x-s3"), "S3 reserves bucket names"),
        ("/spec/issuerURL", json!("https://x.example.com/a~b"), "an issuer URL is https://host[/path]"),
        (
            "/spec/audiences",
            json!(["sts.amazonaws.com", "${aws:username}"]),
            "an audience must not contain $",
        ),
        ("/spec/grants/0/name", Value::Null, ".spec.grants: element 0"),
        ("/spec/grants/0/maxSessionDuration", json!("13h"), "a session lasts from 1h to 12h"),
        ("/spec/grants/0/name", json!("Team A"), "a grant's name has lower-case letters"),
        ("/spec/grants/0/namespaces", json!({}), "exactly one of names and selector"),
        (
            "/spec/grants/0/namespaces",
            json!({"names": ["a"], "selector": {}}),
            "exactly one of names and selector",
        ),
        (
            "/spec/grants/0/namespaces",
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]}}),
            "an expression of a selector has operator In or NotIn with values",
        ),
        ("/spec/grants", json!([{"name": "a"}, {"name": "a"}]), ".spec.grants: duplicate entries"),
        ("/spec/issuerURL", json!("http://x.example.com"), "spec.issuerURL"),
        ("/spec/issuerURL", json!("https://x.example.com/"), "spec.issuerURL"),
        ("/spec/issuerURL", json!("https://x.example.com/a//"), "spec.issuerURL"),
        (
            "/spec/issuerURL",
            json!("https://x.example.com/a/"),
            "must not end with a slash where spec.s3 is set",
        ),
        ("/spec/issuerURL", json!("https://x.example.com:8443"), "spec.issuerURL"),
        ("/spec/issuerURL", json!("https://X.example.com"), "spec.issuerURL"),
        ("/spec/issuerURL", json!("https://x.example.com?a=b"), "spec.issuerURL"),
        ("/spec/issuerURL", json!(format!("https://x.example.com/{}", "y".repeat(250))), "spec.issuerURL"),
        ("/spec/audiences", json!([]), "spec.audiences"),
        ("/spec/audiences", json!([""]), "spec.audiences"),
        ("/spec/grants/0/namespaces/names", json!(["Not_A_Name"]), "spec.grants[0].namespaces.names"),
        ("/spec/grants/0/policyARNs", json!(["vault-storage"]), "spec.grants[0].policyARNs"),
        ("/spec/grants/0/policyARNs", json!(["arn:aws:iam::*:policy/x"]), "spec.grants[0].policyARNs"),
        (
            "/spec/grants/0/policyARNs",
            json!(["arn:aws:iam::111122223333:policy/podidentity/*"]),
            "are permissions boundaries of this operator",
        ),
        ("/spec/keys", json!({"retention": "24h59m"}), "stays published for at least 25h"),
        ("/spec/keys", json!({"retention": "8761h"}), "at most 8760h"),
        ("/spec/keys", json!({"retention": "2d"}), "written as hours, minutes and seconds"),
        ("/spec/keys", json!({"retention": ""}), "spec.keys.retention"),
        ("/spec/keys", json!({"additional": [{"name": "a"}, {"name": "a"}]}), "duplicate entries"),
        ("/spec/keys", json!({"additional": [{"name": "A"}]}), "the name of a ConfigMap has lower-case"),
        ("/spec/keys", json!({"additional": [{"name": "a..b"}]}), "the name of a ConfigMap has lower-case"),
        ("/spec/keys", json!({"additional": [{}]}), "spec.keys.additional"),
        ("/spec/keys", json!({"revoked": ["a", "a"]}), "duplicate entries"),
        ("/spec/keys", json!({"revoked": [""]}), "spec.keys.revoked"),
        ("/spec/keys", json!({"additional": [{"name": "a", "key": "b"}]}), "key"),
        ("/spec/typo", json!("x"), "spec.typo"),
    ] {
        let object = with(good.clone(), pointer, value.clone());
        let refused = dry_run(&api, &object).await;
        let refused = refused.expect_err(&format!("{pointer} = {value} was accepted"));
        assert!(refused.contains(says), "{pointer} = {value}: {refused}");
        // `bootstrap` refuses the same without the API server.
        let offline = issuer_file::parse("f", &object.to_string());
        assert!(offline.is_err(), "{pointer} = {value} was accepted offline");
    }
    // Unusual and valid.
    for (pointer, value) in [
        ("/spec/issuerURL", json!("https://oidc.example.com/a/b.c_d")),
        (
            "/spec",
            json!({"clusterName": "aks", "issuerURL": "https://westeurope.oic.prod-aks.azure.com/tenant/id/"}),
        ),
        ("/spec/grants/0/namespaces", json!({"selector": {}})),
        ("/spec/grants/0/namespaces", json!({"selector": {"matchLabels": {"team": "a"}}})),
        (
            "/spec/grants/0/namespaces",
            json!({"selector": {"matchExpressions": [
                {"key": "a", "operator": "NotIn", "values": ["x"]}, {"key": "b", "operator": "DoesNotExist"},
            ]}}),
        ),
        ("/spec/grants/0/inlinePolicies", json!("Allow")),
        ("/spec/grants/0/namespaces", Value::Null),
        ("/spec/s3/prefix", json!("a/b")),
        ("/spec/s3/prefix", json!("")),
        ("/spec/s3/management", json!("Existing")),
        ("/spec/provider", json!({"management": "Existing"})),
        ("/spec/provider", json!({})),
        ("/spec/deletionPolicy", json!("Delete")),
        ("/spec/accountID", json!("000000000012")),
        ("/spec/tags", json!({"CostCenter": "47 11", "a/b:c=d+e@f.g_h": ""})),
        ("/spec/keys", json!({})),
        ("/spec/keys", json!({"retention": "25h", "additional": [{"name": "next-key.v2"}]})),
        ("/spec/keys", json!({"retention": "8760h"})),
        ("/spec/grants/0/policyARNs", json!(["*", "arn:aws-cn:iam::aws:policy/team/*"])),
        ("/spec/s3/region", json!("us-gov-west-1")),
        ("/spec/s3/region", json!("eusc-de-east-1")),
        ("/spec/s3/region", json!("cn-northwest-1")),
    ] {
        let object = with(good.clone(), pointer, value);
        dry_run(&api, &object).await.unwrap();
        issuer_file::parse("f", &object.to_string()).unwrap();
    }

    world.apply_issuer(&world.spec()).await;
    for (pointer, value, says) in [
        ("/spec/clusterName", json!("other"), "spec.clusterName is immutable"),
        ("/spec/audiences", json!(["other", "sts.amazonaws.com"]), "spec.audiences[0] is immutable"),
        ("/spec/audiences", json!(["other"]), "spec.audiences[0] is immutable"),
        ("/spec/s3/bucket", json!("other-bucket"), "immutable while spec.issuerURL is absent"),
        ("/spec/s3/prefix", json!("other"), "immutable while spec.issuerURL is absent"),
        ("/spec/issuerURL", json!("https://x.example.com"), "is immutable and cannot be added or removed"),
    ] {
        let refused = dry_run(&api, &with(good.clone(), pointer, value)).await.unwrap_err();
        assert!(refused.contains(says), "{pointer}: {refused}");
    }
}

/// Whatever the schema lets through must fit the API server's limits, too: of an object's size, and of what rules cost.
#[tokio::test]
async fn the_largest_issuer_that_the_schema_allows_is_stored() {
    let world = World::new().await;
    let name = |n: usize| format!("{n:0>63}");
    let arn = |n: usize| format!("arn:aws:iam::111122223333:policy/{n:0>191}");
    let grant = |n: usize| {
        json!({
            "name": name(n),
            "namespaces": {"names": (0..128).map(name).collect::<Vec<_>>()},
            "policyARNs": (0..64).map(arn).collect::<Vec<_>>(),
        })
    };
    let mut spec = json!(world.spec());
    spec["grants"] = (0..64).map(grant).collect();
    let stored = apply(&world.issuers(), "default", spec.clone()).await.unwrap();
    assert_eq!(stored.spec.grants.len(), 64);
    assert_eq!(stored.spec.grants[63].policy_arns[0].len(), 224);
    spec["grants"].as_array_mut().unwrap().push(json!({"name": "one-more"}));
    let refused = apply(&world.issuers(), "default", spec).await.unwrap_err().to_string();
    assert!(refused.contains("spec.grants: Too many: 65"), "{refused}");
}

#[tokio::test]
async fn a_bad_binding_is_refused_with_the_field_named() {
    let world = World::new().await;
    let api: Api<PodIdentityBinding> = world.bindings();
    let spec = json!({"serviceAccountName": "app", "role": {"policyARNs": [STORAGE]}});
    let good = json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {"name": "app"}, "spec": spec,
    });
    dry_run(&api, &good).await.unwrap();
    let too_many: Vec<String> = (0..26).map(|n| format!("arn:aws:iam::111122223333:policy/p{n}")).collect();
    for (pointer, value, says) in [
        ("/spec/serviceAccountName", Value::Null, "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("App"), "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("other/app"), "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("a..b"), "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("-a"), "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("a-"), "spec.serviceAccountName"),
        ("/spec/serviceAccountName", json!("a".repeat(254)), "spec.serviceAccountName"),
        ("/spec/role", Value::Null, "exactly one of spec.role"),
        ("/spec/roleARN", json!("arn:aws:iam::111122223333:role/x"), "exactly one of spec.role"),
        ("/spec/roleARN", json!("x"), "spec.roleARN"),
        ("/spec/role/policyARNs", json!(["vault-storage"]), "spec.role.policyARNs"),
        (
            "/spec/role/policyARNs",
            json!(["arn:aws:iam::111122223333:policy/PodIdentity/office/office.boundary"]),
            "are permissions boundaries of this operator",
        ),
        ("/spec/role/policyARNs", json!(["arn:aws:iam::111122223333:policy/*"]), "spec.role.policyARNs"),
        ("/spec/role/policyARNs", json!(too_many), "spec.role.policyARNs"),
        ("/spec/audience", json!(""), "spec.audience"),
        ("/spec/audience", json!("a$b"), "an audience must not contain $"),
        ("/spec/role/maxSessionDuration", json!("59m"), "a session lasts from 1h to 12h"),
        ("/spec/role/maxSessionDuration", json!("12h1s"), "a session lasts from 1h to 12h"),
        ("/spec/role/maxSessionDuration", json!("3600"), "a session lasts from 1h to 12h"),
        ("/spec/role/maxSessionDuration", json!("1.5h"), "a session lasts from 1h to 12h"),
        ("/spec/role/maxSessionDuration", json!(3600), "spec.role.maxSessionDuration"),
        ("/spec/role/description", json!("日本"), "printable characters of Latin-1"),
        ("/spec/tokenExpirationSeconds", json!(599), "spec.tokenExpirationSeconds"),
        ("/spec/tokenExpirationSeconds", json!(86_401), "spec.tokenExpirationSeconds"),
        ("/spec/region", json!("nowhere"), "spec.region"),
        ("/spec/issuerRef", json!({"name": "Default"}), "spec.issuerRef.name"),
        ("/spec/issuerRef", json!({}), "spec.issuerRef.name"),
        ("/spec/namespace", json!("other"), "spec.namespace"),
        ("/spec/driftPolicy", json!("Ignore"), "spec.driftPolicy"),
        ("/spec/deletionPolicy", json!("Keep"), "spec.deletionPolicy"),
        (
            "/spec/role/inlinePolicies",
            json!([{"name": "a b", "document": {}}]),
            "an inline policy's name has letters",
        ),
        ("/spec/role/inlinePolicies", json!([{"name": "a", "document": "{}"}]), "document: expected map"),
        ("/spec/role/inlinePolicies", json!([{"name": "a"}]), "document"),
        (
            "/spec/role/inlinePolicies",
            json!([{"name": "podidentity-revoked", "document": {}}]),
            "is the operator's own policy of a revoked role",
        ),
        (
            "/spec/role/inlinePolicies",
            json!([{"name": "a", "document": {}}, {"name": "a", "document": {}}]),
            "duplicate entries for key",
        ),
    ] {
        let object = with(good.clone(), pointer, value.clone());
        let refused = dry_run(&api, &object).await;
        let refused = refused.expect_err(&format!("{pointer} = {value} was accepted"));
        assert!(refused.contains(says), "{pointer} = {value}: {refused}");
        // The controller refuses the same, but for what is no field, what only the webhook reads, and another form of a duration.
        let spec = serde_json::from_value::<PodIdentityBindingSpec>(object["spec"].clone());
        if !matches!(pointer, "/spec/namespace" | "/spec/region") && value != "1.5h" {
            assert!(spec.is_err() || spec.is_ok_and(|spec| spec.check().is_err()), "{pointer} = {value}");
        }
    }
    for (pointer, value) in [
        ("/spec/role/maxSessionDuration", json!("1h30m")),
        ("/spec/role/maxSessionDuration", json!("43200s")),
        ("/spec/role/description", json!("Für die Datenbank: reads, writes")),
        ("/spec/serviceAccountName", json!("0.a-b.c--d")),
        ("/spec/serviceAccountName", json!("a".repeat(253))),
        ("/spec/role/policyARNs", json!(["arn:aws-iso-b:iam::aws:policy/a/b+=,.@_-"])),
        ("/spec/role/inlinePolicies", json!([{"name": "a".repeat(128), "document": {}}])),
        ("/spec/role/description", json!("é".repeat(1000))),
        ("/spec/audience", json!("é".repeat(255))),
        ("/spec/driftPolicy", json!("ReportOnly")),
        ("/spec/deletionPolicy", json!("Release")),
        (
            "/spec/role/inlinePolicies",
            json!([{"name": "a+b", "document": {"Statement": [{"Any": {"thing": 1.5}}]}}]),
        ),
    ] {
        let object = with(good.clone(), pointer, value);
        dry_run(&api, &object).await.unwrap();
        let spec: PodIdentityBindingSpec = serde_json::from_value(object["spec"].clone()).unwrap();
        assert_eq!(spec.check(), Ok(()));
    }
    world.bind("app", &[]).await;
    for (pointer, value, says) in
        [("/spec/serviceAccountName", json!("other"), "spec.serviceAccountName is immutable")]
    {
        let refused = dry_run(&api, &with(good.clone(), pointer, value)).await.unwrap_err();
        assert!(refused.contains(says), "{refused}");
    }
    // The default by its name is no other issuer.
    dry_run(&api, &with(good, "/spec/issuerRef", json!({"name": "default"}))).await.unwrap();
}
