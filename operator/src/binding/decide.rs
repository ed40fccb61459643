//! PURE: from what was observed to what is done next and what the user is told.

use std::time::Duration;

use crds::condition::Summary;
use crds::holder::Claim;
use crds::names::{DEFAULT_ISSUER, OPERATOR_SERVICE_ACCOUNT, REVOKED_POLICY};
use crds::{DriftPolicy, Finding, Reason, in_effect};

use super::absence::{known_role, unconfirmed};
use super::annotations::{self, annotate};
use super::decision::Decision;
use super::due::{in_spec, recorded_digest};
use super::failure::failure;
use super::granted;
use super::holder::{other_holder, owner};
use super::model::{
    Facts, Memory, Note, Observed, Own, Plan, RoleFacts, RoleState, Sibling, Step, Unresolved, View,
    missing_issuer,
};
use super::pods::missing;
use super::removal;
use super::role::{boundary, inline, trust};
use super::verdict::{self, Case, READY};
use crate::aws::error::AwsError;
use crate::aws::model::{IamWrite, Write};
use crate::change::{Change, attributes};
use crate::clock::Clock;
use crate::model::Next;
use crate::pods::model::PodsState;
use crate::timings::Timings;

/// The plan of one pass.
#[must_use]
pub fn decide(view: &View, observed: &Observed, memory: &Memory, clock: &Clock, timings: &Timings) -> Plan {
    let holder = other_holder(view, observed);
    let decision = if view.object.deleting {
        removal::decide(view, observed, memory, clock, timings)
    } else if let Some((summary, next)) = blocked(view, holder, memory, clock, timings) {
        // A role that is another binding's is not named any more: the webhook takes the binding that names it.
        let lost = owner(view, observed).is_some() || (holder.is_some() && !view.binding.has_role());
        // A role that is refused nothing but its next change is still there.
        let facts = if lost { Some(RoleFacts::default()) } else { view.own_role(observed) };
        let revoke_at = granted::known_revocation(view, memory).filter(|_| view.grant.is_err());
        Decision { facts, next, revoke_at, ..Decision::nothing(summary, timings) }
    } else if view.spec().role.is_some() || keeps_role(view) {
        own_role(view, observed, memory, clock, timings)
    } else {
        use_existing_role(view, observed, memory, clock, timings)
    };
    let Decision { mut steps, summary, unreachable, facts, next, no_earlier_role, revoke_at, revocation } =
        decision;
    let is_done = steps.is_empty() && matches!(summary, Summary::Ready(_));
    // A workload that is restarted too early would have to be restarted again, and is not.
    let restarts = observed.restarts.iter().filter(|_| is_done).cloned();
    steps.extend(restarts.map(|workload| Step::Own(Own::Restart(workload))));
    let tags = is_done.then(|| put_tags(view, observed)).flatten();
    let lacks_tags = tags.is_some();
    let next = if lacks_tags { Next::LookAgain } else { next };
    // Alone, once all else is done: where AWS refuses the tags, nothing waits for them, and the binding stays Ready.
    let puts_tags = lacks_tags && steps.is_empty();
    steps.extend(tags.filter(|_| puts_tags).map(Step::Change));
    let in_spec =
        if steps.is_empty() { in_spec(view, observed, memory, &summary, clock, timings) } else { None };
    // A policy of which nothing is known yet: it is read again soon.
    let is_later = next == Next::At(timings.look_again());
    let next = if is_later && observed.role.is_ok() && observed.has_unread() { Next::BackOff } else { next };
    let digest = recorded_digest(view, observed, memory, &summary, in_spec.as_ref(), lacks_tags);
    if let Some(first) = steps.iter().position(|step| step.change().is_some())
        && view.records_digest(digest.as_ref())
    {
        steps.insert(first, Step::Own(Own::ForgetDigest));
    }
    // There is no other reason to look again than that the role is due.
    let next = match &in_spec {
        Some(in_spec) if next == Next::At(timings.look_again()) => {
            Next::At(in_spec.until.saturating_duration_since(clock.instant))
        }
        _ => next,
    };
    // Pods that could not be read are read again.
    let unreadable = matches!(observed.pods, PodsState::Unreadable(_)).then(|| timings.look_again());
    let more_to_restart = memory.restart_after.as_ref().map(|_| timings.look_again());
    let next = next.no_later_than(unreadable).no_later_than(more_to_restart);
    let refused = annotations::refused(view, observed, memory, clock, timings).map(|refused| refused.finding);
    let case =
        Case { view, observed, memory, holder, steps: &steps, summary: &summary, refused, unreachable };
    // That was known before and stays so, but not where the role is looked for again, nor where a change is planned: that may fail.
    let is_unknown = matches!(observed.role, Err(_) | Ok(Some(RoleState::Missing)));
    let changes = steps.iter().any(|step| step.change().is_some());
    let knows_no_role = view.spec().role.is_none() && !is_unknown && !changes;
    let is_of = |reason| summary.finding().is_some_and(|finding| finding.reason == reason);
    // Of a specification that is refused, nothing is in effect.
    let is_accepted = !matches!(summary, Summary::Stalled(_)) || is_of(Reason::DriftDetected);
    let trusted = view.trusted(observed).filter(|_| is_accepted);
    Plan {
        conditions: verdict::conditions(&case),
        note: Note {
            in_spec,
            no_earlier_role: no_earlier_role || (memory.no_earlier_role && knows_no_role),
            revoke_at,
            revocation,
            conflict_since: is_of(Reason::ServiceAccountAlreadyBound)
                .then(|| memory.conflict_since.unwrap_or(clock.instant)),
        },
        // A role that the binding does not want any more is removed, not put back; and a former trust changes by time.
        drift: view.shows_drift()
            && if puts_tags { view.had_tags(memory) } else { view.was_read_as_target() != Some(false) }
            && !is_of(Reason::Revoked)
            && view.wants_role()
            && !steps.iter().filter_map(Step::change).any(is_of_move),
        steps,
        facts: Facts { role: facts, trusted, revoke_at, missing: missing(view, observed), digest },
        next,
        events: removal::abandoned(view).filter(|_| view.object.finalizer).into_iter().collect(),
    }
}

