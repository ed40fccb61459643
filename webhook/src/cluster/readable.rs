//! Custom resources that this version of the program may not be able to read.

use kube::Resource;
use kube::core::DeserializeGuard;

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
