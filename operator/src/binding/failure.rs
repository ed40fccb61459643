//! PURE: what a call of AWS that failed means for the status of a binding.

use crds::condition::{ConditionType as C, Summary, Wanted};
use crds::{Finding, Reason};

use super::model::{Plan, Step, View};
use super::removal;
use super::role::tags;
use super::verdict::{self, READY};
use crate::aws::error::{AwsError, Class};

/// What a failed step means for the status.
#[must_use]
pub fn after_failure(plan: &Plan, view: &View, error: &AwsError) -> Vec<Wanted> {
    if puts_tags(plan) {
        return without_tags(plan, error);
    }
    // IAM says NoSuchEntity of a role, too, that it has just made.
    let missing_policy = error.operation == "iam:AttachRolePolicy"
        && error.class == Class::NotFound
        && error.message.starts_with("Policy ");
    let drifted = plan.conditions.iter().find(|condition| condition.finding.reason == Reason::DriftDetected);
    let (summary, unreachable) = if view.object.deleting {
        (removal::blocked(error), None)
    } else if let Some(drifted) = drifted {
        // The step was the boundary's. What is reported stays so, and nothing else is Ready.
        let failure = missing_boundary(view, error).unwrap_or_else(|| error.finding());
        let message = format!(
            "{}. Besides, the boundary is not in place: {}",
            drifted.finding.message, failure.message
        );
        let unreachable = (!error.class.is_answer()).then_some(error);
        (Summary::Stalled(Finding::new(Reason::DriftDetected, message)), unreachable)
    } else if let Some(missing) = missing_boundary(view, error) {
        (Summary::Stalled(missing), None)
    } else if missing_policy {
        let message = format!(
            "spec.role.policyARNs: policy {} does not exist: create it, or remove it from the list",
            error.resource
        );
        (Summary::Stalled(Finding::new(Reason::InvalidSpec, message)), None)
    } else {
        failure(view, error)
    };
    let of_plan =
        |wanted: &&Wanted| !matches!(wanted.type_, C::Ready | C::Reconciling | C::Stalled | C::AWSReachable);
    let mut conditions = summary.conditions();
    conditions.extend(plan.conditions.iter().filter(of_plan).cloned());
    conditions.extend(unreachable.map(verdict::aws_unreachable));
    conditions
}

/// Whether the plan puts tags of the issuer on the role, and nothing else.
#[must_use]
pub fn puts_tags(plan: &Plan) -> bool {
    plan.steps.iter().filter_map(Step::change).any(|change| change.attribute == tags::TAGS)
}

/// The tags of the issuer are not in place. All else is: the conditions are those of the plan.
fn without_tags(plan: &Plan, error: &AwsError) -> Vec<Wanted> {
    let mut conditions = plan.conditions.clone();
    let ready = conditions.iter_mut().filter(|condition| condition.type_ == C::Ready);
    ready.for_each(|ready| {
        let why = error.finding().message;
        ready.finding.message =
            format!("{}. Besides, not all tags of the issuer are on the role: {why}", ready.finding.message);
    });
    conditions.extend((!error.class.is_answer()).then(|| verdict::aws_unreachable(error)));
    conditions
}

/// What a failed call means: what was Ready stays Ready through everything that passes by itself.
#[must_use]
pub fn failure<'a>(view: &View, error: &'a AwsError) -> (Summary, Option<&'a AwsError>) {
    if error.class.stalls() {
        return (Summary::Stalled(error.finding()), None);
    }
    let summary =
        if view.object.was_ready { Summary::ready(READY) } else { Summary::Reconciling(error.finding()) };
    (summary, (!error.class.is_answer()).then_some(error))
}

/// That the permissions boundary does not exist: the only other resource that these calls name is the role itself.
fn missing_boundary(view: &View, error: &AwsError) -> Option<Finding> {
    let of_role = error.message.starts_with("The role with name");
    let names_it = matches!(error.operation, "iam:CreateRole" | "iam:PutRolePermissionsBoundary");
    let target = view.target.as_ref().ok()?;
    (names_it && error.class == Class::NotFound && !of_role).then(|| {
        let message = format!(
            "the permissions boundary {} does not exist: run `operator bootstrap` again, which makes it",
            target.boundary
        );
        Finding::new(Reason::BoundaryMissing, message)
    })
}
