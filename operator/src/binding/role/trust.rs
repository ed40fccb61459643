//! PURE: the trust policy.

use serde_json::Value;

use crate::aws::model::{IamWrite, Role, Write};
use crate::change::Change;
use crate::policy::equivalent;
use crate::policy::trust::Trust;

/// The trust policy, and the one of a role that is being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Lets the one `ServiceAccount` in.
    pub policy: Value,
    /// Lets nothing in.
    pub revoked: Value,
}

/// Both policies.
#[must_use]
pub fn wanted(trust: &Trust<'_>) -> Wanted {
    Wanted { policy: trust.policy(), revoked: trust.revoked() }
}

/// What makes a role's trust policy mean the same as `document`.
#[must_use]
pub fn diff(role: &str, found: &Role, document: &Value) -> Option<Change> {
    (!equivalent(&found.trust, document)).then(|| Change {
        attribute: "trust policy",
        old: Some(found.trust.clone()),
        new: Some(document.to_string()),
        write: Write::Iam(IamWrite::PutTrust { role: role.to_owned(), document: document.clone() }),
    })
}
