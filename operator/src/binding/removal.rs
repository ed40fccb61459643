//! PURE: how a binding and its role are removed: trust revoked → annotations removed → policies → role → finalizer.

use std::collections::BTreeMap;

use crds::condition::Summary;
use crds::{Finding, Reason};

use super::model::{Annotate, Decision, Observed, RoleState, Step, Unresolved, View};
use crate::aws::error::AwsError;
use crate::model::Next;
use crate::timings::Timings;

/// What is done of the removal in this pass.
pub(super) fn decide<'a>(view: &View, observed: &Observed, timings: &Timings) -> Decision<'a> {
    let message = if view.never_had_role() {
        "our annotations are being removed from the ServiceAccount; the role itself is not changed"
    } else {
        "the role is being removed"
    };
    let removed = Summary::Reconciling(Finding::new(Reason::Deleting, message));
    let mut decision = Decision::nothing(removed, timings);
    if !view.object.finalizer {
        return decision; // nothing was ever made, or all of it is removed
    }
    let ours = observed.service_account.as_ref().filter(|account| !account.ours.is_empty());
    let unannotate = ours.map(|account| {
        let (uid, version) = (account.uid.clone(), account.version.clone());
        Step::Own(Annotate { uid, version, annotations: BTreeMap::new() })
    });
    if view.never_had_role() {
        decision.steps = unannotate.into_iter().chain([Step::RemoveFinalizer]).collect();
        return decision;
    }
    match (&view.target, &observed.role) {
        (Err(Unresolved::Account(error)), _) | (_, Err(error)) => {
            decision.summary = blocked(error);
            decision.next = Next::BackOff;
        }
        (Err(Unresolved::NoIssuer | Unresolved::NotNeeded), Ok(_)) => {
            let message = format!(
                "OidcIssuer {} is missing, so the role's name and owner are not known: restore it to have the role removed",
                view.spec().issuer_name()
            );
            decision.summary = Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message));
        }
        (Ok(target), Ok(Some(RoleState::Found(role, policies)))) if target.owns(role).is_ok() => {
            // No new session begins while the rest is removed.
            let revocation = target.revocation(role).into_iter().map(Step::Change);
            let removal = target.removal(policies.as_ref()).into_iter().map(Step::Change);
            let last = [Step::RemoveFinalizer];
            decision.steps = revocation.chain(unannotate).chain(removal).chain(last).collect();
        }
        (Ok(_), Ok(_)) => {
            decision.steps = unannotate.into_iter().chain([Step::RemoveFinalizer]).collect();
        }
    }
    decision
}

/// A removal that a failed call holds up.
pub(super) fn blocked(error: &AwsError) -> Summary {
    let message = format!("the role cannot be removed yet: {}", error.for_user());
    Summary::Reconciling(Finding::new(Reason::DeletionBlocked, message))
}
