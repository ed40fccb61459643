//! PURE: a binding whose grant is missing, or was taken away.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::binding::DEFAULT_SESSION;
use crds::condition::Summary;
use crds::holder::Claim;
use crds::names::CONFIRM_ANNOTATION;
use crds::{Finding, OidcIssuer, PodIdentityBindingSpec, Reason};
use k8s_openapi::jiff::Timestamp;

use super::absence::known_role;
use super::annotations;
use super::decision::Decision;
use super::model::{Memory, Observed, Revocation, RoleState, Step, View};
use super::removal;
use super::role::{Target, revocation};
use crate::aws::model::{Role, RolePolicies};
use crate::clock::Clock;
use crate::grant::{self, Losses};
use crate::model::Next;
use crate::timings::Timings;

/// Whether a grant of its issuer covers a binding. One that makes no role needs none.
#[allow(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn check_grant(
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    spec: &PodIdentityBindingSpec,
    issuer: Result<&OidcIssuer, Finding>,
) -> Result<(), Finding> {
    let Some(role) = &spec.role else { return Ok(()) };
    let request = grant::Request {
        namespace: grant::Namespace { name: namespace, labels },
        policy_arns: &role.policy_arns,
        inline: !role.inline_policies.is_empty(),
        session: role.max_session_duration.map_or(DEFAULT_SESSION, Duration::from),
    };
    let issuer = issuer?;
    grant::check(issuer.name(), &issuer.spec.grants, request)
}

/// Whether the issuer has the audience that a binding asks for.
pub(super) fn check_audience(spec: &PodIdentityBindingSpec, issuer: &OidcIssuer) -> Result<(), Finding> {
    let Some(audience) = spec.audience.as_ref().filter(|a| !issuer.spec.audiences.contains(a)) else {
        return Ok(());
    };
    let message = format!(
        "spec.audience {audience} is not among spec.audiences of OidcIssuer {}: add it there first",
        spec.issuer_name()
    );
    Err(Finding::new(Reason::InvalidSpec, message))
}

/// The role, where it is this binding's and has rights that no grant covers any more, with what is not covered. A role whose
/// revocation has begun counts, too, until a specification is accepted that it can be restored to.
pub(super) fn lost_rights<'a>(
    view: &'a View,
    observed: &'a Observed,
    refused: Option<&Finding>,
) -> Option<Lost<'a>> {
    let (Ok(target), Ok(Some(RoleState::Found(role, Some(policies))))) = (&view.target, &observed.role)
    else {
        return None;
    };
    let issuer = view.granting.as_ref().filter(|_| view.object.finalizer && target.owns(role).is_ok())?;
    let (policy_arns, inline) = target.rights(policies);
    let request = grant::Request {
        namespace: grant::Namespace { name: &view.object.namespace, labels: view.labels.as_deref() },
        policy_arns: &policy_arns,
        inline,
        session: Duration::from_secs(u64::try_from(role.settings.max_session_seconds).unwrap_or(u64::MAX)),
    };
    let covered = grant::check(issuer.name(), &issuer.spec.grants, request);
    let begun = revocation::has_begun(role, &policies.inline, &target.trust);
    let why = match (covered, view.grant.as_ref().err().or(refused)) {
        (Err(finding), _) => finding.message,
        (Ok(()), Some(finding)) if begun => finding.message.clone(),
        (Ok(()), _) => return None,
    };
    Some(Lost { target, role, policies, why })
}

/// A binding that no grant covers, and whose role has no rights that are not covered: what is not covered is not applied.
pub(super) fn without_grant<'a>(
    view: &'a View,
    observed: &'a Observed,
    memory: &Memory,
    finding: &Finding,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let mut revoke_at = known_revocation(view, memory).filter(|_| observed.has_unread());
    // The role cannot be read. It was as specified, so it has rights that no grant covers: the wait begins now, and the loss is counted.
    let is_new =
        observed.has_unread() && view.object.was_ready && view.object.finalizer && view.binding.has_role();
    let (summary, next) = match reported_loss(view, observed, finding) {
        Some(reported) => (Summary::Stalled(reported), Next::BackOff),
        None if is_new => {
            revoke_at = Some(time_of_revocation(view, memory, clock, timings));
            (Summary::Stalled(Finding::new(Reason::GrantLost, &finding.message)), Next::BackOff)
        }
        None => not_granted(view, finding, clock, timings),
    };
    // Whether the role has lost rights is not known.
    let next = if observed.has_unread() && view.object.finalizer { Next::BackOff } else { next };
    let facts = known_role(view, observed, memory, clock, timings);
    Decision { facts, next, revoke_at, ..Decision::nothing(summary, timings) }
}

/// What the status says of a role that has lost its grant, where the role could not be read whole: the former report stays. The wait does
/// not begin again, and a revoked role stays revoked.
pub(super) fn reported_loss(view: &View, observed: &Observed, finding: &Finding) -> Option<Finding> {
    let reported = view.ready_reason().filter(|reason| observed.has_unread() && is_of_loss(*reason));
    reported.map(|reason| Finding::new(reason, &finding.message))
}

/// Whether a reason says that a role has lost its grant.
fn is_of_loss(reason: Reason) -> bool {
    matches!(reason, Reason::GrantLost | Reason::GrantChangeSuspicious | Reason::Revoked)
}

