//! PURE: when "there is no role of this binding" may be believed. IAM is eventually consistent: a role that was just made, or
//! just became this binding's, may not be shown yet (IAM user guide, "Changes that I make are not always immediately
//! visible"), and what ends at a wrong answer is never looked at again.

use std::time::Duration;

use crds::holder::Claim;

use super::model::{Memory, Observed, RoleFacts, RoleState, View};
use crate::clock::Clock;
use crate::timings::Timings;

/// How long the answer has to be waited for; `None` where it counts. It counts at once if this process deleted the role, and if
/// it has led for `role_settling` and has not made or re-tagged the role within that time; otherwise once it was given
/// twice, `role_confirmation` apart.
#[must_use]
pub fn unconfirmed(
    observed: &Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Option<Duration> {
    if observed.changes.ends_deleted() {
        return None;
    }
    let changed = observed.changes.made.map_or(clock.started, |made| made.max(clock.started));
    if clock.since(changed) >= timings.role_settling {
        return None;
    }
    let first = memory.absent_since.unwrap_or(clock.instant);
    Some(timings.role_confirmation.saturating_sub(clock.since(first))).filter(|left| !left.is_zero())
}

/// What the status says of the role; `None` leaves the status as it is. Only what was read is reported. The name of a role that was read
/// before is taken out of the status once it is certain that the role does not exist: then the binding may use another issuer. The name
/// stays where the pass read a role of another ARN, and where the issuer in the specification does not exist: without it, a deletion could
/// not tell where the role would be.
#[must_use]
pub fn known_role(
    view: &View,
    observed: &Observed,
    memory: &Memory,
    clock: &Clock,
    timings: &Timings,
) -> Option<RoleFacts> {
    let is_gone = || unconfirmed(observed, memory, clock, timings).is_none();
    match observed.role.as_ref().ok()? {
        Some(RoleState::Found(..)) => view.own_role(observed),
        Some(RoleState::AsSpecified) => view.target.as_ref().ok().map(RoleFacts::of),
        Some(RoleState::Missing) if is_gone() && view.knows_issuer && view.former_role().is_none() => {
            Some(RoleFacts::default())
        }
        None | Some(RoleState::Missing) => (!view.binding.has_role()).then(RoleFacts::default),
    }
}
