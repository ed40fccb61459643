//! The reconcile of a `PodIdentityBinding`: observe → decide → act → report.

pub mod act;
pub mod decide;
pub mod observe;
pub mod removal;
pub mod report;
pub mod target;
pub mod watch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::condition::{ConditionType, is_true};
use crds::names::{DEFAULT_ISSUER, FINALIZER};
use crds::{OidcIssuer, PodIdentityBinding};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;

use crate::aws::Class;
use crate::context::Context;
use crate::reconcile::Error;
use act::{ActError, Done};
use decide::{Plan, Step};
use observe::Memory;
use target::{Holder, Issuer, Subject};

/// One look at one binding, and what follows from it.
pub async fn reconcile(object: Arc<PodIdentityBinding>, context: Arc<Context>) -> Result<Action, Error> {
    let uid = object.uid().unwrap_or_default();
    let mut memory = context.binding_memory.take(&uid);
    let limit = context.timings.reconcile_timeout;
    let result = tokio::time::timeout(limit, look(&object, &context, &mut memory)).await;
    if memory.gone {
        context.backoff.succeeded(&key(&object));
    }
    context.binding_memory.put(&uid, memory);
    context.binding_memory.tidy(&context.bindings);
    result.unwrap_or(Err(Error::Timeout(limit)))
}

async fn look(object: &PodIdentityBinding, context: &Context, memory: &mut Memory) -> Result<Action, Error> {
    if memory.gone {
        return Ok(Action::await_change());
    }
    context.issuers_synced.cancelled().await;
    let Context { client, aws, timings, .. } = context;
    let (key, name, namespace) = (key(object), object.name_any(), object.namespace().unwrap_or_default());
    let issuer = context.issuers.get(&ObjectRef::new(DEFAULT_ISSUER));
    let subject = subject(object, &namespace, &name, issuer.as_deref(), context);

    let due = decide::due(&subject, memory, Instant::now(), timings);
    let observed = observe::observe(client, aws, &subject, memory, due).await?;
    let plan = decide::decide(&subject, &observed, memory, timings);
    memory.generation = subject.generation;
    memory.swept = plan.swept;

    let role = subject.target(&observed.identity).map(|target| target.role_name).unwrap_or_default();
    let acted = act(object, context, memory, &plan, &role, subject.was_ready).await;
    memory.gone = acted.is_ok() && plan.steps.contains(&Step::RemoveFinalizer);
    // What was done already and did not last is done again, but not at once.
    let repeated =
        memory.steps.replace(plan.steps.clone()).is_some_and(|last| last == plan.steps && !last.is_empty());
    let (conditions, requeue) = match acted {
        Ok(()) if plan.requeue.is_zero() && plan.steps.is_empty() => {
            let class = observed.role.as_ref().map_or_else(|error| error.class.label(), |_| "ok");
            context.metrics.reconciled("PodIdentityBinding", class);
            (plan.conditions, context.backoff.failed(&key)) // a failed read
        }
        Ok(()) => {
            context.metrics.reconciled("PodIdentityBinding", "ok");
            if repeated {
                (plan.conditions, context.backoff.failed(&key))
            } else {
                if plan.steps.is_empty() {
                    context.backoff.succeeded(&key);
                }
                (plan.conditions, context.backoff.spread(&key, plan.requeue))
            }
        }
        Err(ActError::Kube(error)) => return Err(error.into()),
        Err(ActError::Aws(error)) => {
            let class = error.class;
            tracing::warn!(binding = key, %error, class = class.label(), detail = error.detail, "a step failed");
            context.metrics.reconciled("PodIdentityBinding", class.label());
            (memory.role, memory.policies) = (None, None); // what we knew is in doubt
            let conditions = decide::after_failure(&plan, &subject, &error);
            let wait = context.backoff.failed(&key);
            // A role of that name: ours from before a crash, or a stranger's. Look at once.
            (conditions, if class == Class::AlreadyExists && !repeated { Duration::ZERO } else { wait })
        }
    };
    // A pass that did something is followed at once by one that looks at it; only first progress is worth a status.
    let interim = requeue.is_zero() && subject.was_ready;
    if !memory.gone && !interim {
        report::report(context, object, conditions, plan.role).await?;
    }
    Ok(Action::requeue(requeue))
}

/// Takes the plan's steps in order until one fails, and remembers what they showed.
async fn act(
    object: &PodIdentityBinding,
    context: &Context,
    memory: &mut Memory,
    plan: &Plan,
    role: &str,
    was_ready: bool,
) -> Result<(), ActError> {
    for step in &plan.steps {
        memory.acted = true;
        match act::step(step, object, role, &context.client, &context.aws).await? {
            Done::Cluster => {}
            Done::Created(role) => {
                memory.role = Some((Some(role), Instant::now()));
                memory.policies = None;
            }
            Done::Role => memory.role = None,
            Done::Policies => memory.policies = None,
            Done::Conflict { version, owner } => memory.conflict = Some((version, owner)),
        }
        let Some(attribute) = step.attribute() else { continue };
        tracing::info!(binding = key(object), attribute, role, "done");
        if was_ready {
            context.metrics.drift("PodIdentityBinding", attribute);
            crate::report::repaired(&context.recorder, object, attribute).await;
        }
    }
    Ok(())
}

fn subject<'a>(
    object: &'a PodIdentityBinding,
    namespace: &'a str,
    name: &'a str,
    issuer: Option<&'a OidcIssuer>,
    context: &'a Context,
) -> Subject<'a> {
    let generation = object.metadata.generation.unwrap_or_default();
    let created = object.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let deleting = object.metadata.deletion_timestamp.is_some();
    Subject {
        namespace,
        name,
        spec: &object.spec,
        generation,
        age: Timestamp::now().duration_since(created).try_into().unwrap_or_default(),
        deleting,
        finalizer: object.finalizers().iter().any(|f| f == FINALIZER),
        was_ready: !deleting
            && object.status.as_ref().is_some_and(|s| {
                s.observed_generation == Some(generation) && is_true(&s.conditions, ConditionType::Ready)
            }),
        issuer: issuer.map(|issuer| Issuer {
            name: DEFAULT_ISSUER,
            spec: &issuer.spec,
            deleting: issuer.metadata.deletion_timestamp.is_some(),
        }),
        holder: holder(object, context),
        operator_namespace: &context.namespace,
    }
}

/// The oldest binding on a `ServiceAccount` wins; of two made in one second, the one whose name comes first.
fn holder(object: &PodIdentityBinding, context: &Context) -> Option<Holder> {
    let rank = |b: &PodIdentityBinding| (b.creation_timestamp(), b.name_any());
    let own = rank(object);
    context
        .bindings
        .state()
        .iter()
        .filter(|other| {
            other.namespace() == object.namespace()
                && other.spec.service_account_name == object.spec.service_account_name
                && rank(other) < own
        })
        .min_by_key(|other| rank(other))
        .map(|other| Holder { name: other.name_any(), deleting: other.metadata.deletion_timestamp.is_some() })
}

fn key(object: &PodIdentityBinding) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
