//! Custom resources that this version of the program may not be able to read.

use crds::OidcIssuer;
use kube::core::DeserializeGuard;
use kube::{Resource, ResourceExt};

use crate::identity::facts::IssuerFacts;

/// What is kept of an issuer; only its name if it cannot be read.
pub fn issuer_facts(guard: &DeserializeGuard<OidcIssuer>) -> IssuerFacts {
    readable("OidcIssuer", guard)
        .map_or_else(|| IssuerFacts::unreadable(&guard.name_any()), IssuerFacts::from)
}

/// The object, unless it has a form that this program does not know: then it is logged and ignored, so that it does not
/// hide all others.
pub fn readable<K: Resource<DynamicType = ()> + Clone>(kind: &str, guard: &DeserializeGuard<K>) -> Option<K> {
    match &guard.0 {
        Ok(object) => Some(object.clone()),
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace.as_deref(), invalid.metadata.name.as_deref());
            tracing::warn!(kind, namespace, name, "an object cannot be read and is ignored");
            None
        }
    }
}
