//! PURE: how a binding and its role are removed: trust revoked → annotations removed → policies → role → finalizer. A role that
//! another binding goes on with is handed over instead.

use std::collections::BTreeMap;

use crds::condition::Summary;
use crds::names::{ABANDON_ANNOTATION, REVOKED_POLICY, role_name};
use crds::{DriftPolicy, Finding, Reason, RoleDeletionPolicy};

use super::absence::unconfirmed;
use super::decision::Decision;
use super::holder::{heir, other_holder};
use super::model::{Annotate, Memory, Observed, Own, RoleState, Step, Unresolved, View};
use super::role::Target;
use super::verdict::issuer_name;
use crate::aws::error::AwsError;
use crate::aws::model::RolePolicies;
use crate::clock::Clock;
use crate::model::Next;
use crate::timings::Timings;

/// What is done of the removal in this pass.
pub(super) fn decide<'a>(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Decision<'a> {
    let deleting = |message: &str| Summary::Reconciling(Finding::new(Reason::Deleting, message));
    let mut decision = Decision::nothing(deleting("the role is being removed"), timings);
    let keeps_role = view.never_had_role() || view.keeps_role();
    if keeps_role {
        let message =
            "our annotations are being removed from the ServiceAccount; the role itself is not changed";
        decision.summary = deleting(message);
    }
    if !view.object.finalizer {
        return decision; // nothing was ever made, or all of it is removed
    }
    let last = [Step::RemoveFinalizer];
    let unannotate = unannotate(view, observed);
    if view.never_had_role() {
        decision.steps = unannotate.into_iter().chain(last).collect();
        return decision;
    }
    if let Some(abandoned) = abandoned(view) {
        decision.steps = unannotate.into_iter().chain(last).collect();
        decision.summary = Summary::Reconciling(abandoned);
        return decision;
    }
    match (&view.target, &observed.role) {
        (Err(Unresolved::Account(error)), _) | (_, Err(error)) => {
            decision.summary = blocked(error);
            decision.next = Next::BackOff;
        }
        (Err(_), Ok(_)) => {
            let message = format!(
                "OidcIssuer {} is missing, so the role's name and owner are not known: restore it to have the role removed",
                view.spec().issuer_name()
            );
            decision.summary = Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message));
        }
        (Ok(target), Ok(Some(RoleState::Found(role, policies)))) if target.owns(role).is_ok() => {
            if let Some(heir) = heir(view) {
                // Its trust stays as it is, and the annotations are the heir's: pods notice nothing.
                let lock = Step::Own(Own::Lock(heir.clone()));
                decision.steps = vec![lock, Step::Change(target.hand_over(heir)), Step::RemoveFinalizer];
                decision.summary =
                    deleting(&format!("the role is handed over to PodIdentityBinding {}", heir.name));
                return decision;
            }
            let policy = view.spec().deletion_policy;
            let delete = policy == RoleDeletionPolicy::Delete;
            let give_up = || target.give_up(policy, role, policies.as_ref(), memory.boundary_first);
            let (revocation, rest) = match policy {
                // A binding that uses the role by its ARN goes on, with our tags or without.
                _ if keeps_role && policy != RoleDeletionPolicy::Release => (Vec::new(), Vec::new()),
                // No new session begins while the rest is removed.
                RoleDeletionPolicy::Delete => {
                    (target.revocation(role, memory.boundary_first), target.removal(role, policies.as_ref()))
                }
                RoleDeletionPolicy::Retain => (give_up(), Vec::new()),
                RoleDeletionPolicy::Release => (Vec::new(), give_up()),
            };
            if let Some(added) = added(view, target, policies.as_ref()).filter(|_| !keeps_role) {
                // It is not used any more, whatever is decided about the policies.
                decision.steps =
                    target.revocation(role, memory.boundary_first).into_iter().map(Step::Change).collect();
                decision.summary = Summary::Reconciling(Finding::new(Reason::DeletionBlocked, added));
                return decision;
            }
            if !delete && (!keeps_role || policy == RoleDeletionPolicy::Release) {
                decision.summary = deleting(match policy {
                    RoleDeletionPolicy::Retain => "the role is kept, and is being revoked",
                    _ => "the role is kept as it is; our tags are being taken off",
                });
            }
            let [revocation, rest] = [revocation, rest].map(|part| part.into_iter().map(Step::Change));
            decision.steps = revocation.chain(unannotate).chain(rest).chain(last).collect();
        }
        (Ok(target), Ok(state)) if unresolved(view, target, state.as_ref()).is_some() => {
            let message = unresolved(view, target, state.as_ref()).unwrap_or_default();
            decision.summary = Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message));
        }
        (Ok(_), Ok(_)) => match unconfirmed(observed, memory, clock, timings) {
            None => decision.steps = unannotate.into_iter().chain(last).collect(),
            Some(left) => {
                let message = "IAM shows no role of this binding, and is asked once more: it may not show yet what was \
                               made a moment ago";
                decision.summary = deleting(message);
                decision.next = Next::At(left);
            }
        },
    }
    decision
}

