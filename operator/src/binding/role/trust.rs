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
    /// Lets nothing in, where IAM refuses a policy that only denies.
    pub closed: Value,
}

/// Both policies.
#[must_use]
pub fn wanted(trust: &Trust<'_>) -> Wanted {
    Wanted { policy: trust.policy(), revoked: trust.revoked(), closed: trust.closed() }
}

impl Wanted {
    /// What makes a role's trust policy mean the same as the specified one.
    #[must_use]
    pub fn diff(&self, role: &str, found: &Role) -> Option<Change> {
        (!equivalent(&found.trust, &self.policy)).then(|| put(role, found, &self.policy, None))
    }

    /// What makes a role's trust policy let nothing in.
    #[must_use]
    pub fn revocation(&self, role: &str, found: &Role) -> Option<Change> {
        let is_revoked = [&self.revoked, &self.closed].iter().any(|wanted| equivalent(&found.trust, wanted));
        (!is_revoked).then(|| put(role, found, &self.revoked, Some(self.closed.clone())))
    }
}

fn put(role: &str, found: &Role, document: &Value, otherwise: Option<Value>) -> Change {
    Change {
        attribute: "trust policy",
        old: Some(found.trust.clone()),
        new: Some(document.to_string()),
        write: Write::Iam(IamWrite::PutTrust {
            role: role.to_owned(),
            document: document.clone(),
            otherwise,
        }),
    }
}
