//! The reconcile of a `PodIdentityBinding`: resolve → observe → decide → act → report.

pub mod absence;
pub mod act;
pub mod annotations;
pub mod confirm;
pub mod decide;
pub mod decision;
pub mod due;
pub mod failure;
pub mod granted;
pub mod holder;
pub mod losses;
pub mod model;
pub mod observe;
pub mod pods;
pub mod removal;
pub mod role;
pub mod sibling;
pub mod verdict;
pub mod watch;

use std::sync::Arc;
use std::time::Instant;

use crds::condition::Wanted;
use crds::conditions::{Condition, Conditions};
use crds::holder::Claim;
use crds::in_effect;
use crds::names::OPERATOR_SERVICE_ACCOUNT;
use crds::{Finding, OidcIssuer, PodIdentityBinding, PodIdentityBindingStatus, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};

use self::model::{Annotated, Facts, Memory, Note, Observed, Own, Plan, Shown, Trusted, Unresolved, View};
use self::role::{Target, inline};
use crate::aws::accounts::Account;
use crate::aws::error::Class;
use crate::aws::model::{IamWrite, Write, Written};
use crate::change::Change;
use crate::clock::Clock;
use crate::context::Context;
use crate::grant::Losses;
use crate::kind::{Failure, Kind, Resolved, StepError};
use crate::model::{Next, ObjectState};
use crate::timings::Timings;

/// The kind `PodIdentityBinding`.
pub struct Binding;

impl Kind for Binding {
    const NAME: &'static str = "PodIdentityBinding";
    type Object = PodIdentityBinding;
    type Status = PodIdentityBindingStatus;
    type View = View;
    type Observed = Observed;
    type Memory = Memory;
    type Own = Own;
    type Shown = Shown;
    type Facts = Facts;
    type Note = Note;

    fn api(client: &Client, object: &PodIdentityBinding) -> Api<PodIdentityBinding> {
        Api::namespaced(client.clone(), &object.namespace().unwrap_or_default())
    }

    fn store(context: &Context) -> &Store<PodIdentityBinding> {
        &context.cluster.bindings
    }

    fn status(object: &PodIdentityBinding) -> Option<&PodIdentityBindingStatus> {
        object.status.as_ref()
    }

    fn observed(status: &PodIdentityBindingStatus) -> (Option<i64>, &[Condition]) {
        (status.observed_generation, &status.conditions)
    }

    fn next_status(
        prior: &PodIdentityBindingStatus,
        Facts { role, trusted, revoke_at, missing, digest }: Facts,
        conditions: Conditions,
        generation: i64,
    ) -> PodIdentityBindingStatus {
        // A role that exists keeps its name in the status while a bad edit is refused.
        let (role_arn, role_name) = role
            .map_or_else(|| (prior.role_arn.clone(), prior.role_name.clone()), |role| (role.arn, role.name));
        let before = || Trusted { issuer: prior.issuer.clone(), audience: prior.audience.clone() };
        let trusted = role_name.as_ref().map(|_| trusted.unwrap_or_else(before)).unwrap_or_default();
        let revoke_at = revoke_at.map(Time);
        PodIdentityBindingStatus {
            observed_generation: Some(generation),
            conditions,
            role_arn,
            role_name,
            issuer: trusted.issuer,
            audience: trusted.audience,
            revoke_at,
            role_digest: digest.unwrap_or_else(|| prior.role_digest.clone()),
            missing: missing
                .map_or_else(|| prior.missing.clone(), |missing| Some(missing).filter(|m| m.count > 0)),
        }
    }

