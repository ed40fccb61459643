//! Takes a plan's steps. The finalizer and changes in AWS are the same for both kinds; each step is one remote call.

use kube::ResourceExt;

use crate::context::Context;
use crate::finalizer;
use crate::kind::{Kind, PlanOf, Resolved, StepError};
use crate::model::Step;
use crate::report;

/// How far the steps went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acted {
    /// All of them were taken.
    Done,
    /// AWS has to be read again before the rest.
    Begun,
    /// Our finalizer was removed: nothing is left to be done for the object.
    Gone,
}

/// Takes the steps in order until one fails, and remembers what they showed.
pub async fn act<K: Kind>(
    plan: &PlanOf<K>,
    resolved: &Resolved<K>,
    memory: &mut K::Memory,
    context: &Context,
) -> Result<Acted, StepError> {
    let object = &*resolved.object;
    for step in &plan.steps {
        match step {
            Step::AddFinalizer => finalizer::add(&K::api(&context.client, object), object).await?,
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
                    report::repaired(&context.recorder, object, change).await;
                }
                if change.write.needs_read_back() {
                    return Ok(Acted::Begun);
                }
            }
        }
    }
    Ok(Acted::Done)
}