/// What puts the tags of the issuer on the role, where the binding has one of its own.
fn put_tags(view: &View, observed: &Observed) -> Option<Change> {
    let target = view.target.as_ref().ok().filter(|_| view.wants_role())?;
    match &observed.role {
        Ok(Some(RoleState::Found(role, _))) if target.owns(role).is_ok() => target.put_tags(role),
        _ => None,
    }
}

/// What keeps the binding from being acted on, if anything does, and when to look again.
fn blocked(
    view: &View,
    holder: Option<&Sibling>,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Option<(Summary, Next)> {
    let later = Next::At(timings.look_again());
    if view.reserved {
        let message = format!(
            "ServiceAccount {OPERATOR_SERVICE_ACCOUNT} is the operator's own, and `operator bootstrap` makes its role: delete this \
             binding"
        );
        return Some((Summary::Stalled(Finding::new(Reason::ReservedServiceAccount, message)), later));
    }
    if let Some(holder) = holder {
        return Some(already_bound(view, holder, memory, clock, timings));
    }
    if let Some(invalid) = &view.invalid {
        return (!keeps_role(view)).then(|| (Summary::Stalled(invalid.clone()), later));
    }
    let missing = view.issuer().err().filter(|_| view.spec().role.is_some());
    let waits_for = missing.or_else(|| ending_issuer(view).filter(|_| !view.object.finalizer));
    waits_for.map(|finding| (Summary::Reconciling(finding), later))
}

/// That the issuer is being deleted, where it was not the binding's before: it would stay as long as its new binding.
fn ending_issuer(view: &View) -> Option<Finding> {
    let (name, issuer) = view.own_issuers.first()?;
    issuer.as_ref()?.metadata.deletion_timestamp.as_ref()?;
    let is_new = !view.object.finalizer || in_effect::issuer(&view.binding) != name;
    let message =
        format!("OidcIssuer {name} is being deleted and allows no new bindings: use another spec.issuerRef");
    is_new.then(|| Finding::new(Reason::DependencyNotReady, message))
}

/// Whether the specification breaks a rule of the CRD and the binding has a role: it stays as it is while grants cover it, whatever the
/// specification says.
fn keeps_role(view: &View) -> bool {
    let has_any = view.spec().role.is_some() || view.binding.has_role();
    view.invalid.is_some() && view.object.finalizer && has_any
}

/// A binding that makes a role: whether its specification is accepted, and whether grants cover what it asks for and what the role
/// has. An edit that is not accepted keeps no rights that are not covered.
fn own_role<'a>(
    view: &'a View,
    observed: &'a Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let audience = view.issuer().ok().and_then(|issuer| granted::check_audience(view.spec(), issuer).err());
    let refused = view
        .invalid
        .clone()
        .or_else(|| view.refused.clone())
        .or_else(|| ending_issuer(view))
        .or(audience)
        .or_else(|| too_long(view, observed));
    let lost = granted::lost_rights(view, observed, refused.as_ref());
    match (lost, &view.grant, refused) {
        (Some(lost), Err(_), _) | (Some(lost), Ok(()), Some(_)) => {
            granted::grant_lost(view, observed, memory, &lost, clock, timings)
        }
        (None, Err(finding), None) => granted::without_grant(view, observed, memory, finding, clock, timings),
        (None, _, Some(finding)) => {
            let revoke_at = granted::known_revocation(view, memory).filter(|_| observed.has_unread());
            let facts = known_role(view, observed, memory, clock, timings);
            let finding = granted::reported_loss(view, observed, &finding).unwrap_or(finding);
            let nothing = Decision::nothing(Summary::Stalled(finding), timings);
            let next = if observed.role.is_err() { Next::BackOff } else { nothing.next };
            Decision { facts, next, revoke_at, ..nothing }
        }
        (lost, Ok(()), None) => make_role(view, observed, memory, lost.is_some(), clock, timings),
    }
}

