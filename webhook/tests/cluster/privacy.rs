//! What a pod says of itself stays out of the log, whatever becomes of it and however much is logged.

use serde_json::{Value, json};

use crate::api::pods;
use crate::pki::Authority;
use crate::process::{REVIEW, Webhook};
use crate::world::{World, pod, required};

/// Stands in every value that a pod may hold.
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
        world.api.create_dry(&pods(world.name), &telling(account)).await.unwrap();
    }
    let refusal = world.api.create_dry(&pods(world.name), &required(telling("plain"))).await.unwrap_err();
    assert!(!refusal.message.contains(SECRET), "{}", refusal.message);

    // What no API server sends: broken in places where a decoder may quote what it has found.
    let whole: Value = serde_json::from_str(REVIEW).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut review = whole.clone();
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    let text = with("/request/object/spec", telling("app")["spec"].clone());
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
    assert!(!webhook.logged("identity given to a pod").is_empty(), "it tells more than usual");
    assert!(!webhook.text().contains(SECRET), "{}", webhook.text());
}

/// A pod whose every value is a secret.
fn telling(account: &str) -> Value {
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
