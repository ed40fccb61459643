//! The steps that only bindings have: the digest in the status, annotations on the `ServiceAccount`, the finalizer of the binding that a
//! role is handed over to, and restarts of workloads.

use crds::names::{FINALIZER, MANAGER_ANNOTATION, MANAGER_FINALIZER, MANAGER_STATUS};
use crds::{Finding, PodIdentityBinding, Reason};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Patch, PatchParams};
use kube::core::Status;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::model::{Annotate, Refusal, Shown, View};
use super::role::Heir;
use crate::pods::model::WorkloadRef;
use crate::pods::restart;

/// Takes the digest out of the status, and changes nothing else there: a binding stays Ready while drift is put back. A refusal is logged
/// and stops nothing, since the changes that follow may take rights away. If the binding was made again meanwhile, the only effect is one
/// more read of its role.
pub async fn forget_digest(client: &Client, view: &View) -> Shown {
    let (name, namespace) = (&view.object.name, &view.object.namespace);
    let api: Api<PodIdentityBinding> = Api::namespaced(client.clone(), namespace);
    let parameters = PatchParams { field_manager: Some(MANAGER_STATUS.into()), ..PatchParams::default() };
    let patch = json!({"status": {"roleDigest": null}});
    if let Err(error) = api.patch_status(name, &parameters, &Patch::Merge(patch)).await {
        tracing::warn!(%error, object = name, namespace, "the digest could not be taken out of the status");
    }
    let digest = view.binding.status.as_ref().and_then(|status| status.role_digest.as_deref());
    Shown::DigestForgotten(digest.map(Into::into))
}

/// Server-side apply, with the observed uid (it could otherwise create the `ServiceAccount`) and never forced. A refusal
/// is returned as a result, and the pass continues with its other steps. While the binding is being deleted it is an error: the annotations have to be removed
/// before the finalizer, because no later pass removes them.
pub async fn annotate(client: &Client, view: &View, step: &Annotate) -> Result<Shown, kube::Error> {
    let (namespace, name) = (&view.object.namespace, &view.spec().service_account_name);
    let Annotate { uid, version, annotations } = step;
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let patch = json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "annotations": annotations},
    });
    let parameters = PatchParams::apply(MANAGER_ANNOTATION);
    match api.patch_metadata(name, &parameters, &Patch::Apply(patch)).await {
        Ok(_) => Ok(Shown::Annotated(step.content())),
        // Without an owner in the answer it is another uid: the ServiceAccount was deleted, and perhaps made anew. Its
        // watch wakes the binding.
        Err(kube::Error::Api(status)) if status.is_conflict() => {
            let refusal =
                owned_by_other(&status).map(|finding| Refusal { version: version.clone(), finding });
            Ok(refusal.map_or(Shown::Done, Shown::Refused))
        }
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Shown::Done),
        Err(kube::Error::Api(status)) if is_refused(&status) && !view.object.deleting => {
            tracing::warn!(service_account = name, namespace, error = status.message, "not annotated");
            Ok(Shown::Refused(Refusal { version: version.clone(), finding: not_allowed(&status) }))
        }
        Err(error) => Err(error),
    }
}

/// Puts our finalizer on the heir as it was seen. The API server refuses it where the heir has changed, is being deleted or has
/// ended: then all is decided again.
pub async fn lock(client: &Client, view: &View, heir: &Heir) -> Result<(), kube::Error> {
    let Heir { name, uid, version, finalizers, .. } = heir;
    let api: Api<PodIdentityBinding> = Api::namespaced(client.clone(), &view.object.namespace);
    let mut finalizers = finalizers.clone();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let metadata = json!({"uid": uid, "resourceVersion": version, "finalizers": finalizers});
    let parameters =
        PatchParams { field_manager: Some(MANAGER_FINALIZER.to_owned()), ..PatchParams::default() };
    api.patch_metadata(name, &parameters, &Patch::Merge(json!({"metadata": metadata}))).await.map(|_| ())
}

/// Restarts a workload. That it is refused is said in the status, and fails nothing else.
pub async fn restart(client: &Client, view: &View, workload: &WorkloadRef) -> Shown {
    let uid = view.binding.uid().unwrap_or_default();
    match restart::restart(client, &view.object.namespace, workload, &uid).await {
        Ok(()) => Shown::Done,
        Err(error) => Shown::NotRestarted(restart::refusal(&error)),
    }
}

/// Whether the API server will not do it, although it could: an admission policy or webhook (400 where that gives no code of its own, 500
/// where it does not answer), missing rights, or annotations that are too long together.
fn is_refused(status: &Status) -> bool {
    let by_webhook = || status.message.contains("failed calling webhook");
    matches!(status.code, 400 | 403 | 413 | 422) || (status.code == 500 && by_webhook())
}

/// The owner of the fields that an apply was refused for.
fn owned_by_other(status: &Status) -> Option<Finding> {
    let causes = &status.details.as_ref()?.causes;
    let cause = causes.iter().find(|cause| cause.reason == "FieldManagerConflict")?;
    let message = format!(
        "{} on {}: remove the annotation there, or leave it; pods get the binding's role either way",
        cause.message, cause.field
    );
    Some(Finding::new(Reason::AnnotationOwnedByOther, message))
}

/// What the API server says against the annotations.
fn not_allowed(status: &Status) -> Finding {
    let message = format!(
        "the API server refuses the annotations: {}. Allow the operator to patch the ServiceAccount, or leave it; pods get the binding's \
         role either way",
        status.message
    );
    Finding::new(Reason::AnnotationRefused, message)
}
