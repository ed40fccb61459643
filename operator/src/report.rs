//! What both kinds' reports share: conditions with their times, and events on transitions.

use crds::condition::{ConditionType, find, is_true, merge};
use crds::{Reason, condition::Wanted};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::events::{Event, EventType, Recorder};

/// The conditions to write. While Ready holds, what could not be looked at this time stays as it was last seen.
#[must_use]
pub fn conditions(prior: &[Condition], wanted: Vec<Wanted>, generation: i64) -> Vec<Condition> {
    // Object times have whole seconds; finer ones would differ from what the API server returns.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let mut next = merge(prior, wanted, generation, &Time(now));
    if is_true(&next, ConditionType::Ready) {
        let passing = [ConditionType::Reconciling, ConditionType::Stalled, ConditionType::AWSReachable];
        let lasting = |c: &&Condition| !passing.iter().any(|passing| c.type_ == passing.as_str());
        let unseen: Vec<Condition> = prior
            .iter()
            .filter(lasting)
            .filter(|before| !next.iter().any(|now| now.type_ == before.type_))
            .cloned()
            .collect();
        next.extend(unseen);
    }
    next
}

/// Publishes an event where `Ready` changed its status or reason.
pub async fn transition<K>(recorder: &Recorder, object: &K, prior: &[Condition], next: &[Condition])
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
    publish(recorder, object, type_, &after.reason, "Reconcile", &after.message).await;
}

/// Publishes that something had drifted and was put back.
pub async fn repaired<K: Resource<DynamicType = ()>>(recorder: &Recorder, object: &K, attribute: &str) {
    let note = format!("{attribute} differed from the specification and was put back");
    // Events of one reason and one action are folded into one, whatever their notes say.
    let action = format!("Put back {attribute}");
    publish(recorder, object, EventType::Warning, Reason::DriftCorrected.as_str(), &action, &note).await;
}

/// An event never fails a reconcile: what it says also stands in the status and the log.
async fn publish<K: Resource<DynamicType = ()>>(
    recorder: &Recorder,
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
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, reason, "an event could not be published");
    }
}
