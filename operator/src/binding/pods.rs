//! PURE: the pods of a binding's `ServiceAccount`: which identity they should have, and what the status says of those without it.

use crds::condition::ConditionType;
use crds::conditions::find;
use crds::in_effect;
use crds::names::{self, RESTART_ANNOTATION};
use crds::{MissingPods, Reason};

use super::model::{Observed, RoleState, Trusted, View};
use crate::pods::model::{Expected, PodsState};

impl View {
    /// What the pods of the `ServiceAccount` should have; `None` where that is not known, or where the webhook gives them nothing.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        let status = self.binding.status.as_ref();
        // As the webhook decides.
        let is_refused = status.is_some_and(|status| {
            status.role_arn.is_none() && find(&status.conditions, ConditionType::Stalled).is_some()
        });
        if self.object.deleting
            || self.reserved
            || is_refused
            || self.ready_reason() == Some(Reason::Revoked)
            || self.left_out().is_some()
        {
            return None;
        }
        let (issuer, role_arn) = (self.issuer_of_pods()?, self.role_arn()?);
        let audience = in_effect::audience(&self.binding).unwrap_or(issuer.spec.audience());
        Some(Expected { role_arn: role_arn.into(), audience: audience.into() })
    }

    /// Issuer and audience of the specification, where the role was read and trusts them. During the retention a role trusts the former
    /// ones, too: the caller records nothing of a specification that is refused.
    #[must_use]
    pub fn trusted(&self, observed: &Observed) -> Option<Trusted> {
        let target = self.target.as_ref().ok().filter(|_| self.spec().role.is_some())?;
        let trusts = match observed.role.as_ref().ok()?.as_ref()? {
            RoleState::AsSpecified => true,
            RoleState::Found(role, _) => target.owns(role).is_ok() && target.trust.lets_in(&role.trust),
            RoleState::Missing => false,
        };
        let issuer = self.issuer.as_ref()?;
        let audience = self.spec().audience.as_deref().unwrap_or(issuer.spec.audience());
        trusts.then(|| Trusted {
            issuer: Some(issuer.name().to_owned()),
            audience: Some(audience)
                .filter(|audience| *audience != names::DEFAULT_AUDIENCE)
                .map(str::to_owned),
        })
    }

    /// Why the webhook gives nothing to any pod of the namespace, if that is so.
    #[must_use]
    pub fn left_out(&self) -> Option<&'static str> {
        let injection = self.labels.as_ref().and_then(|labels| labels.get(names::label::INJECTION));
        if injection.is_some_and(|value| value == "disabled") {
            return Some(
                "the namespace has the label podidentity.dev/injection=disabled: its pods get no identity",
            );
        }
        self.own_namespace.then_some(
            "the webhook leaves out the namespace in which it runs itself: pods there get no identity",
        )
    }

    /// Whether workloads whose pods run without the identity are restarted.
    #[must_use]
    pub fn restarts_workloads(&self) -> bool {
        let annotations = self.binding.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(RESTART_ANNOTATION)).is_some_and(|value| value == "true")
    }
}

/// The pods without identity, as the status shows them; `None` where they are not known.
#[must_use]
pub fn missing(view: &View, observed: &Observed) -> Option<MissingPods> {
    match &observed.pods {
        PodsState::Known(found) => Some(MissingPods {
            count: i64::try_from(found.count).unwrap_or(i64::MAX),
            names: found.named.iter().map(|(name, _)| name.clone()).collect(),
        }),
        // Nothing is expected of them.
        PodsState::NotKnown if view.expected().is_none() => Some(MissingPods::default()),
        PodsState::NotWatched | PodsState::Unreadable(_) => Some(MissingPods::default()),
        PodsState::NotKnown => None,
    }
}
