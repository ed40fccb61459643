//! `deletionPolicy: Delete`: the provider goes first, and the rest only after IAM has shown that it is gone. The operator has
//! credentials that do not come from the issuer; with its own it refuses (`modes.rs`).

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sim::{Call, Fault, FaultKind};
use crds::condition::ConditionType as C;
use crds::{DeletionPolicy, Management, OidcIssuer, OidcIssuerSpec, ProviderSettings};
use kube::api::DeleteParams;

use crate::accounts::second;
use crate::crash::{kill_in, occurrences};
use crate::issuer::provider_arn;
use crate::world::{BUCKET, World};

fn deleting(world: &World) -> OidcIssuerSpec {
    OidcIssuerSpec { deletion_policy: DeletionPolicy::Delete, ..world.spec() }
}

impl World {
    /// Starts the operator with an administrator's keys, and waits until the issuer is Ready.
    async fn start_as_administrator(&mut self) {
        let keys = self.sim.administrator();
        let keys = Credentials::new(keys.access_key_id, keys.secret_access_key, None, None, "administrator");
        self.start_as(keys).await;
    }

    async fn until_issuer_is_gone(&self) {
        self.until(&self.issuers(), "default", "its end", |issuer: Option<&OidcIssuer>| issuer.is_none())
            .await;
    }

    fn nothing_is_left(&self) {
        let state = self.sim.state();
        assert!(state.providers.is_empty() && state.buckets.is_empty(), "{:?}", state.buckets.keys());
    }

    async fn delete_issuer(&self) {
        self.issuers().delete("default", &DeleteParams::default()).await.unwrap();
    }
}

/// Everything that changes AWS or asks for the provider, in order.
fn steps(calls: Vec<Call>) -> Vec<String> {
    let is_step = |call: &Call| call.write || call.action == "GetOpenIDConnectProvider";
    calls.into_iter().filter(is_step).map(|call| call.action).collect()
}

#[tokio::test]
async fn the_provider_goes_first_and_the_rest_only_after_iam_has_shown_that_it_is_gone() {
    let mut world = World::new().await;
    for lag in [0, 300] {
        world.bootstrap(&deleting(&world)).await.unwrap();
        world.apply_issuer(&deleting(&world)).await;
        world.start_as_administrator().await;
        world.issuer_is("Ready").await;
        world.sim.behave(|behaviour| behaviour.lag_milliseconds = lag);
        world.sim.clear_calls();
        world.delete_issuer().await;
        world.until_issuer_is_gone().await;
        world.nothing_is_left();
        let steps = steps(world.sim.calls());
        let first = steps.iter().position(|step| step == "DeleteOpenIDConnectProvider").unwrap();
        let bucket = steps.iter().position(|step| step.starts_with("DeleteObject")).unwrap();
        assert!(steps[first..bucket].iter().any(|step| step == "GetOpenIDConnectProvider"), "{steps:?}");
        let rest: Vec<&String> = steps[bucket..].iter().filter(|step| step.starts_with("Delete")).collect();
        assert_eq!(rest, ["DeleteObject", "DeleteObject", "DeleteObject", "DeleteBucket"], "{steps:?}");
        assert!(lag > 0 || steps.iter().filter(|step| *step == "DeleteOpenIDConnectProvider").count() == 1);
        world.stop().await;
        world.sim.behave(|behaviour| behaviour.lag_milliseconds = 0);
    }
}

#[tokio::test]
async fn a_kill_in_any_call_of_the_deletion_strands_nothing() {
    let mut world = World::new().await;
    let prepare = async |world: &mut World| {
        world.bootstrap(&deleting(world)).await.unwrap();
        world.apply_issuer(&deleting(world)).await;
        world.start_as_administrator().await;
        world.issuer_is("Ready").await;
        world.sim.clear_calls();
    };
    prepare(&mut world).await;
    world.delete_issuer().await;
    world.until_issuer_is_gone().await;
    // What is read after the last write is for the sweep of orphans, too.
    let calls = occurrences(world.sim.calls().into_iter().filter(|call| call.write).collect());
    assert_eq!(calls.len(), 5, "{calls:?}");
    world.stop().await;

    for call in &calls {
        prepare(&mut world).await;
        world.sim.inject(Fault::on(&call.0, &call.1, FaultKind::Silence).after(call.2).times(1));
        world.delete_issuer().await;
        kill_in(&mut world, call).await;
        let state = world.sim.state();
        assert!(state.providers.is_empty(), "no provider trusts what is removed after {call:?}");
        world.start_as_administrator().await;
        world.until_issuer_is_gone().await;
        world.nothing_is_left();
        world.stop().await;
    }
}