/// Inline policies that IAM would refuse, or that leave no space for a revocation. One that only denies stays once it is there.
fn too_long(view: &View, observed: &Observed) -> Option<Finding> {
    let target = view.target.as_ref().ok()?;
    let staying = match &observed.role {
        Ok(Some(RoleState::Found(_, Some(policies)))) => {
            inline::size_of_foreign_denies(&policies.inline, &target.inline)
        }
        _ => 0,
    };
    let size = inline::size(&target.inline) + staying;
    let has_any = !target.inline.is_empty();
    (has_any && size > inline::QUOTA).then(|| {
        let message = format!(
            "spec.role.inlinePolicies, with those of the role that only deny, have {size} characters without white space, and at most \
             {} are possible: make managed policies of some",
            inline::QUOTA
        );
        Finding::new(Reason::InvalidSpec, message)
    })
}

/// A binding that does not hold its `ServiceAccount` changes nothing: the other one may be deleted soon. If both have the same
/// effect it is Ready: a rename under a tool that waits for the new object before it deletes the old one must not wait for
/// itself (Argo CD's `PruneLast`).
fn already_bound(
    view: &View,
    holder: &Sibling,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> (Summary, Next) {
    let (account, name) = (&view.spec().service_account_name, &holder.name);
    if holder.same_effect {
        let later = Next::At(timings.look_again()); // a change of the other wakes it
        if view.grant.is_ok() && (holder.ready || (holder.deleting && view.object.was_ready)) {
            let message = format!(
                "ServiceAccount {account} is bound by PodIdentityBinding {name}, which has the same specification; this one \
                 takes its role over when that one is deleted"
            );
            return (Summary::Ready(Finding::new(Reason::ServedByOlderBinding, message)), later);
        }
        let message = format!(
            "ServiceAccount {account} is bound by PodIdentityBinding {name}, which has the same specification and is not \
             Ready: see its status"
        );
        return (Summary::Reconciling(Finding::new(Reason::ServedByOlderBinding, message)), later);
    }
    let message = format!(
        "ServiceAccount {account} is bound by PodIdentityBinding {name}, which {}: delete one of the two",
        match holder {
            Sibling { has_role: true, .. } => "has its role",
            Sibling { acted_on: true, .. } => "the operator acts on",
            _ => "is older",
        },
    );
    let finding = Finding::new(Reason::ServiceAccountAlreadyBound, message);
    // After a restart `conflict_since` is not known: what the status says is Stalled stays so.
    let was_stalled = view.ready_reason() == Some(finding.reason) && view.is_stalled();
    let lasts = memory.conflict_since.map_or(Duration::ZERO, |since| clock.since(since));
    let wait = timings.conflict_grace.saturating_sub(lasts);
    if holder.deleting {
        (Summary::Reconciling(finding), Next::At(timings.conflict_grace))
    } else if was_stalled || wait.is_zero() {
        (Summary::Stalled(finding), Next::At(timings.conflict_grace)) // the end of the other wakes it
    } else {
        (Summary::Reconciling(finding), Next::At(wait))
    }
}

/// The role of the specification, made or brought back to it.
fn make_role<'a>(
    view: &'a View,
    observed: &'a Observed,
    memory: &Memory,
    has_lost_rights: bool,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let (target, state) = match (&view.target, &observed.role) {
        (Ok(target), Ok(state)) => (target, state.as_ref()),
        (Err(Unresolved::Account(error)), _) | (_, Err(error)) => return failed(view, error, timings),
        (Err(Unresolved::NoIssuer | Unresolved::NotNeeded | Unresolved::Abandoned), Ok(_)) => {
            let waits = Summary::Reconciling(Finding::new(Reason::Progressing, "waits for AWS"));
            return Decision::nothing(waits, timings);
        }
    };
    let changes = match state {
        None | Some(RoleState::Missing) => target.creation(),
        Some(RoleState::AsSpecified) => Vec::new(),
        Some(RoleState::Found(role, policies)) => match target.owns(role) {
            // Rights that no grant covers are removed before any step that may fail.
            Ok(()) if has_lost_rights => taking_first(target.diff(role, policies.as_ref(), &view.moves())),
            Ok(()) => target.diff(role, policies.as_ref(), &view.moves()),
            Err(not_owned) => {
                let settling = unconfirmed(observed, memory, clock, timings);
                return not_ours(view, not_owned, settling, timings);
            }
        },
    };
    let found = match state {
        Some(RoleState::Found(_, policies)) => Some(policies.as_ref()),
        None | Some(RoleState::Missing | RoleState::AsSpecified) => None,
    };
    if let Some(too_long) = changes.iter().find_map(trust::too_long) {
        let facts = view.own_role(observed);
        let steps: Vec<Step> = changes
            .into_iter()
            .filter(|change| has_lost_rights && takes_rights(change))
            .map(Step::Change)
            .collect();
        let next = Next::read_back(&steps, Next::At(timings.look_again()));
        return Decision { steps, facts, next, ..Decision::nothing(Summary::Stalled(too_long), timings) };
    }
    let reports =
        view.spec().drift_policy == DriftPolicy::ReportOnly && view.shows_drift() && !has_lost_rights;
    // The changes of a move depend on time: nobody else has caused them.
    let moves = changes.iter().any(is_of_move);
    // The boundary is the administrator's: it is put in place whatever a tenant's specification says.
    let is_reported = |change: &Change| {
        reports && !(moves && trust::is_of_move(change)) && change.attribute != boundary::BOUNDARY
    };
    let drifted: Vec<&Change> = changes.iter().filter(|change| is_reported(change)).collect();
    let summary = if changes.is_empty() {
        Summary::Ready(verdict::as_specified(target, found.flatten()))
    } else if !drifted.is_empty() {
        Summary::Stalled(verdict::drifted(&drifted))
    } else {
        let message = format!("to be done: {}", attributes(&changes));
        Summary::Reconciling(Finding::new(Reason::Progressing, message))
    };
    let finalizer = (!view.object.finalizer).then_some(Step::AddFinalizer);
    let changes = changes.into_iter().filter(|change| !is_reported(change)).map(Step::Change);
    let mut steps: Vec<Step> = finalizer.into_iter().chain(changes).collect();
    let (annotations, wait) = annotate(view, observed, memory, &target.arn, clock, timings);
    steps.extend(annotations);
    let facts = known_role(view, observed, memory, clock, timings);
    let next = Next::read_back(&steps, Next::At(timings.look_again())).no_later_than(wait);
    Decision { steps, facts, next, ..Decision::nothing(summary, timings) }
}