/// Why the role is not deleted: it has policies that are not specified, the deletion would remove them, and `spec.driftPolicy` is `ReportOnly`.
fn added(view: &View, target: &Target, policies: Option<&RolePolicies>) -> Option<String> {
    let spec = view.spec();
    let reports =
        spec.drift_policy == DriftPolicy::ReportOnly && spec.deletion_policy == RoleDeletionPolicy::Delete;
    // With `spec.roleARN` the specification does not say which policies the earlier role should have.
    if !reports || spec.role.is_none() {
        return None;
    }
    let policies = policies?;
    let attached = policies.attached.keys().filter(|arn| !target.attached.contains(*arn)).cloned();
    let is_foreign = |name: &&String| !target.inline.contains_key(*name) && *name != REVOKED_POLICY;
    let inline = policies.inline.keys().chain(&policies.unread_inline).filter(is_foreign);
    let all: Vec<String> = attached
        .chain(policies.unread_attached.iter().cloned())
        .chain(inline.map(|name| format!("inline policy {name}")))
        .collect();
    (!all.is_empty()).then(|| {
        format!(
            "somebody added policies to role {}, and spec.driftPolicy is ReportOnly: {}. Remove them in IAM, or set driftPolicy to \
             Correct",
            target.name,
            all.join(", ")
        )
    })
}

/// That the role stays in AWS, because its account is lost.
pub(super) fn abandoned(view: &View) -> Option<Finding> {
    if !matches!(view.target, Err(Unresolved::Abandoned)) {
        return None;
    }
    let known = view.binding.status.as_ref().and_then(|status| status.role_arn.clone());
    let issuer = view.issuer.as_ref();
    let computed = || {
        let (cluster, spec) = (&issuer?.spec.cluster_name, view.spec());
        Some(format!(
            "{}, if it was made",
            role_name(cluster, &view.object.namespace, &spec.service_account_name)
        ))
    };
    let message = format!(
        "annotation {ABANDON_ANNOTATION} of OidcIssuer {} is true: AWS is not asked, and this stays there: {}",
        issuer_name(view),
        known.or_else(computed).map_or_else(|| "nothing".to_owned(), |role| format!("role {role}"))
    );
    Some(Finding::new(Reason::Abandoned, message))
}

/// Why "no role of this binding" is no answer: it has one under a name or an issuer that is not looked for any more.
fn unresolved(view: &View, target: &Target, state: Option<&RoleState>) -> Option<String> {
    if let Some(arn) = view.former_role() {
        return Some(format!(
            "the binding has role {arn}, and OidcIssuer {} now stands for {}: restore the OidcIssuer as it was, or remove that role \
             in AWS and then our finalizer (docs/install.md, section Escape)",
            issuer_name(view),
            target.arn
        ));
    }
    let Some(RoleState::Found(role, _)) = state else { return None };
    target.unknown_issuer(role).map(|issuer| {
        format!(
            "role {} was made for this binding under issuer {issuer}, which no OidcIssuer of this cluster has: apply that \
             OidcIssuer again, under any name, or remove the role in AWS",
            target.name
        )
    })
}

/// What takes our annotations away; nothing where another binding holds the `ServiceAccount`: they are its own.
pub(super) fn unannotate(view: &View, observed: &Observed) -> Option<Step> {
    if other_holder(view, observed).is_some() {
        return None;
    }
    let account = observed.service_account.as_ref().filter(|account| !account.ours.is_empty())?;
    let (uid, version) = (account.uid.clone(), account.version.clone());
    Some(Step::Own(Own::Annotate(Annotate { uid, version, annotations: BTreeMap::new() })))
}

/// A removal that a failed call holds up.
pub(super) fn blocked(error: &AwsError) -> Summary {
    let message = format!("the role cannot be removed yet: {}", error.for_user());
    Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message))
}
