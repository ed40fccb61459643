//! All reads of a binding's reconcile: its role in IAM and its `ServiceAccount`, and what is remembered of the role.

use std::collections::BTreeMap;
use std::time::Instant;

use crds::names::MANAGER_ANNOTATION;
use k8s_openapi::api::core::v1::ServiceAccount as ServiceAccountObject;
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};

use crate::aws::iam::Role;
use crate::aws::{Aws, AwsError, Identity};

use super::decide::{Due, Step};
use super::target::{Subject, Target};

/// What one look at the world gave.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Who we are in AWS.
    pub identity: Result<Identity, AwsError>,
    /// The role; the outer `None` where it was not looked for.
    pub role: Result<Option<RoleState>, AwsError>,
    /// The `ServiceAccount`, if it exists.
    pub account: Option<Account>,
}

/// Whether a role stands, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleState {
    /// No role of that name.
    Missing,
    /// The role, and its policies where they were read.
    Found(Role, Option<Policies>),
}

/// What is attached to a role, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// ARNs of managed policies.
    pub attached: Vec<String>,
    /// Names of inline policies.
    pub inline: Vec<String>,
}

/// A `ServiceAccount`, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its uid: an apply without it would create the `ServiceAccount` anew.
    pub uid: String,
    /// Its version, by which a refused apply is told from one worth trying.
    pub version: String,
    /// All annotations.
    pub annotations: BTreeMap<String, String>,
    /// Keys of the annotations that are ours by server-side apply.
    pub ours: Vec<String>,
}

/// What is remembered of one binding between reconciles. Lost with the process, and then read again.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Whether this process has acted on the binding: a role may exist although the cached object has no finalizer yet.
    pub acted: bool,
    /// Generation of the spec that the reads were made for.
    pub generation: i64,
    /// The role (`None`: there is none) and when it was read.
    pub role: Option<(Option<Role>, Instant)>,
    /// Its policies and when they were read.
    pub policies: Option<(Policies, Instant)>,
    /// The last refused apply of annotations: the `ServiceAccount`'s version, and who owns them.
    pub conflict: Option<(String, String)>,
    /// What the last pass did.
    pub steps: Option<Vec<Step>>,
    /// Whether a role of an earlier generation of the spec is known to be gone.
    pub swept: bool,
    /// Whether our finalizer is off: the cached object may outlive it by a moment, and nothing is left to be done for it.
    pub gone: bool,
}

/// Looks. Reads that are not due come from memory; a failed read forgets nothing.
pub async fn observe(
    client: &Client,
    aws: &Aws,
    subject: &Subject<'_>,
    memory: &mut Memory,
    due: Due,
) -> Result<Observed, kube::Error> {
    let account = account(client, subject).await?;
    let identity = aws.identity().await.cloned();
    let role = match (&identity, subject.target(&identity)) {
        (Err(error), _) => Err(error.clone()),
        (Ok(_), None) => Ok(None),
        (Ok(_), Some(target)) => role(aws, &target, memory, due).await,
    };
    Ok(Observed { identity, role, account })
}

async fn role(
    aws: &Aws,
    target: &Target,
    memory: &mut Memory,
    due: Due,
) -> Result<Option<RoleState>, AwsError> {
    if due.role {
        memory.role = Some((aws.iam.role(&target.role_name).await?, Instant::now()));
    }
    let Some((role, _)) = &memory.role else { return Ok(None) };
    let Some(role) = role else { return Ok(Some(RoleState::Missing)) };
    // A stranger's role is none of our business.
    if due.policies && target.owns(role).is_ok() {
        let (mut attached, mut inline) =
            tokio::try_join!(aws.iam.attached(&target.role_name), aws.iam.inline(&target.role_name))?;
        attached.sort_unstable();
        inline.sort_unstable();
        memory.policies = Some((Policies { attached, inline }, Instant::now()));
    }
    Ok(Some(RoleState::Found(role.clone(), memory.policies.as_ref().map(|(policies, _)| policies.clone()))))
}

/// One GET instead of a cache of every `ServiceAccount` of the cluster: it is asked for on changes and at a role's age.
async fn account(client: &Client, subject: &Subject<'_>) -> Result<Option<Account>, kube::Error> {
    let api: Api<ServiceAccountObject> = Api::namespaced(client.clone(), subject.namespace);
    let found = api.get_metadata_opt(&subject.spec.service_account_name).await?;
    Ok(found.map(|found: PartialObjectMeta<ServiceAccountObject>| Account {
        uid: found.uid().unwrap_or_default(),
        version: found.resource_version().unwrap_or_default(),
        ours: owned_annotations(&found),
        annotations: found.metadata.annotations.unwrap_or_default(),
    }))
}

/// Server-side apply's bookkeeping: which annotations our field manager owns.
fn owned_annotations(object: &PartialObjectMeta<ServiceAccountObject>) -> Vec<String> {
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
