//! The only place that writes status and events, for both kinds.

use crds::condition::{ConditionType, Wanted};
use crds::conditions::{Condition, Status, find, merge};
use crds::names::MANAGER_STATUS;
use crds::{Finding, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::change::Change;
use crate::context::Context;
use crate::events::Events;
use crate::kind::Kind;

/// Writes the status if it says anything new, and an event if `Ready` changed.
pub async fn report<K: Kind>(
    context: &Context,
    object: &K::Object,
    wanted: Vec<Wanted>,
    facts: K::Facts,
) -> Result<(), kube::Error> {
    let prior = K::status(object).cloned().unwrap_or_default();
    let generation = object.meta().generation.unwrap_or_default();
    let before = K::observed(&prior).1;
    // Object times have whole seconds; finer ones would differ from what the API server returns.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let conditions = merge(before, wanted, generation, &Time(now));
    let status = K::next_status(&prior, facts, conditions, generation);
    K::measure(&object.name_any(), &status, &context.metrics);
    if status == prior {
        return Ok(());
    }
    // The status is replaced whole. Server-side apply would merge the list of conditions with entries of other writers (a
    // restored object, `kubectl edit --subresource=status`), which nothing would ever remove.
    let replace = json!([{"op": "add", "path": "/status", "value": status}]);
    let patch = serde_json::from_value(replace).map_err(kube::Error::SerdeError)?;
    let parameters = PatchParams { field_manager: Some(MANAGER_STATUS.into()), ..PatchParams::default() };
    let api = K::api(&context.client, object);
    match api.patch_status(&object.name_any(), &parameters, &Patch::<()>::Json(patch)).await {
        Ok(_) => {}
        // Deleted meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    }
    let after = K::observed(&status).1;
    transition(&context.events, object, before, after).await;
    warn(&context.events, object, before, after).await;
    Ok(())
}

/// Publishes an event where `Ready` changed its status or reason.
async fn transition<K>(events: &Events, object: &K, prior: &[Condition], next: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let (before, Some(after)) = (find(prior, ConditionType::Ready), find(next, ConditionType::Ready)) else {
        return;
    };
    if before.is_some_and(|before| before.status == after.status && before.reason == after.reason) {
        return;
    }
    let stalled = find(next, ConditionType::Stalled).is_some();
    let type_ = if stalled { EventType::Warning } else { EventType::Normal };
    publish(events, object, type_, after.reason.as_str(), "Reconcile", &after.message).await;
}

/// Conditions that never take part in `Ready`, and what was done when they became False.
const WARNINGS: [(ConditionType, &str); 2] =
    [(ConditionType::BucketFenced, "Try the bucket's policy"), (ConditionType::PodsInjected, "Look at pods")];

/// Publishes an event where one of [`WARNINGS`] became False by itself.
async fn warn<K>(events: &Events, object: &K, prior: &[Condition], next: &[Condition])
where
    K: Resource<DynamicType = ()>,
{
    let ready = find(next, ConditionType::Ready);
    for (type_, action) in WARNINGS {
        let is_false = |conditions| {
            find(conditions, type_).filter(|condition: &&Condition| condition.status == Status::False)
        };
        if let (None, Some(broken)) = (is_false(prior), is_false(next))
            && ready.is_none_or(|ready| ready.reason != broken.reason)
        {
            let (reason, message) = (broken.reason.as_str(), &broken.message);
            publish(events, object, EventType::Warning, reason, action, message).await;
        }
    }
}

/// Publishes that something had drifted and was put back.
pub async fn repaired<K: Resource<DynamicType = ()>>(events: &Events, object: &K, change: &Change) {
    let note = format!("differed from the specification and was put back: {}", change.describe());
    // Events of one reason and one action are folded into one, whatever their notes say.
    let action = format!("Put back {}", change.attribute);
    publish(events, object, EventType::Warning, Reason::DriftCorrected.as_str(), &action, &note).await;
}

/// Publishes what a plan found worth an event. Before its steps: what they change is not changed yet.
pub async fn publish_findings<K: Resource<DynamicType = ()>>(
    events: &Events,
    object: &K,
    findings: &[Finding],
) {
    for Finding { reason, message } in findings {
        // Two keys that retire at once are two events: those of one action are counted as one event.
        let action = format!("Observe: {}", &message[..message.floor_char_boundary(64)]);
        publish(events, object, EventType::Normal, reason.as_str(), &action, message).await;
    }
}

/// Publishes on its issuer that a role has no binding.
pub async fn orphaned<K: Resource<DynamicType = ()>>(events: &Events, issuer: &K, role: &str, note: &str) {
    let action = format!("Find {role}");
    publish(events, issuer, EventType::Warning, Reason::OrphanedRole.as_str(), &action, note).await;
}

/// An event never fails a pass: what it says is in the status and the log, too.
async fn publish<K: Resource<DynamicType = ()>>(
    events: &Events,
    object: &K,
    type_: EventType,
    reason: &str,
    action: &str,
    note: &str,
) {
    /// The API server's limit.
    const NOTE_LIMIT: usize = 1024;
    let event = Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note[..note.floor_char_boundary(NOTE_LIMIT)].to_owned()),
        action: action.to_owned(),
        secondary: None,
    };
    if let Err(error) = events.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, reason, "an event could not be published");
    }
}
