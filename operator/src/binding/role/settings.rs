//! PURE: how long a session of a role may last, and the role's description: one call of IAM sets both.

use std::time::Duration;

use crds::RoleSpec;
use crds::binding::DEFAULT_SESSION;

use crate::aws::model::{IamWrite, Role, RoleSettings, Write};
use crate::change::Change;

/// The specified settings; `default_description` is used where the binding has none.
#[must_use]
pub fn wanted(role: Option<&RoleSpec>, default_description: String) -> RoleSettings {
    let session = role.and_then(|role| role.max_session_duration).map_or(DEFAULT_SESSION, Duration::from);
    RoleSettings {
        max_session_seconds: i32::try_from(session.as_secs()).unwrap_or(i32::MAX),
        description: role.and_then(|role| role.description.clone()).unwrap_or(default_description),
    }
}

/// What makes a role's settings equal to `wanted`. It is named after the session limit where that differs.
#[must_use]
pub fn diff(role: &str, found: &Role, wanted: &RoleSettings) -> Option<Change> {
    let session = found.settings.max_session_seconds != wanted.max_session_seconds;
    (found.settings != *wanted).then(|| Change {
        attribute: if session { "maximum session duration" } else { "description" },
        old: Some(describe(&found.settings)),
        new: Some(describe(wanted)),
        write: Write::Iam(IamWrite::PutSettings { role: role.to_owned(), settings: wanted.clone() }),
    })
}

fn describe(settings: &RoleSettings) -> String {
    format!("{} s, {:?}", settings.max_session_seconds, settings.description)
}
