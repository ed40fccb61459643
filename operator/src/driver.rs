//! One pass over one object, the same for both kinds: resolve → observe → decide → act → report. Everything here is about
//! passes: time limit, memory, repeats, waits, metrics. What a pass is about is behind [`Kind`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use crate::act::{Acted, act};
use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::cluster::Waker;
use crate::context::Context;
use crate::kind::{Failure, Kind, PlanOf, Resolved, StepError};
use crate::memory::{Memories, Memory};
use crate::model::{Next, ObjectState};
use crate::report::{self, report};
use crate::turns::{Key, Turns};

/// Waits from this length on are kept in an object's memory: the controller's own timer needs a kilobyte for each.
const LONG: Duration = Duration::from_mins(1);

/// The driver of one kind.
pub struct Driver<K: Kind> {
    context: Arc<Context>,
    waker: Waker<K::Object>,
    backoff: Backoff,
    memories: Memories<K>,
    turns: Arc<Turns>,
    stop: CancellationToken,
}

/// The controller's reconcile. A failure is logged, counted and waited for here and never reaches the controller.
pub async fn reconcile<K: Kind>(
    object: Arc<K::Object>,
    driver: Arc<Driver<K>>,
) -> Result<Action, Infallible> {
    let uid = object.uid().unwrap_or_default();
    // What waits when the operator stops has not begun.
    if driver.stop.is_cancelled() {
        return Ok(Action::await_change());
    }
    let key = (object.namespace().unwrap_or_default(), object.name_any());
    let Some(_turn) = driver.turns.take(&key, driver.memories.is_in_progress(&uid)) else {
        return Ok(Action::await_change());
    };
    // kube never runs two passes over one object at once, so no other pass misses the memory meanwhile.
    let mut memory = driver.memories.take(&uid);
    let limit = driver.context.timings.reconcile_timeout;
    let outcome = match tokio::time::timeout(limit, Box::pin(driver.pass(&object, &mut memory))).await {
        Ok(Ok(wait)) => Ok(wait),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            K::timed_out(&mut memory.kind);
            Err(format!("the pass did not end within {limit:?}"))
        }
    };
    let wait = outcome.unwrap_or_else(|error| {
        let (name, namespace) = (object.name_any(), object.namespace());
        tracing::warn!(kind = K::NAME, object = name, namespace, error, "the pass failed");
        driver.context.metrics.reconciled(K::NAME, "kubernetes");
        Some(driver.wait(&uid, &mut memory, Next::BackOff))
    });
    let (soon, later) = (wait.filter(|wait| *wait < LONG), wait.filter(|wait| *wait >= LONG));
    memory.due = later.map(|wait| Instant::now() + wait);
    driver.memories.put(uid, memory, K::store(&driver.context));
    Ok(soon.map_or_else(Action::await_change, Action::requeue))
}

impl<K: Kind> Driver<K> {
    /// A driver that remembers nothing. `waker` makes the controller reconcile an object whose turn it is. After `stop` it begins no pass.
    #[must_use]
    pub fn new(context: Arc<Context>, waker: Waker<K::Object>, stop: CancellationToken) -> Self {
        let wake_next = waker.clone();
        let wake = move |(namespace, name): &Key| {
            let reference = ObjectRef::new(name);
            wake_next.wake([if namespace.is_empty() { reference } else { reference.within(namespace) }]);
        };
        let turns = Arc::new(Turns::new(context.accounts.passes(), wake));
        let backoff = Backoff::new(context.timings.backoff_min, context.timings.backoff_max);
        Self { context, waker, backoff, memories: Memories::default(), turns, stop }
    }

