//! The admission protocol: every review gets a well-formed answer, and a pod is never admitted because a fact is unknown.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::Patch;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webhook::model::{Outcome, WebhookEntry};
use webhook::protocol::admit::Admission;
use webhook::protocol::respond::Answer;

use crate::fake::{Api, BINDINGS, Gate, ISSUERS, eventually};
use crate::identity::{binding, issuer};

/// The caller's address.
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub fn review(namespace: &str, account: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "operation": "CREATE", "namespace": namespace, "userInfo": {"username": "u"},
            "object": {"metadata": {}, "spec": {
                "serviceAccountName": account,
                "containers": [{"name": "c", "env": [{"name": "PASSWORD", "value": "hunter2"}]}],
            }},
        },
    })
}

/// An API server with a bound, an annotated and a plain `ServiceAccount`.
pub fn cluster() -> Arc<Api> {
    let api = Api::new();
    api.put(ISSUERS, issuer());
    api.put(BINDINGS, binding("b", 0, &json!({"role": {}}), &json!({})));
    api.put_account("vault", "vault", None);
    api.put_account("vault", "annotated", Some("arn:aws:iam::111122223333:role/annotated"));
    api.put_account("vault", "plain", None);
    api
}

pub async fn synced(api: &Arc<Api>) -> Admission {
    let admission = api.admission(&Arc::default());
    eventually("synced", || admission.lookup.is_synced()).await;
    admission
}

pub async fn ask(admission: &Admission, review: &Value) -> (Answer, Value) {
    ask_through(WebhookEntry::Pods, admission, review).await
}

pub async fn ask_through(entry: WebhookEntry, admission: &Admission, review: &Value) -> (Answer, Value) {
    let answer = admission.answer(entry, review.to_string().as_bytes(), PEER).await;
    let body = well_formed(&answer);
    (answer, body)
}

pub fn live_calls(api: &Api) -> Vec<String> {
    let mut calls: Vec<_> = api.calls().into_iter().filter(|call| call.contains("/namespaces/")).collect();
    calls.sort();
    calls
}

/// Checks what holds for every answer.
fn well_formed(answer: &Answer) -> Value {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["kind"], "AdmissionReview");
    assert!(
        ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"].contains(&body["apiVersion"].as_str().unwrap())
    );
    let response = &body["response"];
    assert!(response["uid"].is_string(), "{body}");
    if response["allowed"].as_bool().unwrap() {
        assert_eq!(answer.status, 200);
        assert_eq!(response.get("patch").is_some(), response.get("patchType").is_some());
    } else {
        assert!(
            response["status"]["code"].as_u64().unwrap() >= 400 && !response["status"]["message"].is_null()
        );
        assert!(response.get("patch").is_none());
    }
    assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"), "a value of the pod is repeated");
    body
}

#[tokio::test]
async fn the_outcome_of_a_review_depends_on_the_service_account() {
    let api = cluster();
    let admission = synced(&api).await;
    for (account, outcome, source, role) in [
        (
            "vault",
            Outcome::Mutated,
            "binding",
            Some("arn:aws:iam::111122223333:role/podidentity/homelab/homelab.vault.vault-bno5n7ilbuky"),
        ),
        ("annotated", Outcome::Mutated, "annotations", Some("arn:aws:iam::111122223333:role/annotated")),
        ("plain", Outcome::NoRole, "", None),
        ("", Outcome::NoServiceAccount, "", None),
    ] {
        for version in ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"] {
            let mut review = review("vault", account);
            review["apiVersion"] = json!(version);
            let (answer, body) = ask(&admission, &review).await;
            assert_eq!((answer.outcome, answer.source), (outcome, source), "{account}");
            let response = &body["response"];
            assert_eq!(body["apiVersion"], version);
            assert_eq!(response["uid"], review["request"]["uid"]);
            assert_eq!(response["allowed"], true);
            let patch = response["patch"].as_str().map(|patch| BASE64_STANDARD.decode(patch).unwrap());
            assert_eq!(patch.is_some(), role.is_some(), "{account}");
            if let (Some(patch), Some(role)) = (patch, role) {
                let mut pod = review["request"]["object"].clone();
                let patch: Patch = serde_json::from_slice(&patch).unwrap();
                json_patch::patch(&mut pod, &patch).unwrap();
                let env = &pod["spec"]["containers"][0]["env"];
                assert_eq!(env[0], json!({"name": "PASSWORD", "value": "hunter2"}));
                assert!(
                    env.as_array().unwrap().contains(&json!({"name": "AWS_ROLE_ARN", "value": role})),
                    "{env}"
                );

                review["request"]["object"] = pod;
                let (answer, body) = ask(&admission, &review).await;
                assert_eq!(answer.outcome, Outcome::Complete, "a second pass");
                assert!(body["response"].get("patch").is_none());
            }
        }
    }
    assert_eq!(live_calls(&api), Vec::<String>::new(), "the copies have all of them");
}

