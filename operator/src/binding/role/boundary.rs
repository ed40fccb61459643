//! PURE: the permissions boundary of a role.

use crate::aws::model::{IamWrite, Role, Write};
use crate::change::Change;

/// The attribute.
pub const BOUNDARY: &str = "permissions boundary";

/// What puts the boundary on the role.
#[must_use]
pub fn diff(role: &str, found: &Role, boundary: &str) -> Option<Change> {
    (found.boundary.as_deref() != Some(boundary)).then(|| Change {
        attribute: BOUNDARY,
        old: found.boundary.clone(),
        new: Some(boundary.to_owned()),
        write: Write::Iam(IamWrite::PutBoundary { role: role.to_owned(), boundary: boundary.to_owned() }),
    })
}
