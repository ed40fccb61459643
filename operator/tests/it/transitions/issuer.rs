//! Edits of an `OidcIssuer`, with a binding under it that works.

use crds::OidcIssuer;
use crds::names::DEFAULT_AUDIENCE;
use kube::Api;
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::edits::{of_examples, of_schema};
use super::{Outcome, Subject, Tally, schema};
use crate::world::{ACCOUNT, BUCKET, QUEUE, REGION, STORAGE, World};

/// What the rules are about that the schema does not tell, and what only the controller can refuse.
fn examples(namespace: &str, key: &str) -> Vec<(&'static str, Value)> {
    let grant = |namespaces: Value, policies: Value| json!([{"name": "tests", "namespaces": namespaces, "policyARNs": policies}]);
    let own = || json!({"names": [namespace]});
    vec![
        ("/clusterName", json!("other")),
        ("/issuerURL", json!("https://oidc.example.com/a")),
        ("/audiences", json!(["sts.amazonaws.com", "vault"])),
        ("/audiences", json!(["vault", "sts.amazonaws.com"])),
        ("/audiences", json!(["sts.amazonaws.com", "vault", "third"])),
        ("/audiences", json!(["sts.amazonaws.com", "${aws:username}"])),
        ("/s3", json!({"bucket": BUCKET, "region": REGION, "management": "Existing"})),
        ("/s3/bucket", json!("other-111122223333-eu-central-1-an")),
        ("/s3/prefix", json!("homelab")),
        ("/s3/region", json!("eu-west-1")),
        ("/s3/region", json!("us-iso-east-1")),
        ("/provider", json!({"management": "Existing"})),
        ("/accountID", json!(ACCOUNT)),
        ("/accountID", json!("999999999999")),
        ("/operatorRoleARN", json!("arn:aws:iam::999999999999:role/podidentity-system/x")),
        (
            "/permissionsBoundary",
            json!(format!("arn:aws:iam::{ACCOUNT}:policy/podidentity/homelab/homelab.boundary")),
        ),
        ("/permissionsBoundary", json!(format!("arn:aws:iam::{ACCOUNT}:policy/other"))),
        ("/tags", json!({"team": "storage"})),
        ("/tags", json!({"team": "storage", "Team": "queue"})),
        ("/tags", json!({"aws:team": "x"})),
        ("/tags", json!({"podidentity.dev/cluster": "x"})),
        ("/keys", json!({"retention": "25h"})),
        ("/keys", json!({"retention": "24h"})),
        ("/keys", json!({"retention": "100h", "additional": [{"name": "next"}]})),
        ("/keys", json!({"revoked": [key]})),
        ("/keys", json!({"revoked": ["unknown"]})),
        ("/grants", json!([])),
        ("/grants", grant(own(), json!([QUEUE]))),
        ("/grants", grant(own(), json!(["*"]))),
        ("/grants", grant(json!({"selector": {}}), json!([STORAGE]))),
        ("/grants", grant(json!({"selector": {"matchLabels": {"team": "x"}}}), json!([STORAGE]))),
        ("/grants", grant(json!({"names": ["other"]}), json!([STORAGE]))),
        ("/grants", grant(json!({"names": ["a"], "selector": {}}), json!([STORAGE]))),
        ("/grants", grant(json!({}), json!([STORAGE]))),
        ("/grants/0/policyARNs", json!([format!("arn:aws:iam::{ACCOUNT}:policy/*")])),
        ("/grants/0/policyARNs", json!([format!("arn:aws:iam::{ACCOUNT}:policy/podidentity/*")])),
        ("/grants/0/maxSessionDuration", json!("12h")),
        ("/grants/0/maxSessionDuration", json!("13h")),
    ]
}

#[tokio::test]
async fn no_edit_of_an_issuer_breaks_its_bindings_and_every_valid_one_is_reached_soon() {
    let world = World::ready().await;
    world.data();
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let path = "/apis/podidentity.dev/v1alpha1/oidcissuers/default".to_owned();
    let schema = schema(&world, "oidcissuers.podidentity.dev").await;
    let key = world.issuers().get("default").await.unwrap().status.unwrap().keys[0].kid.clone();
    let (edits, examples) = (of_schema(&schema), of_examples(examples(&world.namespace, &key)));
    let role = world.role();
    let mut subject = Subject {
        kind: "OidcIssuer",
        name: "default",
        api: Api::all_with(world.client.clone(), &ApiResource::erase::<OidcIssuer>(&())),
        path,
        good: json!(world.spec()),
        tally: Tally::default(),
        history: Vec::new(),
        role,
        audience: DEFAULT_AUDIENCE.to_owned(),
        world,
    };
    subject.good = subject.get().await["spec"].clone();
    subject.run(&edits, &examples, async |_: &mut Subject, _: Outcome| {}).await;
    subject.stays().await;
}
