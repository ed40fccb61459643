//! PURE: the tags of the issuer's `spec.tags` on a role. Ownership tags are not corrected here: they prove whose the role is, and a move
//! changes the issuer in them (`trust.rs`).

use crds::names::tag;

use crate::aws::model::{IamWrite, Tags, Write};
use crate::change::Change;
use crate::ownership::Owner;
use crate::tags::missing;

/// The attribute.
pub const TAGS: &str = "tags";

/// What puts the tags of `spec.tags` on a role that it does not have. In keys of role tags IAM does not distinguish upper and lower case
/// ([IAM User Guide]): a tag whose key is written in another case is the same one.
///
/// [IAM User Guide]: https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html#case-sensitivity
#[must_use]
pub fn diff(role: &str, found: &Tags, owner: &Owner) -> Option<Change> {
    let missing = missing(&owner.specified_tags(), found, str::eq_ignore_ascii_case)?;
    let (old, new) = (missing.describe_instead(), Some(missing.describe()));
    // The operator's policy allows this call only with the tag of the cluster.
    let cluster = owner.tags().get_key_value(tag::CLUSTER).map(|(key, value)| (key.clone(), value.clone()));
    let tags = missing.tags.into_iter().chain(cluster).collect();
    Some(Change {
        attribute: TAGS,
        old,
        new,
        write: Write::Iam(IamWrite::TagRole { role: role.to_owned(), tags }),
    })
}
