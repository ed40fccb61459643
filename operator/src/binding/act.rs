//! The only place of the binding's reconcile that changes the world: one step, one remote call.

use std::collections::BTreeMap;

use crds::PodIdentityBinding;
use crds::names::MANAGER_ANNOTATION;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use thiserror::Error;

use crate::aws::iam::Role;
use crate::aws::{Aws, AwsError};
use crate::finalizer;

use super::decide::Step;

/// Why a step failed.
#[derive(Debug, Error)]
pub enum ActError {
    /// AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The API server.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

/// What a step left behind.
#[derive(Debug)]
pub enum Done {
    /// Something in the cluster was changed.
    Cluster,
    /// The role was made, and this is how it stands.
    Created(Role),
    /// The role itself was changed or removed.
    Role,
    /// What is attached to it was changed.
    Policies,
    /// Somebody else owns the annotations of the `ServiceAccount` of that version.
    Conflict {
        /// The version.
        version: String,
        /// For the user: who owns them.
        owner: String,
    },
}

/// Carries out one step on the role of that name.
pub async fn step(
    step: &Step,
    object: &PodIdentityBinding,
    role: &str,
    client: &Client,
    aws: &Aws,
) -> Result<Done, ActError> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<PodIdentityBinding> = Api::namespaced(client.clone(), &namespace);
    let iam = &aws.iam;
    Ok(match step {
        Step::AddFinalizer => finalizer::add(&api, object).await.map(|()| Done::Cluster)?,
        Step::RemoveFinalizer => finalizer::remove(&api, object).await.map(|()| Done::Cluster)?,
        Step::CreateRole(new) => Done::Created(iam.create_role(new).await?),
        Step::PutTrust(document) => iam.put_trust(role, &document.to_string()).await.map(|()| Done::Role)?,
        Step::PutBoundary(arn) => iam.put_boundary(role, arn).await.map(|()| Done::Role)?,
        Step::Attach(arn) => iam.attach(role, arn).await.map(|()| Done::Policies)?,
        Step::Detach(arn) => iam.detach(role, arn).await.map(|()| Done::Policies)?,
        Step::DeleteInline(name) => iam.delete_inline(role, name).await.map(|()| Done::Policies)?,
        Step::DeleteRole => iam.delete_role(role).await.map(|()| Done::Role)?,
        Step::Annotate { uid, version, annotations } => {
            let account = &object.spec.service_account_name;
            annotate(client, &namespace, account, uid, version, annotations).await?
        }
    })
}

/// Server-side apply, with the observed uid (it could otherwise create the `ServiceAccount`) and never forced.
async fn annotate(
    client: &Client,
    namespace: &str,
    name: &str,
    uid: &str,
    version: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<Done, kube::Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": annotations},
    });
    let parameters = PatchParams::apply(MANAGER_ANNOTATION);
    match api.patch_metadata(name, &parameters, &Patch::Apply(patch)).await {
        Ok(_) => Ok(Done::Cluster),
        Err(kube::Error::Api(status)) if status.is_conflict() => match field_owner(&status) {
            Some(owner) => Ok(Done::Conflict { version: version.to_owned(), owner }),
            // Another uid: it was deleted, and perhaps made anew. Its watch wakes us.
            None => Ok(Done::Cluster),
        },
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Done::Cluster),
        Err(error) => Err(error),
    }
}

/// Who owns the fields an apply was refused for.
fn field_owner(status: &Status) -> Option<String> {
    let causes = &status.details.as_ref()?.causes;
    let cause = causes.iter().find(|cause| cause.reason == "FieldManagerConflict")?;
    Some(format!(
        "{} on {}: remove the annotation there, or leave it; pods get the binding's role either way",
        cause.message, cause.field
    ))
}
