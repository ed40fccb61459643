//! The reconcile of an `OidcIssuer`: observe → decide → act → report.

pub mod act;
pub mod decide;
pub mod observe;
pub mod publication;
pub mod report;
pub mod watch;

use std::sync::Arc;
use std::time::Instant;

use crds::OidcIssuer;
use crds::condition::{ConditionType, is_true};
use crds::names::FINALIZER;
use kube::ResourceExt;
use kube::runtime::controller::Action;

use crate::context::Context;
use crate::reconcile::Error;
use act::{ActError, Done, Verifier};
use decide::{Plan, Step, Subject};
use observe::Memory;
use publication::Write;

/// One look at one issuer, and what follows from it.
pub async fn reconcile(object: Arc<OidcIssuer>, context: Arc<Context>) -> Result<Action, Error> {
    let limit = context.timings.reconcile_timeout;
    let uid = object.uid().unwrap_or_default();
    let mut memory = context.issuer_memory.take(&uid);
    let result = tokio::time::timeout(limit, look(&object, &context, &mut memory)).await;
    context.issuer_memory.put(&uid, memory);
    result.unwrap_or(Err(Error::Timeout(limit)))
}

async fn look(object: &OidcIssuer, context: &Context, memory: &mut Memory) -> Result<Action, Error> {
    let Context { client, aws, timings, .. } = context;
    let name = object.name_any();
    let subject = subject(object, &name);

    let due = decide::due(memory, subject.generation, Instant::now(), timings);
    let observed = observe::observe(client, aws, &subject, memory, due).await?;
    memory.generation = subject.generation;

    let now = Instant::now();
    let plan = decide::decide(&subject, &observed, memory, now, context.started, timings);
    memory.bad_since = plan.bad_since;

    let failure = act(object, context, memory, &plan, observed.identity.as_ref().ok()).await;

    let gone = failure.is_none() && plan.steps.contains(&Step::RemoveFinalizer);
    // What was done already and did not last is done again, but not at once.
    let repeated =
        memory.steps.replace(plan.steps.clone()).is_some_and(|last| last == plan.steps && !last.is_empty());
    let (conditions, requeue) = match failure {
        None if repeated || (plan.requeue.is_zero() && plan.steps.is_empty()) => {
            context.metrics.reconciled("OidcIssuer", observed.failure().unwrap_or("ok"));
            (plan.conditions.clone(), context.backoff.failed(&name))
        }
        None => {
            context.metrics.reconciled("OidcIssuer", "ok");
            if plan.steps.is_empty() {
                context.backoff.succeeded(&name);
            }
            (plan.conditions.clone(), context.backoff.spread(&name, plan.requeue))
        }
        Some(ActError::Kube(error)) => return Err(error.into()),
        Some(ActError::Aws(error)) => {
            tracing::warn!(issuer = name, %error, class = error.class.label(), detail = error.detail, "a step failed");
            context.metrics.reconciled("OidcIssuer", error.class.label());
            memory.aws = None; // what we knew of AWS is in doubt
            let within = memory.last_write.is_some_and(|at| now.duration_since(at) < timings.not_yet_window);
            let (conditions, requeue) =
                decide::after_failure(&plan, &subject, &error, within, timings.not_yet_retry);
            (conditions, if requeue.is_zero() { context.backoff.failed(&name) } else { requeue })
        }
    };
    // A pass that did something is followed at once by one that looks at it; only first progress is worth a status.
    let interim = requeue.is_zero() && subject.was_ready;
    if gone {
        context.metrics.forget(&name);
    } else if !interim {
        report::report(context, object, conditions, &plan.facts).await?;
    }
    Ok(Action::requeue(requeue))
}

/// Takes the plan's steps in order until one fails, and remembers what they showed.
async fn act(
    object: &OidcIssuer,
    context: &Context,
    memory: &mut Memory,
    plan: &Plan,
    identity: Option<&crate::aws::Identity>,
) -> Option<ActError> {
    let verifier = Verifier { client: context.client.clone(), namespace: context.namespace.clone() };
    for step in &plan.steps {
        match act::step(step, object, &context.aws, identity, &verifier).await {
            Ok(Done::Finalizer) => {}
            Ok(Done::Wrote(attribute)) => {
                tracing::info!(issuer = object.name_any(), attribute, "written");
                memory.last_write = Some(Instant::now());
                memory.aws = None;
                if plan.drift {
                    context.metrics.drift("OidcIssuer", attribute);
                    crate::report::repaired(&context.recorder, object, attribute).await;
                }
                if matches!(step, Step::Write(Write::CreateBucket)) {
                    break; // whether it is ours is read from its tags before anything else is done to it
                }
            }
            Ok(Done::Verified(verification)) => {
                if verification.exchange == Some(observe::Evidence::Good) {
                    let now = k8s_openapi::jiff::Timestamp::now().as_second();
                    context.metrics.verified(&object.name_any(), now);
                }
                memory.verification = Some(verification);
            }
            Err(error) => return Some(error),
        }
    }
    None
}

fn subject<'a>(object: &'a OidcIssuer, name: &'a str) -> Subject<'a> {
    let status = object.status.as_ref();
    let generation = object.metadata.generation.unwrap_or_default();
    Subject {
        name,
        spec: &object.spec,
        generation,
        deleting: object.metadata.deletion_timestamp.is_some(),
        finalizer: object.finalizers().iter().any(|f| f == FINALIZER),
        published: status.and_then(|s| s.published_digest.as_deref()),
        was_ready: status.is_some_and(|s| {
            s.observed_generation == Some(generation) && is_true(&s.conditions, ConditionType::Ready)
        }),
    }
}