#[tokio::test]
async fn what_others_own_stays_and_what_they_put_into_the_bucket_is_named() {
    let mut world = World::new().await;
    // What it waits for has no event.
    world.timings.api_server_poll = Duration::from_millis(200);
    world.bootstrap(&deleting(&world)).await.unwrap();
    world.apply_issuer(&deleting(&world)).await;
    world.start_as_administrator().await;
    world.issuer_is("Ready").await;
    world.sim.put_object(BUCKET, "of-others", "x");
    world.delete_issuer().await;
    let named = |issuer: Option<&OidcIssuer>| {
        let conditions =
            issuer.and_then(|issuer| issuer.status.as_ref()).map(|status| &status.conditions[..]);
        let ready = crds::conditions::find(conditions.unwrap_or_default(), C::Ready);
        ready.is_some_and(|ready| ready.message.contains("not empty"))
    };
    world.until(&world.issuers(), "default", "the bucket that is not empty", named).await;
    assert!(world.sim.state().providers.is_empty());
    assert_eq!(world.sim.state().buckets[BUCKET].objects.len(), 1);
    world.sim.change(|state| state.buckets.get_mut(BUCKET).unwrap().objects.clear());
    world.until_issuer_is_gone().await;
    world.nothing_is_left();
    world.stop().await;

    // A provider of somebody else still trusts the bucket: it is not freed for others.
    world.bootstrap(&deleting(&world)).await.unwrap();
    let mut existing = deleting(&world);
    existing.provider = Some(ProviderSettings { management: Management::Existing });
    world.apply_issuer(&existing).await;
    world.start_as_administrator().await;
    world.issuer_is("Ready").await;
    world.delete_issuer().await;
    world.issuer_is("DeletionBlocked").await;
    let refused = world.teardown(&existing, false).await.unwrap_err().to_string();
    assert!(refused.contains("still trusts this issuer"), "{refused}");
    assert_eq!(world.sim.state().buckets[BUCKET].objects.len(), 3);
    world.sim.change(|state| state.providers.clear());
    world.until_issuer_is_gone().await;
    world.nothing_is_left();
    world.stop().await;

    // The provider's tags say that it is somebody else's: it stays, and so does what it trusts.
    world.bootstrap(&deleting(&world)).await.unwrap();
    world.apply_issuer(&deleting(&world)).await;
    world.start_as_administrator().await;
    world.issuer_is("Ready").await;
    world.sim.change(|state| state.providers.get_mut(&provider_arn()).unwrap().tags.clear());
    world.delete_issuer().await;
    world.issuer_is("NotOwned").await;
    assert!(world.sim.state().providers.contains_key(&provider_arn()));
    assert_eq!(world.sim.state().buckets[BUCKET].objects.len(), 3);
    // Somebody removes it, and the deletion goes on.
    world.sim.change(|state| state.providers.clear());
    world.until_issuer_is_gone().await;
    world.nothing_is_left();
    world.stop().await;
}

/// Its provider trusts the same documents, and the operator does not know it.
#[tokio::test]
async fn an_issuer_with_the_same_url_whose_event_is_lost_keeps_the_documents() {
    let mut world = World::new().await;
    world.bootstrap(&deleting(&world)).await.unwrap();
    world.apply_issuer(&deleting(&world)).await;
    world.start_as_administrator().await;
    world.issuer_is("Ready").await;
    world.hold.watches.silence("oidcissuers second");
    world.apply_issuer_as("second", &second(&world)).await;
    let state = serde_json::json!(world.sim.state());
    world.delete_issuer().await;
    world.issuer_is("DeletionBlocked").await;
    let message = world.issuer_condition(C::Ready).await.2;
    assert!(message.contains("OidcIssuer second has the same issuer URL"), "{message}");
    assert_eq!(serde_json::json!(world.sim.state()), state);
    world.hold.watches.end();
    world.stop().await;
}
