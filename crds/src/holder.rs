//! Which of several `PodIdentityBinding`s on one `ServiceAccount` holds it, and which one follows. Operator and webhook share
//! the rules, so that a pod never gets the ARN of a role that the operator will not make.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::PodIdentityBinding;
use crate::names::FINALIZER;

/// A binding, as far as the rules look at it.
pub trait Claim {
    /// `metadata.creationTimestamp`; `None` comes before every time.
    fn created(&self) -> Option<Timestamp>;
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// Whether a role of its own was observed: `status.roleName`.
    fn has_role(&self) -> bool;
    /// Whether it has our finalizer: the operator acts on it, or has just handed a role over to it, which IAM may still show as
    /// its former owner's.
    fn is_acted_on(&self) -> bool;
    /// Whether its deletion was requested.
    fn deleting(&self) -> bool;
    /// Whether the role of the holder can become its own: it makes one, and nothing keeps it from being acted on.
    fn can_take_over(&self) -> bool;
}

/// The claim that holds a `ServiceAccount`, of all that name it: the one that has the role; otherwise the one that the operator
/// acts on; otherwise the oldest; of two made in one second, the one whose name comes first. A binding that is being deleted
/// holds its `ServiceAccount` until its deletion ends.
#[must_use]
pub fn holder<'a, C: Claim + ?Sized>(claims: impl IntoIterator<Item = &'a C>) -> Option<&'a C> {
    let order = |claim: &&'a C| (!claim.has_role(), !claim.is_acted_on(), claim.created(), claim.name());
    claims.into_iter().min_by_key(order)
}

/// The claim that the role is handed over to when the holder is deleted. Without one, the role ends with its holder.
#[must_use]
pub fn heir<'a, C: Claim + ?Sized>(claims: impl IntoIterator<Item = &'a C>) -> Option<&'a C> {
    holder(claims.into_iter().filter(|claim| !claim.deleting() && claim.can_take_over()))
}

impl Claim for PodIdentityBinding {
    fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp().map(|time| time.0)
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn has_role(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.role_name.is_some())
    }

    fn is_acted_on(&self) -> bool {
        self.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
    }

    fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn can_take_over(&self) -> bool {
        self.spec.role.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Named(&'static str, i64, &'static str);

    impl Claim for Named {
        fn created(&self) -> Option<Timestamp> {
            Timestamp::from_second(self.1).ok()
        }

        fn name(&self) -> &str {
            self.0
        }

        fn has_role(&self) -> bool {
            self.2.contains("role")
        }

        fn is_acted_on(&self) -> bool {
            self.2.contains("finalizer")
        }

        fn deleting(&self) -> bool {
            self.2.contains("deleting")
        }

        fn can_take_over(&self) -> bool {
            !self.2.contains("elsewhere")
        }
    }

    #[test]
    fn the_one_with_the_role_holds_then_the_one_that_is_acted_on_then_the_oldest_then_the_first_by_name() {
        let holds = |claims: &[Named]| holder(claims).map(|claim| claim.0);
        assert_eq!(holds(&[]), None);
        assert_eq!(holds(&[Named("a", 2, ""), Named("b", 1, ""), Named("c", 3, "")]), Some("b"));
        assert_eq!(holds(&[Named("b", 1, ""), Named("a", 1, "")]), Some("a"));
        assert_eq!(holds(&[Named("b", 1, "role"), Named("a", 1, "")]), Some("b"));
        assert_eq!(holds(&[Named("b", 2, "role"), Named("a", 1, "")]), Some("b"));
        assert_eq!(holds(&[Named("b", 2, "role deleting"), Named("a", 1, "")]), Some("b"));
        // The role was handed over to it.
        assert_eq!(holds(&[Named("b", 2, "finalizer"), Named("a", 1, "")]), Some("b"));
        assert_eq!(holds(&[Named("c", 3, "role"), Named("b", 2, "finalizer"), Named("a", 1, "")]), Some("c"));
    }

    #[test]
    fn the_role_goes_to_the_next_that_makes_it_and_is_not_being_deleted() {
        let follows = |claims: &[Named]| heir(claims).map(|claim| claim.0);
        let old = Named("old", 1, "role deleting");
        assert_eq!(follows(&[old]), None);
        assert_eq!(follows(&[old, Named("b", 3, ""), Named("a", 2, "")]), Some("a"));
        assert_eq!(follows(&[old, Named("b", 2, "deleting"), Named("c", 3, "")]), Some("c"));
        assert_eq!(follows(&[old, Named("b", 2, "elsewhere")]), None);
    }
}
