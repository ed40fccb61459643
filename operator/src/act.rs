//! Takes a plan's steps. The finalizer and changes in AWS are the same for both kinds; each step is one remote call.

use kube::{Resource, ResourceExt};

use crate::clock::Clock;
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

/// Takes the steps in order until one fails, and remembers what they showed.
pub async fn act<K: Kind>(
    plan: &PlanOf<K>,
    resolved: &Resolved<K>,
    memory: &mut K::Memory,
    clock: &Clock,
    context: &Context,
) -> Result<Acted, StepError> {
    let object = &*resolved.object;
    let (mut is_newest, mut refers_to_newest) = (false, false);
    for step in &plan.steps {
        match step {
            Step::AddFinalizer => {
                finalizer::add(&K::api(&context.client, object), object).await?;
                is_newest = true; // the API server has compared the versions
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
                if !is_newest && !self::is_newest::<K>(object, context).await? {
                    return Ok(Acted::Outdated);
                }
                is_newest = true;
                if !refers_to_newest && !K::refers_to_newest(resolved, clock, context).await? {
                    return Ok(Acted::Outdated);
                }
                refers_to_newest = true;
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

/// Whether the API server has the object as it was seen here: a watch may be late, and a list may come from a cache that is.
async fn is_newest<K: Kind>(object: &K::Object, context: &Context) -> Result<bool, kube::Error> {
    let newest = K::api(&context.client, object).get_metadata_opt(&object.name_any()).await?;
    Ok(newest.is_some_and(|newest| Version::of(&newest.metadata) == Version::of(object.meta())))
}
