//! All reads of a binding's pass: its role in IAM and its `ServiceAccount`.

use crds::names::MANAGER_ANNOTATION;
use crds::rules::is_subdomain;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};

use super::decide::due;
use super::model::{Due, Memory, Observed, RoleState, ServiceAccountState, Unresolved, View};
use super::role::Target;
use crate::aws::accounts::Account;
use crate::aws::error::AwsError;
use crate::aws::inventory;
use crate::aws::model::{RoleChange, RolePolicies};
use crate::clock::Clock;
use crate::timings::Timings;

/// Makes the reads that are due. The others come from memory; a failed read forgets nothing.
pub async fn observe(
    client: &Client,
    account: Option<&Account>,
    view: &View,
    memory: &mut Memory,
    clock: &Clock,
    timings: &Timings,
) -> Result<Observed, kube::Error> {
    if let Ok(target) = &view.target
        && memory.role_arn.as_ref() != Some(&target.arn)
    {
        memory.role_arn = Some(target.arn.clone());
        (memory.role, memory.policies, memory.absent_since) = (None, None, None);
    }
    let due = due(view, memory, clock, timings);
    let service_account =
        service_account(client, &view.object.namespace, &view.spec().service_account_name).await?;
    let role = match (&view.target, account) {
        (Ok(target), Some(account)) => role(account, target, memory, due, clock, timings).await,
        (Err(Unresolved::Account(error)), _) => Err(error.clone()),
        (Err(Unresolved::NoIssuer | Unresolved::NotNeeded | Unresolved::Abandoned), _) | (Ok(_), None) => {
            Ok(None)
        }
    };
    let change = view.target.as_ref().ok().zip(account);
    let change = change.and_then(|(target, account)| account.role_change(&target.name));
    Ok(Observed { role, change, service_account })
}

async fn role(
    account: &Account,
    target: &Target,
    memory: &mut Memory,
    due: Due,
    clock: &Clock,
    timings: &Timings,
) -> Result<Option<RoleState>, AwsError> {
    if due.role {
        // IAM may still show a role for a moment that this process has deleted.
        let settling = |at| clock.since(at) < timings.role_settling;
        let deleted =
            matches!(account.role_change(&target.name), Some(RoleChange::Deleted(at)) if settling(at));
        let found = inventory::role(&account.iam, &target.path, &target.name).await?.filter(|_| !deleted);
        let is_ours = found.as_ref().is_some_and(|role| target.owns(role).is_ok());
        memory.absent_since = (!is_ours).then(|| memory.absent_since.unwrap_or(clock.instant));
        memory.role = Some((found, clock.instant));
    }
    let Some((role, _)) = &memory.role else { return Ok(None) };
    let Some(role) = role else { return Ok(Some(RoleState::Missing)) };
    // The policies of a role that has another owner are not read.
    if due.policies && target.owns(role).is_ok() {
        memory.policies = Some((policies(account, target).await?, clock.instant));
    }
    let policies = memory.policies.as_ref().map(|(policies, _)| policies.clone());
    Ok(Some(RoleState::Found(role.clone(), policies)))
}

/// What is attached to the role. A document is read only of what is not specified: it says whether the policy may stay.
async fn policies(account: &Account, target: &Target) -> Result<RolePolicies, AwsError> {
    let (iam, role) = (&account.iam, &target.name);
    let (attached, inline) = tokio::try_join!(iam.attached(role), iam.inline(role))?;
    let mut policies = RolePolicies::default();
    for arn in attached {
        let document = if target.attached.contains(&arn) { None } else { iam.policy_document(&arn).await? };
        policies.attached.insert(arn, document);
    }
    for name in inline {
        if let Some(document) = iam.inline_document(role, &name).await? {
            policies.inline.insert(name, document);
        }
    }
    Ok(policies)
}

/// One GET instead of a cache of every `ServiceAccount` of the cluster: it is asked for on changes and at a role's age.
async fn service_account(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<ServiceAccountState>, kube::Error> {
    // The name becomes part of a URL: what is no name does not get there.
    if !is_subdomain(name) {
        return Ok(None);
    }
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let found = api.get_metadata_opt(name).await?;
    Ok(found.map(|found| ServiceAccountState {
        uid: found.uid().unwrap_or_default(),
        version: found.resource_version().unwrap_or_default(),
        ours: owned_annotations(&found),
        annotations: found.metadata.annotations.unwrap_or_default(),
    }))
}

/// Server-side apply's bookkeeping: which annotations our field manager owns.
fn owned_annotations(object: &PartialObjectMeta<ServiceAccount>) -> Vec<String> {
    let mut keys: Vec<String> = object
        .managed_fields()
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(MANAGER_ANNOTATION))
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.pointer("/f:metadata/f:annotations")?.as_object())
        .flat_map(|fields| fields.keys().filter_map(|key| key.strip_prefix("f:").map(str::to_owned)))
        .collect();
    keys.sort_unstable();
    keys
}
