//! PURE: from what was observed to what is done next and what the user is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crds::Reason;
use crds::condition::{ConditionType as C, Summary, Wanted};
use crds::names::{self, OPERATOR_SERVICE_ACCOUNT, boundary_arn};
use serde_json::Value;

use crate::aws::iam::NewRole;
use crate::aws::{AwsError, Class};
use crate::grant;
use crate::policy::equivalent;
use crate::timings::Timings;

use super::observe::{Account, Memory, Observed, Policies, RoleState};
use super::removal::{deletion, removal};
use super::target::{Holder, Subject, Target};

/// Which reads are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Due {
    /// The role itself.
    pub role: bool,
    /// What is attached to it.
    pub policies: bool,
}

/// One thing to do; each is one remote call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put our finalizer on the object.
    AddFinalizer,
    /// Take our finalizer off the object.
    RemoveFinalizer,
    /// Make the role.
    CreateRole(NewRole),
    /// Replace the trust policy.
    PutTrust(Value),
    /// Put the permissions boundary back.
    PutBoundary(String),
    /// Attach a managed policy.
    Attach(String),
    /// Detach a managed policy.
    Detach(String),
    /// Remove an inline policy.
    DeleteInline(String),
    /// Remove the role.
    DeleteRole,
    /// Apply exactly these annotations to the `ServiceAccount` of that uid and version; none takes ours away.
    Annotate {
        /// The `ServiceAccount`'s uid.
        uid: String,
        /// The version that was seen.
        version: String,
        /// The annotations.
        annotations: BTreeMap<String, String>,
    },
}

/// What a reconcile will do and say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In order; the first failure ends them.
    pub steps: Vec<Step>,
    /// The status's conditions if the steps succeed.
    pub conditions: Vec<Wanted>,
    /// Name and ARN of the role, where the binding has one.
    pub role: Option<RoleFacts>,
    /// When to look again.
    pub requeue: Duration,
    /// Whether a role of an earlier generation of the spec is known to be gone.
    pub swept: bool,
}

/// Facts of the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFacts {
    /// The ARN.
    pub arn: String,
    /// The name; absent for a role made elsewhere.
    pub name: Option<String>,
}

/// Which reads are due: at their age, after anything that makes memory doubtful, and always before destruction. An
/// object that nobody has acted on has no role: `CreateRole` itself is the question.
#[must_use]
pub fn due(subject: &Subject<'_>, memory: &Memory, now: Instant, timings: &Timings) -> Due {
    let may_have_role = subject.finalizer || memory.acted;
    if subject.never_had_role() {
        return Due::default();
    }
    if subject.deleting {
        return Due { role: may_have_role, policies: may_have_role };
    }
    if subject.spec.role.is_none() {
        let sweep = may_have_role && !memory.swept; // a role of an earlier spec
        return Due { role: sweep, policies: sweep };
    }
    let edited = memory.generation != subject.generation;
    let old = |read: Option<Instant>| {
        read.is_none_or(|at| edited || now.saturating_duration_since(at) >= timings.role_resync)
    };
    let role = may_have_role && old(memory.role.as_ref().map(|(_, at)| *at));
    Due { role, policies: may_have_role && (role || old(memory.policies.as_ref().map(|(_, at)| *at))) }
}

