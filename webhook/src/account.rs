//! A `ServiceAccount` as it is asked for and read: its metadata only, and of that only what counts. `managedFields` alone
//! is most of what the API server sends, and a cluster has a hundred thousand of these.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// Metadata of a `ServiceAccount`: name, namespace, resource version and annotations.
#[derive(Debug, Clone, Default)]
pub struct Account(ObjectMeta);

impl Resource for Account {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "ServiceAccount".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "serviceaccounts".into()
    }

    /// Asks for `PartialObjectMetadata`.
    fn metadata_api() -> bool {
        true
    }

    fn meta(&self) -> &ObjectMeta {
        &self.0
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.0
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            name: Option<String>,
            namespace: Option<String>,
            resource_version: Option<String>,
            annotations: Option<BTreeMap<String, String>>,
        }
        let Object { metadata: Metadata { name, namespace, resource_version, annotations } } =
            Object::deserialize(deserializer)?;
        Ok(Self(ObjectMeta { name, namespace, resource_version, annotations, ..ObjectMeta::default() }))
    }
}
