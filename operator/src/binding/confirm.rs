//! Whether the API server has what a plan rests on as the pass has seen it. What is asked: the issuers that decide on the role, the labels
//! that grants select by, the other bindings on the `ServiceAccount`, and how many roles of an issuer have lost their grant.

use std::collections::BTreeMap;
use std::time::Instant;

use crds::names::REVOKED_POLICY;
use crds::{OidcIssuer, PodIdentityBinding, in_effect};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt};

use super::model::{Losses, Plan, Step, View};
use super::{granted, losses};
use crate::aws::model::{IamWrite, Write};
use crate::context::Context;
use crate::model::Version;

/// Bindings on a page of a list.
const PAGE: u32 = 500;

/// Whether nothing that the plan rests on is newer than what the pass has seen. No answer is older than `asked`.
pub async fn rests_on_newest(
    plan: &Plan,
    view: &View,
    asked: Instant,
    context: &Context,
) -> Result<bool, kube::Error> {
    let (client, cluster) = (&context.client, &context.cluster);
    let own = [&view.issuer, &view.granting].into_iter().flatten();
    let own = own.map(|issuer| (issuer.name_any(), Some(&**issuer)));
    let of_siblings = view.sibling_issuers.iter().map(|(name, issuer)| (name.clone(), issuer.as_deref()));
    let mut selects = false;
    for (name, issuer) in own.chain(of_siblings) {
        if !cluster.is_newest(client, &name, issuer, asked).await? {
            return Ok(false);
        }
        selects |= issuer.is_some_and(|issuer| issuer.spec.selects_namespaces());
    }
    // A role is removed whatever the labels are, unless it can be handed over.
    let needs_labels = selects && !(view.object.deleting && view.siblings.is_empty());
    if needs_labels && !cluster.has_labels(client, &view.object.namespace, view.labels.as_ref()).await? {
        return Ok(false);
    }
    if !view.siblings.is_empty() && !has_siblings(client, view).await? {
        return Ok(false);
    }
    match view.granting.as_ref().filter(|_| begins_revocation(plan, view)) {
        Some(issuer) => Ok(granted::may_revoke(view, lost(issuer, context).await?)),
        None => Ok(true),
    }
}

/// Whether the plan takes a role's rights because no grant covers them.
fn begins_revocation(plan: &Plan, view: &View) -> bool {
    let begins = |step: &Step| {
        let Step::Change(change) = step else { return false };
        matches!(&change.write, Write::Iam(IamWrite::PutInline { name, .. }) if name == REVOKED_POLICY)
    };
    !view.object.deleting && plan.steps.iter().any(begins)
}

/// Whether the other bindings on the `ServiceAccount` are those that the pass has seen.
async fn has_siblings(client: &Client, view: &View) -> Result<bool, kube::Error> {
    let api: Api<DeserializeGuard<PodIdentityBinding>> =
        Api::namespaced(client.clone(), &view.object.namespace);
    let account = &view.spec().service_account_name;
    let found = api.list(&ListParams::default()).await?;
    let others = found.iter().filter_map(|found| found.0.as_ref().ok()).filter(|other| {
        other.spec.service_account_name == *account && other.meta().uid != view.binding.meta().uid
    });
    let found: BTreeMap<String, Version> =
        others.map(|other| (other.name_any(), Version::of(other.meta()))).collect();
    let seen = view.siblings.iter().map(|sibling| (sibling.name.clone(), sibling.version.clone()));
    Ok(found == seen.collect())
}

/// How many roles of an issuer have lost their grant, by the API server's own answer. Each binding has written that itself, and a watch
/// that is late shows fewer.
async fn lost(issuer: &OidcIssuer, context: &Context) -> Result<Losses, kube::Error> {
    let api: Api<DeserializeGuard<PodIdentityBinding>> = Api::all(context.client.clone());
    let (mut found, mut next) = (Losses::default(), None);
    loop {
        let parameters = ListParams { continue_token: next, ..ListParams::default().limit(PAGE) };
        let page = api.list(&parameters).await?;
        let readable = page.iter().filter_map(|found| found.0.as_ref().ok());
        for binding in readable.filter(|binding| in_effect::uses_issuer(binding, issuer.name())) {
            losses::count(&mut found, binding, issuer, &context.cluster);
        }
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok(found);
        }
    }
}
