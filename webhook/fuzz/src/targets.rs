//! What must hold for every input, as plain functions: the fuzzer calls them with what it makes up, the stable tests with
//! the corpus.
#![allow(dead_code, reason = "each fuzz target calls one of them")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use crds::pod::Pod;
use futures::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use json_patch::{Patch, PatchOperation};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use webhook::cluster::lookup::Lookup;
use webhook::cluster::sources::Sources;
use webhook::identity::decide::decide;
use webhook::identity::expiration::MAXIMUM_TOKEN_EXPIRATION_SECONDS;
use webhook::identity::facts::Annotations;
use webhook::identity::mapping::Mapping;
use webhook::identity::model::{CredentialMethod, Identity, IdentitySource, ServiceAccountFacts};
use webhook::identity::mutate::mutate;
use webhook::identity::settings::Settings;
use webhook::metrics::Metrics;
use webhook::model::WebhookEntry;
use webhook::protocol::admit::Admission;

const ROLE: &str = "arn:aws:iam::111122223333:role/r";

/// The first byte picks the entry, the rest is the body: it is answered, well-formed, and what is added to the pod can be
/// taken away again.
pub fn review(data: &[u8]) {
    let [entry, body @ ..] = data else { return };
    let entry = WebhookEntry::ALL[usize::from(*entry) % WebhookEntry::ALL.len()];
    let (runtime, admission) = &*ADMISSION;
    let answer = runtime.block_on(admission.answer(entry, body, IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let review: Value = serde_json::from_slice(&answer.body).expect("an answer is JSON");
    assert_eq!(review["kind"], "AdmissionReview");
    let response = &review["response"];
    assert!(response["uid"].is_string());
    let allowed = response["allowed"].as_bool().expect("a decision");
    assert!([200, 400, 503].contains(&answer.status) && (answer.status == 200 || !allowed));
    if let Some(patch) = response["patch"].as_str() {
        assert!(allowed && response["patchType"] == "JSONPatch");
        let patch = BASE64_STANDARD.decode(patch).expect("base64");
        // With a repeated field it is unclear which one counts; the API server never sends that.
        let Some(sent) = unambiguous(body).filter(|sent| shaped(&sent["request"]["object"])) else { return };
        additions(&sent["request"]["object"], &serde_json::from_slice(&patch).expect("a patch"));
    }
}

/// A pod: what it lacks is added once, and can be taken away again.
pub fn pod(data: &[u8]) {
    let Some(before) = unambiguous(data).filter(shaped) else { return };
    let Ok(view) = serde_json::from_slice::<Pod<'_>>(data) else { return };
    for method in [CredentialMethod::Role(ROLE.into()), CredentialMethod::ContainerCredentials] {
        let identity = Identity {
            source: IdentitySource::Binding,
            method,
            audience: "sts.amazonaws.com",
            expiration_seconds: 86_400,
            region: Some("eu-central-1"),
            sts_regional_endpoints: true,
        };
        let Ok(mutation) = mutate(&view, &identity, &SETTINGS, "seed") else { continue };
        let patch = serde_json::to_vec(&mutation.patch).expect("a patch");
        let after = additions(&before, &serde_json::from_slice(&patch).expect("a patch")).to_string();
        let again: Pod<'_> = serde_json::from_str(&after).expect("still a pod");
        let again = mutate(&again, &identity, &SETTINGS, "seed").expect("nothing in the way");
        assert!(again.patch.is_empty(), "a second pass adds {:?}", again.patch);
    }
}

/// Annotations of a `ServiceAccount`, separated by NUL: what comes of them is within what Kubernetes accepts.
pub fn annotations(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let keys = ["role-arn", "audience", "sts-regional-endpoints", "token-expiration"];
    let all: BTreeMap<String, String> = keys
        .into_iter()
        .zip(text.split('\0'))
        .map(|(key, value)| (format!("eks.amazonaws.com/{key}"), value.to_owned()))
        .collect();
    let annotations = Annotations::read(&all, "eks.amazonaws.com").map(Arc::new);
    for container_credentials in [false, true] {
        let facts = ServiceAccountFacts {
            annotations: annotations.clone(),
            container_credentials,
            ..ServiceAccountFacts::default()
        };
        let decision = decide("namespace", "account", &facts, &SETTINGS);
        let role = annotations.as_ref().and_then(|annotations| annotations.role());
        assert_eq!(decision.identity.is_some(), container_credentials || role.is_some());
        let Some(identity) = decision.identity else { continue };
        assert!((600..=MAXIMUM_TOKEN_EXPIRATION_SECONDS).contains(&identity.expiration_seconds));
        assert!(!identity.audience.is_empty());
        if let CredentialMethod::Role(arn) = &identity.method {
            assert_eq!(Some(&**arn), role, "injected as it is");
        }
    }
}

/// The ConfigMap's text, read over a version before it: every entry has a role, every problem names a key.
pub fn config_map(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let last = json!({"a/b": {"RoleARN": ROLE}, "*/b": {"RoleARN": ROLE}}).to_string();
    let (last, problems) = Mapping::read(&last, &Mapping::default());
    assert!(problems.is_empty());
    let (mapping, problems) = Mapping::read(text, &last);
    let Ok(entries) = serde_json::from_str::<serde_json::Map<String, Value>>(text) else {
        assert_eq!((mapping, problems.len()), (last, 1));
        return;
    };
    assert!(mapping.len() <= entries.len() && problems.len() <= entries.len());
    assert!(mapping.len() + problems.len() >= entries.len(), "an entry counts or is reported");
    for key in entries.keys() {
        if let Some((namespace, account)) = key.split_once('/')
            && let Some(mapped) = mapping.exactly(namespace, account)
        {
            assert!(!mapped.role_arn.is_empty());
            assert_eq!(mapping.get(namespace, account), Some(mapped), "the namespace's own entry wins");
        }
    }
}

/// Applies the patch, checks that it only adds, and that taking the additions away, last first, gives back what was there.
fn additions(before: &Value, patch: &Patch) -> Value {
    let mut after = before.clone();
    json_patch::patch(&mut after, patch).expect("it fits");
    let mut undone = after.clone();
    for operation in patch.iter().rev() {
        let PatchOperation::Add(addition) = operation else { panic!("not an addition: {operation}") };
        let (parent, last) = addition.path.as_str().rsplit_once('/').expect("a place");
        let removed = match undone.pointer_mut(parent).expect("a place") {
            Value::Array(items) if last == "-" => items.pop(),
            Value::Array(items) => Some(items.remove(last.parse().expect("an index"))),
            Value::Object(map) => {
                let added = map.remove(&last.replace("~1", "/"));
                // The empty text of a variable was replaced.
                if let Some(replaced) = before.pointer(addition.path.as_str()).filter(|old| !old.is_null()) {
                    assert!(parent.contains("/env/") && replaced == "", "{replaced} was replaced");
                    map.insert(last.to_owned(), replaced.clone());
                }
                added
            }
            _ => None,
        };
        assert_eq!(removed.as_ref(), Some(&addition.value));
    }
    assert_eq!(undone, without_nulls_at(patch, before.clone()));
    after
}

/// Whether objects are objects where a pod has them. Serde also takes a list for the fields in their order, which no API
/// server sends.
fn shaped(pod: &Value) -> bool {
    let object = |value: &Value| value.is_object() || value.is_null();
    let objects = |list: &Value| list.as_array().into_iter().flatten().all(object);
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let lists = ["containers", "initContainers"].map(|list| &spec[list]);
    pod.is_object()
        && [metadata, &metadata["labels"], spec].into_iter().all(object)
        && objects(&spec["volumes"])
        && lists.into_iter().all(objects)
        && lists
            .into_iter()
            .filter_map(Value::as_array)
            .flatten()
            .all(|container| objects(&container["env"]) && objects(&container["volumeMounts"]))
        && spec["volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|volume| object(&volume["projected"]) && objects(&volume["projected"]["sources"]))
}

/// A list that was null is made, which taking it away does not undo: null and absent are the same to Kubernetes.
fn without_nulls_at(patch: &Patch, mut pod: Value) -> Value {
    for operation in patch.iter() {
        let Some((parent, last)) = operation.path().as_str().rsplit_once('/') else { continue };
        if let Some(Value::Object(map)) = pod.pointer_mut(parent)
            && map.get(last).is_some_and(Value::is_null)
        {
            map.remove(last);
        }
    }
    pod
}

/// The JSON, if no object in it has a key twice.
fn unambiguous(data: &[u8]) -> Option<Value> {
    let value: Value = serde_json::from_slice(data).ok()?;
    (colons(data) == keys(&value)).then_some(value)
}

fn keys(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(|value| 1 + keys(value)).sum(),
        Value::Array(items) => items.iter().map(keys).sum(),
        _ => 0,
    }
}

/// Colons outside of strings: one for each key.
fn colons(json: &[u8]) -> usize {
    let (mut inside, mut escaped, mut count) = (false, false, 0);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b':' if !inside => count += 1,
            _ => {}
        }
    }
    count
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings::new("eks.amazonaws.com"));