/// Whether a change belongs to a move: what is trusted beside the specification for a while changes by time.
fn is_of_move(change: &Change) -> bool {
    change.attribute == trust::END
}

/// Whether a change only takes rights, or makes that possible: the operator may change bounded roles only.
fn takes_rights(change: &Change) -> bool {
    let takes = |write: &IamWrite| match write {
        IamWrite::PutBoundary { .. } | IamWrite::DetachPolicy { .. } | IamWrite::PutSettings { .. } => true,
        IamWrite::DeleteInline { name, .. } => name != REVOKED_POLICY,
        _ => false,
    };
    matches!(&change.write, Write::Iam(write) if takes(write))
}

fn taking_first(changes: Vec<Change>) -> Vec<Change> {
    let (first, rest): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(takes_rights);
    [first, rest].concat()
}

/// A role of that name that belongs to somebody else. It is read again on every wake: a person may remove it, and a role that
/// was just handed over to this binding may still be shown with its former owner.
fn not_ours(
    view: &View,
    finding: Finding,
    settling: Option<Duration>,
    timings: &Timings,
) -> Decision<'static> {
    let (summary, next) = match settling {
        Some(_) if view.object.was_ready => (Summary::ready(READY), Next::BackOff),
        Some(left) => (Summary::Reconciling(finding), Next::At(left)),
        None => (Summary::Stalled(finding), Next::BackOff),
    };
    Decision { next, ..Decision::nothing(summary, timings) }
}