/// The plan of one reconcile.
#[must_use]
pub fn decide(subject: &Subject<'_>, observed: &Observed, memory: &Memory, timings: &Timings) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        conditions: Vec::new(),
        role: None,
        requeue: timings.role_resync,
        swept: memory.swept,
    };
    if subject.deleting {
        return deletion(plan, subject, observed);
    }
    let sa = &subject.spec.service_account_name;
    if subject.namespace == subject.operator_namespace && sa == OPERATOR_SERVICE_ACCOUNT {
        let message =
            format!("ServiceAccount {sa} is the operator's own: its role is made by `operator bootstrap`");
        return said(plan, &Summary::Stalled(Reason::ReservedServiceAccount, message));
    }
    if let Some(holder) = &subject.holder {
        return held(plan, subject, holder, timings);
    }
    let Some(role) = &subject.spec.role else { return elsewhere(plan, subject, observed, memory) };
    plan.swept = false;

    let Some(issuer) = subject.issuer else {
        let message = format!("OidcIssuer {} does not exist: create it", names::DEFAULT_ISSUER);
        return said(plan, &Summary::Reconciling(Reason::DependencyNotReady, message));
    };
    if issuer.deleting && !subject.finalizer {
        let message = format!("OidcIssuer {} is being deleted and takes no new bindings", issuer.name);
        return said(plan, &Summary::Reconciling(Reason::DependencyNotReady, message));
    }
    if let Some(audience) = subject.spec.audience.as_ref().filter(|a| !issuer.spec.audiences.contains(a)) {
        let message = format!(
            "spec.audience {audience} is not among spec.audiences of OidcIssuer {}: add it there first",
            issuer.name
        );
        return said(plan, &Summary::Stalled(Reason::InvalidSpec, message));
    }
    let account = observed.identity.as_ref().map_or("", |identity| identity.account.as_str());
    let boundary_arn = &boundary_arn(issuer.spec.partition().id, account, &issuer.spec.cluster_name);
    let request =
        grant::Request { namespace: subject.namespace, policy_arns: &role.policy_arns, boundary_arn };
    if let Err(message) = grant::check(issuer.name, &issuer.spec.grants, request) {
        return not_granted(plan, subject, message, timings);
    }
    let granted =
        Wanted::yes(C::Granted, Reason::Granted, format!("covered by a grant of OidcIssuer {}", issuer.name));

    let (target, state) = match (subject.target(&observed.identity), &observed.role) {
        (Some(target), Ok(state)) => (target, state),
        (_, Err(error)) => return failed(plan, subject, granted, error),
        // The identity is known, or the role's read had failed, too.
        (None, Ok(_)) => {
            return said(plan, &Summary::Reconciling(Reason::Progressing, "waits for AWS".into()));
        }
    };
    if !subject.finalizer {
        plan.steps.push(Step::AddFinalizer);
    }
    match steps_to(&target, state.as_ref(), &role.policy_arns) {
        Ok(steps) => plan.steps.extend(steps),
        Err(message) => {
            plan.steps.clear();
            plan.conditions = Summary::Stalled(Reason::NotOwned, message.clone()).conditions();
            plan.conditions.extend([granted, Wanted::no(C::RoleReady, Reason::NotOwned, message)]);
            return plan;
        }
    }
    plan.role = Some(RoleFacts { arn: target.role_arn.clone(), name: Some(target.role_name.clone()) });
    let role_ready = plan.steps.iter().all(|step| matches!(step, Step::AddFinalizer));
    let (summary, condition) = if role_ready {
        let message = "role, trust policy, boundary and policies were read back as specified";
        (Summary::Ready(message.into()), Wanted::yes(C::RoleReady, Reason::Verified, message))
    } else {
        let message = format!(
            "to be done: {}",
            plan.steps.iter().filter_map(Step::attribute).collect::<Vec<_>>().join(", ")
        );
        (
            Summary::Reconciling(Reason::Progressing, message.clone()),
            Wanted::no(C::RoleReady, Reason::Progressing, message),
        )
    };
    plan.conditions = summary.conditions();
    plan.conditions.extend([granted, condition]);
    annotate(&mut plan, subject, &target.role_arn, observed.account.as_ref(), memory);
    again(plan)
}

/// Managed policies a role may have unless the account's quota was raised (IAM quotas).
const ATTACHED_POLICIES: usize = 10;

/// What makes the role as specified, in an order in which a crash leaves nothing un-owned and no right without its
/// boundary. The error names the stranger who owns the role.
fn steps_to(target: &Target, state: Option<&RoleState>, policy_arns: &[String]) -> Result<Vec<Step>, String> {
    let wanted: BTreeSet<&String> = policy_arns.iter().collect();
    let (role, policies) = match state {
        None | Some(RoleState::Missing) => {
            let attach = wanted.into_iter().cloned().map(Step::Attach);
            return Ok(std::iter::once(Step::CreateRole(target.new.clone())).chain(attach).collect());
        }
        Some(RoleState::Found(role, policies)) => (role, policies),
    };
    target.owns(role)?;
    let mut steps = Vec::new();
    if role.boundary.as_ref() != Some(&target.boundary) {
        steps.push(Step::PutBoundary(target.boundary.clone()));
    }
    if !equivalent(&role.trust, &target.trust) {
        steps.push(Step::PutTrust(target.trust.clone()));
    }
    if let Some(Policies { attached, inline }) = policies {
        steps.extend(inline.iter().cloned().map(Step::DeleteInline));
        let surplus = attached.iter().filter(|arn| !wanted.contains(arn)).cloned().map(Step::Detach);
        let missing =
            wanted.iter().filter(|arn| !attached.contains(arn)).map(|arn| Step::Attach((*arn).clone()));
        // What cannot be attached ends the steps before anything that works is taken away.
        if attached.len() + missing.clone().count() <= ATTACHED_POLICIES {
            steps.extend(missing.chain(surplus));
        } else {
            steps.extend(surplus.chain(missing));
        }
    }
    Ok(steps)
}

