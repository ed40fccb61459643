//! The operator's sweep: lists the roles of the cluster, wakes the bindings whose role has changed, and says which roles are orphans. It
//! changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::names::role_path;
use crds::{OidcIssuer, PodIdentityBinding};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::aws::accounts::Account;
use crate::aws::inventory::{Place, roles_under};
use crate::aws::model::ListedRole;
use crate::backoff::Backoff;
use crate::cluster::Waker;
use crate::context::Context;
use crate::installation::NamedIssuer;
use crate::orphans::find::{FindError, among, known};
use crate::orphans::judge::Orphan;
use crate::report;

/// Sweeps until it is dropped.
pub async fn run(context: Arc<Context>, waker: Waker<PodIdentityBinding>) {
    context.cluster.issuers_synced().await;
    let mut orphans = Orphans::default();
    let spread = Backoff::new(context.timings.backoff_min, context.timings.backoff_max);
    loop {
        let issuers: Vec<NamedIssuer> = context
            .cluster
            .issuers
            .state()
            .iter()
            .map(|issuer| NamedIssuer { name: issuer.name_any(), spec: issuer.spec.clone() })
            .collect();
        let (listed, is_complete) = list(&context, &waker, &issuers).await;
        context.listings.begin();
        let found = look(&context, &issuers, &listed).await;
        drop(listed);
        let wait = match found {
            // What was not listed is no answer.
            Ok(_) if !is_complete => context.timings.role_sweep,
            Ok(found) => orphans.say(&context, found).await,
            Err(error) => {
                tracing::warn!(%error, "orphaned roles could not be looked for");
                context.timings.role_sweep
            }
        };
        // Operators of several clusters in one account that began together do not list together for ever.
        tokio::time::sleep(spread.spread("sweep", wait)).await;
    }
}

/// The roles of a cluster in an account.
struct Listed {
    account: Account,
    cluster: String,
    roles: Vec<ListedRole>,
}

/// Lists the roles of every cluster and account that the issuers name, and wakes the bindings whose role has changed. Returns whether all
/// could be listed, too.
async fn list(
    context: &Context,
    waker: &Waker<PodIdentityBinding>,
    issuers: &[NamedIssuer],
) -> (Vec<Listed>, bool) {
    let places: BTreeSet<(Option<String>, String)> = issuers
        .iter()
        .map(|issuer| (issuer.spec.operator_role_arn.clone(), issuer.spec.cluster_name.clone()))
        .collect();
    let (mut listed, mut is_complete) = (Vec::new(), true);
    for (role_arn, cluster) in places {
        let of_place = |issuer: &&NamedIssuer| {
            issuer.spec.operator_role_arn == role_arn && issuer.spec.cluster_name == cluster
        };
        let Some(issuer) = issuers.iter().find(of_place) else { continue };
        let account = context.accounts.of(&issuer.spec);
        let place: Place = (role_arn, role_path(&cluster));
        let at = Instant::now();
        match roles_under(&account.iam, &place.1).await {
            Ok(roles) => {
                wake(context, waker, &context.listings.put(place, at, &roles));
                listed.push(Listed { account, cluster, roles });
            }
            Err(error) => {
                // The former list stays: the next one is compared with it.
                tracing::warn!(%error, path = place.1, "roles could not be listed");
                is_complete = false;
            }
        }
    }
    (listed, is_complete)
}

/// Wakes the bindings of these roles.
fn wake(context: &Context, waker: &Waker<PodIdentityBinding>, changed: &[String]) {
    if changed.is_empty() {
        return;
    }
    let changed: BTreeSet<&String> = changed.iter().collect();
    let bindings = context.cluster.bindings.state();
    let concerned = bindings.iter().filter(|binding| {
        let name = binding.status.as_ref().and_then(|status| status.role_name.as_ref());
        name.is_some_and(|name| changed.contains(name))
    });
    waker.wake(concerned.map(|binding| ObjectRef::from_obj(&**binding)));
}

/// The orphans among the listed roles.
async fn look(
    context: &Context,
    issuers: &[NamedIssuer],
    listed: &[Listed],
) -> Result<Vec<Orphan>, FindError> {
    let mut found = Vec::new();
    if listed.is_empty() {
        return Ok(found);
    }
    for known in known(&context.client, issuers).await? {
        for Listed { account, roles, .. } in listed.iter().filter(|listed| listed.cluster == known.cluster) {
            found.extend(among(account, &known, roles).await?);
        }
    }
    Ok(found)
}

/// The orphans that earlier sweeps saw.
#[derive(Default)]
struct Orphans {
    seen: BTreeSet<String>,
    reported: BTreeSet<String>,
}

impl Orphans {
    /// Reports what two sweeps in a row saw: a role that is being removed may be shown for some seconds after its end. Returns
    /// when to sweep next.
    async fn say(&mut self, context: &Context, found: Vec<Orphan>) -> Duration {
        let now: BTreeSet<String> = found.iter().map(|orphan| orphan.role.clone()).collect();
        let confirmed: BTreeSet<String> = now.intersection(&self.seen).cloned().collect();
        for orphan in found
            .iter()
            .filter(|orphan| confirmed.contains(&orphan.role) && !self.reported.contains(&orphan.role))
        {
            let Orphan { role, namespace, binding, issuer } = orphan;
            tracing::warn!(role, namespace, binding, "a role of this cluster has no binding");
            let note = format!(
                "role {role} was made for PodIdentityBinding {namespace}/{binding}, which does not exist: apply the binding \
                 again, or remove the role with `operator orphans --delete {role}`"
            );
            if let Some(issuer) = issuer_of(context, issuer) {
                report::orphaned(&context.events, &*issuer, role, &note).await;
            }
        }
        context.metrics.orphans(confirmed.len());
        let all_confirmed = now.is_subset(&self.seen);
        (self.seen, self.reported) = (now, confirmed);
        if all_confirmed { context.timings.role_sweep } else { context.timings.role_confirmation }
    }
}

fn issuer_of(context: &Context, url: &str) -> Option<Arc<OidcIssuer>> {
    context.cluster.issuers.state().into_iter().find(|issuer| issuer.spec.issuer_url() == url)
}
