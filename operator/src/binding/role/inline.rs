//! PURE: the inline policies of a role: exactly the specified set, and those that only deny.

use std::collections::BTreeMap;

use crds::InlinePolicy;
use crds::names::{self, REVOKED_POLICY};
use serde_json::Value;

use super::difference::Difference;
use crate::aws::model::{IamWrite, Write};
use crate::change::Change;
use crate::policy::{equivalent, only_denies};

/// What bindings may specify: IAM's limit less 256 characters for a revocation.
pub const QUOTA: usize = LIMIT - 256;
/// Characters without white space that the inline policies of a role may have (IAM quotas).
pub const LIMIT: usize = 10_240;

/// The specified documents by name.
#[must_use]
pub fn wanted(policies: &[InlinePolicy]) -> BTreeMap<String, Value> {
    let one = |policy: &InlinePolicy| (policy.name.clone(), Value::Object(policy.document.clone()));
    policies.iter().map(one).collect()
}

/// A hash of one policy, for a comparison with what this process has put.
#[must_use]
pub fn digest(name: &str, document: &Value) -> u64 {
    names::hash_of(&format!("{name}\n{document}"))
}

/// The size of all documents as IAM counts it.
#[must_use]
pub fn size(wanted: &BTreeMap<String, Value>) -> usize {
    wanted.values().map(|document| characters(&document.to_string())).sum()
}

/// The size of those that are not specified and only deny.
#[must_use]
pub fn size_of_foreign_denies(found: &BTreeMap<String, String>, wanted: &BTreeMap<String, Value>) -> usize {
    let staying = foreign_denies(found, wanted).filter_map(|name| found.get(name));
    staying.map(|document| characters(document)).sum()
}

/// The size of all inline policies of a role.
#[must_use]
pub fn size_of_all(found: &BTreeMap<String, String>) -> usize {
    found.values().map(|document| characters(document)).sum()
}

fn characters(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

/// What makes the inline policies equal to `wanted`. A policy that only denies is never removed here, so neither is the one of a
/// revocation. Documents that become smaller are written first: IAM limits the size of all documents together.
#[must_use]
pub fn diff(role: &str, found: &BTreeMap<String, String>, wanted: &BTreeMap<String, Value>) -> Difference {
    let is_there =
        |name: &String, document: &Value| found.get(name).is_some_and(|stored| equivalent(stored, document));
    let put = |(name, document): (&String, &Value)| Change {
        attribute: "inline policies",
        old: found.get(name).map(|stored| format!("{name}: {stored}")),
        new: Some(format!("{name}: {document}")),
        write: Write::Iam(IamWrite::PutInline {
            role: role.to_owned(),
            name: name.clone(),
            document: document.clone(),
        }),
    };
    let grows = |(name, document): &(&String, &Value)| {
        let before = found.get(*name).map_or(0, |stored| characters(stored));
        characters(&document.to_string()).cast_signed() - before.cast_signed()
    };
    let missing = wanted.iter().filter(|(name, document)| !is_there(name, document));
    let mut missing: Vec<_> = missing.map(|policy| (put(policy), grows(&policy))).collect();
    missing.sort_by_key(|(_, size)| *size > 0); // stable
    let is_surplus = |name: &String, document: &str| !wanted.contains_key(name) && !only_denies(document);
    let surplus = found.iter().filter(|(name, document)| is_surplus(name, document));
    Difference {
        additions: missing,
        removals: surplus
            .map(|(name, document)| (remove(role, name), characters(document).cast_signed()))
            .collect(),
        room: LIMIT.cast_signed() - size_of_all(found).cast_signed(),
    }
}

/// Policies that are not specified and only deny: they are never removed while the role stays.
pub fn foreign_denies<'a>(
    found: &'a BTreeMap<String, String>,
    wanted: &BTreeMap<String, Value>,
) -> impl Iterator<Item = &'a String> {
    let is_foreign = move |name: &String| !wanted.contains_key(name) && name != REVOKED_POLICY;
    found
        .iter()
        .filter(move |(name, document)| is_foreign(name) && only_denies(document))
        .map(|(name, _)| name)
}

/// What removes every inline policy; those that only deny are the second part.
#[must_use]
pub fn removal(role: &str, found: &BTreeMap<String, String>) -> [Vec<Change>; 2] {
    [false, true].map(|only| {
        let of_kind = found.iter().filter(|(_, document)| only_denies(document) == only);
        of_kind.map(|(name, _)| remove(role, name)).collect()
    })
}

/// What removes one policy.
#[must_use]
pub fn remove(role: &str, name: &str) -> Change {
    Change {
        attribute: "inline policies (surplus)",
        old: Some(name.to_owned()),
        new: None,
        write: Write::Iam(IamWrite::DeleteInline { role: role.to_owned(), name: name.to_owned() }),
    }
}