/// A role made elsewhere: its own trust policy is the fence, we only pass its name on.
fn elsewhere(mut plan: Plan, subject: &Subject<'_>, observed: &Observed, memory: &Memory) -> Plan {
    let arn = subject.spec.role_arn.clone().unwrap_or_default();
    if !subject.finalizer {
        plan.steps.push(Step::AddFinalizer);
    }
    plan.conditions =
        Summary::Ready("the role is used as it is; its own trust policy decides".into()).conditions();
    plan.conditions.extend([
        Wanted::yes(C::Granted, Reason::NotRequired, "a role made elsewhere needs no grant"),
        Wanted::yes(C::RoleReady, Reason::NotRequired, "never read nor written: it was made elsewhere"),
    ]);
    // The role this binding had before it was pointed elsewhere.
    match (subject.target(&observed.identity), &observed.role) {
        (Some(target), Ok(Some(RoleState::Found(role, policies)))) if target.owns(role).is_ok() => {
            plan.steps.extend(removal(&target, role, policies.as_ref()));
        }
        (_, Ok(Some(_))) => plan.swept = true,
        (_, Ok(None)) => {}
        (_, Err(_)) => plan.requeue = Duration::ZERO, // it may still be there
    }
    annotate(&mut plan, subject, &arn, observed.account.as_ref(), memory);
    plan.role = Some(RoleFacts { arn, name: None });
    again(plan)
}

/// The annotation never takes part in Ready: the webhook takes the binding first.
fn annotate(
    plan: &mut Plan,
    subject: &Subject<'_>,
    role_arn: &str,
    account: Option<&Account>,
    memory: &Memory,
) {
    let wanted = subject.annotations(role_arn);
    let condition = match account {
        None => Wanted::no(
            C::ServiceAccountAnnotated,
            Reason::ServiceAccountNotFound,
            format!("ServiceAccount {} does not exist yet", subject.spec.service_account_name),
        ),
        Some(account) if in_place(account, &wanted) => {
            Wanted::yes(C::ServiceAccountAnnotated, Reason::Annotated, "the annotations are in place")
        }
        Some(account) => match &memory.conflict {
            Some((version, owner))
                if *version == account.version && memory.generation == subject.generation =>
            {
                Wanted::no(C::ServiceAccountAnnotated, Reason::AnnotationOwnedByOther, owner)
            }
            _ => {
                let (uid, version) = (account.uid.clone(), account.version.clone());
                plan.steps.push(Step::Annotate { uid, version, annotations: wanted });
                Wanted::yes(C::ServiceAccountAnnotated, Reason::Annotated, "the annotations are in place")
            }
        },
    };
    plan.conditions.push(condition);
}

/// As wanted, and nothing of ours besides.
fn in_place(account: &Account, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| account.annotations.get(key) == Some(value))
        && account.ours.iter().all(|key| wanted.contains_key(key))
}

/// The loser touches nothing and waits: the older binding may be on its way out.
fn held(mut plan: Plan, subject: &Subject<'_>, holder: &Holder, timings: &Timings) -> Plan {
    let message = format!(
        "ServiceAccount {} is bound by the older PodIdentityBinding {}: delete one of the two",
        subject.spec.service_account_name, holder.name
    );
    let reason = Reason::ServiceAccountAlreadyBound;
    let wait = timings.conflict_grace.saturating_sub(subject.age);
    if holder.deleting {
        plan.requeue = timings.not_yet_retry;
        said(plan, &Summary::Reconciling(reason, message))
    } else if wait.is_zero() {
        plan.requeue = timings.conflict_grace; // its end wakes us
        said(plan, &Summary::Stalled(reason, message))
    } else {
        plan.requeue = wait;
        said(plan, &Summary::Reconciling(reason, message))
    }
}

