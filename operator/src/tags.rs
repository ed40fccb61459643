//! PURE: which tags a resource lacks, and tags as text.

use crate::aws::model::Tags;

/// The tags of `wanted` that a resource does not have with that value; `None` where it has all. Further tags are somebody else's and stay.
#[must_use]
pub fn missing(wanted: &Tags, found: &Tags) -> Option<Tags> {
    let wanted = wanted.iter().filter(|(key, value)| found.get(*key) != Some(value));
    let missing: Tags = wanted.map(|(key, value)| (key.clone(), value.clone())).collect();
    (!missing.is_empty()).then_some(missing)
}

/// What a resource has instead of these tags.
#[must_use]
pub fn describe_instead(found: &Tags, missing: &Tags) -> Option<String> {
    let instead: Tags = found
        .iter()
        .filter(|(key, _)| missing.contains_key(*key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    (!instead.is_empty()).then(|| describe(&instead))
}

/// Tags as text.
#[must_use]
pub fn describe(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
