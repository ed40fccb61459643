//! Pods of many forms through a real API server: the webhook only adds, a pod that is admitted without it is admitted with it,
//! and a second review adds nothing.

mod made;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::api::{Api, Refusal};
use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::World;

const CASES: u32 = 400;
/// One of this many is created; the others are dry runs.
const REAL: usize = 5;
/// What may be added to a container's variables, in this order.
const VARIABLES: [&str; 5] = [
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_DEFAULT_REGION",
    "AWS_REGION",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];
/// Fields that Kubernetes 1.33, whose types this program is built with, does not know.
const NEWER: [&str; 3] = ["fileKeyRef", "hostnameOverride", "restartPolicyRules"];

#[test]
fn pods_lose_nothing_and_gain_only_the_identity() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(World::new("pods"));
    let webhook = runtime.block_on(Webhook::ready(&world, &Authority::new("webhook"), &[]));
    let restricted = format!("{}-restricted", world.name);
    runtime.block_on(async {
        world.namespace(&restricted, json!({"pod-security.kubernetes.io/enforce": "restricted"})).await;
        for namespace in [world.name, &restricted] {
            world.account(namespace, "app").await;
            world.bind(namespace, "app").await;
            world.identified(namespace).await;
        }
    });

    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    let count = |what| *counts.lock().unwrap().entry(what).or_default() += 1;
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let case = Case {
        api: &world.api,
        namespaces: [&restricted, world.name],
        count: &count,
        number: AtomicUsize::default(),
    };
    let result = runner.run(&made::pod(), |pod| runtime.block_on(case.check(&pod)));
    println!("{:?}", counts.lock().unwrap());
    if let Err(error) = result {
        panic!("{error}");
    }
    let counts = counts.into_inner().unwrap();
    for what in ["cases", "restricted", "real", "refused"].into_iter().chain(NEWER) {
        assert!(counts.contains_key(what), "no {what} among {counts:?}");
    }
    assert_eq!(webhook.metric("reviews_total", &[r#"outcome="malformed""#]), 0);
}

/// What a generated pod is checked with.
struct Case<'a> {
    api: &'a Api,
    /// The first enforces Pod Security's `restricted`.
    namespaces: [&'a str; 2],
    count: &'a (dyn Fn(&'static str) + Sync),
    number: AtomicUsize,
}

impl Case<'_> {
    async fn check(&self, pod: &Value) -> Result<(), TestCaseError> {
        let [restricted, free] = self.namespaces.map(crate::api::pods);
        (self.count)("cases");
        // The same pod without the webhook.
        let mut opted_out = pod.clone();
        opted_out["metadata"]["labels"][crds::names::label::INJECTION] = json!("disabled");
        let (list, before) = match self.api.create_dry(&restricted, &opted_out).await {
            Err(Refusal { code: 403, message }) if message.contains("violates PodSecurity") => {
                (free.clone(), self.api.create_dry(&free, &opted_out).await)
            }
            other => (restricted, other),
        };
        let before = before.map_err(|refusal| refused("the generator's own pod", &refusal))?;
        let before = as_if_unlabelled(normal(before), pod);
        self.count_newer(&before);
        if list != free {
            (self.count)("restricted");
        }

        let after = match self.api.create_dry(&list, pod).await {
            Ok(after) => normal(after),
            Err(refusal) if both_names_taken(&before) && refusal.message.contains("rename one of them") => {
                (self.count)("refused");
                return Ok(());
            }
            Err(refusal) => return Err(refused("the pod with the additions", &refusal)),
        };
        let back = taken_back(&after, &before)?;
        prop_assert!(back == before, "taken back: {}\nbefore: {}", back, before);

        let again = self.api.create_dry(&list, &anew(&after)).await;
        let again = normal(again.map_err(|refusal| refused("the result as a new pod", &refusal))?);
        prop_assert_eq!(&again["spec"], &after["spec"]);
        prop_assert_eq!(&again["metadata"]["labels"], &after["metadata"]["labels"]);

        if self.number.fetch_add(1, Ordering::Relaxed).is_multiple_of(REAL) {
            (self.count)("real");
            let real = self.api.create(&list, pod).await;
            let real = normal(real.map_err(|refusal| refused("the pod for real", &refusal))?);
            prop_assert!(real == after, "for real: {}\nas a dry run: {}", real, after);
        }
        Ok(())
    }

    fn count_newer(&self, pod: &Value) {
        let text = pod["spec"].to_string();
        NEWER.into_iter().filter(|field| text.contains(&format!("{field:?}:"))).for_each(self.count);
    }
}

fn refused(what: &str, refusal: &Refusal) -> TestCaseError {
    TestCaseError::fail(format!("{what} was refused: {refusal:?}"))
}

/// The pod without fields that differ each time.
fn normal(mut pod: Value) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    for field in ["creationTimestamp", "name", "resourceVersion", "uid"] {
        metadata.remove(field);
    }
    for manager in metadata["managedFields"].as_array_mut().unwrap() {
        manager.as_object_mut().unwrap().remove("time");
    }
    let conditions = pod.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        condition["lastTransitionTime"].take();
    }
    name_alike(&mut pod);
    pod
}

/// The token for the API server is mounted from a volume with a random name.
fn name_alike(value: &mut Value) {
    match value {
        Value::Object(map) => map.values_mut().for_each(name_alike),
        Value::Array(items) => items.iter_mut().for_each(name_alike),
        Value::String(text) if text.starts_with("kube-api-access-") => "kube-api-access".clone_into(text),
        _ => {}
    }
}