    async fn resolve(
        object: &Arc<PodIdentityBinding>,
        state: &ObjectState,
        context: &Context,
    ) -> (View, Option<Account>) {
        let cluster = &context.cluster;
        cluster.issuers_synced().await;
        // They say whether pods get an identity.
        cluster.namespaces_asked().await;
        // Of any issuer: another binding on the ServiceAccount may use it.
        if cluster.issuers.state().iter().any(|issuer| issuer.spec.selects_namespaces()) {
            cluster.namespaces_synced().await;
        }
        let service_account = &object.spec.service_account_name;
        // A role is removed under the issuer under which it was made.
        let (name, recorded) = (object.spec.issuer_name(), in_effect::issuer_of_role(object));
        let own_issuers = [name, recorded].map(|name| (name.to_owned(), cluster.issuer(name)));
        let (named, made_under) =
            (own_issuers[0].1.clone(), losses::made_under(object, own_issuers[1].1.clone()));
        let own_namespace = state.namespace == context.namespace;
        let mut view = View {
            object: state.clone(),
            binding: Arc::clone(object),
            knows_issuer: named.is_some(),
            issuer: made_under.clone().filter(|_| state.deleting).or(named),
            granting: None,
            siblings: Vec::new(),
            own_issuers: own_issuers.into(),
            sibling_issuers: Vec::new(),
            own_namespace,
            reserved: own_namespace && service_account == OPERATOR_SERVICE_ACCOUNT,
            target: Err(Unresolved::NotNeeded),
            now: context.clock().wall,
            labels: cluster.labels(&state.namespace),
            grant: Ok(()),
            invalid: object.spec.check().err().map(|why| Finding::new(Reason::InvalidSpec, why)),
            refused: None,
            losses: Losses::default(),
        };
        if !view.never_had_role() {
            view.target = target(object, state, view.issuer.as_ref(), context).await;
            stay_with_role(&mut view, object, context).await;
        }
        view.granting = made_under.or_else(|| view.issuer.clone());
        view.grant =
            granted::check_grant(&state.namespace, view.labels.as_deref(), &object.spec, view.issuer());
        // Only of a binding that may be revoked in this pass: it looks at all bindings of the issuer. Before a revocation the API server is
        // asked once more, whatever is counted here.
        let is_to_be_revoked = object.status.as_ref().is_some_and(|status| status.revoke_at.is_some());
        let is_refused = view.grant.is_err() || view.invalid.is_some() || view.refused.is_some();
        let granting =
            view.granting.as_ref().filter(|_| object.has_role() && (is_to_be_revoked || is_refused));
        if let Some(issuer) = granting {
            view.losses = losses::losses(issuer, cluster);
        }
        let account = view.issuer.as_ref().map(|issuer| context.accounts.of(&issuer.spec));
        let on_account = cluster.bindings_on(&state.namespace, service_account);
        let others = on_account.iter().filter(|other| other.uid() != object.uid());
        let own = (view.issuer.as_deref(), view.target.as_ref().ok());
        let siblings = others.map(|other| {
            let issuer = cluster.issuer(other.spec.issuer_name());
            let sibling = sibling::sibling(other, object, issuer.as_deref(), own, cluster);
            (sibling, (other.spec.issuer_name().to_owned(), issuer))
        });
        (view.siblings, view.sibling_issuers) = siblings.unzip();
        (view, account)
    }

    async fn observe(
        resolved: &Resolved<Self>,
        memory: &mut Memory,
        clock: &Clock,
        context: &Context,
    ) -> Result<Observed, kube::Error> {
        let Resolved { view, account, .. } = resolved;
        observe::observe(context, account.as_ref(), view, memory, clock).await
    }

    fn decide(view: &View, observed: &Observed, memory: &Memory, clock: &Clock, timings: &Timings) -> Plan {
        decide::decide(view, observed, memory, clock, timings)
    }

    fn failed_read(observed: &Observed) -> Option<&'static str> {
        observed.role.as_ref().err().map(|error| error.class.label())
    }

    async fn rests_on_newest(
        plan: &Plan,
        resolved: &Resolved<Self>,
        asked: Instant,
        context: &Context,
    ) -> Result<bool, kube::Error> {
        confirm::rests_on_newest(plan, &resolved.view, asked, context).await
    }

    fn still_holds(plan: &Plan, view: &View, newest: &PodIdentityBinding, context: &Context) -> bool {
        confirm::still_holds(plan, view, newest, context)
    }

    async fn act(step: &Own, resolved: &Resolved<Self>, context: &Context) -> Result<Shown, StepError> {
        let (client, view) = (&context.client, &resolved.view);
        Ok(match step {
            Own::ForgetDigest => act::forget_digest(client, view).await,
            Own::Annotate(step) => act::annotate(client, view, step).await?,
            Own::Lock(heir) => act::lock(client, view, heir).await.map(|()| Shown::Done)?,
            Own::Restart(workload) => act::restart(client, view, workload).await,
        })
    }

    fn planned(memory: &mut Memory, view: &View, plan: &Plan) {
        memory.generation = view.object.generation;
        memory.no_earlier_role = plan.note.no_earlier_role;
        if plan.note.in_spec.is_some() {
            memory.in_spec.clone_from(&plan.note.in_spec);
            (memory.role, memory.policies) = (None, None);
        }
        if plan.steps.is_empty() && matches!(plan.facts.digest, Some(Some(_))) {
            memory.digest_forgotten = None;
        }
        memory.revoke_at = plan.note.revoke_at;
        memory.conflict_since = plan.note.conflict_since;
        memory.acted |= !plan.steps.is_empty();
    }

    fn read_again(plan: &Plan, memory: &mut Memory, clock: &Clock, timings: &Timings) -> bool {
        let changes = plan.steps.iter().any(|step| step.change().is_some());
        let again = changes && due::is_old(memory, clock, timings);
        memory.reads_again |= again;
        again
    }

    fn changed(memory: &mut Memory, change: &Change, written: Written, clock: &Clock) {
        (memory.in_spec, memory.boundary_first) = (None, false);
        match (written, &change.write) {
            (Written::Role(role), _) => {
                memory.role = Some((Some(role), clock.instant));
                (memory.policies, memory.absent_since) = (None, None);
                memory.put_inline = Vec::new();
            }
            (Written::Done, Write::Iam(IamWrite::PutInline { name, document, .. })) => {
                memory.put_inline.push(inline::digest(name, document));
                memory.policies = None;
            }
            (
                Written::Done,
                Write::Iam(
                    IamWrite::AttachPolicy { .. }
                    | IamWrite::DetachPolicy { .. }
                    | IamWrite::DeleteInline { .. },
                ),
            ) => memory.policies = None,
            (Written::Done, _) => memory.role = None,
        }
    }

    fn timed_out(memory: &mut Memory) {
        memory.reads_again = true;
    }

    fn shown(memory: &mut Memory, shown: Shown, clock: &Clock) {
        match shown {
            Shown::Done => {}
            Shown::DigestForgotten(digest) => memory.digest_forgotten = digest,
            Shown::Annotated(content) => {
                let is_same = memory.annotated.is_some_and(|before| before.content == content);
                let put_back = is_same.then_some(clock.instant);
                memory.annotated = Some(Annotated { content, put_back });
            }
            Shown::Refused(refusal) => memory.refused = Some(Box::new((refusal, clock.instant))),
            Shown::NotRestarted(why) => memory.restart_refused = Some(Box::new((why, clock.instant))),
        }
    }

    fn step_failed(
        failure: &Failure<'_, Self>,
        memory: &mut Memory,
        timings: &Timings,
    ) -> (Vec<Wanted>, Next) {
        let Failure { plan, view, error, repeated, .. } = failure;
        (memory.role, memory.policies, memory.in_spec) = (None, None, None); // what was known is in doubt
        // After any other failure, also one of the boundary, the next plan has the boundary last again.
        let needs_boundary = matches!(
            error.operation,
            "iam:UpdateAssumeRolePolicy" | "iam:PutRolePolicy" | "iam:DeleteRolePolicy"
        );
        memory.boundary_first = error.class == Class::Denied && needs_boundary;
        // A role of that name exists: this operator made it before a crash, or it has another owner. It is read at once.
        let at_once = error.class == Class::AlreadyExists && !repeated;
        // A person has to run `bootstrap`, and the binding is Ready meanwhile.
        let waits_for_person = error.class == Class::Denied || error.class.stalls();
        let next = if at_once {
            Next::LookAgain
        } else if *repeated && waits_for_person && failure::puts_tags(plan) {
            Next::At(timings.look_again())
        } else {
            Next::BackOff
        };
        (failure::after_failure(plan, view, error), next)
    }
}

