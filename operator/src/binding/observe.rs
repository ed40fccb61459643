//! All reads of a binding's pass: its role in IAM and its `ServiceAccount`.

use std::collections::BTreeMap;
use std::time::Instant;

use crds::names::{self, MANAGER_ANNOTATION};
use crds::rules::is_subdomain;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Resource, ResourceExt};
use process::responses::ManagedFields;
use serde::Deserialize;

use super::due::{as_before, due};
use super::holder::other_holder;
use super::model::{Due, Memory, Observed, RoleState, ServiceAccountState, Unresolved, View};
use super::role::{Target, inline};
use crate::aws::accounts::Account;
use crate::aws::error::{AwsError, Class};
use crate::aws::inventory;
use crate::aws::model::{Role, RolePolicies};
use crate::clock::Clock;
use crate::context::Context;
use crate::pods::model::{PodsState, WORKLOADS, WorkloadRef};
use crate::pods::restart::{self, Restart};
use crate::timings::Timings;

/// Makes the reads that are due. The others come from memory; a failed read forgets nothing.
pub async fn observe(
    context: &Context,
    account: Option<&Account>,
    view: &View,
    memory: &mut Memory,
    clock: &Clock,
) -> Result<Observed, kube::Error> {
    let Context { client, timings, pods, listings, .. } = context;
    let mut listed = None;
    if let Ok(target) = &view.target {
        let arn = names::hash_of(&target.arn);
        if memory.role_arn != Some(arn) {
            memory.role_arn = Some(arn);
            (memory.role, memory.policies, memory.absent_since, memory.in_spec) = (None, None, None, None);
            memory.no_earlier_role = false;
        }
        let place = view.place(target);
        // The first pass of this process: an earlier one has read the role, and the list shows whether it has changed.
        let begins = !memory.begun && memory.in_spec.is_none() && view.was_in_spec();
        memory.begun = true;
        if begins {
            // Without a list the roles are read.
            let _ = tokio::time::timeout(timings.aws_call_timeout, listings.begun()).await;
        }
        listed = listings.get(&place, &target.name);
        if begins {
            memory.in_spec = as_before(view, target, listed, clock, timings);
        }
    }
    let due = due(view, memory, listed, clock, timings);
    let service_account =
        service_account(client, &view.object.namespace, &view.spec().service_account_name).await?;
    let role = match (&view.target, account) {
        (Ok(_), Some(_)) if !due.role && memory.in_spec.is_some() && view.wants_role() => {
            Ok(Some(RoleState::AsSpecified))
        }
        (Ok(target), Some(account)) => role(account, target, memory, due, clock, timings).await,
        (Err(Unresolved::Account(error)), _) => {
            // A read that is due and cannot be made stays due. Without a kept role, `due` decides by the list once the account is known.
            memory.reads_again |= due.role && memory.role.is_some();
            Err(error.clone())
        }
        (Err(Unresolved::NoIssuer), _) => {
            memory.reads_again |= due.role && memory.role.is_some();
            Ok(None)
        }
        (Err(Unresolved::NotNeeded | Unresolved::Abandoned), _) | (Ok(_), None) => Ok(None),
    };
    let known = view.target.as_ref().ok().zip(account);
    let changes = known.map(|(target, account)| account.role_changes(&target.name)).unwrap_or_default();
    let mut observed =
        Observed { role, changes, service_account, pods: PodsState::NotKnown, restarts: Vec::new() };
    // The pods of a `ServiceAccount` that another binding holds are compared with that one.
    if other_holder(view, &observed).is_none() {
        let key = (view.object.namespace.clone(), view.spec().service_account_name.clone());
        if let Some(expected) = view.expected() {
            observed.pods = pods.of(&key, &expected).await;
            observed.restarts = restarts(client, view, &observed.pods, memory, clock, timings).await;
        } else {
            pods.store.forget(&key);
        }
    }
    Ok(observed)
}

