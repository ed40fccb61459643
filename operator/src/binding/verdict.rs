//! PURE: the conditions of a binding, each a function of what was observed. All of them are always present, except
//! `AWSReachable`, which is present only when False.

use crds::condition::{ConditionType as C, Holds, Summary, Wanted};
use crds::names::{self, Partition};
use crds::{Finding, OidcIssuer, Reason};
use serde_json::Value;

use super::model::{Memory, Observed, Own, RoleState, Sibling, Step, Unresolved, View};
use super::role::Target;
use crate::aws::error::AwsError;
use crate::aws::model::RolePolicies;
use crate::change::{Change, attributes};
use crate::pods::message::message;
use crate::pods::model::PodsState;
use crate::policy::trust::{Trust, statements};

/// What the conditions are decided from.
pub struct Case<'a> {
    /// The binding.
    pub view: &'a View,
    /// What was seen.
    pub observed: &'a Observed,
    /// What is remembered.
    pub memory: &'a Memory,
    /// The other binding that holds the `ServiceAccount`, if one does.
    pub holder: Option<&'a Sibling>,
    /// What is done in this pass.
    pub steps: &'a [Step],
    /// The summary.
    pub summary: &'a Summary,
    /// Why the annotations were refused, where that still holds.
    pub refused: Option<&'a Finding>,
    /// The failure that makes `AWSReachable` False.
    pub unreachable: Option<&'a AwsError>,
}

/// The message of a binding whose role is as specified.
pub const READY: &str =
    "the role is as specified: trust policy, permissions boundary, session limit, description and policies";

/// That the role is as specified, and which policies somebody added that only deny: they are never removed.
#[must_use]
pub fn as_specified(target: &Target, policies: Option<&RolePolicies>) -> Finding {
    let denies = policies.map_or_else(Vec::new, |policies| target.foreign_denies(policies));
    let unread = policies.map_or_else(Vec::new, RolePolicies::unread);
    let staying = (!denies.is_empty()).then(|| {
        format!(
            "Besides, it has policies that only deny, which are never removed by the operator: {}. Remove them in IAM once they are not \
             needed any more",
            denies.join(", ")
        )
    });
    let not_shown = (!unread.is_empty()).then(|| {
        format!(
            "IAM lists policies and does not show their documents; they are read again: {}",
            unread.join(", ")
        )
    });
    let message: Vec<String> = [Some(READY.to_owned()), staying, not_shown].into_iter().flatten().collect();
    let message = message.join(". ");
    Finding::new(if denies.is_empty() { Reason::Ready } else { Reason::ForeignDeny }, message)
}

/// That the role was changed by somebody else and stays so, because the binding says that.
#[must_use]
pub fn drifted(changes: &[&Change]) -> Finding {
    let described: Vec<String> = changes.iter().map(|change| change.describe()).collect();
    let message = format!(
        "the role differs from the specification, and spec.driftPolicy is ReportOnly: correct it in IAM, or set driftPolicy to \
         Correct. Necessary: {}",
        described.join("; ")
    );
    Finding::new(Reason::DriftDetected, message)
}

