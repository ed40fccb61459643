//! PURE: how a binding and its role go: trust revoked → annotation removed → policies → role → finalizer.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::condition::Summary;
use crds::{Reason, names};

use crate::aws::iam::Role;
use crate::policy::equivalent;

use super::decide::{Plan, Step};
use super::observe::{Observed, Policies, RoleState};
use super::target::{Subject, Target};

/// Deletion: trust revoked → annotation removed → policies → role → finalizer.
pub(super) fn deletion(mut plan: Plan, subject: &Subject<'_>, observed: &Observed) -> Plan {
    plan.conditions = Summary::Reconciling(Reason::Deleting, "the role is being removed".into()).conditions();
    if !subject.finalizer {
        return plan; // nothing was ever made, or all of it is gone
    }
    let unannotate = observed.account.as_ref().filter(|account| !account.ours.is_empty()).map(|account| {
        let (uid, version) = (account.uid.clone(), account.version.clone());
        Step::Annotate { uid, version, annotations: BTreeMap::new() }
    });
    if subject.never_had_role() {
        plan.steps.extend(unannotate);
        plan.steps.push(Step::RemoveFinalizer);
        return plan;
    }
    match (subject.target(&observed.identity), &observed.role) {
        (_, Err(error)) => {
            let message = format!("the role cannot be removed yet: {}", error.for_user());
            plan.conditions = Summary::Reconciling(Reason::DeletionBlocked, message).conditions();
            plan.requeue = Duration::ZERO;
        }
        (None, Ok(_)) => {
            let message = format!(
                "OidcIssuer {} is missing, so the role's name and owner are not known: restore it to have the role removed",
                names::DEFAULT_ISSUER
            );
            plan.conditions = Summary::Reconciling(Reason::DeletionBlocked, message).conditions();
        }
        (Some(target), Ok(Some(RoleState::Found(role, policies)))) if target.owns(role).is_ok() => {
            let mut removal = removal(&target, role, policies.as_ref()).into_iter().peekable();
            // The door is shut before anything else is touched.
            while let Some(step) = removal.next_if(|s| matches!(s, Step::PutTrust(_) | Step::PutBoundary(_)))
            {
                plan.steps.push(step);
            }
            plan.steps.extend(unannotate);
            plan.steps.extend(removal);
            plan.steps.push(Step::RemoveFinalizer);
        }
        (Some(_), Ok(_)) => {
            plan.steps.extend(unannotate);
            plan.steps.push(Step::RemoveFinalizer);
        }
    }
    plan
}

/// What takes a role of ours away; each step tolerates that it was done before.
pub(super) fn removal(target: &Target, role: &Role, policies: Option<&Policies>) -> Vec<Step> {
    let mut steps = Vec::new();
    if !equivalent(&role.trust, &target.revoked) {
        steps.push(Step::PutTrust(target.revoked.clone()));
    }
    // The operator may change the rights of bounded roles only.
    if role.boundary.as_ref() != Some(&target.boundary) {
        steps.push(Step::PutBoundary(target.boundary.clone()));
    }
    if let Some(Policies { attached, inline }) = policies {
        steps.extend(attached.iter().cloned().map(Step::Detach));
        steps.extend(inline.iter().cloned().map(Step::DeleteInline));
    }
    steps.push(Step::DeleteRole);
    steps
}