/// A role made elsewhere: its own trust policy decides, we only pass its name on. The role that this binding had before is
/// removed.
fn use_existing_role<'a>(
    view: &'a View,
    observed: &'a Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let arn = view.spec().role_arn.clone().unwrap_or_default();
    let mut steps: Vec<Step> = (!view.object.finalizer).then_some(Step::AddFinalizer).into_iter().collect();
    let (mut next, mut no_earlier_role) = (Next::At(timings.look_again()), false);
    match (&view.target, &observed.role) {
        _ if view.keeps_role() || view.former_role().is_some() => {}
        (Ok(target), Ok(Some(RoleState::Found(role, policies)))) if target.owns(role).is_ok() => {
            let policy = view.spec().deletion_policy;
            let changes = target.give_up(policy, role, policies.as_ref(), memory.boundary_first);
            no_earlier_role = changes.is_empty();
            steps.extend(changes.into_iter().map(Step::Change));
        }
        (Ok(target), Ok(Some(RoleState::Found(role, _)))) if target.unknown_issuer(role).is_some() => {}
        (Err(Unresolved::Account(_)), _) | (_, Err(_)) => next = Next::BackOff, // it may still be there
        (_, Ok(Some(_))) => match unconfirmed(observed, memory, clock, timings) {
            None => no_earlier_role = true,
            Some(left) => next = Next::At(left),
        },
        (_, Ok(None)) => {}
    }
    let (annotations, wait) = annotate(view, observed, memory, &arn, clock, timings);
    steps.extend(annotations);
    // The webhook gives pods nothing under an issuer that does not exist. Without the default one it uses its own options.
    let summary = if view.knows_issuer || view.spec().issuer_name() == DEFAULT_ISSUER {
        Summary::ready(
            "spec.roleARN is passed to pods unchanged; that role's trust policy must allow this ServiceAccount",
        )
    } else {
        Summary::Reconciling(missing_issuer(view.spec().issuer_name()))
    };
    let next = Next::read_back(&steps, next).no_later_than(wait);
    // The status names the earlier role until it has ended: nothing else says where it is, once the specification names another issuer.
    let has_ended =
        no_earlier_role || memory.no_earlier_role || view.never_had_role() || !view.binding.has_role();
    let stays = view.keeps_role() && view.former_role().is_none();
    let facts = (has_ended || stays).then_some(RoleFacts { arn: Some(arn), name: None });
    Decision { steps, facts, next, no_earlier_role, ..Decision::nothing(summary, timings) }
}

/// AWS could not be asked.
fn failed<'a>(view: &View, error: &'a AwsError, timings: &Timings) -> Decision<'a> {
    let (summary, unreachable) = failure(view, error);
    Decision { next: Next::BackOff, unreachable, ..Decision::nothing(summary, timings) }
}
