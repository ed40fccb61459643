//! PURE: what of a binding is kept: there may be tens of thousands, and they are in memory all the time.

use crds::PodIdentityBinding;
use crds::conditions::Messages;
use crds::names::RESTART_ANNOTATION;

use crate::model::Version;

/// Drops what nothing reads: labels, and annotations of others (`kubectl apply` keeps the whole object in one of them). Messages that
/// another binding has, too, are kept once.
pub fn keep_what_is_read(binding: &mut PodIdentityBinding, messages: &mut Messages) {
    if let Some(status) = &mut binding.status {
        status.conditions.share(messages);
    }
    let metadata = &mut binding.metadata;
    metadata.labels = None;
    metadata.annotations = metadata.annotations.take().and_then(|mut annotations| {
        annotations
            .retain(|name, _| name == RESTART_ANNOTATION || Version::ANNOTATIONS.contains(&name.as_str()));
        (!annotations.is_empty()).then_some(annotations)
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_decisions_read_is_kept() {
        let object = |annotations| {
            json!({
                "apiVersion": "podidentity.dev/v1alpha1", "kind": "PodIdentityBinding",
                "metadata": {"name": "app", "namespace": "n", "finalizers": ["f"], "annotations": annotations},
                "spec": {"serviceAccountName": "app", "role": {"policyARNs": ["arn:aws:iam::aws:policy/A"]}},
                "status": {"conditions": [{
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }], "roleDigest": "d"},
            })
        };
        let read =
            json!({RESTART_ANNOTATION: "true", Version::ANNOTATIONS[0]: "a", Version::ANNOTATIONS[1]: "b"});
        let mut applied = read.clone();
        applied["kubectl.kubernetes.io/last-applied-configuration"] = json!("{}");
        let mut with_more = object(applied);
        with_more["metadata"]["labels"] = json!({"team": "a"});
        let mut messages = Messages::default();
        let mut keep = || {
            let mut binding: PodIdentityBinding = serde_json::from_value(with_more.clone()).unwrap();
            keep_what_is_read(&mut binding, &mut messages);
            binding
        };
        let (binding, second) = (keep(), keep());
        let message = |binding: &PodIdentityBinding| {
            Arc::clone(&binding.status.as_ref().unwrap().conditions[0].message)
        };
        assert!(Arc::ptr_eq(&message(&binding), &message(&second)), "one message in memory");
        let expected: PodIdentityBinding = serde_json::from_value(object(read)).unwrap();
        assert_eq!(serde_json::to_value(&binding).unwrap(), serde_json::to_value(&expected).unwrap());
    }
}
