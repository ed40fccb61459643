//! PURE: the tags of `spec.tags` on bucket and provider. The ownership tags are not among what is corrected: they prove whose a
//! resource is.

use super::target::Target;
use crate::aws::model::Tags;

/// The tags that a resource of this issuer does not have as specified; `None` where it has all. Further tags are somebody
/// else's and stay.
#[must_use]
pub fn missing_tags(target: &Target, found: &Tags) -> Option<Tags> {
    let wanted = target.owner.tags().iter().filter(|(key, value)| found.get(*key) != Some(value));
    let missing: Tags = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!missing.is_empty()).then_some(missing)
}

/// What a resource has instead of these tags.
#[must_use]
pub fn describe_tags(found: &Tags, missing: &Tags) -> Option<String> {
    let instead: Tags = found
        .iter()
        .filter(|(key, _)| missing.contains_key(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!instead.is_empty()).then(|| describe_all(&instead))
}

/// Tags as text.
#[must_use]
pub fn describe_all(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
