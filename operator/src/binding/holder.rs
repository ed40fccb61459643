//! PURE: which binding holds the `ServiceAccount`: by the role's tags where the role was read, else by the rule that the
//! webhook applies, too.

use crds::holder::{self, Claim};
use k8s_openapi::jiff::Timestamp;

use super::model::{Observed, RoleState, Sibling, View};
use super::role::Heir;

/// The other binding that holds the `ServiceAccount`, if one does.
#[must_use]
pub fn other_holder<'a>(view: &'a View, observed: &Observed) -> Option<&'a Sibling> {
    if matches!(observed.role, Ok(Some(RoleState::AsSpecified))) {
        return None;
    }
    if let Ok(Some(RoleState::Found(role, _))) = &observed.role
        && view.target.as_ref().is_ok_and(|target| target.owns(role).is_ok())
    {
        return None;
    }
    let by_rule = || {
        let own: &dyn Claim = &*view.binding;
        let siblings = view.siblings.iter().map(|sibling| sibling as &dyn Claim);
        named(view, holder::holder(siblings.chain([own]))?.name())
    };
    owner(view, observed).or_else(by_rule)
}

/// The other binding on the `ServiceAccount` that the role belongs to by its tags.
#[must_use]
pub fn owner<'a>(view: &'a View, observed: &Observed) -> Option<&'a Sibling> {
    let (Ok(target), Ok(Some(RoleState::Found(role, _)))) = (&view.target, &observed.role) else {
        return None;
    };
    named(view, target.other_binding(role)?)
}

fn named<'a>(view: &'a View, name: &str) -> Option<&'a Sibling> {
    view.siblings.iter().find(|sibling| sibling.name == name)
}

/// The binding that the role is handed over to when this one is deleted.
#[must_use]
pub fn heir(view: &View) -> Option<&Heir> {
    holder::heir(view.siblings.iter())?.heir.as_ref()
}

impl Claim for Sibling {
    fn created(&self) -> Option<Timestamp> {
        self.created
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn has_role(&self) -> bool {
        self.has_role
    }

    fn is_acted_on(&self) -> bool {
        self.acted_on
    }

    fn deleting(&self) -> bool {
        self.deleting
    }

    fn can_take_over(&self) -> bool {
        self.heir.is_some()
    }
}
