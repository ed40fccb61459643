//! PURE: when "there is no role of this binding" may be believed. IAM is eventually consistent: a role that was just made, or
//! just became this binding's, may not be shown yet (IAM user guide, "Changes that I make are not always immediately
//! visible"), and what ends at a wrong answer is never looked at again.

use std::time::Duration;

use super::model::{Memory, Observed};
use crate::aws::model::RoleChange;
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
    let changed = match observed.change {
        Some(RoleChange::Deleted(_)) => return None,
        Some(RoleChange::Made(at)) => at.max(clock.started),
        None => clock.started,
    };
    if clock.since(changed) >= timings.role_settling {
        return None;
    }
    let first = memory.absent_since.unwrap_or(clock.instant);
    Some(timings.role_confirmation.saturating_sub(clock.since(first))).filter(|left| !left.is_zero())
}
