//! PURE: the inline policies of a role: none but those that only deny.

use std::collections::BTreeMap;

use crate::aws::model::{IamWrite, Write};
use crate::change::Change;
use crate::policy::only_denies;

/// What removes every inline policy that allows something.
#[must_use]
pub fn diff(role: &str, found: &BTreeMap<String, String>) -> Vec<Change> {
    let [allows, _] = removal(role, found);
    allows
}

/// Policies that only deny: they are never removed while the role stays.
pub fn foreign_denies(found: &BTreeMap<String, String>) -> impl Iterator<Item = &String> {
    found.iter().filter(|(_, document)| only_denies(document)).map(|(name, _)| name)
}

/// What removes every inline policy; those that only deny are the second part.
#[must_use]
pub fn removal(role: &str, found: &BTreeMap<String, String>) -> [Vec<Change>; 2] {
    let remove = |name: &String| Change {
        attribute: "inline policies",
        old: Some(name.clone()),
        new: None,
        write: Write::Iam(IamWrite::DeleteInline { role: role.to_owned(), name: name.clone() }),
    };
    [false, true].map(|only| {
        let of_kind = found.iter().filter(|(_, document)| only_denies(document) == only);
        of_kind.map(|(name, _)| remove(name)).collect()
    })
}
