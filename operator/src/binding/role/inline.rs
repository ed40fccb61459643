//! PURE: the inline policies of a role: none.

use crate::aws::model::{IamWrite, Write};
use crate::change::Change;

/// What removes every inline policy.
#[must_use]
pub fn diff(role: &str, found: &[String]) -> Vec<Change> {
    let remove = |name: &String| Change {
        attribute: "inline policies",
        old: Some(name.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeleteInline { role: role.to_owned(), name: name.clone() }),
    };
    found.iter().map(remove).collect()
}
