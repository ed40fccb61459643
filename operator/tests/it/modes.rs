//! Who keeps bucket and provider: managed, existing, or none at all.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sim::{Provider, State, Tags};
use cluster::{ControlPlane, Options, Tokens};
use crds::condition::ConditionType as C;
use crds::conditions::Status;
use crds::{OidcIssuer, OidcIssuerSpec};
use kube::api::DeleteParams;
use operator::cli::{Mode, Output};
use serde_json::{Value, json};

use crate::issuer::{managed, provider_arn};
use crate::world::{ACCOUNT, BUCKET, CLUSTER, Flags, REGION, STORAGE, Site, World, with_crds};

const DOMAIN: &str = "oidc.example.com";

/// A control plane that issues tokens under a domain of its owner.
async fn cluster_under(issuer: &str) -> ControlPlane {
    let tokens = Tokens {
        issuers: vec![issuer.to_owned(), "https://kubernetes.default.svc".into()],
        ..Tokens::default()
    };
    with_crds(ControlPlane::start(&Options { tokens, ..Options::default() }).await.unwrap())
}

fn spec(fields: &Value) -> OidcIssuerSpec {
    let mut spec = json!({"clusterName": CLUSTER});
    spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

/// What the owner of an existing bucket keeps: everything but our two objects.
fn of_owner(state: &State, bucket: &str) -> Value {
    let mut bucket = state.buckets[bucket].clone();
    bucket.objects.retain(|key, _| !key.contains("openid"));
    json!(bucket)
}

/// CloudFront in front of a private bucket that several clusters share: `Existing` with `issuerURL`, and no prefix.
#[tokio::test]
async fn in_an_existing_bucket_behind_a_cdn_only_two_documents_are_written() {
    let url = format!("https://{DOMAIN}");
    let cluster = cluster_under(&url).await;
    let mut world = World::on(&cluster).await;
    let issuer = spec(&json!({
        "issuerURL": url, "deletionPolicy": "Delete",
        "s3": {"bucket": "shared-documents", "region": REGION, "prefix": "", "management": "Existing"},
    }));
    // Without the bucket, nothing is written.
    let refused = world.bootstrap(&issuer).await.unwrap_err().to_string();
    assert!(refused.contains("there is no bucket shared-documents in account 111122223333"), "{refused}");
    world.sim.put_bucket("shared-documents", ACCOUNT);
    world.sim.put_object("shared-documents", "other/.well-known/openid-configuration", "{}");
    world.sim.change(|state| {
        // What the CDN reads it by.
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::shared-documents/*",
        }]});
        let bucket = state.buckets.get_mut("shared-documents").unwrap();
        (bucket.policy_text, bucket.policy) = (policy.to_string(), Some(policy));
        bucket.public_access_block = [true, true, false, false];
    });
    world.serve(DOMAIN, Site::Cdn(format!("shared-documents.s3.{REGION}.amazonaws.com")));
    let before = of_owner(&world.sim.state(), "shared-documents");
    world.bootstrap(&issuer).await.unwrap();
    assert!(!world.sim.state().roles.keys().any(|role| role.contains("canary")), "there is nothing to try");
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;
    assert_eq!(world.issuer_condition(C::BucketFenced).await.1, "NotManaged");
    assert_eq!(world.writes(), [""; 0], "bootstrap has written all");
    let objects: Vec<String> =
        world.sim.state().buckets["shared-documents"].objects.keys().cloned().collect();
    assert_eq!(
        objects,
        [".well-known/openid-configuration", "openid/v1/jwks", "other/.well-known/openid-configuration"]
    );
    // The operator's own credentials rest on this issuer.
    world.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    world.issuer_is("OperatorDependsOnIssuer").await;
    assert_eq!(of_owner(&world.sim.state(), "shared-documents"), before);
    assert_eq!(world.writes(), [""; 0]);
    world.stop().await;
}

/// The place in the bucket has the documents of another issuer.
#[tokio::test]
async fn a_place_with_documents_of_another_issuer_is_refused_with_the_issuer_named() {
    let mut world = World::bootstrapped().await;
    let keys = world.sim.administrator();
    world.sim.put_bucket("shared", ACCOUNT);
    let other = json!({"issuer": "https://other.example.com/lab"}).to_string();
    world.sim.put_object("shared", "lab/.well-known/openid-configuration", other);
    let issuer = spec(&json!({
        "issuerURL": "https://oidc.example.com/lab",
        "s3": {"bucket": "shared", "region": REGION, "prefix": "lab", "management": "Existing"},
    }));
    let refused = world.bootstrap(&issuer).await.unwrap_err().to_string();
    assert!(
        refused.contains("is the discovery document of issuer https://other.example.com/lab"),
        "{refused}"
    );
    let before = world.sim.state().buckets["shared"].clone();
    let credentials =
        Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "administrator");
    world.start_as(credentials).await;
    world.apply_issuer_as("other", &issuer).await;
    world.issuer_named_is("other", "NotOwned").await;
    assert_eq!(world.sim.state().buckets["shared"], before);
}

/// The JWKS that the API server shows.
async fn keys_of(world: &World) -> String {
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new()).unwrap();
    world.client.request_text(request).await.unwrap()
}

/// A web server with documents for the path `/lab`.
fn files(issuer: &str, keys: &str) -> Site {
    let discovery = json!({
        "issuer": issuer, "jwks_uri": format!("https://{DOMAIN}/keys"), "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["RS256"],
    });
    Site::Files(BTreeMap::from([
        ("/lab/.well-known/openid-configuration".into(), discovery.to_string().into_bytes()),
        ("/keys".into(), keys.as_bytes().to_vec()),
    ]))
}

/// Azure AKS: the issuer ends with a slash. Provider and trust policy keep it, and the documents are found without it.
#[tokio::test]
async fn an_issuer_that_ends_with_a_slash_is_registered_and_pods_get_credentials() {
    let url = format!("https://{DOMAIN}/lab/");
    let cluster = cluster_under(&url).await;
    let mut world = World::on(&cluster).await;
    world.serve(DOMAIN, files(&url, &keys_of(&world).await));
    let grants =
        json!([{"name": "tests", "namespaces": {"names": [world.namespace]}, "policyARNs": [STORAGE]}]);
    let issuer = spec(&json!({"issuerURL": url, "grants": grants}));
    world.bootstrap(&issuer).await.unwrap();
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;
    let arn = format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{DOMAIN}/lab/");
    assert_eq!(world.sim.state().providers.keys().collect::<Vec<_>>(), [&arn]);
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let role = world.role().unwrap();
    let conditions = &role.trust["Statement"][0]["Condition"]["StringEquals"];
    assert_eq!(conditions[format!("{DOMAIN}/lab/:aud")], "sts.amazonaws.com");
    world.exchange(&world.namespace, "app", &role.arn).await.unwrap();
    assert_eq!(
        world
            .bootstrap_with(&issuer, Flags { dry_run: true, ..Flags::default() }, &world.client)
            .await
            .unwrap()
            .matches('·')
            .count(),
        0
    );
    world.unbind("app").await;
    world.stop().await;
}

/// GKE or an own web server: somebody else publishes. Only the provider is made.
#[tokio::test]
async fn without_a_bucket_the_issuer_is_registered_and_verified() {
    let url = format!("https://{DOMAIN}/lab");
    let cluster = cluster_under(&url).await;
    let mut world = World::on(&cluster).await;
    world.timings.api_server_poll = Duration::from_millis(100);
    world.timings.verify_retry = Duration::from_millis(200);
    let jwks = keys_of(&world).await;
    world.serve(DOMAIN, files(&url, &jwks));
    let issuer = spec(&json!({"issuerURL": url}));
    world.bootstrap(&issuer).await.unwrap();
    assert!(world.sim.state().buckets.is_empty());
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;
    assert_eq!(
        world.issuer_condition(C::Published).await.2,
        "somebody else publishes the documents: see PubliclyReachable"
    );
    assert_eq!(world.writes(), [""; 0]);
    let status = world.issuers().get("default").await.unwrap().status.unwrap();
    assert_eq!((status.partition.as_deref(), status.keys.len()), (Some("aws"), 0));
    world.stop().await;

    // What is wrong with them is named. The exchange decides on Ready: STS knows the token's key from the same place.
    for (site, says) in [
        (
            files("https://oidc.example.com", &jwks),
            "is the document of issuer https://oidc.example.com, not of",
        ),
        (
            files(&url, r#"{"keys": [{"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB"}]}"#),
            "does not have these keys of the API servers",
        ),
        (Site::Files(BTreeMap::new()), "answers 404"),
    ] {
        world.serve(DOMAIN, files(&url, &jwks));
        world.start().await;
        world.serve(DOMAIN, site);
        let named = |issuer: Option<&OidcIssuer>| {
            let conditions =
                issuer.and_then(|issuer| issuer.status.as_ref()).map(|status| &status.conditions[..]);
            let found = crds::conditions::find(conditions.unwrap_or_default(), C::PubliclyReachable);
            found.is_some_and(|found| found.status == Status::False && found.message.contains(says))
        };
        world.until(&world.issuers(), "default", says, named).await;
        world.stop().await;
    }
}

#[tokio::test]
async fn an_existing_provider_must_be_as_specified_and_is_never_changed() {
    let mut world = World::new().await;
    world.timings.issuer_resync = Duration::from_millis(200);
    let mut issuer = world.spec();
    issuer.provider = serde_json::from_value(json!({"management": "Existing"})).unwrap();
    // A dry run says so, too.
    let dry_run = world.bootstrap_options(&issuer, Mode::DryRun(Output::Json), None).await;
    let says = format!("there is no OIDC provider {}", provider_arn());
    assert!(dry_run.unwrap_err().to_string().contains(&says));
    let refused = world.bootstrap(&issuer).await.unwrap_err().to_string();
    assert!(refused.contains(&says), "{refused}");
    let register = |client_ids: &[&str]| {
        let url = provider_arn().split_once("oidc-provider/").unwrap().1.to_owned();
        let client_ids = client_ids.iter().map(|id| (*id).to_owned()).collect();
        world
            .sim
            .change(|s| s.providers.insert(provider_arn(), Provider { url, client_ids, tags: Tags::new() }));
    };
    // Everything else is made: IAM reads the documents when the provider is made.
    assert_eq!(world.sim.state().buckets[BUCKET].objects.len(), 3);
    register(&["sts.amazonaws.com", "of-others"]);
    let before = world.sim.state().providers;
    world.bootstrap(&issuer).await.unwrap();
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;

    issuer.audiences.push("second".into());
    world.apply_issuer(&issuer).await;
    world.issuer_is("ExistingNotAsSpecified").await;
    let (_, _, message) = world.issuer_condition(C::ProviderRegistered).await;
    assert!(message.contains("does not have audience second"), "{message}");
    // The documents are kept as specified all the same.
    world.sim.put_object(BUCKET, "homelab/openid/v1/jwks", "{}");
    let published = |state: &State| state.buckets[BUCKET].objects["homelab/openid/v1/jwks"].body.len() > 2;
    world.until_aws("the keys", published).await;
    assert_eq!(world.sim.state().providers, before);
    assert_eq!(world.writes(), ["PutObject"]);
}

#[tokio::test]
async fn specified_tags_are_on_everything_from_its_creation_and_are_put_back() {
    let mut world = World::new().await;
    world.timings.issuer_resync = Duration::from_millis(100);
    let mut issuer = world.spec();
    issuer.tags = BTreeMap::from([("cost-center".into(), "4711".into()), ("team".into(), "platform".into())]);
    world.bootstrap(&issuer).await.unwrap();
    let has = |tags: &Tags| {
        tags.get("cost-center").is_some_and(|value| value == "4711") && tags.contains_key("team")
    };
    let state = world.sim.state();
    assert!(has(&state.buckets[BUCKET].tags) && has(&state.providers[&provider_arn()].tags));
    assert!(state.roles.values().all(|role| has(&role.tags)) && state.roles.len() == 2);
    assert!(
        state
            .policies
            .values()
            .filter(|policy| policy.name.contains("boundary"))
            .all(|policy| has(&policy.tags))
    );
    world.apply_issuer(&issuer).await;
    world.start().await;
    world.issuer_is("Ready").await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    assert!(has(&world.role().unwrap().tags));
    world.unbind("app").await;

    let expected = managed(&world.sim.state());
    world.sim.clear_calls();
    world.sim.change(|state| {
        state.buckets.get_mut(BUCKET).unwrap().tags.insert("cost-center".into(), "0".into());
        state.buckets.get_mut(BUCKET).unwrap().tags.insert("of-others".into(), "stays".into());
        state.providers.get_mut(&provider_arn()).unwrap().tags.remove("team");
    });
    let repaired = |state: &State| {
        let mut state = state.clone();
        let others = state.buckets.get_mut(BUCKET).unwrap().tags.remove("of-others");
        others.as_deref() == Some("stays") && managed(&state) == expected
    };
    world.until_aws("the tags", repaired).await;
    assert_eq!(world.writes(), ["PutBucketTagging", "TagOpenIDConnectProvider"]);
}

#[tokio::test]
async fn with_credentials_of_another_account_nothing_is_touched() {
    let mut world = World::bootstrapped().await;
    let mut issuer = world.spec();
    issuer.account_id = Some("999999999999".into());
    let refused = world.bootstrap(&issuer).await.unwrap_err().to_string();
    assert!(
        refused.contains(
            "spec.accountID is of account 999999999999, but the credentials are of account 111122223333"
        ),
        "{refused}"
    );
    let expected = managed(&world.sim.state());
    world.start().await;
    world.apply_issuer(&issuer).await;
    world.bind("app", &[]).await;
    world.issuer_is("InvalidSpec").await;
    world.binding_is("app", "InvalidSpec").await;
    assert_eq!(managed(&world.sim.state()), expected);
    let actions: Vec<String> = world.operators().into_iter().map(|call| call.action).collect();
    assert_eq!(actions, ["GetCallerIdentity"]);
    world.unbind("app").await;
}