/// The pod as the API server would store `asked` without the webhook.
fn as_if_unlabelled(mut pod: Value, asked: &Value) -> Value {
    let metadata = pod["metadata"].as_object_mut().unwrap();
    metadata.remove("managedFields");
    let labels = metadata["labels"].as_object_mut().unwrap();
    labels.remove(crds::names::label::INJECTION);
    if asked["metadata"]["labels"].is_null() {
        metadata.remove("labels");
    }
    pod
}

fn len(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// Removes the last elements of a list, so that as many as in `wanted` are left; a list that did not exist is removed.
fn take_off(owner: &mut Value, list: &str, wanted: &Value) -> Vec<Value> {
    let Some(items) = owner.get_mut(list).and_then(Value::as_array_mut) else { return Vec::new() };
    let taken = items.split_off(len(wanted).min(items.len()));
    if wanted.is_null() {
        owner.as_object_mut().unwrap().remove(list);
    }
    taken
}

/// `after` without the additions; every other difference remains.
fn taken_back(after: &Value, before: &Value) -> Result<Value, TestCaseError> {
    let mut pod = after.clone();
    pod["metadata"].as_object_mut().unwrap().remove("managedFields");
    let annotated = !before["metadata"]["annotations"].is_null();
    let spec = &mut pod["spec"];
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    if len(&spec["volumes"]) > len(&before["spec"]["volumes"]) {
        let volume = spec["volumes"].as_array_mut().unwrap().pop().unwrap();
        prop_assert!(is_token(&volume), "{}", volume);
        if before["spec"]["volumes"].is_null() {
            spec.as_object_mut().unwrap().remove("volumes");
        }
    }
    for list in ["containers", "initContainers"] {
        let before = before["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default();
        for (container, before) in
            spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().zip(before)
        {
            let env = take_off(container, "env", &before["env"]);
            prop_assert!(has_usable_token(container, &env, &volumes), "{}: {:?}", container, volumes);
            let mounts = take_off(container, "volumeMounts", &before["volumeMounts"]);
            empty_again(container, &before["env"]);
            let added: Vec<_> = env.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
            let mut order = VARIABLES.iter();
            prop_assert!(added.iter().all(|name| order.any(|next| next == name)), "{:?}", added);
            for mount in &mounts {
                prop_assert!(mounts.len() == 1 && mount["readOnly"] == true, "{:?}", mounts);
                prop_assert!(mount["name"].as_str().unwrap().starts_with("aws-iam-token"), "{}", mount);
            }
            // In a container without any settings for AWS, everything is added.
            let [env, mounted] = [&before["env"], &before["volumeMounts"]].map(ToString::to_string);
            if !annotated && !env.contains("AWS_") && !mounted.contains("eks.amazonaws.com") {
                let has_token = mounts.len() == 1 || mounted.contains("aws-iam-token");
                prop_assert!(added == VARIABLES && has_token, "{}: {:?} {:?}", container, added, mounts);
            }
        }
    }
    Ok(pod)
}

/// Whether the token's file that was added to a container is one of a mounted token which AWS accepts.
fn has_usable_token(container: &Value, added: &[Value], volumes: &[Value]) -> bool {
    let is_file = |variable: &&Value| variable["name"] == "AWS_WEB_IDENTITY_TOKEN_FILE";
    let Some(file) = added.iter().find(is_file) else { return true };
    // On Windows it has a drive and backslashes.
    let file = file["value"].as_str().unwrap().replace('\\', "/").replace("C:", "");
    let is_mounted = |mount: &&Value| {
        let path = mount["mountPath"].as_str().unwrap().trim_end_matches('/');
        file == format!("{path}/token")
            && mount.get("subPath").is_none()
            && mount.get("subPathExpr").is_none()
    };
    // A generated pod may itself mount two volumes at one path, with a slash at its end and without.
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten().filter(is_mounted);
    mounts.any(|mount| volumes.iter().any(|volume| volume["name"] == mount["name"] && is_token(volume)))
}

/// Takes the values away that variables got which were set to the empty text.
fn empty_again(container: &mut Value, before: &Value) {
    let before = before.as_array().into_iter().flatten();
    for (variable, before) in
        container.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten().zip(before)
    {
        let was_empty = before.get("value").is_none() && before.get("valueFrom").is_none();
        if was_empty && VARIABLES.iter().any(|name| before["name"] == *name) {
            variable.as_object_mut().unwrap().remove("value");
        }
    }
}

fn is_token(volume: &Value) -> bool {
    let token = &volume["projected"]["sources"][0]["serviceAccountToken"];
    volume["name"].as_str().unwrap().starts_with("aws-iam-token")
        && (&token["path"], &token["audience"]) == (&json!("token"), &json!("sts.amazonaws.com"))
}

fn both_names_taken(pod: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = volumes.iter().filter(|v| v["name"].as_str().unwrap().starts_with("aws-iam-token"));
    ours.filter(|volume| !is_token(volume)).count() == 2
}

/// An admitted pod as a new one.
fn anew(admitted: &Value) -> Value {
    let mut pod = admitted.clone();
    pod.as_object_mut().unwrap().remove("status");
    pod["metadata"].as_object_mut().unwrap().remove("managedFields");
    pod
}
