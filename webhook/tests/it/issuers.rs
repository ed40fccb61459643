//! Several issuers: a binding uses the issuer it names, and everything without a binding the cluster's default issuer.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crds::{OidcIssuer, PodIdentityBinding};
use json_patch::Patch;
use serde_json::{Value, json};
use webhook::identity::decide::decide;
use webhook::identity::facts::{Annotations, BindingFacts, IssuerFacts};
use webhook::identity::issuers::Issuers;
use webhook::identity::model::{CredentialMethod, Identity, IdentitySource, ServiceAccountFacts};
use webhook::identity::settings::{RoleNames, Settings};
use webhook::model::Outcome;
use webhook::protocol::admit::Admission;

use crate::fake::{ACCOUNTS, Api, BINDINGS, Gate, ISSUERS, eventually};
use crate::identity::{binding, issuer};
use crate::reviews::{ask, review, synced};

const FIRST_ROLE: &str =
    "arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky";

/// An issuer of another account, region and audience.
fn other(name: &str) -> Value {
    json!({
        "apiVersion": "podidentity.dev/v1alpha1", "kind": "OidcIssuer", "metadata": {"name": name},
        "spec": {
            "clusterName": "other", "audiences": ["other.example"], "s3": {"bucket": "o", "region": "cn-north-1"},
        },
        "status": {"accountID": "444455556666", "partition": "aws-cn"},
    })
}

/// The default issuer under another name.
fn first(name: &str) -> Value {
    let mut issuer = issuer();
    issuer["metadata"]["name"] = json!(name);
    issuer
}

/// A binding of `vault/<service_account>` that uses that issuer.
fn bound(service_account: &str, issuer: &str) -> Value {
    let spec = json!({"serviceAccountName": service_account, "issuerRef": {"name": issuer}, "role": {}});
    binding(service_account, 0, &spec, &json!({}))
}

fn facts(bindings: &[Value], issuers: &[Value], role: Option<&str>) -> ServiceAccountFacts {
    let binding = |b: &Value| serde_json::from_value::<PodIdentityBinding>(b.clone()).unwrap();
    let issuer = |i: &Value| serde_json::from_value::<OidcIssuer>(i.clone()).unwrap();
    let annotations = role.map(|role| Annotations { role_arn: Some(role.into()), ..Annotations::default() });
    ServiceAccountFacts {
        annotations: annotations.map(Arc::new),
        bindings: bindings.iter().map(|b| Arc::new(BindingFacts::from(binding(b)))).collect(),
        issuers: Arc::new(Issuers::all(issuers.iter().map(|i| Arc::new(IssuerFacts::from(issuer(i)))))),
        ..ServiceAccountFacts::default()
    }
}

fn role<'a>(identity: &'a Identity<'_>) -> &'a str {
    match &identity.method {
        CredentialMethod::Role(arn) => arn,
        CredentialMethod::ContainerCredentials => "",
    }
}

#[test]
fn a_binding_takes_account_region_and_audience_from_its_issuer() {
    let settings = Settings::new("eks.amazonaws.com");
    let issuers = [first("default"), other("second")];
    for (issuer, expected_role, region, audience) in [
        ("default", FIRST_ROLE, "eu-central-1", "sts.amazonaws.com"),
        (
            "second",
            "arn:aws-cn:iam::444455556666:role/podidentity/other/other.vault.vault-",
            "cn-north-1",
            "other.example",
        ),
    ] {
        let facts = facts(&[bound("vault", issuer)], &issuers, None);
        let decision = decide("vault", "vault", &facts, &settings);
        let identity = decision.identity.unwrap();
        assert!(role(&identity).starts_with(expected_role), "{issuer}: {identity:?}");
        assert_eq!((identity.region, identity.audience), (Some(region), audience), "{issuer}");
        assert!(decision.warnings.is_empty(), "{issuer}: {:?}", decision.warnings);
    }
}

