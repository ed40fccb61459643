//! Which of our writes wrote which field: each kind has a name of its own in `managedFields`. And annotations that the API server refuses.

use std::time::{Duration, Instant};

use crds::condition::ConditionType as C;
use crds::conditions::find;
use crds::names::annotation::ROLE_ARN;
use crds::{PodIdentityBinding, Reason};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::world::{STORAGE, World};

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

#[tokio::test]
async fn annotations_that_the_api_server_refuses_keep_nothing_else_from_being_done() {
    const LIMIT: usize = 256 * 1024; // of all annotations of an object together
    let mut world = World::ready().await;
    let annotate = async |value: Option<String>| {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"large": value}}}));
        world.accounts().patch_metadata("app", &PatchParams::default(), &patch).await.unwrap();
    };
    annotate(Some("x".repeat(LIMIT - "large".len()))).await;
    world.bind("app", &[]).await;
    world.binding_is("app", "Ready").await;
    let (status, reason, message) = world.condition("app", C::ServiceAccountAnnotated).await;
    assert_eq!((status.as_str(), reason.as_str()), ("False", "AnnotationRefused"));
    assert!(message.contains("may not be more than 262144 bytes"), "{message}");
    let refused = world.metrics.text().contains("outcome=\"kubernetes\"");
    assert!(!refused, "no pass has failed: {}", world.metrics.text());
    // The ServiceAccount's change is a reason to try again.
    annotate(None).await;
    let annotated = |a: Option<&ServiceAccount>| a.is_some_and(|a| a.annotations().contains_key(ROLE_ARN));
    world.until(&world.accounts(), "app", "the annotations", annotated).await;
    world.unbind("app").await;
    world.stop().await;
}

/// As a tool does that runs `kubectl replace` with a file again and again.
#[tokio::test]
async fn annotations_that_are_removed_each_time_are_put_back_once_in_a_while() {
    const WAIT: Duration = Duration::from_secs(8);
    const REMOVALS: usize = 2;
    let mut world = World::ready_with(|timings| timings.annotation_retry = WAIT).await;
    let annotated =
        |account: Option<&ServiceAccount>| account.is_some_and(|a| a.annotations().contains_key(ROLE_ARN));
    world.bind("app", &[STORAGE]).await;
    world.until(&world.accounts(), "app", "the annotations", annotated).await;
    world.hold.arm(None);
    let begun = Instant::now();
    for number in 0..REMOVALS {
        let mut account = world.accounts().get("app").await.unwrap();
        (account.metadata.annotations, account.metadata.managed_fields) = (None, None);
        account.metadata.resource_version = None;
        world.accounts().replace("app", &PostParams::default(), &account).await.unwrap();
        if number > 0 {
            // The status says why the annotations are not there.
            let told = |binding: Option<&PodIdentityBinding>| {
                let status = binding.and_then(|binding| binding.status.as_ref());
                let found = status.and_then(|status| find(&status.conditions, C::ServiceAccountAnnotated));
                found.is_some_and(|c| {
                    c.reason == Reason::AnnotationOwnedByOther && c.message.contains("annotationRetry")
                })
            };
            world.until(&world.bindings(), "app", "the reason", told).await;
            assert!(world.annotations("app").await.is_empty());
            world.binding_is("app", "Ready").await;
        }
        world.until(&world.accounts(), "app", "the annotations", annotated).await;
    }
    // The first is put back at once.
    let waits = u32::try_from(REMOVALS).unwrap() - 1;
    assert!(begun.elapsed() >= waits * WAIT, "{:?}", begun.elapsed());
    let applies = world.hold.writes().iter().filter(|write| write.contains("/serviceaccounts/")).count();
    assert_eq!(applies, REMOVALS);
    world.unbind("app").await;
    world.stop().await;
}
