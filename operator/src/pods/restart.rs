//! Restarts what made pods that run without the identity, as `kubectl rollout restart` does: by an annotation of the pod template.

use crds::names::{MANAGER_RESTART, RESTARTED_AT_ANNOTATION, RESTARTED_FOR_ANNOTATION};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::model::{WorkloadKind, WorkloadRef};

/// Whether a workload is to be restarted for a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It is: its pods use the `ServiceAccount`, and it was not restarted for the binding before.
    Due,
    /// It was restarted for the binding before.
    Done,
    /// It does not exist, or its pods use another `ServiceAccount`: who made the pod has named a wrong owner.
    NotConcerned,
}

/// Reads whether a workload is to be restarted for the binding of that uid.
pub async fn state(
    client: &Client,
    namespace: &str,
    service_account: &str,
    workload: &WorkloadRef,
    uid: &str,
) -> Result<Restart, kube::Error> {
    let Some(found) = api(client, namespace, workload.kind).get_opt(&workload.name).await? else {
        return Ok(Restart::NotConcerned);
    };
    let template = found.data.pointer("/spec/template");
    let text =
        |pointer: &str| template.and_then(|template| template.pointer(pointer)).and_then(Value::as_str);
    if text("/spec/serviceAccountName") != Some(service_account) {
        return Ok(Restart::NotConcerned);
    }
    let key = RESTARTED_FOR_ANNOTATION.replace('/', "~1");
    let is_done = text(&format!("/metadata/annotations/{key}")) == Some(uid);
    Ok(if is_done { Restart::Done } else { Restart::Due })
}

/// Restarts it. The annotation with the binding's uid is written by the same request, so that it is never restarted twice.
pub async fn restart(
    client: &Client,
    namespace: &str,
    workload: &WorkloadRef,
    uid: &str,
) -> Result<(), kube::Error> {
    // Whole seconds, as kubectl writes it.
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default().to_string();
    let annotations = json!({RESTARTED_AT_ANNOTATION: now, RESTARTED_FOR_ANNOTATION: uid});
    let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
    let parameters = PatchParams { field_manager: Some(MANAGER_RESTART.into()), ..PatchParams::default() };
    api(client, namespace, workload.kind).patch(&workload.name, &parameters, &Patch::Merge(patch)).await?;
    tracing::info!(namespace, kind = workload.kind.as_str(), name = &*workload.name, "restarted");
    Ok(())
}

/// Why it could not be read or restarted, and what to do.
#[must_use]
pub fn refusal(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 403 => format!(
            "{}: the operator has that right only where the chart's value operator.restartMissing is true",
            status.message
        ),
        error => error.to_string(),
    }
}

fn api(client: &Client, namespace: &str, kind: WorkloadKind) -> Api<DynamicObject> {
    let resource = match kind {
        WorkloadKind::Deployment => ApiResource::erase::<Deployment>(&()),
        WorkloadKind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
        WorkloadKind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
    };
    Api::namespaced_with(client.clone(), namespace, &resource)
}
