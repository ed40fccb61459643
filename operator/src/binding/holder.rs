//! PURE: which binding holds the `ServiceAccount`: by the role's tags where the role was read, else by the rule that the
//! webhook applies, too.

use crds::holder::{self, Claim};
use k8s_openapi::jiff::Timestamp;

use super::model::{Observed, RoleState, Sibling, View};
use super::role::Heir;

/// The other binding that holds the `ServiceAccount`, if one does.
#[must_use]
pub fn other_holder<'a>(view: &'a View, observed: &Observed) -> Option<&'a Sibling> {
    let named = |name: &str| view.siblings.iter().find(|sibling| sibling.name == name);
    if let (Ok(target), Ok(Some(RoleState::Found(role, _)))) = (&view.target, &observed.role) {
        if target.owns(role).is_ok() {
            return None;
        }
        if let Some(sibling) = target.other_binding(role).and_then(named) {
            return Some(sibling);
        }
    }
    let own: &dyn Claim = &*view.binding;
    let siblings = view.siblings.iter().map(|sibling| sibling as &dyn Claim);
    named(holder::holder(siblings.chain([own]))?.name())
}

/// The binding that the role is handed over to when this one is deleted.
#[must_use]
pub fn heir(view: &View) -> Option<&Heir> {
    holder::heir(&view.siblings)?.heir.as_ref()
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

    fn deleting(&self) -> bool {
        self.deleting
    }

    fn can_take_over(&self) -> bool {
        self.heir.is_some()
    }
}
