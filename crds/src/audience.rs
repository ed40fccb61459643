//! The audience of the tokens that the pods of a binding get. Operator and webhook share the rule, so that the operator expects of a
//! pod what the webhook gives it.

use crate::PodIdentityBinding;
use crate::condition::ConditionType;
use crate::conditions::is_true;
use crate::names::DEFAULT_AUDIENCE;

/// The audience for the pods of a binding: the specified one, or the first of its issuer.
///
/// While a binding has a role and its specification is not [in effect](is_in_effect), pods get the audience that the operator has
/// annotated before: it writes the annotation after the trust policy, so the role trusts that one. A specification that the operator
/// refuses, for whatever reason, changes nothing for new pods.
///
/// `annotated` is the audience in the `ServiceAccount`'s annotations, where that counts and they name the role of the binding.
#[must_use]
pub fn audience<'a>(specified: Option<&'a str>, first: &'a str, annotated: Option<Annotated<'a>>) -> &'a str {
    match annotated {
        Some(Annotated(audience)) => audience.unwrap_or(DEFAULT_AUDIENCE),
        None => specified.unwrap_or(first),
    }
}

/// The audience in the annotations of a `ServiceAccount`. `None` is the default one, for which the operator writes no annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotated<'a>(pub Option<&'a str>);

impl<'a> Annotated<'a> {
    /// From the value of the annotation, which is `None` or empty where there is no audience.
    #[must_use]
    pub fn new(value: Option<&'a str>) -> Self {
        Self(value.filter(|audience| !audience.is_empty()))
    }
}

/// Whether the operator has brought the specification, as it is now, into effect.
#[must_use]
pub fn is_in_effect(binding: &PodIdentityBinding) -> bool {
    binding.status.as_ref().is_some_and(|status| {
        status.observed_generation == binding.metadata.generation
            && is_true(&status.conditions, ConditionType::Ready)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_annotation_of_the_role_comes_before_the_specification() {
        for (specified, annotated, expected) in [
            (None, None, "first"),
            (Some("vault"), None, "vault"),
            (Some("refused"), Some(Annotated::new(Some("vault"))), "vault"),
            (Some("refused"), Some(Annotated::new(None)), DEFAULT_AUDIENCE),
            (Some("refused"), Some(Annotated::new(Some(""))), DEFAULT_AUDIENCE),
            (None, Some(Annotated::new(Some("vault"))), "vault"),
        ] {
            assert_eq!(audience(specified, "first", annotated), expected, "{specified:?} {annotated:?}");
        }
    }

    #[test]
    fn a_specification_is_in_effect_once_the_binding_is_ready_with_it() {
        for (ready, generation, expected) in [("True", 2, true), ("True", 1, false), ("False", 2, false)] {
            let binding: PodIdentityBinding = serde_json::from_value(json!({
                "metadata": {"name": "app", "generation": 2}, "spec": {"serviceAccountName": "app", "role": {}},
                "status": {"observedGeneration": generation, "conditions": [{
                    "type": "Ready", "status": ready, "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
                }]},
            }))
            .unwrap();
            assert_eq!(is_in_effect(&binding), expected, "{ready} {generation}");
        }
    }
}
