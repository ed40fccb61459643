//! Which of several `PodIdentityBinding`s on one `ServiceAccount` holds it. Operator and webhook share the rule, so that a
//! pod never gets the ARN of a role that the operator will not make.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::PodIdentityBinding;

/// A binding, as far as the rule looks at it.
pub trait Claim {
    /// `metadata.creationTimestamp`; `None` comes before every time.
    fn created(&self) -> Option<Timestamp>;
    /// `metadata.name`.
    fn name(&self) -> &str;
}

/// The claim that holds a `ServiceAccount`, of all that name it: the oldest; of two made in one second, the one whose name
/// comes first. A binding that is being deleted holds its `ServiceAccount` until its deletion ends.
#[must_use]
pub fn holder<'a, C: Claim + ?Sized>(claims: impl IntoIterator<Item = &'a C>) -> Option<&'a C> {
    claims.into_iter().min_by_key(|claim| (claim.created(), claim.name()))
}

impl Claim for PodIdentityBinding {
    fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp().map(|time| time.0)
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, i64);

    impl Claim for Named {
        fn created(&self) -> Option<Timestamp> {
            Timestamp::from_second(self.1).ok()
        }

        fn name(&self) -> &str {
            self.0
        }
    }

    #[test]
    fn the_oldest_holds_and_of_two_equally_old_the_first_by_name() {
        let holds = |claims: &[Named]| holder(claims).map(|claim| claim.0);
        assert_eq!(holds(&[]), None);
        assert_eq!(holds(&[Named("a", 2), Named("b", 1), Named("c", 3)]), Some("b"));
        assert_eq!(holds(&[Named("b", 1), Named("a", 1)]), Some("a"));
    }
}