/// A webhook over an API server with a bound, an annotated and a plain `ServiceAccount`; no other exists.
static ADMISSION: LazyLock<(Runtime, Admission)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let admission = runtime.block_on(async {
        let metrics = Arc::new(Metrics::default());
        let sources = Arc::new(Sources::new(false, Arc::clone(&metrics)));
        let client = Client::new(tower::service_fn(api_server), "default");
        let limit = Duration::from_secs(1);
        let lookup = Arc::new(Lookup::new(client, "eks.amazonaws.com", limit, sources, Arc::clone(&metrics)));
        let follower = Arc::clone(&lookup);
        tokio::spawn(async move { follower.follow().await });
        while !lookup.is_synced() {
            tokio::task::yield_now().await;
        }
        Admission { lookup, settings: Arc::new(SETTINGS.clone()), metrics }
    });
    (runtime, admission)
});

async fn api_server(
    request: Request<Body>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    if query.contains("sendInitialEvents=true") {
        let refusal =
            json!({"kind": "Status", "status": "Failure", "code": 422, "message": "", "reason": "Invalid"});
        let body = Full::new(Bytes::from(refusal.to_string())).boxed_unsync();
        return Ok(Response::builder().status(422).body(body).expect("a response"));
    }
    if query.contains("watch=true") {
        let silence = stream::pending::<Result<Frame<Bytes>, Infallible>>();
        return Ok(Response::new(StreamBody::new(silence).boxed_unsync()));
    }
    let account = |name: &str, annotations: Value| json!({"metadata": {"namespace": "vault", "name": name, "annotations": annotations}});
    let items = match path {
        "/api/v1/serviceaccounts" => vec![
            account("vault", Value::Null),
            account("annotated", json!({"eks.amazonaws.com/role-arn": ROLE})),
            account("plain", Value::Null),
        ],
        "/apis/podidentity.dev/v1alpha1/podidentitybindings" => vec![json!({
            "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
            "metadata": {"namespace": "vault", "name": "vault", "creationTimestamp": "2026-11-24T10:00:00Z"},
            "spec": {"serviceAccountName": "vault", "roleARN": ROLE},
        })],
        _ => vec![],
    };
    let list =
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items});
    Ok(Response::new(Full::new(Bytes::from(list.to_string())).boxed_unsync()))
}