#[tokio::test]
async fn an_unusable_binding_is_a_warning() {
    let api = cluster();
    api.put(
        BINDINGS,
        binding(
            "late",
            1,
            &json!({"serviceAccountName": "plain", "role": {}}),
            &json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}}),
        ),
    );
    let admission = synced(&api).await;
    let (answer, body) = ask(&admission, &review("vault", "plain")).await;
    assert_eq!(answer.outcome, Outcome::NoRole);
    assert_eq!(
        body["response"]["warnings"],
        json!(["PodIdentityBinding late gives no identity: it is being deleted"])
    );
}

#[tokio::test]
async fn a_misspelt_require_label_is_a_warning() {
    let api = cluster();
    let admission = synced(&api).await;
    for account in ["vault", "plain"] {
        for (value, warned) in [
            ("true", false),
            ("false", false),
            ("False", false),
            ("no", false),
            ("True", true),
            ("yes", true),
            ("1", true),
            ("", true),
        ] {
            let mut review = review("vault", account);
            review["request"]["object"]["metadata"]["labels"] =
                json!({"a": "podidentity.dev/require", "podidentity.dev/require": value});
            let (_, body) = ask(&admission, &review).await;
            assert_eq!(body["response"]["allowed"], true, "{value}");
            let warnings = body["response"].get("warnings").map(Value::to_string).unwrap_or_default();
            assert_eq!(
                warnings.contains(r#"must be exactly \"true\""#),
                warned,
                "{account} {value}: {warnings}"
            );
        }
    }
    let mut unlabelled = review("vault", "vault");
    unlabelled["request"]["object"]["metadata"]["labels"] = json!({"a": "podidentity.dev/require"});
    assert_eq!(ask(&admission, &unlabelled).await.1["response"].get("warnings"), None);
}

#[tokio::test]
async fn an_invalid_review_gets_a_well_formed_answer() {
    let admission = synced(&cluster()).await;
    let with = |pointer: &str, value: Value| {
        let mut review = review("vault", "vault");
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string().into_bytes()
    };
    let without = |field: &str| {
        let mut review = review("vault", "vault");
        review["request"].as_object_mut().unwrap().remove(field);
        review.to_string().into_bytes()
    };
    let (bad, no) = ((400, Outcome::Malformed), (200, Outcome::Denied));
    let not_ours = (200, Outcome::NotOurs);
    for (what, body, (status, outcome)) in [
        ("empty", vec![], bad),
        ("not JSON", b"kind: AdmissionReview".to_vec(), bad),
        ("not UTF-8", vec![0xff, 0xfe, 0x00], bad),
        ("cut short", with("/kind", json!("AdmissionReview"))[..200].to_vec(), bad),
        ("deeper than any stack", vec![b'['; 1 << 20], bad),
        ("null", b"null".to_vec(), bad),
        ("a list", b"[]".to_vec(), bad),
        ("no request", br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec(), bad),
        ("null request", with("/request", Value::Null), bad),
        ("another version", with("/apiVersion", json!("admission.k8s.io/v2")), bad),
        ("another kind", with("/kind", json!("Pod")), bad),
        ("no uid", without("uid"), bad),
        ("empty uid", with("/request/uid", json!("")), bad),
        ("uid is a number", with("/request/uid", json!(1)), bad),
        ("no object", without("object"), no),
        ("null object", with("/request/object", Value::Null), no),
        ("object is a string", with("/request/object", json!("pod")), no),
        ("no spec", with("/request/object", json!({})), no),
        ("containers are a word", with("/request/object/spec/containers", json!("none")), no),
        ("an environment of numbers", with("/request/object/spec/containers/0/env", json!([1])), no),
        ("no namespace", without("namespace"), no),
        ("another object", with("/request/kind/kind", json!("ConfigMap")), not_ours),
        ("another operation", with("/request/operation", json!("UPDATE")), not_ours),
        (
            "unknown fields",
            with("/request/userInfo", json!({"a": [1, {"b": null}]})),
            (200, Outcome::Mutated),
        ),
        ("null lists", with("/request/object/spec/containers/0/env", Value::Null), (200, Outcome::Mutated)),
    ] {
        let answer = admission.answer(WebhookEntry::Pods, &body, PEER).await;
        well_formed(&answer);
        assert_eq!((answer.status, answer.outcome), (status, outcome), "{what}");
    }
    let mut exec = review("vault", "vault");
    exec["request"]["subResource"] = json!("exec");
    assert_eq!(ask(&admission, &exec).await.0.outcome, Outcome::NotOurs);
}

/// A review as the API server sends it to the third entry: the first, with a live lookup, has given the pod its identity.
fn with_identity(account: &str) -> Value {
    let mut review = review("vault", account);
    let spec = review.pointer_mut("/request/object/spec").unwrap();
    spec["volumes"] = json!([{"name": "aws-iam-token", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token"}},
    ]}}]);
    spec["containers"][0]["env"][0] =
        json!({"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/eks.amazonaws.com/token"});
    review
}

