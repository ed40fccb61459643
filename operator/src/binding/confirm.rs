//! Whether the API server has what a plan rests on as the pass has seen it. What is asked: the issuers that decide on the role, the labels
//! that grants select by, and, where the role ends, the other bindings on the `ServiceAccount`; before a revocation, how many roles of the
//! issuer have lost their grant. A tenant whose role is to end must not keep these answers from being equal by edits without an effect.

use std::sync::Arc;
use std::time::Instant;

use crds::holder::Claim;
use crds::{OidcIssuer, PodIdentityBinding, in_effect};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};

use super::model::{Plan, Revocation, Sibling, View};
use super::sibling::sibling;
use super::{granted, losses};
use crate::context::Context;
use crate::grant::{Losses, Namespace, covering};

/// Bindings on a page of a list.
const PAGE: u32 = 500;

/// Whether nothing that the plan rests on, beside the binding itself, is newer than what the pass has seen. No answer is older than `asked`.
pub async fn rests_on_newest(
    plan: &Plan,
    view: &View,
    asked: Instant,
    context: &Context,
) -> Result<bool, kube::Error> {
    /// Other bindings on the `ServiceAccount` that are asked for: a tenant can make thousands.
    const SIBLINGS: usize = 16;
    let (client, cluster) = (&context.client, &context.cluster);
    // Another binding decides only on how the role ends.
    let ends = view.object.deleting || (view.spec().role.is_none() && !view.never_had_role());
    let mut others: Vec<_> = view.siblings.iter().zip(&view.sibling_issuers).filter(|_| ends).collect();
    others.sort_by_key(|(sibling, _)| sibling.heir.is_none() && !sibling.uses_role);
    others.truncate(SIBLINGS);
    let issuers: Vec<_> = view.own_issuers.iter().chain(others.iter().map(|(_, issuer)| *issuer)).collect();
    for (name, issuer) in &issuers {
        if !cluster.is_newest(client, name, issuer.as_deref(), asked).await? {
            return Ok(false);
        }
    }
    let issuers: Vec<&OidcIssuer> = issuers.iter().filter_map(|(_, issuer)| issuer.as_deref()).collect();
    // A role is removed whatever the labels are, unless it can be handed over.
    let needs_labels = !view.object.deleting || !view.siblings.is_empty();
    if needs_labels && !has_labels(view, &issuers, context).await? {
        return Ok(false);
    }
    for (sibling, issuer) in others {
        if !is_newest_sibling(view, sibling, issuer, context).await? {
            return Ok(false);
        }
    }
    match view.granting.as_ref().filter(|_| plan.note.revocation == Revocation::Begins) {
        Some(issuer) => may_revoke(view, issuer, asked, context).await,
        None => Ok(true),
    }
}

/// Whether a plan is right for a newer version of the binding, too: for one that is being deleted, where the edit does not decide on what
/// becomes of the role; for a revocation, where the newer one is not accepted, either.
pub fn still_holds(plan: &Plan, view: &View, newest: &PodIdentityBinding, context: &Context) -> bool {
    if newest.deleting() != view.object.deleting {
        return false;
    }
    let (seen, spec) = (view.spec(), &newest.spec);
    if view.object.deleting {
        return seen.deletion_policy == spec.deletion_policy
            && seen.drift_policy == spec.drift_policy
            && seen.role_arn == spec.role_arn
            && seen.role.is_some() == spec.role.is_some()
            && seen.issuer_name() == spec.issuer_name();
    }
    let issuer = context.cluster.issuer(spec.issuer_name());
    let is_accepted = issuer.is_some_and(|issuer| {
        let is_ending = issuer.metadata.deletion_timestamp.is_some();
        (!is_ending || in_effect::issuer(newest) == issuer.name())
            && granted::check_grant(&view.object.namespace, view.labels.as_deref(), spec, Ok(&issuer)).is_ok()
            && granted::check_audience(spec, &issuer).is_ok()
            && spec.check().is_ok()
    });
    plan.note.revocation != Revocation::None && !is_accepted
}

