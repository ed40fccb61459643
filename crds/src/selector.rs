//! Which labels a selector selects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// Whether a selector selects an object with these labels. The empty one selects everything; one with an operator that Kubernetes
/// does not have selects nothing.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::try_from(selector.clone()).is_ok_and(|selector| selector.matches(labels))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_selected_as_in_kubernetes() {
        let labels = BTreeMap::from([("team".to_owned(), "vault".to_owned()), ("env".into(), "prod".into())]);
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"team": "vault"}}), true),
            (json!({"matchLabels": {"team": "vault", "env": "test"}}), false),
            (json!({"matchLabels": {"owner": "x"}}), false),
            (
                json!({"matchExpressions": [{"key": "env", "operator": "In", "values": ["test", "prod"]}]}),
                true,
            ),
            (json!({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}), false),
            (json!({"matchExpressions": [{"key": "owner", "operator": "NotIn", "values": ["x"]}]}), true),
            (json!({"matchExpressions": [{"key": "team", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "team", "operator": "Like", "values": ["v"]}]}), false),
        ] {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(&parsed, &labels), expected, "{selector}");
        }
    }
}