/// What is not covered is not applied: the role stays as it was. Applied together, grant and binding come in any order.
fn not_granted(mut plan: Plan, subject: &Subject<'_>, message: String, timings: &Timings) -> Plan {
    let wait = timings.grant_grace.saturating_sub(subject.age);
    let summary = if wait.is_zero() || subject.finalizer {
        Summary::Stalled(Reason::NotGranted, message.clone())
    } else {
        plan.requeue = wait;
        Summary::Reconciling(Reason::WaitingForGrant, message.clone())
    };
    plan = said(plan, &summary);
    plan.conditions.push(Wanted::no(C::Granted, Reason::NotGranted, message));
    plan
}

/// AWS could not be asked: what was Ready stays Ready through everything that passes by itself.
fn failed(mut plan: Plan, subject: &Subject<'_>, granted: Wanted, error: &AwsError) -> Plan {
    plan.conditions = failure(subject, error);
    plan.conditions.push(granted);
    plan.requeue = Duration::ZERO;
    plan
}

/// The conditions that a failed call leaves.
fn failure(subject: &Subject<'_>, error: &AwsError) -> Vec<Wanted> {
    let (reason, message) = (error.class.reason(), error.for_user());
    let passing = matches!(error.class, Class::NotFound | Class::AlreadyExists | Class::Conflict);
    let ready =
        || Summary::Ready("role, trust policy, boundary and policies were read back as specified".into());
    let summary = if error.class.needs_a_person() {
        Summary::Stalled(reason, message.clone())
    } else if subject.was_ready {
        ready()
    } else {
        Summary::Reconciling(reason, message.clone())
    };
    let mut conditions = summary.conditions();
    if !passing && !error.class.needs_a_person() {
        conditions.push(Wanted::no(C::AWSReachable, reason, message));
    }
    conditions
}

/// What a failed step means for the status.
#[must_use]
pub fn after_failure(plan: &Plan, subject: &Subject<'_>, error: &AwsError) -> Vec<Wanted> {
    if subject.deleting {
        let message = format!("the role cannot be removed yet: {}", error.for_user());
        return Summary::Reconciling(Reason::DeletionBlocked, message).conditions();
    }
    // IAM says NoSuchEntity of a role, too, that it has just made.
    let missing_policy = error.operation == "iam:AttachRolePolicy"
        && error.class == Class::NotFound
        && error.message.starts_with("Policy ");
    let mut conditions = if missing_policy {
        let message = format!("spec.role.policyArns: policy {} does not exist", error.resource);
        Summary::Stalled(Reason::InvalidSpec, message).conditions()
    } else {
        failure(subject, error)
    };
    let summary = |w: &&Wanted| !matches!(w.type_, C::Ready | C::Reconciling | C::Stalled | C::AWSReachable);
    conditions.extend(plan.conditions.iter().filter(summary).cloned());
    conditions
}

/// A pass that did something is followed by one that looks at it.
fn again(mut plan: Plan) -> Plan {
    if plan.steps.iter().any(|step| !matches!(step, Step::AddFinalizer)) {
        plan.requeue = Duration::ZERO;
    }
    plan
}

fn said(mut plan: Plan, summary: &Summary) -> Plan {
    plan.conditions = summary.conditions();
    plan
}

impl Step {
    /// What is changed in AWS, for status, events, metrics and logs; `None` for what is changed in the cluster.
    #[must_use]
    pub const fn attribute(&self) -> Option<&'static str> {
        match self {
            Self::AddFinalizer | Self::RemoveFinalizer | Self::Annotate { .. } => None,
            Self::CreateRole(_) => Some("role"),
            Self::PutTrust(_) => Some("trust policy"),
            Self::PutBoundary(_) => Some("permissions boundary"),
            Self::Attach(_) => Some("attached policies"),
            Self::Detach(_) => Some("attached policies (surplus)"),
            Self::DeleteInline(_) => Some("inline policies"),
            Self::DeleteRole => Some("role removal"),
        }
    }
}
