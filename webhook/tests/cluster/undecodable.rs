//! Objects of a tenant that no program of ours can decode. A list is decoded as a whole: one of them must not hide those of others.

use serde_json::json;

use crate::api::{accounts, bindings};
use crate::pki::Authority;
use crate::process::Webhook;
use crate::world::World;

#[tokio::test]
async fn an_object_that_cannot_be_decoded_hides_no_other() {
    // Alone: other tests decode lists of these kinds, too.
    let world = World::alone("undecodable").await;
    let authority = Authority::new("webhook");
    let webhook = Webhook::ready(&world, &authority, &[]).await;
    // The CRD has no schema for a policy document, and the API server stores a thousand levels.
    let document = format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
    let deep = format!(
        r#"{{"apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding", "metadata": {{"name": "deep"}}, "spec":
        {{"serviceAccountName": "deep", "role": {{"inlinePolicies": [{{"name": "x", "document": {document}}}]}}}}}}"#
    );
    world.api.create_text(&bindings(world.name), deep).await;
    // A time that Go knows, and a decoder whose last day is the one before does not.
    let late = json!({"metadata": {"name": "late", "labels": {"x": "y"}}});
    let mut late = world.api.create(&accounts(world.name), &late).await.unwrap();
    let path = format!("{}/late", accounts(world.name));
    late["metadata"]["managedFields"] = json!([{
        "manager": "x", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
        "time": "9999-12-31T23:59:59Z", "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}},
    }]);
    let stored = world.api.replace(&path, &late).await.unwrap();
    assert!(stored.to_string().contains("9999-12-31T23:59:59Z"), "{stored}");

    world.account(world.name, "app").await;
    world.bind(world.name, "app").await;
    world.identified(world.name).await;
    drop(webhook);
    // Another one, which lists everything anew.
    let path = format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{}", world.name);
    world.api.delete(&path).await.unwrap();
    let _restarted = Webhook::ready(&world, &authority, &[]).await;
    world.identified(world.name).await;
    world.api.delete(&format!("{}/deep", bindings(world.name))).await.unwrap();
}
