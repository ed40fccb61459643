//! PURE: the tags of the issuer's `spec.tags` on a role. The ownership tags are not among what is corrected here: they prove whose the role
//! is, and a move changes the issuer in them (`trust.rs`).

use crds::names::tag;

use crate::aws::model::{IamWrite, Tags, Write};
use crate::change::Change;
use crate::tags::describe;

/// The attribute.
pub const TAGS: &str = "tags";

/// What puts those tags of `owner` on a role that it does not have; `owner` has the ownership tags, too. In keys of role tags IAM does not
/// distinguish upper and lower case ([IAM User Guide]): a tag whose key is written in another case is the same one.
///
/// [IAM User Guide]: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html#case-sensitivity
#[must_use]
pub fn diff(role: &str, found: &Tags, owner: &Tags) -> Option<Change> {
    let present = |key: &str| found.iter().find(|(other, _)| other.eq_ignore_ascii_case(key));
    let copied = |(key, value): (&String, &String)| (key.clone(), value.clone());
    let lacks = |(key, value): &(&String, &String)| present(key).is_none_or(|(_, found)| found != *value);
    let missing: Tags = specified(owner).iter().filter(lacks).map(copied).collect();
    let replaced: Tags = missing.keys().filter_map(|key| present(key)).map(copied).collect();
    // The operator's policy allows this call only with the tag of the cluster.
    let cluster = owner.get_key_value(tag::CLUSTER).map(copied);
    (!missing.is_empty()).then(|| Change {
        attribute: TAGS,
        old: (!replaced.is_empty()).then(|| describe(&replaced)),
        new: Some(describe(&missing)),
        write: Write::Iam(IamWrite::TagRole {
            role: role.to_owned(),
            tags: missing.into_iter().chain(cluster).collect(),
        }),
    })
}

/// The tags without those that say whose the role is.
#[must_use]
pub fn specified(owner: &Tags) -> Tags {
    let is_specified = |(key, _): &(&String, &String)| !key.to_ascii_lowercase().starts_with(tag::PREFIX);
    owner.iter().filter(is_specified).map(|(key, value)| (key.clone(), value.clone())).collect()
}
