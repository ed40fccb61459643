//! PURE: which `ServiceAccount`s are in container-credentials mode: the file `{"identities": [{"namespace": …,
//! "serviceAccount": …}]}` that EKS Pod Identity's control plane writes for the EKS webhook.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The `ServiceAccount`s, by namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerCredentialsList(HashMap<Box<str>, HashSet<Box<str>>>);

#[derive(Deserialize)]
struct ListFile {
    #[serde(default)]
    identities: Vec<ListedServiceAccount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListedServiceAccount {
    namespace: Box<str>,
    service_account: Box<str>,
}

impl ContainerCredentialsList {
    /// Reads the file; an error where it is not that JSON, so that a file that is being written changes nothing.
    pub fn read(content: &[u8]) -> Result<Self, serde_json::Error> {
        // An object first of all: serde would also accept a list of the fields in their order.
        let file: Map<String, Value> = serde_json::from_slice(content)?;
        let file: ListFile = serde_json::from_value(file.into())?;
        let mut identities = Self::default();
        for ListedServiceAccount { namespace, service_account } in file.identities {
            identities.0.entry(namespace).or_default().insert(service_account);
        }
        Ok(identities)
    }

    /// Whether the `ServiceAccount` is among them.
    #[must_use]
    pub fn contains(&self, namespace: &str, service_account: &str) -> bool {
        self.0.get(namespace).is_some_and(|names| names.contains(service_account))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(HashSet::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
