//! PURE: the revocation of a role: an inline policy that denies everything ends what live sessions can do at once, and then its trust
//! policy lets nothing in. Restoring takes both back.

use std::collections::BTreeMap;

use crds::names::REVOKED_POLICY;
use serde_json::{Value, json};

use super::{inline, trust};
use crate::aws::model::{IamWrite, Role, Write};
use crate::change::Change;
use crate::policy::{VERSION, equivalent};

/// Denies everything.
fn deny_all() -> Value {
    json!({"Version": VERSION, "Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})
}

/// What revokes the role, in the order in which it works soonest.
#[must_use]
pub fn diff(name: &str, role: &Role, found: &BTreeMap<String, String>, trust: &trust::Wanted) -> Vec<Change> {
    let document = deny_all();
    let is_denied = found.get(REVOKED_POLICY).is_some_and(|stored| equivalent(stored, &document));
    let deny = (!is_denied).then(|| Change {
        attribute: "revocation",
        old: None,
        new: Some(format!("{REVOKED_POLICY}: {document}")),
        write: Write::Iam(IamWrite::PutInline {
            role: name.to_owned(),
            name: REVOKED_POLICY.into(),
            document,
        }),
    });
    // Where the denial does not fit, what allows something goes first. Its binding has the documents.
    let size = deny.as_ref().map_or(0, |_| deny_all().to_string().len());
    let [allows, _] = inline::removal(name, found);
    let removed = if inline::size_of_all(found) + size > inline::LIMIT { allows } else { Vec::new() };
    let fits = inline::size_of_foreign_denies(found, &BTreeMap::new()) + size <= inline::LIMIT;
    removed.into_iter().chain(deny.filter(|_| fits)).chain(trust.revocation(name, role)).collect()
}

/// Whether a revocation has begun.
#[must_use]
pub fn has_begun(role: &Role, inline: &BTreeMap<String, String>, trust: &trust::Wanted) -> bool {
    inline.contains_key(REVOKED_POLICY) || trust.is_revoked(role)
}

/// What takes the denial of a revoked role back. It comes last: until then, what the role may do is as specified again.
#[must_use]
pub fn restoration(name: &str, inline: &BTreeMap<String, String>) -> Option<Change> {
    inline.get(REVOKED_POLICY).map(|stored| Change {
        attribute: "revocation",
        old: Some(format!("{REVOKED_POLICY}: {stored}")),
        new: None,
        write: Write::Iam(IamWrite::DeleteInline { role: name.to_owned(), name: REVOKED_POLICY.into() }),
    })
}