/// Every condition beside the summary, in the order of the status.
const VERDICTS: [fn(&Case<'_>) -> Wanted; 4] =
    [granted, role_ready, service_account_annotated, pods_injected];

/// The summary and all conditions.
#[must_use]
pub fn conditions(case: &Case<'_>) -> Vec<Wanted> {
    let mut conditions = case.summary.conditions();
    conditions.extend(VERDICTS.map(|verdict| verdict(case)));
    conditions.extend(case.unreachable.map(aws_unreachable));
    conditions
}

fn granted(case: &Case<'_>) -> Wanted {
    let spec = case.view.spec();
    match (&spec.role, &case.view.grant) {
        (None, _) => Wanted::yes(C::Granted, Reason::NotRequired, "a role made elsewhere needs no grant"),
        (Some(_), Ok(())) => {
            let message = format!("covered by a grant of OidcIssuer {}", issuer_name(case.view));
            Wanted::yes(C::Granted, Reason::Granted, message)
        }
        (Some(_), Err(missing)) if missing.reason == Reason::DependencyNotReady => {
            Wanted::unknown(C::Granted, missing.clone())
        }
        (Some(_), Err(missing)) => Wanted::no(C::Granted, missing.clone()),
    }
}

fn role_ready(case: &Case<'_>) -> Wanted {
    let Case { view, observed, steps, .. } = case;
    if let Some(served) = served_by_other(case) {
        return Wanted { type_: C::RoleReady, holds: Holds::True, finding: served.clone() };
    }
    let blocking = blocking(case);
    if let Some(finding) = blocking.filter(|_| not_managed_or_deleting(case)) {
        return Wanted::no(C::RoleReady, finding.clone());
    }
    if view.spec().role.is_none() {
        let statement = needed_statement(view).map_or_else(String::new, |statement| {
            format!(
                ". Its trust policy needs this statement, and its account the OIDC provider that it names: {statement}"
            )
        });
        let message =
            format!("spec.roleARN is used as it is: that role is neither read nor written{statement}");
        return Wanted::yes(C::RoleReady, Reason::NotRequired, message);
    }
    let not_observed = |finding: Finding| Wanted::not_observed(C::RoleReady, view.object.was_ready, finding);
    let target = match &view.target {
        Ok(target) => target,
        Err(Unresolved::Account(error)) => return not_observed(error.finding()),
        Err(Unresolved::NoIssuer | Unresolved::NotNeeded | Unresolved::Abandoned) => {
            return Wanted::unknown(C::RoleReady, no_target(view));
        }
    };
    let to_be_done = || {
        let attributes = || attributes(steps.iter().filter_map(Step::change));
        let progress = || Finding::new(Reason::Progressing, format!("to be done: {}", attributes()));
        Wanted::no(C::RoleReady, blocking.cloned().unwrap_or_else(progress))
    };
    match &observed.role {
        Err(error) => not_observed(error.finding()),
        Ok(Some(RoleState::AsSpecified)) => Wanted::yes(C::RoleReady, Reason::Verified, READY),
        Ok(None | Some(RoleState::Missing)) => to_be_done(),
        Ok(Some(RoleState::Found(role, policies))) => match target.owns(role) {
            // It was handed over a moment ago, and IAM may still show its former owner.
            Err(not_owned) if matches!(case.summary, Summary::Ready(_)) => not_observed(not_owned),
            Err(not_owned) => Wanted::no(C::RoleReady, not_owned),
            Ok(()) if target.diff(role, policies.as_ref(), &view.moves()).is_empty() => {
                let Finding { reason, message } = as_specified(target, policies.as_ref());
                let reason = if reason == Reason::Ready { Reason::Verified } else { reason };
                Wanted::yes(C::RoleReady, reason, message)
            }
            Ok(()) => to_be_done(),
        },
    }
}

/// The statement that lets the `ServiceAccount` assume the role of `spec.roleARN`, in that role's account.
fn needed_statement(view: &View) -> Option<Value> {
    let arn = view.spec().role_arn.as_deref()?;
    let (partition, account) = (Partition::of_arn(arn)?, names::account_of_arn(arn)?);
    let issuer = view.issuer_of_pods()?;
    let issuer_url = issuer.spec.issuer_url();
    let trust = Trust {
        provider_arn: &names::provider_arn(partition.id, account, &issuer_url),
        issuer_url: &issuer_url,
        audience: view.spec().audience.as_deref().unwrap_or(issuer.spec.audience()),
        subject: &names::subject(&view.object.namespace, &view.spec().service_account_name),
    };
    statements(&trust.policy()).pop()
}

fn service_account_annotated(case: &Case<'_>) -> Wanted {
    const TYPE: C = C::ServiceAccountAnnotated;
    let Case { view, observed, memory, steps, .. } = case;
    if let Some(served) = served_by_other(case) {
        return Wanted { type_: TYPE, holds: Holds::True, finding: served.clone() };
    }
    if let Some(finding) = blocking(case).filter(|_| not_managed_or_deleting(case)) {
        return Wanted::no(TYPE, finding.clone());
    }
    let Some(service_account) = &observed.service_account else {
        let message = format!("ServiceAccount {} does not exist yet", view.spec().service_account_name);
        return Wanted::no(TYPE, Finding::new(Reason::ServiceAccountNotFound, message));
    };
    let Some(role_arn) = view.role_arn() else {
        return match &view.target {
            Err(Unresolved::Account(error)) => {
                Wanted::not_observed(TYPE, view.object.was_ready, error.finding())
            }
            _ => Wanted::unknown(TYPE, no_target(view)),
        };
    };
    let refused = case.refused;
    if let Some(revoked) = blocking(case).filter(|finding| finding.reason == Reason::Revoked) {
        let stays = refused.filter(|_| !service_account.ours.is_empty());
        return Wanted::no(TYPE, stays.unwrap_or(revoked).clone());
    }
    if service_account.has_exactly(&view.annotations(role_arn)) {
        return Wanted::yes(TYPE, Reason::Annotated, "the annotations are in place");
    }
    if let Some(refused) = refused {
        return Wanted::no(TYPE, refused.clone());
    }
    if steps.iter().any(|step| matches!(step, Step::Own(Own::Annotate(_)))) {
        return Wanted::no(TYPE, Finding::new(Reason::Progressing, "to be done: annotations"));
    }
    if memory.annotated.is_some_and(|annotated| annotated.put_back.is_some()) && blocking(case).is_none() {
        let message = "something has removed the annotations again after they were put back, which is done once in a while (timing \
                       annotationRetry): apply the ServiceAccount instead of replacing it. Pods get the binding's role either way";
        return Wanted::no(TYPE, Finding::new(Reason::AnnotationOwnedByOther, message));
    }
    let finding = case.unreachable.map(AwsError::finding).or_else(|| blocking(case).cloned());
    Wanted::no(TYPE, finding.unwrap_or_else(|| Finding::new(Reason::Progressing, "to be done: annotations")))
}

fn pods_injected(case: &Case<'_>) -> Wanted {
    const TYPE: C = C::PodsInjected;
    let Case { view, observed, memory, .. } = case;
    if let Some(served) = served_by_other(case) {
        return Wanted { type_: TYPE, holds: Holds::True, finding: served.clone() };
    }
    let gives_none = |finding: &&Finding| not_managed_or_deleting(case) || finding.reason == Reason::Revoked;
    if let Some(finding) = blocking(case).filter(gives_none) {
        return Wanted::no(TYPE, finding.clone());
    }
    if let Some(why) = view.left_out() {
        return Wanted::unknown(TYPE, Finding::new(Reason::PodsNotWatched, why));
    }
    match &observed.pods {
        PodsState::Known(found) if found.count == 0 => {
            Wanted::yes(TYPE, Reason::PodsInjected, "no pod of the ServiceAccount runs without the identity")
        }
        PodsState::Known(found) => {
            let refused = memory.restart_refused.as_ref().map(|refused| refused.0.as_str());
            let message = message(&view.object.namespace, found, view.restarts_workloads(), refused);
            Wanted::no(TYPE, Finding::new(Reason::PodsWithoutIdentity, message))
        }
        PodsState::NotWatched => {
            let message = "pods are not watched: the chart's value operator.podWatch is false";
            Wanted::unknown(TYPE, Finding::new(Reason::PodsNotWatched, message))
        }
        PodsState::Unreadable(why) => Wanted::unknown(TYPE, Finding::new(Reason::PodsNotWatched, why)),
        PodsState::NotKnown => {
            let finding =
                Finding::new(Reason::Progressing, "the pods of the ServiceAccount are not known yet");
            Wanted { type_: TYPE, holds: Holds::AsBefore, finding }
        }
    }
}

/// Name of the issuer under which the binding is: the specification may name another one, which cannot have its role.
pub(super) fn issuer_name(view: &View) -> &str {
    view.issuer.as_deref().map_or(view.spec().issuer_name(), OidcIssuer::name)
}

/// Why no role is known: the issuer does not exist.
fn no_target(view: &View) -> Finding {
    view.issuer().err().unwrap_or_else(|| Finding::new(Reason::Progressing, "waits for AWS"))
}

/// The condition of an AWS that cannot be asked.
#[must_use]
pub fn aws_unreachable(error: &AwsError) -> Wanted {
    Wanted::no(C::AWSReachable, error.finding())
}

/// What keeps the binding from being Ready and is not its own progress.
fn blocking<'a>(case: &Case<'a>) -> Option<&'a Finding> {
    case.summary.finding().filter(|finding| finding.reason != Reason::Progressing)
}

/// That another binding with the same specification serves the `ServiceAccount`.
fn served_by_other<'a>(case: &Case<'a>) -> Option<&'a Finding> {
    match case.summary {
        Summary::Ready(finding) if finding.reason == Reason::ServedByOlderBinding => Some(finding),
        _ => None,
    }
}

/// Whether role and `ServiceAccount` are another binding's, or are given up.
fn not_managed_or_deleting(case: &Case<'_>) -> bool {
    let View { object, reserved, .. } = case.view;
    object.deleting || case.holder.is_some() || *reserved
}
