//! Takes a plan's steps. The finalizer and changes in AWS are the same for both kinds; each step is one remote call.

use std::time::Instant;

use kube::api::GetParams;
use kube::core::{DeserializeGuard, Request};
use kube::{Resource, ResourceExt};

use crate::context::Context;
use crate::finalizer;
use crate::kind::{Kind, PlanOf, Resolved, StepError};
use crate::model::{Step, Version};
use crate::report;

/// How far the steps went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// All of them were taken.
    Done,
    /// AWS has to be read again before the rest.
    Begun,
    /// The object, or what it refers to, has changed since the plan was made: nothing was changed in AWS for what it was before.
    Outdated,
    /// Our finalizer was removed: nothing is left to be done for the object.
    Gone,
}

/// Takes the steps in order until one fails, and remembers what they showed. Where they change something in AWS, or end the object, none of
/// them is taken for what is not the newest.
pub async fn act<K: Kind>(
    plan: &PlanOf<K>,
    resolved: &Resolved<K>,
    memory: &mut K::Memory,
    context: &Context,
) -> Result<Acted, StepError> {
    let (object, asked) = (&*resolved.object, Instant::now());
    let has = |is_it: fn(&Step<K::Own>) -> bool| plan.steps.iter().any(is_it);
    let changes = has(|step| matches!(step, Step::Change(_)));
    // The API server compares the versions where the finalizers change.
    let is_compared = has(|step| matches!(step, Step::AddFinalizer));
    let is_last = has(|step| matches!(step, Step::RemoveFinalizer));
    if changes && !is_compared && !is_newest(plan, resolved, context).await? {
        return Ok(Acted::Outdated);
    }
    if (changes || is_last) && !K::rests_on_newest(plan, resolved, asked, context).await? {
        return Ok(Acted::Outdated);
    }
    for step in &plan.steps {
        match step {
            Step::AddFinalizer => {
                finalizer::add(&K::api(&context.client, object), object).await?;
            }
            Step::RemoveFinalizer => {
                finalizer::remove(&K::api(&context.client, object), object).await?;
                return Ok(Acted::Gone);
            }
            Step::Own(own) => {
                let shown = K::act(own, resolved, context).await?;
                K::shown(memory, shown, &context.clock());
            }
            Step::Change(change) => {
                // Never without an account: a change is planned from a target, and a target needs the account.
                let Some(account) = &resolved.account else { continue };
                let written = account.apply(&change.write).await?;
                K::changed(memory, change, written, &context.clock());
                let (attribute, description) = (change.attribute, change.describe());
                tracing::info!(
                    kind = K::NAME,
                    object = object.name_any(),
                    namespace = object.namespace(),
                    attribute,
                    description,
                    "changed in AWS"
                );
                if plan.drift {
                    context.metrics.drift(K::NAME, attribute);
                    report::repaired(&context.events, object, change).await;
                }
                if change.write.needs_read_back() {
                    return Ok(Acted::Begun);
                }
            }
        }
    }
    Ok(Acted::Done)
}

/// Whether the API server has the object as it was seen here, or one for which the plan is right, too: a watch may be late, and a list may
/// come from a cache that is. Of one that cannot be decoded, the last version that could be holds, as in the store.
async fn is_newest<K: Kind>(
    plan: &PlanOf<K>,
    resolved: &Resolved<K>,
    context: &Context,
) -> Result<bool, kube::Error> {
    let object = &*resolved.object;
    let (api, name) = (K::api(&context.client, object), object.name_any());
    let Some(newest) = api.get_metadata_opt(&name).await? else { return Ok(false) };
    if Version::of(&newest.metadata) == Version::of(object.meta()) {
        return Ok(true);
    }
    if newest.metadata.uid != object.meta().uid {
        return Ok(false);
    }
    let request = Request::new(api.resource_url()).get(&name, &GetParams::default());
    let request = request.map_err(kube::Error::BuildRequest)?;
    let newest: DeserializeGuard<K::Object> = context.client.request(request).await?;
    Ok(newest.0.map_or(true, |newest| K::still_holds(plan, &resolved.view, &newest, context)))
}