/// The role of a binding under an issuer.
async fn target(
    object: &PodIdentityBinding,
    state: &ObjectState,
    issuer: Option<&Arc<OidcIssuer>>,
    context: &Context,
) -> Result<Target, Unresolved> {
    let issuer = issuer.ok_or(Unresolved::NoIssuer)?;
    if state.deleting && issuer.is_abandoned() {
        return Err(Unresolved::Abandoned);
    }
    let identity = context.accounts.identity(&issuer.spec).await.map_err(Unresolved::Account)?;
    let urls = context.cluster.issuers.state().into_iter().map(|issuer| issuer.spec.issuer_url());
    Ok(role::target(&state.namespace, &state.name, &object.spec, &issuer.spec, urls, &identity))
}

/// A binding whose specification names an issuer that cannot have its role stays under the one that has: its role is neither left
/// behind nor kept from the comparison with the grants.
async fn stay_with_role(view: &mut View, object: &PodIdentityBinding, context: &Context) {
    let status = object.status.as_ref().filter(|_| object.has_role());
    let Some(arn) = status.and_then(|status| status.role_arn.as_ref()) else { return };
    let cannot_have_it = match &view.target {
        Ok(target) => !target.is(arn),
        Err(unresolved) => matches!(unresolved, Unresolved::NoIssuer),
    };
    if !cannot_have_it {
        return;
    }
    let mut candidates = Vec::new();
    for issuer in context.cluster.issuers.state() {
        let found = target(object, &view.object, Some(&issuer), context).await;
        if found.as_ref().is_ok_and(|target| target.is(arn)) {
            candidates.push((found, issuer));
        }
    }
    // Of several, the one under which it was made; if that has ended, one that grants what the binding asks for.
    let recorded = in_effect::issuer_of_role(object);
    let labels = view.labels.as_deref();
    let grants = |issuer: &OidcIssuer| {
        granted::check_grant(&view.object.namespace, labels, &object.spec, Ok(issuer)).is_ok()
    };
    candidates.sort_by_key(|(_, issuer)| (issuer.name_any() != recorded, !grants(issuer), issuer.name_any()));
    let Some((found, issuer)) = candidates.into_iter().next() else { return };
    let message = format!(
        "the binding has role {arn}. OidcIssuer {}, which spec.issuerRef names, does not exist, or is of another AWS account or \
         clusterName: put the former one back, or make a new binding",
        object.spec.issuer_name()
    );
    view.refused = Some(Finding::new(Reason::InvalidSpec, message));
    view.own_issuers.push((issuer.name_any(), Some(Arc::clone(&issuer))));
    (view.target, view.issuer) = (found, Some(issuer));
}
