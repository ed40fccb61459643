//! Finds orphans: lists the roles under the cluster's path, and reads live whatever no binding makes.

use std::collections::{BTreeMap, BTreeSet};

use crds::PodIdentityBinding;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};
use thiserror::Error;

use super::judge::{Known, Orphan};
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::inventory::roles_under;
use crate::aws::model::ListedRole;
use crate::installation::NamedIssuer;

/// Bindings listed at once.
const PAGE: u32 = 500;

/// Why orphans could not be looked for.
#[derive(Debug, Error)]
pub enum FindError {
    /// AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The API server.
    #[error("the cluster's PodIdentityBindings cannot be listed: {0}")]
    Kube(#[from] kube::Error),
}

/// What the cluster has, for each `spec.clusterName` of its issuers. Asked of the API server itself: a cache may not hold an
/// object that cannot be decoded.
pub async fn known(client: &Client, issuers: &[NamedIssuer]) -> Result<Vec<Known>, FindError> {
    let all: Api<DeserializeGuard<PodIdentityBinding>> = Api::all(client.clone());
    let (mut bindings, mut used, mut seen) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut next: Option<String> = None;
    loop {
        let parameters = ListParams { continue_token: next, ..ListParams::default().limit(PAGE) };
        let page = all.list(&parameters).await?;
        for binding in &page {
            let spec = binding.0.as_ref().ok().map(|binding| &binding.spec);
            used.extend(spec.and_then(|spec| spec.role_arn.clone()));
            let status = binding.0.as_ref().ok().and_then(|binding| binding.status.as_ref());
            seen.extend(status.and_then(|status| status.role_name.clone()));
            let key = (binding.namespace().unwrap_or_default(), binding.name_any());
            bindings.insert(key, spec.map(|spec| spec.service_account_name.clone()));
        }
        next = page.metadata.continue_.filter(|token| !token.is_empty());
        if next.is_none() {
            break;
        }
    }
    let clusters: BTreeSet<&String> = issuers.iter().map(|issuer| &issuer.spec.cluster_name).collect();
    let known = clusters.into_iter().map(|cluster| Known {
        cluster: cluster.clone(),
        issuers: issuers
            .iter()
            .filter(|issuer| issuer.spec.cluster_name == *cluster)
            .map(|issuer| issuer.spec.issuer_url())
            .collect(),
        bindings: bindings.clone(),
        seen: seen.clone(),
        used: used.clone(),
    });
    Ok(known.collect())
}

/// The orphans under a cluster's path, by role name.
pub async fn find(account: &Account, known: &Known) -> Result<Vec<Orphan>, FindError> {
    let path = crds::names::role_path(&known.cluster);
    let roles = roles_under(&account.iam, &path).await?;
    among(account, known, &roles).await
}

/// The orphans among listed roles, by role name.
pub async fn among(account: &Account, known: &Known, roles: &[ListedRole]) -> Result<Vec<Orphan>, FindError> {
    let mut orphans = Vec::new();
    for ListedRole { name, .. } in roles.iter().filter(|role| !known.seen.contains(&*role.name)) {
        // The list shows no tags, and may be older than the role's end.
        let role = account.iam.role(name).await?;
        orphans.extend(role.and_then(|role| known.orphan(name, &role)));
    }
    orphans.sort_unstable_by(|one, other| one.role.cmp(&other.role));
    Ok(orphans)
}
