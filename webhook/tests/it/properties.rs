//! Properties of the answer for generated pods with unknown fields, in reviews as a 1.37 API server sends them.

use std::sync::{Arc, LazyLock};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use json_patch::{Patch, PatchOperation};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use webhook::identity::credentials::ContainerCredentialsList;
use webhook::model::WebhookEntry;
use webhook::protocol::admit::Admission;

use crate::fake::eventually;
use crate::reviews::PEER;
use crate::reviews::cluster;

const PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";

/// Any value, as a later version of Kubernetes may add it anywhere.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            vec(("[a-z/~]{1,6}", inner), 0..3).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Known fields, each present or absent, and unknown ones.
fn object(known: Vec<(&'static str, BoxedStrategy<Option<Value>>)>) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    (values, vec(("x-[a-z]{1,4}", anything()), 0..3))
        .prop_map(move |(values, unknown)| {
            let known = names.iter().zip(values).filter_map(|(name, value)| Some(((*name).into(), value?)));
            Value::Object(known.chain(unknown).collect::<Map<_, _>>())
        })
        .boxed()
}

fn one_of(values: &'static [&'static str]) -> BoxedStrategy<Option<Value>> {
    select(values).prop_map(|value| Some(json!(value))).boxed()
}

fn list(item: BoxedStrategy<Value>, max: usize) -> BoxedStrategy<Option<Value>> {
    option::of(vec(item, 0..max).prop_map(Value::from)).boxed()
}

fn container() -> BoxedStrategy<Value> {
    let variable = object(vec![
        (
            "name",
            one_of(&[
                "AWS_ROLE_ARN",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_REGION",
                "AWS_DEFAULT_REGION",
                "AWS_STS_REGIONAL_ENDPOINTS",
                "AWS_ACCESS_KEY_ID",
                "A",
                "B",
            ]),
        ),
        ("value", option::of(prop_oneof![anything(), Just(json!(""))]).boxed()),
        ("valueFrom", option::of(anything()).boxed()),
    ]);
    let mount = object(vec![
        ("name", one_of(&["aws-iam-token", "aws-iam-token-podidentity", "d"])),
        (
            "mountPath",
            one_of(&[
                "/d",
                PATH,
                "/var/run/secrets/eks.amazonaws.com/serviceaccount/",
                "/var/run/secrets/eks.amazonaws.com/serviceaccount-podidentity",
            ]),
        ),
        ("subPath", option::of(select(&["", "token", "other"][..]).prop_map(Value::from)).boxed()),
    ]);
    object(vec![
        ("name", one_of(&["a", "b", "c"])),
        ("image", option::of(anything()).boxed()),
        ("env", list(variable, 5)),
        ("volumeMounts", list(mount, 3)),
    ])
}

fn pod() -> impl Strategy<Value = Value> {
    let tokens = [None, Some("sts.amazonaws.com"), Some("vault")].map(|audience: Option<&str>| {
        let mut token = json!({"path": "token"});
        if let Some(audience) = audience {
            token["audience"] = json!(audience);
        }
        json!({"sources": [{"serviceAccountToken": token}]})
    });
    let volume = object(vec![
        ("name", one_of(&["aws-iam-token", "aws-iam-token-podidentity", "d"])),
        ("projected", option::of(select(tokens.to_vec())).boxed()),
    ]);
    let annotations = object(vec![
        ("eks.amazonaws.com/skip-containers", option::of("[abx ,\"\n]{0,5}".prop_map(Value::from)).boxed()),
        ("eks.amazonaws.com/token-expiration", option::of("[+-]?[0-9]{0,12}".prop_map(Value::from)).boxed()),
    ])
    // Annotations are strings; the API server ensures that.
    .prop_map(|mut annotations| {
        annotations.as_object_mut().unwrap().retain(|_, value| value.is_string());
        annotations
    });
    let metadata = object(vec![("annotations", option::of(annotations).boxed())]);
    let spec = object(vec![
        ("containers", list(container(), 4)),
        ("initContainers", list(container(), 3)),
        ("ephemeralContainers", list(container(), 2)),
        ("volumes", list(volume, 3)),
    ]);
    let spec = spec.prop_map(Some).boxed();
    object(vec![("metadata", option::of(metadata).boxed()), ("spec", spec)])
}

