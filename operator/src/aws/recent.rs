//! Which roles this process made, re-tagged or deleted a moment ago: what IAM shows of them may be older than that.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::names;

use super::model::{IamWrite, RoleChanges, Write};

/// Far longer than a change in IAM takes to be seen everywhere.
const KEPT: Duration = Duration::from_hours(1);

/// The last changes of each role, by its name.
#[derive(Debug, Default)]
pub struct RecentRoles(Mutex<HashMap<String, RoleChanges>>);

impl RecentRoles {
    /// Remembers that a call is made which makes a role, or writes its tags: it may have another owner then. Its answer may be lost, and the
    /// answer to a repetition of the call may be an error.
    pub fn begun(&self, write: &Write) {
        let role = match write {
            Write::Iam(IamWrite::CreateRole(new)) => &new.name,
            Write::Iam(IamWrite::TagRole { role, .. }) => role,
            _ => return,
        };
        self.note(role, |changes, now| changes.made = Some(now));
    }

    /// Remembers a call that was carried out.
    pub fn done(&self, write: &Write) {
        match write {
            Write::Iam(IamWrite::DeleteRole { role, id }) => {
                self.note(role, |changes, now| changes.deleted = Some((now, names::hash_of(id))));
            }
            _ => self.begun(write),
        }
    }

    fn note(&self, role: &str, change: impl FnOnce(&mut RoleChanges, Instant)) {
        const SLACK: usize = 64;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(all.entry(role.to_owned()).or_default(), Instant::now());
        if all.len().is_multiple_of(SLACK) {
            let is_recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < KEPT);
            all.retain(|_, changes| is_recent(changes.made) || is_recent(changes.deleted.map(|(at, _)| at)));
        }
    }

    /// What this process did to the roles of that name.
    #[must_use]
    pub fn changes(&self, role: &str) -> RoleChanges {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(role).copied().unwrap_or_default()
    }
}
