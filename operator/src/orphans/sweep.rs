//! The operator's sweep: says which roles are orphans, and changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::OidcIssuer;
use kube::ResourceExt;

use super::find::{FindError, find, known};
use super::judge::Orphan;
use crate::context::Context;
use crate::installation::NamedIssuer;
use crate::report;

/// Sweeps until it is dropped.
pub async fn run(context: Arc<Context>) {
    context.cluster.issuers_synced().await;
    let mut sweep = Sweep::default();
    loop {
        let wait = match look(&context).await {
            Ok(found) => sweep.say(&context, found).await,
            Err(error) => {
                tracing::warn!(%error, "orphaned roles could not be looked for");
                context.timings.orphan_sweep
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// The orphans of all clusters that the issuers name.
async fn look(context: &Context) -> Result<Vec<Orphan>, FindError> {
    let issuers: Vec<NamedIssuer> = context
        .cluster
        .issuers
        .state()
        .iter()
        .map(|issuer| NamedIssuer { name: issuer.name_any(), spec: issuer.spec.clone() })
        .collect();
    let mut found = Vec::new();
    if issuers.is_empty() {
        return Ok(found);
    }
    for known in known(&context.client, &issuers).await? {
        let mut accounts = BTreeSet::new();
        let of_cluster = issuers.iter().filter(|issuer| issuer.spec.cluster_name == known.cluster);
        for issuer in of_cluster.filter(|issuer| accounts.insert(issuer.spec.operator_role_arn.clone())) {
            found.extend(find(&context.accounts.of(&issuer.spec), &known).await?);
        }
    }
    Ok(found)
}

/// What earlier sweeps saw.
#[derive(Default)]
struct Sweep {
    seen: BTreeSet<String>,
    reported: BTreeSet<String>,
}

impl Sweep {
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
                report::orphaned(&context.recorder, &*issuer, role, &note).await;
            }
        }
        context.metrics.orphans(confirmed.len());
        let all_confirmed = now.is_subset(&self.seen);
        (self.seen, self.reported) = (now, confirmed);
        if all_confirmed { context.timings.orphan_sweep } else { context.timings.role_confirmation }
    }
}

fn issuer_of(context: &Context, url: &str) -> Option<Arc<OidcIssuer>> {
    context.cluster.issuers.state().into_iter().find(|issuer| issuer.spec.issuer_url() == url)
}