/// A webhook with a bound, an annotated and a container-credentials `ServiceAccount`.
static WEBHOOK: LazyLock<(Runtime, Admission)> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let admission = runtime.block_on(async {
        let api = cluster();
        api.put_account("vault", "agent", None);
        let admission = api.admission(&Arc::default());
        let file = json!({"identities": [{"namespace": "vault", "serviceAccount": "agent"}]}).to_string();
        admission
            .lookup
            .sources
            .set_container_credentials(ContainerCredentialsList::read(file.as_bytes()).unwrap());
        eventually("synced", || admission.lookup.is_synced()).await;
        admission
    });
    (runtime, admission)
});

/// A review of a real API server; the generated pod's fields replace those of its pod.
static ENVELOPE: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../reviews/deployment-pod-1.37.json")).unwrap());

/// The review of a pod.
fn review(pod: &Value, account: &str) -> Value {
    let mut review = ENVELOPE.clone();
    review["request"]["namespace"] = json!("vault");
    let object = &mut review["request"]["object"];
    for part in ["metadata", "spec"] {
        for (key, value) in pod[part].as_object().into_iter().flatten() {
            object[part][key] = value.clone();
        }
    }
    for (key, value) in pod.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("x-")) {
        object[key] = value.clone();
    }
    object["spec"]["serviceAccountName"] = json!(account);
    review
}

/// The patch in the answer, or why the pod was refused.
fn answered(review: &Value) -> Result<Option<Patch>, String> {
    let (runtime, admission) = &*WEBHOOK;
    let answer = runtime.block_on(admission.answer(WebhookEntry::Pods, review.to_string().as_bytes(), PEER));
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let response = &body["response"];
    assert_eq!(response["uid"], review["request"]["uid"]);
    if response["allowed"] != true {
        return Err(response["status"]["message"].as_str().unwrap().to_owned());
    }
    let patch = response["patch"].as_str().map(|patch| BASE64_STANDARD.decode(patch).unwrap());
    Ok(patch.map(|patch| serde_json::from_slice(&patch).unwrap()))
}

/// Removes every addition, last first.
fn remove_additions(pod: &mut Value, before: &Value, patch: &Patch) {
    for operation in patch.iter().rev() {
        let PatchOperation::Add(addition) = operation else { panic!("not an addition: {operation}") };
        let place = addition.path.as_str();
        let (parent, last) = place.rsplit_once('/').unwrap();
        let removed = match pod.pointer_mut(parent).unwrap() {
            Value::Array(items) if last == "-" => items.pop().unwrap(),
            Value::Array(items) => items.remove(last.parse().unwrap()),
            // The empty text of a variable was replaced.
            Value::Object(map) if parent.contains("/env/") => {
                let added = map.remove(last).unwrap();
                map.extend(before.pointer(place).map(|empty| (last.to_owned(), empty.clone())));
                added
            }
            Value::Object(map) => map.remove(&last.replace("~1", "/")).unwrap(),
            other => panic!("{place} is in {other}"),
        };
        assert_eq!(removed, addition.value, "{place} has what was added");
    }
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["containers", "initContainers"].into_iter().filter_map(|l| pod["spec"][l].as_array()).flatten()
}

fn repeated_paths(container: &Value) -> usize {
    let mounts = container["volumeMounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut paths: Vec<_> =
        mounts.iter().map(|m| m["mountPath"].as_str().unwrap().trim_end_matches('/')).collect();
    paths.sort_unstable();
    paths.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn additions_only_and_a_second_pass_is_empty(
        pod in pod(),
        account in select(&["vault", "annotated", "agent"]),
    ) {
        let mut review = review(&pod, account);
        let before = review["request"]["object"].clone();
        let patch = match answered(&review) {
            Ok(patch) => patch.unwrap_or_default(),
            Err(message) => {
                let volumes = before["spec"]["volumes"].as_array().unwrap();
                let taken = |name: &str| volumes.iter().any(|v| v["name"] == name);
                prop_assert!(taken("aws-iam-token") && taken("aws-iam-token-podidentity"), "{}", message);
                return Ok(());
            }
        };
        let mut after = before.clone();
        json_patch::patch(&mut after, &patch).unwrap();
        for (old, new) in containers(&before).zip(containers(&after)) {
            prop_assert_eq!(repeated_paths(old), repeated_paths(new), "{}", new);
        }

        review["request"]["object"] = after.clone();
        prop_assert_eq!(answered(&review), Ok(None), "a second pass");

        remove_additions(&mut after, &before, &patch);
        prop_assert_eq!(after, before);
    }
}
