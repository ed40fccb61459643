//! Adding and removing our finalizer. Both writes are idempotent; the plans decide when they are made.

use std::fmt::Debug;

use crds::names::{FINALIZER, MANAGER_FINALIZER};
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;

/// Adds our finalizer to the object. The patch replaces the whole list of finalizers, so it carries the resource version: the
/// API server answers Conflict if the object has changed since it was read.
pub async fn add<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(FINALIZER.to_owned());
    set(api, object, &finalizers).await
}

/// Removes our finalizer from the object; no error if the object no longer exists. Conflict as in [`add`].
pub async fn remove<K>(api: &Api<K>, object: &K) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let finalizers: Vec<String> = object.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
    match set(api, object, &finalizers).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other,
    }
}

async fn set<K>(api: &Api<K>, object: &K, finalizers: &[String]) -> Result<(), kube::Error>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let metadata =
        json!({"uid": object.uid(), "resourceVersion": object.resource_version(), "finalizers": finalizers});
    let patch = Patch::Merge(json!({"metadata": metadata}));
    let parameters =
        PatchParams { field_manager: Some(MANAGER_FINALIZER.to_owned()), ..PatchParams::default() };
    api.patch_metadata(&object.name_any(), &parameters, &patch).await.map(|_| ())
}