/// A binding of `vault/vault` that has the role of the default issuer, which trusts `audience`, and was Ready; `generation` is that of its
/// specification now, the status is of the first.
fn with_role(spec: &Value, generation: i64, ready: &str, audience: Option<&str>) -> Value {
    let mut binding = bound("vault", "default");
    binding["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    binding["metadata"]["generation"] = json!(generation);
    binding["status"] = json!({
        "roleARN": FIRST_ROLE, "roleName": "homelab.vault.vault-bno5n7ilbuky", "audience": audience, "observedGeneration": 1,
        "conditions": [{
            "type": "Ready", "status": ready, "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    });
    binding
}

/// The operator refuses such edits and leaves the role as it is: pods that start now get what running ones have.
#[test]
fn an_edit_that_the_operator_refuses_changes_nothing_for_new_pods() {
    let settings = Settings::new("eks.amazonaws.com");
    let issuers = [first("default"), other("second")];
    let (audience, moved) =
        (|name: &str| json!({"audience": name}), |name: &str| json!({"issuerRef": {"name": name}}));
    let both = json!({"audience": "vault", "issuerRef": {"name": "second"}});
    let sts = "sts.amazonaws.com";
    for (row, edited, expected) in [
        ("in effect", with_role(&audience("vault"), 1, "True", None), "vault"),
        ("not looked at yet", with_role(&audience("vault"), 2, "True", None), sts),
        ("refused", with_role(&audience("vault"), 1, "False", None), sts),
        ("the former one is another", with_role(&audience("x"), 1, "False", Some("vault")), "vault"),
        ("the edit takes it out", with_role(&json!({}), 1, "False", Some("vault")), "vault"),
        ("another account", with_role(&moved("second"), 1, "False", None), sts),
        ("another account and audience", with_role(&both, 2, "True", Some("former")), "former"),
        ("no such issuer", with_role(&moved("typo"), 1, "False", Some("vault")), "vault"),
    ] {
        // Whatever Git has annotated.
        let mut facts = facts(&[edited], &issuers, Some("arn:aws:iam::111122223333:role/git"));
        Arc::make_mut(facts.annotations.as_mut().unwrap()).audience = Some("git".into());
        let decision = decide("vault", "vault", &facts, &settings);
        let identity = decision.identity.unwrap();
        assert_eq!((role(&identity), identity.region), (FIRST_ROLE, Some("eu-central-1")), "{row}");
        assert_eq!((identity.source, identity.audience), (IdentitySource::Binding, expected), "{row}");
        assert!(decision.warnings.is_empty(), "{row}: {:?}", decision.warnings);
    }
}

/// Of two issuers that can make the role, of other regions: the one under which it was made, until another is in effect.
#[test]
fn a_refused_edit_of_the_issuer_changes_no_region() {
    let settings = Settings::new("eks.amazonaws.com");
    let in_region = |name: &str, region: &str| {
        let mut issuer = first(name);
        issuer["spec"]["s3"]["region"] = json!(region);
        issuer
    };
    let issuers = [in_region("a", "eu-west-1"), in_region("b", "eu-west-2"), other("second")];
    for (row, named, generation, ready, region) in [
        ("in effect", "a", 1, "True", "eu-west-1"),
        ("not looked at yet", "a", 2, "True", "eu-west-2"),
        ("refused for another reason", "a", 1, "False", "eu-west-2"),
        ("cannot have the role", "second", 1, "False", "eu-west-2"),
        ("does not exist", "nowhere", 1, "False", "eu-west-2"),
    ] {
        let mut edited = with_role(&json!({"issuerRef": {"name": named}}), generation, ready, None);
        edited["status"]["issuer"] = json!("b");
        let facts = facts(&[edited], &issuers, None);
        let identity = decide("vault", "vault", &facts, &settings).identity.unwrap();
        assert_eq!((role(&identity), identity.region), (FIRST_ROLE, Some(region)), "{row}");
    }
}

/// An annotation gives no other role than the binding's, whichever issuer could make it.
#[test]
fn an_annotation_does_not_move_a_binding_to_another_issuer() {
    let settings = Settings::new("eks.amazonaws.com");
    let issuers = [first("default"), other("second")];
    let second = facts(&[bound("vault", "second")], &issuers, None);
    let of_second = role(&decide("vault", "vault", &second, &settings).identity.unwrap()).to_owned();
    for (generation, ready) in [(1, "True"), (1, "False"), (2, "True")] {
        let facts = facts(&[with_role(&json!({}), generation, ready, None)], &issuers, Some(&of_second));
        let identity = decide("vault", "vault", &facts, &settings).identity.unwrap();
        assert_eq!(
            (role(&identity), identity.audience),
            (FIRST_ROLE, "sts.amazonaws.com"),
            "{generation} {ready}"
        );
    }
}

#[test]
fn of_several_bindings_the_issuer_of_the_one_that_holds_the_service_account_counts() {
    let settings = Settings::new("eks.amazonaws.com");
    let mut younger = bound("vault", "default");
    younger["metadata"]["name"] = json!("younger");
    younger["metadata"]["creationTimestamp"] = json!("2026-11-24T11:00:00Z");
    let issuers = [first("default"), other("second")];
    let facts = facts(&[younger, bound("vault", "second")], &issuers, None);
    let identity = decide("vault", "vault", &facts, &settings).identity.unwrap();
    assert_eq!((identity.region, identity.audience), (Some("cn-north-1"), "other.example"));
}

/// Its audience is not known, and a token for another one would be refused by STS for as long as the pod runs.
#[test]
fn a_role_of_another_tool_needs_the_issuer_that_its_binding_names() {
    let settings = Settings::new("eks.amazonaws.com");
    let with_role = |issuer: &str| {
        let mut binding = bound("vault", issuer);
        binding["spec"]["role"] = json!(null);
        binding["spec"]["roleARN"] = json!("arn:aws:iam::111122223333:role/terraform");
        binding
    };
    let missing = facts(&[with_role("typo")], &[first("default")], None);
    let decision = decide("vault", "vault", &missing, &settings);
    let warning = "PodIdentityBinding vault gives no identity: OidcIssuer typo does not exist";
    assert_eq!((decision.identity, decision.warnings), (None, vec![warning.to_owned()]));
    // A webhook that runs without issuers: the flags count.
    let without = facts(&[with_role("default")], &[], None);
    let identity = decide("vault", "vault", &without, &settings).identity.unwrap();
    assert_eq!(identity.audience, "sts.amazonaws.com");
}

#[test]
fn a_warning_names_the_binding_s_issuer() {
    let settings = Settings::new("eks.amazonaws.com");
    let mut unknown_account = other("second");
    unknown_account["status"] = json!({});
    for (issuers, expected) in [
        (vec![], "OidcIssuer second does not exist"),
        // Neither the default issuer nor the only one replaces it.
        (vec![first("default")], "OidcIssuer second does not exist"),
        (vec![first("third")], "OidcIssuer second does not exist"),
        (vec![first("default"), unknown_account], "the AWS account of OidcIssuer second is not known yet"),
    ] {
        let facts = facts(&[bound("vault", "second")], &issuers, None);
        let decision = decide("vault", "vault", &facts, &settings);
        let warning = format!("PodIdentityBinding vault gives no identity: {expected}");
        assert_eq!((decision.identity, decision.warnings), (None, vec![warning]));
    }
}

#[test]
fn a_service_account_without_a_binding_gets_region_and_account_of_the_default_issuer() {
    let of_account = RoleNames::OfAccount { account: None, partition: None };
    let settings = Settings { role_names: of_account, ..Settings::new("eks.amazonaws.com") };
    let (of_first, of_other) = (
        ("arn:aws:iam::111122223333:role/app", Some("eu-central-1")),
        ("arn:aws-cn:iam::444455556666:role/app", Some("cn-north-1")),
    );
    for (issuers, expected) in [
        (vec![first("default"), other("second")], of_first),
        (vec![first("first"), other("default")], of_other),
        (vec![other("second")], of_other),
        // Of several without that name none is the default.
        (vec![first("first"), other("second")], ("app", None)),
        (vec![], ("app", None)),
    ] {
        let facts = facts(&[], &issuers, Some("app"));
        let identity = decide("vault", "vault", &facts, &settings).identity.unwrap();
        assert_eq!((role(&identity), identity.region), expected);
        assert_eq!((identity.source, identity.audience), (IdentitySource::Annotations, "sts.amazonaws.com"));
    }
}

/// A cluster with these issuers, and three `ServiceAccount`s: two bound and one annotated.
fn cluster(issuers: &[Value]) -> Arc<Api> {
    let api = Api::new();
    for issuer in issuers {
        api.put(ISSUERS, issuer.clone());
    }
    api.put_account("vault", "vault", None);
    api.put(BINDINGS, bound("vault", "default"));
    api.put_account("vault", "second", None);
    api.put(BINDINGS, bound("second", "second"));
    api.put_account("vault", "annotated", Some("arn:aws:iam::111122223333:role/annotated"));
    api
}

/// Role, region and audience of a pod of that `ServiceAccount`, and where the facts come from.
async fn injected(admission: &Admission, service_account: &str) -> (String, String, String, &'static str) {
    let review = review("vault", service_account);
    let (answer, body) = ask(admission, &review).await;
    assert_eq!(answer.outcome, Outcome::Mutated, "{body}");
    let patch = BASE64_STANDARD.decode(body["response"]["patch"].as_str().unwrap()).unwrap();
    let mut pod = review["request"]["object"].clone();
    json_patch::patch(&mut pod, &serde_json::from_slice::<Patch>(&patch).unwrap()).unwrap();
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    let value = |name: &str| {
        let variable = env.iter().find(|variable| variable["name"] == name);
        variable.map_or("", |variable| variable["value"].as_str().unwrap()).to_owned()
    };
    let token = &pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    let audience = token["audience"].as_str().unwrap().to_owned();
    (value("AWS_ROLE_ARN"), value("AWS_REGION"), audience, answer.lookup)
}

/// What the two bindings give, with facts of that origin.
async fn assert_two_issuers(admission: &Admission, lookup: &str) {
    let (role, region, audience, from) = injected(admission, "vault").await;
    assert_eq!(
        (&*role, &*region, &*audience, from),
        (FIRST_ROLE, "eu-central-1", "sts.amazonaws.com", lookup)
    );
    let (role, region, audience, from) = injected(admission, "second").await;
    assert!(
        role.starts_with("arn:aws-cn:iam::444455556666:role/podidentity/other/other.vault.second-"),
        "{role}"
    );
    assert_eq!((&*region, &*audience, from), ("cn-north-1", "other.example", lookup));
}

#[tokio::test]
async fn each_binding_gets_its_own_issuer_from_the_copies() {
    let api = cluster(&[first("default"), other("second")]);
    let admission = synced(&api).await;
    assert_two_issuers(&admission, "cache").await;
    // A new issuer counts as soon as the copy has it.
    api.put_account("vault", "third", None);
    api.put(BINDINGS, bound("third", "third"));
    api.put(ISSUERS, other("third"));
    api.end_watches();
    eventually("the issuer is known", || {
        admission.metrics.text().contains(r#"cache_objects{kind="OidcIssuer"} 3"#)
            && admission.metrics.text().contains(r#"cache_objects{kind="PodIdentityBinding"} 3"#)
    })
    .await;
    assert_eq!(injected(&admission, "third").await.1, "cn-north-1");
}

/// Calls for issuers, in order of their text, except those that fill the copies.
fn issuer_calls(api: &Api) -> Vec<String> {
    let live =
        |call: &String| call.contains(ISSUERS) && !call.contains("watch=true") && !call.contains("limit=500");
    let mut calls: Vec<_> = api.calls().into_iter().filter(live).collect();
    calls.sort();
    calls
}

#[tokio::test]
async fn before_the_copies_are_complete_the_issuers_are_read_live() {
    let list = || format!("GET {ISSUERS}?&limit=100");
    let api = cluster(&[first("default"), other("second")]);
    api.lists.send_replace(Gate::Held);
    let admission = without_region(&api);
    assert_two_issuers(&admission, "live").await;
    assert_eq!(issuer_calls(&api), [list(), list()], "one request for each lookup");
    assert_eq!(injected(&admission, "annotated").await.1, "eu-central-1");

    // Without an issuer named `default`, the only one is the default.
    let api = cluster(&[other("second")]);
    api.lists.send_replace(Gate::Held);
    let admission = without_region(&api);
    assert_eq!(injected(&admission, "annotated").await.1, "cn-north-1");
    assert_eq!(injected(&admission, "second").await.1, "cn-north-1");
    assert_eq!(issuer_calls(&api), [list(), list()]);

    // Of several, none.
    let api = cluster(&[first("first"), other("second")]);
    api.lists.send_replace(Gate::Held);
    let admission = without_region(&api);
    assert_eq!(injected(&admission, "annotated").await.1, "");
    let (answer, body) = ask(&admission, &review("vault", "vault")).await;
    assert_eq!(answer.outcome, Outcome::NoRole);
    let warning = body["response"]["warnings"][0].as_str().unwrap();
    assert!(warning.ends_with("OidcIssuer default does not exist"), "{warning}");
    assert!(api.calls().iter().any(|call| call.contains(ACCOUNTS)), "{:?}", api.calls());
}

/// An admission whose flags set no region.
fn without_region(api: &Arc<Api>) -> Admission {
    let admission = api.admission(&Arc::default());
    let settings = Settings { region: None, ..Settings::clone(&admission.settings) };
    Admission { settings: Arc::new(settings), ..admission }
}