    /// Wakes objects whose long wait ends, a second late at most, until it is dropped.
    pub async fn wake_due(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            let (soonest, mut next) = (now + Duration::from_secs(1), now + LONG / 2);
            for object in K::store(&self.context).state() {
                match object.meta().uid.as_deref().and_then(|uid| self.memories.due(uid, now)) {
                    Some(due) if due <= now => self.waker.wake([ObjectRef::from_obj(&*object)]),
                    Some(due) => next = next.min(due),
                    None => {}
                }
            }
            tokio::time::sleep_until(next.max(soonest).into()).await;
        }
    }

    /// The controller has found no object of that name, so no reconcile of it has begun.
    pub fn not_found(&self, namespace: Option<&str>, name: &str) {
        self.turns.forget(&(namespace.unwrap_or_default().to_owned(), name.to_owned()));
    }

    /// The first half of a pass, which changes nothing: resolve → observe → decide.
    pub async fn plan(
        &self,
        object: &Arc<K::Object>,
        memory: &mut K::Memory,
        clock: &Clock,
    ) -> Result<(Resolved<K>, K::Observed, PlanOf<K>), kube::Error> {
        let context = &*self.context;
        let (generation, conditions) = K::status(object).map_or((None, &[][..]), K::observed);
        let same_effect = K::has_same_effect(object, memory);
        let state = ObjectState::new(object.meta(), generation, conditions, same_effect);
        let (view, account) = K::resolve(object, &state, context).await;
        let resolved = Resolved { object: Arc::clone(object), state, view, account };
        let timings = &context.timings;
        let mut observed = K::observe(&resolved, memory, clock, context).await?;
        let mut plan = K::decide(&resolved.view, &observed, memory, clock, timings);
        if K::read_again(&plan, memory, clock, timings) {
            observed = K::observe(&resolved, memory, clock, context).await?;
            plan = K::decide(&resolved.view, &observed, memory, clock, timings);
        }
        Ok((resolved, observed, plan))
    }

    /// One pass. Returns when to look again; `None` where only a change of the object is a reason to.
    async fn pass(
        &self,
        object: &Arc<K::Object>,
        memory: &mut Memory<K>,
    ) -> Result<Option<Duration>, kube::Error> {
        if memory.gone {
            return Ok(None);
        }
        let (context, clock) = (&*self.context, self.context.clock());
        let (resolved, observed, mut plan) = self.plan(object, &mut memory.kind, &clock).await?;
        K::planned(&mut memory.kind, &resolved.view, &plan);
        report::publish_findings(&context.events, &**object, &plan.events).await;
        let acted = act(&plan, &resolved, &mut memory.kind, context).await;
        // The last pass took the same steps: they are repeated, but not at once.
        let repeated = !plan.steps.is_empty() && memory.steps == plan.steps;
        memory.steps.clone_from(&plan.steps);
        let (label, conditions, next) = match acted {
            Ok(Acted::Gone) => {
                memory.gone = true;
                K::gone(&resolved.state, context);
                context.metrics.reconciled(K::NAME, "ok");
                return Ok(None);
            }
            Ok(Acted::Outdated) => {
                K::unfinished(&mut memory.kind, plan.facts);
                memory.steps.clear();
                context.metrics.reconciled(K::NAME, "outdated");
                return Ok(Some(self.wait(&object.uid().unwrap_or_default(), memory, Next::BackOff)));
            }
            Ok(Acted::Begun) => {
                plan.facts = K::unfinished(&mut memory.kind, plan.facts);
                ("ok", plan.conditions, if repeated { Next::BackOff } else { Next::LookAgain })
            }
            Ok(Acted::Done) => {
                let failed = K::failed_read(&observed).filter(|_| plan.steps.is_empty());
                let next = if repeated { Next::BackOff } else { plan.next };
                (failed.unwrap_or("ok"), plan.conditions, next)
            }
            Err(StepError::Kube(error)) => return Err(error),
            Err(StepError::Aws(error)) => {
                let (name, namespace, class) = (object.name_any(), object.namespace(), error.class.label());
                tracing::warn!(kind = K::NAME, object = name, namespace, %error, class, detail = error.detail, "a step failed");
                let failure =
                    Failure { plan: &plan, view: &resolved.view, error: &error, repeated, clock: &clock };
                let (conditions, next) = K::step_failed(&failure, &mut memory.kind, &context.timings);
                plan.facts = K::unfinished(&mut memory.kind, plan.facts);
                (class, conditions, next)
            }
        };
        context.metrics.reconciled(K::NAME, label);
        // A pass that changed something is followed at once by one that reads it back. Progress is written to the status only
        // while the object was not Ready.
        if next != Next::LookAgain || !resolved.state.was_ready {
            report::<K>(context, object, conditions, plan.facts).await?;
        }
        Ok(Some(self.wait(&object.uid().unwrap_or_default(), memory, next)))
    }

    fn wait(&self, uid: &str, memory: &mut Memory<K>, next: Next) -> Duration {
        match next {
            Next::LookAgain => Duration::ZERO,
            Next::BackOff => {
                memory.failures = memory.failures.saturating_add(1);
                self.backoff.wait(uid, memory.failures)
            }
            Next::At(period) => {
                if memory.steps.is_empty() {
                    memory.failures = 0;
                }
                self.backoff.spread(uid, period)
            }
        }
    }
}
