//! Which roles this process made, re-tagged or deleted a moment ago: what IAM shows of them may be older than that.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::model::{IamWrite, RoleChange, Write};

/// Far longer than a change in IAM takes to be seen everywhere.
const KEPT: Duration = Duration::from_hours(1);

/// The last change of each role, by its name.
#[derive(Debug, Default)]
pub struct RecentRoles(Mutex<HashMap<String, RoleChange>>);

impl RecentRoles {
    /// Remembers a successful write that makes or deletes a role, or makes it another owner's.
    pub fn note(&self, write: &Write) {
        const SLACK: usize = 64;
        let now = Instant::now();
        let (role, change) = match write {
            Write::Iam(IamWrite::CreateRole(new)) => (&new.name, RoleChange::Made(now)),
            Write::Iam(IamWrite::TagRole { role, .. }) => (role, RoleChange::Made(now)),
            Write::Iam(IamWrite::DeleteRole { role }) => (role, RoleChange::Deleted(now)),
            _ => return,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(role.clone(), change);
        if all.len().is_multiple_of(SLACK) {
            all.retain(|_, change| change.at().elapsed() < KEPT);
        }
    }

    /// What this process did to that role last.
    #[must_use]
    pub fn change(&self, role: &str) -> Option<RoleChange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(role).copied()
    }
}