/// Whether the same grants cover the namespace by its labels now.
async fn has_labels(view: &View, issuers: &[&OidcIssuer], context: &Context) -> Result<bool, kube::Error> {
    if !issuers.iter().any(|issuer| issuer.spec.selects_namespaces()) {
        return Ok(true);
    }
    let name = &view.object.namespace;
    let newest = context.cluster.newest_labels(&context.client, name).await?;
    Ok(issuers.iter().all(|issuer| {
        let [seen, newest] =
            [view.labels.as_deref(), newest.as_deref()].map(|labels| Namespace { name, labels });
        covering(&issuer.spec.grants, seen) == covering(&issuer.spec.grants, newest)
    }))
}

/// Whether another binding means the same for the end of the role as the one that was seen. Of one that cannot be decoded, the last version
/// that could be holds.
async fn is_newest_sibling(
    view: &View,
    seen: &Sibling,
    (name, issuer): &(String, Option<Arc<OidcIssuer>>),
    context: &Context,
) -> Result<bool, kube::Error> {
    let (namespace, cluster) = (&view.object.namespace, &context.cluster);
    let api: Api<DeserializeGuard<PodIdentityBinding>> = Api::namespaced(context.client.clone(), namespace);
    let means = |sibling: &Sibling| (sibling.uses_role && !sibling.deleting, sibling.heir.is_some());
    Ok(match api.get_opt(&seen.name).await? {
        None => means(seen) == (false, false),
        Some(DeserializeGuard(Err(_))) => true,
        Some(DeserializeGuard(Ok(newest))) => {
            let other = newest.spec.issuer_name();
            let issuer = if other == name { issuer.clone() } else { cluster.issuer(other) };
            let own = (view.issuer.as_deref(), view.target.as_ref().ok());
            means(&sibling(&newest, &view.binding, issuer.as_deref(), own, cluster)) == means(seen)
        }
    })
}

/// Whether the role may be revoked by what the statuses of all bindings say now. Each binding has written its own loss itself: a watch that is
/// late shows fewer losses, or one that has ended since.
async fn may_revoke(
    view: &View,
    issuer: &OidcIssuer,
    asked: Instant,
    context: &Context,
) -> Result<bool, kube::Error> {
    let own: Api<DeserializeGuard<PodIdentityBinding>> =
        Api::namespaced(context.client.clone(), &view.object.namespace);
    let own = own.get_opt(&view.object.name).await?;
    let is_lost = |binding: &PodIdentityBinding| {
        binding.status.as_ref().is_some_and(|status| status.revoke_at.is_some())
    };
    let newest = own.as_ref().and_then(|own| own.0.as_ref().ok());
    if is_lost(&view.binding) && newest.is_some_and(|own| !is_lost(own)) {
        return Ok(false);
    }
    let losses = context.losses.get(issuer.name(), asked, count(issuer, context)).await?;
    let may_revoke = granted::may_revoke(view, losses);
    if !may_revoke {
        let (name, namespace) = (&view.object.name, &view.object.namespace);
        let Losses { lost, roles } = losses;
        tracing::warn!(object = name, namespace, lost, roles, "not revoked: the watch shows fewer losses");
    }
    Ok(may_revoke)
}

/// How many roles of an issuer have lost their grant, by the API server's own answer.
async fn count(issuer: &OidcIssuer, context: &Context) -> Result<Losses, kube::Error> {
    let api: Api<DeserializeGuard<PodIdentityBinding>> = Api::all(context.client.clone());
    let (mut found, mut next) = (Losses::default(), None);
    loop {
        let parameters = ListParams { continue_token: next, ..ListParams::default().limit(PAGE) };
        let page = api.list(&parameters).await?;
        for binding in page.items {
            // Of one that cannot be decoded, the last version that could be holds.
            let reference =
                ObjectRef::new(&binding.name_any()).within(&binding.namespace().unwrap_or_default());
            let last = |_| context.cluster.bindings.get(&reference).ok_or(());
            let Ok(binding) = binding.0.map(Arc::new).or_else(last) else { continue };
            if in_effect::uses_issuer(&binding, issuer.name()) {
                losses::count(&mut found, &binding, issuer, &context.cluster);
            }
        }
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}