/// The workloads to restart, of those that come next: each pass looks at a part of many. One that cannot be read is not read again for a
/// while.
async fn restarts(
    client: &Client,
    view: &View,
    pods: &PodsState,
    memory: &mut Memory,
    clock: &Clock,
    timings: &Timings,
) -> Vec<WorkloadRef> {
    let PodsState::Known(found) = pods else { return Vec::new() };
    if !view.restarts_workloads() || !view.object.was_ready {
        (memory.restart_refused, memory.restart_after) = (None, None);
        return Vec::new();
    }
    let is_recent = |at: Instant| at < clock.instant && clock.since(at) < timings.look_again();
    if memory.restart_refused.as_ref().is_some_and(|refused| is_recent(refused.1)) {
        return Vec::new();
    }
    memory.restart_refused = None;
    let (namespace, account) = (&view.object.namespace, &view.spec().service_account_name);
    let uid = view.binding.uid().unwrap_or_default();
    let mut restarts = Vec::new();
    let after = memory.restart_after.take();
    let (first, rest): (Vec<_>, Vec<_>) =
        found.workloads.iter().partition(|workload| after.as_deref().is_none_or(|after| *workload > after));
    for workload in first.into_iter().chain(rest).take(WORKLOADS) {
        memory.restart_after = (found.workloads.len() > WORKLOADS).then(|| Box::new(workload.clone()));
        match restart::state(client, namespace, account, workload, &uid).await {
            Ok(Restart::Due) => restarts.push(workload.clone()),
            Ok(Restart::Done | Restart::NotConcerned) => {}
            Err(error) => memory.restart_refused = Some(Box::new((restart::refusal(&error), clock.instant))),
        }
    }
    restarts
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
        // If the read fails, it is still due in the next pass.
        memory.reads_again = true;
        // IAM may still show a role for a moment that this process has deleted.
        let changes = account.role_changes(&target.name);
        let was_deleted =
            |role: &Role| changes.deletion_of(role).is_some_and(|at| clock.since(at) < timings.role_settling);
        let found = inventory::role(&account.iam, &target.path, &target.name).await?;
        let found = found.filter(|role| !was_deleted(role));
        let is_ours = found.as_ref().is_some_and(|role| target.owns(role).is_ok());
        memory.absent_since = (!is_ours).then(|| memory.absent_since.unwrap_or(clock.instant));
        memory.role = Some((found.map(Box::new), clock.instant));
        // Policies that were read before are those of another time, also where the next read of them fails.
        (memory.in_spec, memory.policies) = (None, None);
        memory.put_inline = Vec::new();
    }
    let Some((role, _)) = &memory.role else { return Ok(None) };
    let Some(role) = role else {
        memory.reads_again = false;
        return Ok(Some(RoleState::Missing));
    };
    // The policies of a role that has another owner are not read.
    if due.policies && target.owns(role).is_ok() {
        match policies(account, target, &memory.put_inline).await {
            Ok(read) => {
                memory.policies = Some(Box::new((read, clock.instant)));
                memory.put_inline = Vec::new();
            }
            Err(error) => {
                // It was deleted after it was read.
                if error.class == Class::NotFound {
                    memory.role = None;
                }
                return Err(error);
            }
        }
    }
    memory.reads_again = false;
    let policies = memory.policies.as_ref().map(|policies| policies.0.clone());
    Ok(Some(RoleState::Found((**role).clone(), policies)))
}

/// What is attached to the role. The document of a managed policy is read only where the policy is not specified: it says whether it may
/// stay. An inline document that this process has put since its last read is not read: IAM has answered that it is stored.
async fn policies(account: &Account, target: &Target, put: &[u64]) -> Result<RolePolicies, AwsError> {
    let (iam, role) = (&account.iam, &target.name);
    let (attached, listed) = tokio::try_join!(iam.attached(role), iam.inline(role))?;
    let mut policies = RolePolicies::default();
    for arn in attached {
        let is_specified = target.attached.contains(&arn);
        let document = if is_specified { None } else { iam.policy_document(&arn).await? };
        // A policy cannot be deleted while it is attached: that there is none is late.
        if is_specified || document.is_some() {
            policies.attached.insert(arn, document);
        } else {
            policies.unread_attached.insert(arn);
        }
    }
    for name in listed {
        let specified =
            target.inline.get(&name).filter(|document| put.contains(&inline::digest(&name, document)));
        let document = match specified {
            Some(document) => Some(document.to_string()),
            None => iam.inline_document(role, &name).await?,
        };
        match document {
            Some(document) => drop(policies.inline.insert(name, document)),
            None => drop(policies.unread_inline.insert(name)),
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
    let path = ServiceAccount::url_path(&(), Some(namespace));
    let mut request =
        Request::new(path).get_metadata(name, &GetParams::default()).map_err(kube::Error::BuildRequest)?;
    request.extensions_mut().insert(ManagedFields);
    let found = match client.request::<Found>(request).await {
        Ok(found) => found.metadata,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(ServiceAccountState {
        ours: owned_annotations(&found),
        uid: found.uid,
        version: found.resource_version,
        annotations: found.annotations,
    }))
}

/// The metadata of a `ServiceAccount`. Of `managedFields` the times are not read: users may write some that cannot be decoded.
#[derive(Deserialize)]
struct Found {
    metadata: FoundMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FoundMetadata {
    uid: String,
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<FieldManager>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FieldManager {
    manager: Option<String>,
    fields_v1: Option<serde_json::Value>,
}

/// Server-side apply's bookkeeping: which annotations our field manager owns.
fn owned_annotations(found: &FoundMetadata) -> Vec<String> {
    let mut keys: Vec<String> = found
        .managed_fields
        .iter()
        .filter(|entry| entry.manager.as_deref() == Some(MANAGER_ANNOTATION))
        .filter_map(|entry| entry.fields_v1.as_ref()?.pointer("/f:metadata/f:annotations")?.as_object())
        .flat_map(|fields| fields.keys().filter_map(|key| key.strip_prefix("f:").map(str::to_owned)))
        .collect();
    keys.sort_unstable();
    keys
}
