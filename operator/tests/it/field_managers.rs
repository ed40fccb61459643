//! Who wrote which field: each kind of our writes has a name of its own in `managedFields`.

use kube::Resource;
use serde_json::json;

use crate::world::World;

/// The managers of an object that own its finalizers.
fn finalizer_managers(object: &impl Resource) -> Vec<String> {
    let owns = |fields: &serde_json::Value| fields.pointer("/f:metadata/f:finalizers").is_some();
    let entries = object.meta().managed_fields.iter().flatten();
    let owners = entries.filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&json!(fields))));
    owners.filter_map(|entry| entry.manager.clone()).collect()
}

#[tokio::test]
async fn finalizers_are_written_under_a_name_of_their_own() {
    let mut world = World::ready().await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    assert_eq!(finalizer_managers(&world.binding("app").await), ["podidentity-operator-finalizer"]);
    let issuer = world.issuers().get("default").await.unwrap();
    assert_eq!(finalizer_managers(&issuer), ["podidentity-operator-finalizer"]);
    world.unbind("app").await;
    world.stop().await;
}
