//! The status belongs to the operator alone: entries of other writers do not stay, and do not stop it.

use std::time::Duration;

use crds::Reason;
use crds::condition::ConditionType as C;
use crds::conditions::{Condition, find};
use crds::{OidcIssuer, PodIdentityBinding};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::world::{STORAGE, World};

/// What a restored object brings, or `kubectl edit --subresource=status`: a type that must not be there, one that is
/// unknown, and one of ours with another value.
fn foreign() -> serde_json::Value {
    let entry = |type_: &str| {
        json!({
            "type": type_, "status": "True", "reason": "Restored", "message": "from a backup",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let entries = ["Stalled", "Unknown.example.com", "AWSReachable"].map(entry);
    json!({"status": {"conditions": entries}})
}

fn types(conditions: &[Condition]) -> Vec<&'static str> {
    conditions.iter().map(|condition| condition.type_.as_str()).collect()
}

#[tokio::test]
async fn entries_of_other_writers_are_removed_from_the_conditions() {
    let world = World::ready_with(|t| {
        (t.backoff_min, t.backoff_max) = (Duration::from_millis(50), Duration::from_secs(1));
    })
    .await;
    world.bind("app", &[STORAGE]).await;
    world.binding_is("app", "Ready").await;
    let before = world.binding("app").await.status.unwrap().conditions;
    let issuer_before = world.issuers().get("default").await.unwrap().status.unwrap().conditions;

    // Two managers, as two tools: one by server-side apply, which leaves entries of its own, one by a merge.
    let patch = |kind: &str, name: &str| {
        let mut object = foreign();
        object["apiVersion"] = json!("podidentity.dev/v1alpha1");
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": name});
        object
    };
    let apply = PatchParams::apply("restore").force();
    let object = patch("PodIdentityBinding", "app");
    world.bindings().patch_status("app", &apply, &Patch::Apply(object)).await.unwrap();
    let object = patch("OidcIssuer", "default");
    world.issuers().patch_status("default", &apply, &Patch::Apply(object)).await.unwrap();

    let own = types(&before);
    let clean = |b: Option<&PodIdentityBinding>| {
        let status = b.and_then(|b| b.status.as_ref());
        status.is_some_and(|s| types(&s.conditions) == own && !s.conditions.has_others())
    };
    world.until(&world.bindings(), "app", "its own conditions alone", clean).await;
    let own = types(&issuer_before);
    let clean = |i: Option<&OidcIssuer>| {
        let status = i.and_then(|i| i.status.as_ref());
        status.is_some_and(|s| types(&s.conditions) == own && !s.conditions.has_others())
    };
    world.until(&world.issuers(), "default", "its own conditions alone", clean).await;

    // The status still follows what happens.
    let merge = Patch::Merge(foreign());
    world.bindings().patch_status("app", &PatchParams::default(), &merge).await.unwrap();
    world.bind("app", &["arn:aws:iam::111122223333:policy/not-granted"]).await;
    world.binding_is("app", "NotGranted").await;
    let conditions = world.binding("app").await.status.unwrap().conditions;
    assert!(find(&conditions, C::Stalled).is_some_and(|c| c.reason == Reason::NotGranted), "{conditions:?}");
    world.unbind("app").await;
}