#[tokio::test]
async fn a_pod_with_the_identity_of_an_earlier_entry_is_complete() {
    let api = cluster();
    let admission = synced(&api).await;

    // This replica's copy has no binding yet.
    let (answer, _) = ask(&admission, &with_identity("plain")).await;
    assert_eq!(answer.outcome, Outcome::Complete);
    // Or it does not have the ServiceAccount, and a live lookup fails.
    api.live.send_replace(Gate::Failing);
    let (answer, _) = ask(&admission, &with_identity("unknown")).await;
    assert_eq!((answer.status, answer.outcome), (200, Outcome::Complete));
    let text = admission.metrics.text();
    assert!(text.contains(r#"pods_without_identity_total{reason="unknown"} 0"#), "{text}");

    // A token without a variable in any container does not count, and a strict entry requires a successful lookup.
    let mut without_variable = with_identity("unknown");
    without_variable.pointer_mut("/request/object/spec/containers/0/env").unwrap()[0]["name"] =
        "OTHER".into();
    assert_eq!(ask(&admission, &without_variable).await.0.outcome, Outcome::Unavailable);
    let (answer, _) = ask_through(WebhookEntry::RequiredPods, &admission, &with_identity("unknown")).await;
    assert_eq!(answer.outcome, Outcome::Unavailable);
}

pub fn deleting(account: &str) -> Value {
    let spec = json!({"serviceAccountName": account, "role": {}});
    binding("leaving", 1, &spec, &json!({"metadata": {"deletionTimestamp": "2026-11-24T11:00:00Z"}}))
}

#[tokio::test]
async fn which_pods_may_lack_an_identity_depends_on_the_entry() {
    let api = cluster();
    api.put_account("vault", "leaving", None);
    api.put(BINDINGS, deleting("leaving"));
    let admission = synced(&api).await;
    let (mutated, without, refused) = (Outcome::Mutated, Outcome::NoRole, Outcome::Required);
    for (account, expected) in [
        ("vault", [mutated; 3]),
        ("annotated", [mutated; 3]),
        ("plain", [without, without, refused]),
        ("leaving", [without, refused, refused]),
        ("", [Outcome::NoServiceAccount, Outcome::NoServiceAccount, refused]),
    ] {
        for (entry, expected) in WebhookEntry::ALL.into_iter().zip(expected) {
            let (answer, body) = ask_through(entry, &admission, &review("vault", account)).await;
            assert_eq!((answer.status, answer.outcome), (200, expected), "{account} through {entry:?}");
            let response = &body["response"];
            assert_eq!(response["allowed"], expected != refused, "{account} through {entry:?}");
            if expected == refused {
                let message = response["status"]["message"].as_str().unwrap();
                assert!(message.starts_with("this pod must have an AWS identity"), "{message}");
                assert_eq!(response["status"]["code"], 403);
            }
        }
    }
    let (_, body) = ask_through(WebhookEntry::RequiredPods, &admission, &review("vault", "plain")).await;
    let message = body["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("make a PodIdentityBinding"), "it names the remedy: {message}");
}

#[tokio::test]
async fn where_an_identity_is_required_a_live_lookup_confirms_that_there_is_no_binding() {
    let api = cluster();
    let admission = synced(&api).await;
    // The copy has the ServiceAccount; the binding was created a moment ago.
    api.put(BINDINGS, binding("late", 0, &json!({"serviceAccountName": "plain", "role": {}}), &json!({})));
    assert_eq!(ask(&admission, &review("vault", "plain")).await.0.outcome, Outcome::NoRole);
    assert!(live_calls(&api).is_empty(), "a known ServiceAccount without a binding is an answer");
    for entry in [WebhookEntry::RequiredNamespaces, WebhookEntry::RequiredPods] {
        let (answer, _) = ask_through(entry, &admission, &review("vault", "plain")).await;
        assert_eq!((answer.outcome, answer.lookup), (Outcome::Mutated, "live"), "{entry:?}");
    }
    // Where the copy has an identity, no live lookup is needed.
    let calls = live_calls(&api).len();
    for account in ["vault", "annotated"] {
        let (answer, _) =
            ask_through(WebhookEntry::RequiredPods, &admission, &review("vault", account)).await;
        assert_eq!((answer.outcome, answer.lookup), (Outcome::Mutated, "cache"), "{account}");
    }
    assert_eq!(live_calls(&api).len(), calls);
    api.live.send_replace(Gate::Failing);
    let (answer, _) =
        ask_through(WebhookEntry::RequiredNamespaces, &admission, &review("vault", "plain")).await;
    assert_eq!((answer.status, answer.outcome), (503, Outcome::Unavailable), "the entry fails closed");
}

#[tokio::test]
async fn a_pod_without_a_free_mount_path_is_refused_only_where_an_identity_is_required() {
    let admission = synced(&cluster()).await;
    let path = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
    let mut review = review("vault", "vault");
    review["request"]["object"]["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "d", "mountPath": path}, {"name": "e", "mountPath": format!("{path}-podidentity")},
    ]);
    let (answer, body) = ask_through(WebhookEntry::Pods, &admission, &review).await;
    assert_eq!(answer.outcome, Outcome::Mutated);
    assert!(body["response"]["warnings"][0].as_str().unwrap().contains("gets no AWS identity"), "{body}");
    let (answer, _) = ask_through(WebhookEntry::RequiredPods, &admission, &review).await;
    assert_eq!(answer.outcome, Outcome::Required);
    let text = admission.metrics.text();
    assert!(text.contains(r#"pods_without_identity_total{reason="no_place"} 1"#), "{text}");
}

#[tokio::test]
async fn a_pod_without_identity_is_counted_once_its_identity_is_known() {
    let api = cluster();
    api.put_account("vault", "leaving", None);
    api.put(BINDINGS, deleting("leaving"));
    let admission = synced(&api).await;
    let count = |reason: &str| {
        let text = admission.metrics.text();
        let line = format!(r#"pods_without_identity_total{{reason="{reason}"}} "#);
        text.split_once(&line).map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap())
    };
    let mut dry = review("vault", "plain");
    dry["request"]["dryRun"] = json!(true);
    ask(&admission, &dry).await;
    for _ in 0..3 {
        ask(&admission, &review("vault", "plain")).await;
    }
    ask(&admission, &with_identity("plain")).await; // the fourth has its identity
    assert_eq!(count("before_identity"), 0);
    // The next list contains the binding.
    api.put(BINDINGS, binding("late", 0, &json!({"serviceAccountName": "plain", "role": {}}), &json!({})));
    api.end_watches();
    eventually("the binding is known", || count("before_identity") == 3).await;
    // A pod with a known binding that gives no identity is counted at once.
    ask(&admission, &review("vault", "leaving")).await;
    assert_eq!(count("binding_unusable"), 1);
    api.live.send_replace(Gate::Failing);
    ask(&admission, &review("vault", "unknown")).await;
    assert_eq!((count("unknown"), count("before_identity")), (1, 3));
}

static FUZZED: LazyLock<(Runtime, Admission)> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let admission = runtime.block_on(async { synced(&cluster()).await });
    (runtime, admission)
});

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (runtime, admission) = &*FUZZED;
        well_formed(&runtime.block_on(admission.answer(WebhookEntry::Pods, &bytes, PEER)));
    }

    /// A good review with one piece replaced.
    #[test]
    fn no_damage_makes_it_panic(at in 0usize..1000, cut in 0usize..40, piece in "[\\[\\]{}\",:0-9a-z\\\\]{0,4}") {
        let (runtime, admission) = &*FUZZED;
        let mut text = review("vault", "vault").to_string();
        let at = at % text.len();
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &piece);
        well_formed(&runtime.block_on(admission.answer(WebhookEntry::Pods, text.as_bytes(), PEER)));
    }
}
