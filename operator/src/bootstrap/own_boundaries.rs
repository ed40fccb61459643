//! Permissions boundaries that organisations keep themselves (`spec.permissionsBoundary`).

use std::collections::BTreeSet;

use crds::names::role_path;
use crds::{Finding, Reason};
use serde_json::Value;

use super::boundary;
use super::roles::FoundRole;
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::inventory::roles_under;
use crate::installation::{Installation, NamedIssuer};
use crate::policy::boundary::missing_denies;
use crate::policy::operator::named_boundaries;

/// What one of them does not deny and ours does: a role could give itself rights, or replace the published keys.
pub(super) async fn refusal(
    account: &Account,
    installation: &Installation,
) -> Result<Option<Finding>, AwsError> {
    for NamedIssuer { name, spec } in installation.issuers() {
        let Some(arn) = &spec.permissions_boundary else { continue };
        let document = account.iam.policy_document(arn).await?;
        let missing =
            document.as_ref().map(|document| missing_denies(document, &boundary::wanted(installation)));
        let message = match missing {
            None => format!("there is no policy {arn}: create it in this account, or correct the ARN"),
            Some(missing) if missing.is_empty() => continue,
            Some(missing) => format!("policy {arn} must deny this, too: {:#}", Value::Array(missing)),
        };
        let message = format!("spec.permissionsBoundary of OidcIssuer {name}: {message}");
        return Ok(Some(Finding::new(Reason::InvalidSpec, message)));
    }
    Ok(None)
}

/// Boundaries that the operator's policy names and no issuer does any more, as far as a role still carries them.
pub(super) async fn former(
    account: &Account,
    installation: &Installation,
    operator: Option<&FoundRole>,
) -> Result<BTreeSet<String>, AwsError> {
    let policy = operator.and_then(|role| role.permissions.as_deref()).unwrap_or_default();
    let named: BTreeSet<String> =
        named_boundaries(policy).difference(&installation.boundaries()).cloned().collect();
    let mut carried = BTreeSet::new();
    if named.is_empty() {
        return Ok(carried);
    }
    for role in roles_under(&account.iam, &role_path(installation.cluster_name())).await? {
        let boundary = account.iam.role(&role.name).await?.and_then(|role| role.boundary);
        carried.extend(boundary.filter(|boundary| named.contains(boundary)));
    }
    Ok(carried)
}