/// Whether a reason says that no grant covers the binding or its role.
pub(super) fn is_refusal(reason: Reason) -> bool {
    reason == Reason::NotGranted || is_of_loss(reason)
}

/// A role that has rights which no grant covers any more.
pub(super) struct Lost<'a> {
    target: &'a Target,
    role: &'a Role,
    policies: &'a RolePolicies,
    /// What no grant allows.
    why: String,
}

/// A role that has rights which no grant covers any more: it is frozen and reported at once, and revoked after `grant_loss`.
/// Nothing is revoked where a change of grants hits many roles, before an administrator confirms it.
pub(super) fn grant_lost<'a>(
    view: &'a View,
    observed: &'a Observed,
    memory: &Memory,
    Lost { target, role, policies, why }: &Lost<'_>,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let stalled = |reason, message: String| Summary::Stalled(Finding::new(reason, message));
    let facts = view.own_role(observed);
    let later = Next::At(timings.look_again());
    let begun = revocation::has_begun(role, &policies.inline, &target.trust);
    let revoke_at = time_of_revocation(view, memory, clock, timings);
    let left = revoke_at.duration_since(clock.wall);
    if !begun && left.is_positive() {
        let message = format!(
            "{why}. The role has rights that no grant covers any more. It keeps them until status.revokeAt, and is revoked then"
        );
        let next = Next::At(left.unsigned_abs());
        return Decision {
            facts,
            next,
            revoke_at: Some(revoke_at),
            ..Decision::nothing(stalled(Reason::GrantLost, message), timings)
        };
    }
    if !begun && !may_revoke(view, view.losses) {
        let Losses { lost, roles } = view.losses;
        let issuer = view.granting.as_ref();
        let name = issuer.map(|issuer| issuer.name()).unwrap_or_default();
        let generation = issuer.and_then(|issuer| issuer.metadata.generation).unwrap_or_default();
        let message = format!(
            "{lost} of {roles} roles of OidcIssuer {name} would be revoked at once, so none is. If that is meant: kubectl annotate \
             oidcissuer {name} --overwrite {CONFIRM_ANNOTATION}={generation}:{lost}. Otherwise put the grants back. This binding: {why}"
        );
        return Decision {
            facts,
            next: later,
            revoke_at: Some(revoke_at),
            ..Decision::nothing(stalled(Reason::GrantChangeSuspicious, message), timings)
        };
    }
    let mut steps: Vec<Step> =
        target.revoke(role, policies, memory.boundary_first).into_iter().map(Step::Change).collect();
    let refused = annotations::refused(view, observed, memory, clock, timings);
    // Where another field manager owns an annotation, the API server refuses to set it, and not to remove our other ones.
    let waits = refused
        .is_some_and(|refused| refused.finding.reason != Reason::AnnotationOwnedByOther && refused.waits());
    steps.extend(removal::unannotate(view, observed).filter(|_| !waits));
    let message = format!(
        "{why}. The role is revoked: no session of it can do anything, and none can begin. It is restored once a grant covers the \
         binding and its specification is accepted"
    );
    let next = Next::read_back(&steps, later);
    let revoke_at = (!steps.is_empty()).then_some(revoke_at);
    let revocation = if begun { Revocation::GoesOn } else { Revocation::Begins };
    Decision {
        steps,
        facts,
        next,
        revoke_at,
        revocation,
        ..Decision::nothing(stalled(Reason::Revoked, message), timings)
    }
}

/// When the role is revoked: as it was decided before, and never later than the wait from now. A user who can write the status must not
/// delay the revocation.
fn time_of_revocation(view: &View, memory: &Memory, clock: &Clock, timings: &Timings) -> Timestamp {
    let latest = clock.wall.checked_add(timings.grant_loss).unwrap_or(Timestamp::MAX);
    known_revocation(view, memory).map_or(latest, |known| known.min(latest))
}

/// When the role is revoked, as far as that was decided before. The status outlives the process.
pub(super) fn known_revocation(view: &View, memory: &Memory) -> Option<Timestamp> {
    let in_status = view.binding.status.as_ref().and_then(|status| status.revoke_at.as_ref());
    [memory.revoke_at, in_status.map(|time| time.0)].into_iter().flatten().min()
}

/// Whether a role may be revoked where so many have lost their grant: many are not revoked before an administrator has confirmed that after
/// this change of grants.
#[must_use]
pub fn may_revoke(view: &View, losses: Losses) -> bool {
    let confirmed = || {
        let metadata = &view.granting.as_ref()?.metadata;
        let (generation, number) = metadata.annotations.as_ref()?.get(CONFIRM_ANNOTATION)?.split_once(':')?;
        let is_this = generation.parse().ok() == metadata.generation;
        is_this.then(|| number.parse::<usize>().ok())?
    };
    !losses.is_suspicious() || confirmed().is_some_and(|number| losses.lost <= number)
}

/// Grant and binding may be applied in either order.
fn not_granted(view: &View, finding: &Finding, clock: &Clock, timings: &Timings) -> (Summary, Next) {
    let wait = timings.grant_grace.saturating_sub(clock.age(view.object.created));
    if wait.is_zero() || view.object.finalizer {
        return (Summary::Stalled(finding.clone()), Next::At(timings.look_again()));
    }
    let waiting = Finding::new(Reason::WaitingForGrant, &finding.message);
    (Summary::Reconciling(waiting), Next::At(wait))
}
