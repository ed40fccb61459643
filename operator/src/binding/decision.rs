//! PURE: a plan before its conditions.

use crds::condition::Summary;
use k8s_openapi::jiff::Timestamp;

use super::model::{Revocation, RoleFacts, Step};
use crate::aws::error::AwsError;
use crate::model::Next;
use crate::timings::Timings;

/// A plan before its conditions.
#[derive(Debug, Clone)]
pub struct Decision<'a> {
    /// What is done.
    pub steps: Vec<Step>,
    /// Status, reason and message of `Ready`.
    pub summary: Summary,
    /// The failure that makes `AWSReachable` False.
    pub unreachable: Option<&'a AwsError>,
    /// Facts of the status; `None` leaves them as they are.
    pub facts: Option<RoleFacts>,
    /// When to look again.
    pub next: Next,
    /// Whether it is known that no role of this binding remains from an earlier generation of the spec.
    pub no_earlier_role: bool,
    /// When the role is revoked, because no grant covers its rights any more.
    pub revoke_at: Option<Timestamp>,
    /// Whether it is revoked now.
    pub revocation: Revocation,
}

impl Decision<'_> {
    /// Nothing is done, and the object is looked at again at a role's age.
    #[must_use]
    pub fn nothing(summary: Summary, timings: &Timings) -> Self {
        Self {
            steps: Vec::new(),
            summary,
            unreachable: None,
            facts: None,
            next: Next::At(timings.look_again()),
            no_earlier_role: false,
            revoke_at: None,
            revocation: Revocation::None,
        }
    }
}
