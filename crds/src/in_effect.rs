//! Which issuer and which audience the pods of a binding get, whatever its specification asks for. Operator and webhook share the rule,
//! so that the operator expects of a pod what the webhook gives it.
//!
//! While a binding has a role and its specification is not in effect, the status counts: a specification that the operator refuses, for
//! whatever reason, takes no new pod away from the role's trust policy.

use crate::condition::ConditionType;
use crate::conditions::is_true;
use crate::holder::Claim;
use crate::names::DEFAULT_AUDIENCE;
use crate::{PodIdentityBinding, PodIdentityBindingStatus};

/// The audience for the pods of a binding; `None` is the first one of its issuer.
#[must_use]
pub fn audience(binding: &PodIdentityBinding) -> Option<&str> {
    match trusted(binding) {
        Some(status) => Some(status.audience.as_deref().unwrap_or(DEFAULT_AUDIENCE)),
        None => binding.spec.audience.as_deref(),
    }
}

/// Name of the `OidcIssuer` whose tokens and region pods get. Of a binding that makes a role, its grants hold for the role, too.
#[must_use]
pub fn issuer(binding: &PodIdentityBinding) -> &str {
    match trusted(binding) {
        Some(PodIdentityBindingStatus { issuer: Some(issuer), .. }) => issuer,
        Some(_) | None => binding.spec.issuer_name(),
    }
}

/// Name of the `OidcIssuer` under which the role exists that the operator made for the binding. It differs from [`issuer`] only with
/// `spec.roleARN`, while an earlier role has not ended.
#[must_use]
pub fn issuer_of_role(binding: &PodIdentityBinding) -> &str {
    let has_earlier_role = binding.spec.role_arn.is_some() && binding.has_role();
    let of_earlier_role = || binding.status.as_ref().filter(|_| has_earlier_role)?.issuer.as_deref();
    of_earlier_role().unwrap_or_else(|| issuer(binding))
}

/// Whether a binding uses an issuer, or asks for it.
#[must_use]
pub fn uses_issuer(binding: &PodIdentityBinding, name: &str) -> bool {
    binding.spec.issuer_name() == name || issuer_of_role(binding) == name
}

/// The status of a binding that has a role and whose specification, as it is now, the operator has not brought into effect.
fn trusted(binding: &PodIdentityBinding) -> Option<&PodIdentityBindingStatus> {
    let status = binding.status.as_ref()?;
    let makes_role = binding.spec.role_arn.is_none();
    (makes_role && binding.has_role() && !is_ready(binding)).then_some(status)
}

/// Whether the status says that the specification, as it is now, is in effect.
#[must_use]
pub fn is_ready(binding: &PodIdentityBinding) -> bool {
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
        let moved = json!({"name": "next"});
        let role = json!({"serviceAccountName": "app", "issuerRef": moved, "audience": "vault", "role": {}});
        let first = json!({"serviceAccountName": "app", "issuerRef": moved, "role": {}});
        let used =
            json!({"serviceAccountName": "app", "issuerRef": moved, "audience": "vault", "roleARN": "arn"});
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
                    "observedGeneration": generation, "roleName": role_name, "audience": trusted, "issuer": trusted, "conditions": ready,
                },
            });
            let binding: PodIdentityBinding = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(audience(&binding), expected, "{object}");
            // The issuer follows the same rule.
            let counts = matches!(expected, Some("former" | DEFAULT_AUDIENCE));
            let counts = counts && trusted.is_some();
            assert_eq!(issuer(&binding), if counts { "former" } else { "next" }, "{object}");
            // That of an earlier role, too.
            let is_in_use = counts || spec == &used && role_name.is_some();
            assert_eq!((uses_issuer(&binding, "next"), uses_issuer(&binding, "former")), (true, is_in_use));
        }
    }
}
