//! PURE: the annotations on the `ServiceAccount`: when they are applied, and when an apply that was refused is tried again.

use std::time::Duration;

use crds::{Finding, Reason};

use super::model::{Annotate, Memory, Observed, Own, Step, View};
use crate::clock::Clock;
use crate::timings::Timings;

/// The annotations, where they are not in place, or how long they have to wait. They never take part in Ready: the webhook takes the
/// binding first. Annotations that another program removes each time are put back at most once in `annotation_retry`.
pub(super) fn annotate(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    role_arn: &str,
    clock: &Clock,
    timings: &Timings,
) -> (Option<Step>, Option<Duration>) {
    let Some(service_account) = &observed.service_account else { return (None, None) };
    let annotations = view.annotations(role_arn);
    if service_account.has_exactly(&annotations) {
        return (None, None);
    }
    if let Some(refused) = refused(view, observed, memory, clock, timings).filter(Refused::waits) {
        return (None, refused.left);
    }
    let (uid, version) = (service_account.uid.clone(), service_account.version.clone());
    let step = Annotate { uid, version, annotations };
    let same = memory.annotated.filter(|before| before.content == step.content());
    let wait = same
        .and_then(|before| before.put_back)
        .map(|at| timings.annotation_retry.saturating_sub(clock.since(at)));
    match wait.filter(|wait| !wait.is_zero()) {
        Some(wait) => (None, Some(wait)),
        None => (Some(Step::Own(Own::Annotate(step))), None),
    }
}

/// The refusal that the last apply of annotations met.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused<'a> {
    /// Why, and what to do.
    pub finding: &'a Finding,
    /// When the apply is tried again; `None` after a change of the `ServiceAccount` only.
    left: Option<Duration>,
}

impl Refused<'_> {
    /// Whether the apply is not tried now.
    pub fn waits(&self) -> bool {
        self.left.is_none_or(|left| !left.is_zero())
    }
}

/// The refusal of the last apply, as far as it says something of the `ServiceAccount` as it is, and of this specification. An apply that
/// was refused because of another owner is not repeated on the same version: only a change can end that. A program that writes the
/// `ServiceAccount` often causes one apply in `annotation_retry`. An apply that the API server does not allow is repeated every
/// `look_again`: an admission policy may have changed.
pub(super) fn refused<'a>(
    view: &View,
    observed: &Observed,
    memory: &'a Memory,
    clock: &Clock,
    timings: &Timings,
) -> Option<Refused<'a>> {
    let service_account = observed.service_account.as_ref()?;
    let (refusal, at) = &**memory.refused.as_ref()?;
    if memory.generation != view.object.generation {
        return None;
    }
    let finding = &refusal.finding;
    let is_same = refusal.version == service_account.version;
    let left = |period: Duration| period.saturating_sub(clock.since(*at));
    if finding.reason == Reason::AnnotationOwnedByOther {
        let left = left(timings.annotation_retry);
        return (is_same || !left.is_zero()).then_some(Refused { finding, left: (!is_same).then_some(left) });
    }
    is_same.then(|| Refused { finding, left: Some(left(timings.look_again())) })
}
