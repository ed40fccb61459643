//! No value of a pod is logged, whatever the outcome of its review is and at every log level.

use serde_json::{Value, json};

use crate::api::pods;
use crate::pki::Authority;
use crate::process::{REVIEW, Webhook};
use crate::world::{World, pod, required};

/// Part of every value of the pods.
const SECRET: &str = "s3cr3t-canary";

#[tokio::test]
async fn no_value_of_a_pod_is_logged() {
    let world = World::new("privacy").await;
    let authority = Authority::new("webhook");
    let webhook = Webhook::ready(&world, &authority, &[]).await;
    for account in ["app", "plain"] {
        world.account(world.name, account).await;
    }
    world.bind(world.name, "app").await;
    world.identified(world.name).await;
    for account in ["app", "plain"] {
        world.api.create_dry(&pods(world.name), &pod_with_secrets(account)).await.unwrap();
    }
    let refusal =
        world.api.create_dry(&pods(world.name), &required(pod_with_secrets("plain"))).await.unwrap_err();
    assert!(!refusal.message.contains(SECRET), "{}", refusal.message);

    // The refusal contains values of the pod; the log does not.
    let mut other = required(pod_with_secrets("app"));
    let role = format!("arn:aws:iam::444455556666:role/{SECRET}");
    other["spec"]["containers"][0]["env"] = json!([
        {"name": "AWS_ROLE_ARN", "value": role},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": format!("/{SECRET}/token")},
        {"name": "AWS_ACCESS_KEY_ID", "value": SECRET},
    ]);
    other["spec"]["volumes"] = json!([{"name": "data", "projected": {"sources": [
        {"serviceAccountToken": {"audience": SECRET, "path": "token"}},
    ]}}]);
    let refusal = world.api.create_dry(&pods(world.name), &other).await.unwrap_err();
    for told in [&*format!("AWS_ROLE_ARN is {role}"), "a token of audience", "sets AWS_ACCESS_KEY_ID"] {
        assert!(refusal.message.contains(told), "{}", refusal.message);
    }
    assert!(!webhook.logged("pod refused until it has its identity").is_empty());

    // Reviews that no API server sends: invalid in places where a decoder may quote the value.
    let whole: Value = serde_json::from_str(REVIEW).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut review = whole.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    let text = with("/request/object/spec", pod_with_secrets("app")["spec"].clone());
    let cut = text.find(SECRET).unwrap() + SECRET.len();
    for body in [
        text[..cut].to_owned(),
        text.replacen(SECRET, &format!("{SECRET}\\q"), 1),
        with("/request/object", json!(SECRET)),
        with("/request/object/spec/containers", json!([SECRET])),
        with("/request/object/spec/containers", json!({SECRET: SECRET})),
        with("/request/namespace", json!({SECRET: SECRET})),
        with("/request/object/metadata", json!({"labels": SECRET, "annotations": [SECRET]})),
    ] {
        let answer = webhook.post(&authority, &body).await.unwrap();
        assert!(!answer.contains(SECRET), "{body}\n{answer}");
    }
    assert!(!webhook.logged("identity given to a pod").is_empty(), "the log level is debug or lower");
    assert!(!webhook.text().contains(SECRET), "{}", webhook.text());
}

/// A pod with the secret in every value.
fn pod_with_secrets(account: &str) -> Value {
    let mut pod = pod(account);
    pod["metadata"]["annotations"] =
        json!({"example.com/note": SECRET, "eks.amazonaws.com/token-expiration": SECRET});
    pod["spec"]["containers"] = json!([{
        "name": "app",
        "image": format!("registry.example.com/{SECRET}"),
        "command": [SECRET],
        "args": [SECRET],
        "env": [{"name": "PASSWORD", "value": SECRET}],
        "volumeMounts": [{"name": "data", "mountPath": format!("/{SECRET}")}],
    }]);
    pod["spec"]["volumes"] = json!([{"name": "data", "hostPath": {"path": format!("/{SECRET}")}}]);
    pod
}
