//! Edits of an `OidcIssuer`, with a binding under it that works.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::DEFAULT_AUDIENCE;
use crds::{Management, OidcIssuer, OidcIssuerSpec};
use kube::Api;
use kube::core::ApiResource;
use operator::oidc::Keys;
use serde_json::{Value, json};

use super::edits::{of_examples, of_schema};
use super::{Outcome, Subject, Tally, schema};
use crate::issuer::provider_arn;
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
    let team = BTreeMap::from([("team".to_owned(), "platform".to_owned())]);
    world.bootstrap(&OidcIssuerSpec { tags: team, ..world.spec() }).await.unwrap();
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
    subject.run(&edits, &examples, follow).await;
    subject.stays().await;
}

/// What is in AWS after a valid edit.
async fn follow(subject: &mut Subject, outcome: Outcome) {
    if outcome != Outcome::Applied {
        return;
    }
    let (object, history) = (subject.get().await, &subject.history);
    let spec: OidcIssuerSpec = serde_json::from_value(object["spec"].clone()).unwrap();
    let state = subject.world.sim.state();
    assert_eq!((state.providers.len(), state.buckets.contains_key(BUCKET)), (1, true), "{history:#?}");
    let provider = &state.providers[&provider_arn()];
    let has_all = |tags: &BTreeMap<String, String>| spec.tags.iter().all(|(k, v)| tags.get(k) == Some(v));
    // For other keys of role tags `bootstrap` has to run.
    if spec.tags.keys().all(|key| key == "team") {
        let name = subject.world.role_name("app");
        let tagged = |state: &aws_sim::State| state.role(&name).is_some_and(|role| has_all(&role.tags));
        subject.world.until_aws(&format!("the role's tags {history:#?}"), tagged).await;
    }
    if spec.provider_management() == Management::Managed {
        let sets = [&provider.client_ids, &spec.audiences].map(|all| all.iter().collect::<BTreeSet<_>>());
        assert_eq!(sets[0], sets[1], "{history:#?}");
        assert!(has_all(&provider.tags), "{:?} {history:#?}", provider.tags);
    }
    let bucket = &state.buckets[BUCKET];
    if spec.s3.as_ref().is_some_and(|s3| s3.management == Management::Managed) {
        assert!(has_all(&bucket.tags), "{:?} {history:#?}", bucket.tags);
    }
    // The API server's own keys are always published.
    let jwks = &bucket.objects["homelab/openid/v1/jwks"].body;
    let published = Keys::parse(jwks).unwrap();
    let keys = object["status"]["keys"].as_array().unwrap();
    let active: Vec<&Value> = keys.iter().filter(|key| key["state"] == "Active").collect();
    assert!(!active.is_empty() || !object["spec"]["keys"]["revoked"].is_null(), "{history:#?}");
    for kid in active.iter().map(|key| key["kid"].as_str().unwrap()) {
        assert!(published.iter().any(|(published, _)| published == kid), "{kid} {history:#?}");
    }
}
