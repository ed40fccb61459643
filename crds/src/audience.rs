//! The audience of the tokens that the pods of a binding get. Operator and webhook share the rule, so that the operator expects of a
//! pod what the webhook gives it.

use crate::PodIdentityBinding;
use crate::condition::ConditionType;
use crate::conditions::is_true;
use crate::holder::Claim;
use crate::names::DEFAULT_AUDIENCE;

/// The audience for the pods of a binding; `None` is the first one of its issuer.
///
/// While a binding has a role and its specification is not in effect, pods get the audience that the role trusts
/// (`status.audience`): a specification that the operator refuses, for whatever reason, changes nothing for new pods.
#[must_use]
pub fn audience(binding: &PodIdentityBinding) -> Option<&str> {
    let makes_role = binding.spec.role_arn.is_none();
    match &binding.status {
        Some(status) if makes_role && binding.has_role() && !is_in_effect(binding) => {
            Some(status.audience.as_deref().unwrap_or(DEFAULT_AUDIENCE))
        }
        _ => binding.spec.audience.as_deref(),
    }
}

/// Whether the operator has brought the specification, as it is now, into effect.
fn is_in_effect(binding: &PodIdentityBinding) -> bool {
    binding.status.as_ref().is_some_and(|status| {
        status.observed_generation == binding.metadata.generation
            && is_true(&status.conditions, ConditionType::Ready)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_the_role_trusts_counts_until_the_binding_is_ready_with_its_specification() {
        let role = json!({"serviceAccountName": "app", "audience": "vault", "role": {}});
        let first = json!({"serviceAccountName": "app", "role": {}});
        let used = json!({"serviceAccountName": "app", "audience": "vault", "roleARN": "arn"});
        for (spec, ready, generation, role_name, trusted, expected) in [
            (&role, "True", 2, Some("r"), Some("former"), Some("vault")),
            (&role, "True", 1, Some("r"), Some("former"), Some("former")),
            (&role, "False", 2, Some("r"), Some("former"), Some("former")),
            (&role, "False", 2, Some("r"), None, Some(DEFAULT_AUDIENCE)),
            (&first, "False", 2, Some("r"), Some("former"), Some("former")),
            (&first, "True", 2, Some("r"), Some("former"), None),
            // The binding has no role yet, or uses one that the operator does not make.
            (&role, "False", 2, None, None, Some("vault")),
            (&used, "False", 2, None, None, Some("vault")),
            (&used, "False", 2, Some("r"), Some("former"), Some("vault")),
        ] {
            let ready = json!([{
                "type": "Ready", "status": ready, "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]);
            let object: Value = json!({
                "metadata": {"name": "app", "generation": 2}, "spec": spec,
                "status": {
                    "observedGeneration": generation, "roleName": role_name, "audience": trusted, "conditions": ready,
                },
            });
            let binding: PodIdentityBinding = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(audience(&binding), expected, "{object}");
        }
    }
}
