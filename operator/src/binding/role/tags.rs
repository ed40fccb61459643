//! PURE: the tags of the issuer's `spec.tags` on a role. The ownership tags are not among what is corrected here: they prove whose the role
//! is, and a move changes the issuer in them (`trust.rs`).

use std::collections::BTreeSet;

use crds::names::tag;

use crate::aws::model::{IamWrite, Tags, Write};
use crate::change::Change;
use crate::tags::{describe, describe_instead};

/// The attribute.
pub const TAGS: &str = "tags";

/// What puts those tags of `owner` on a role that it does not have; `owner` has the ownership tags, too. IAM compares keys of role tags
/// without regard to case, and keeps the case of one that it has ([IAM User Guide, "Case sensitivity"]): a key in another case is the same, and
/// of two of `owner` that differ only in case the first one counts.
///
/// [IAM User Guide, "Case sensitivity"]: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
#[must_use]
pub fn diff(role: &str, found: &Tags, owner: &Tags) -> Option<Change> {
    let has = |key: &str, value: &str| {
        found.iter().any(|(other, found)| other.eq_ignore_ascii_case(key) && found == value)
    };
    let mut keys = BTreeSet::new();
    let lacks = |(key, value): &(&String, &String)| {
        !key.starts_with(tag::PREFIX) && keys.insert(key.to_ascii_lowercase()) && !has(key, value)
    };
    let copied = |(key, value): (&String, &String)| (key.clone(), value.clone());
    let missing: Tags = owner.iter().filter(lacks).map(copied).collect();
    // The operator's policy allows this call only with the tag of the cluster.
    let cluster = owner.get_key_value(tag::CLUSTER).map(copied);
    (!missing.is_empty()).then(|| Change {
        attribute: TAGS,
        old: describe_instead(found, &missing),
        new: Some(describe(&missing)),
        write: Write::Iam(IamWrite::TagRole {
            role: role.to_owned(),
            tags: missing.into_iter().chain(cluster).collect(),
        }),
    })
}
