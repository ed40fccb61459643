//! PURE: which tags a resource lacks, and tags as text.

use crate::aws::model::Tags;

/// Tags that a resource lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The tags, with the values that they should have.
    pub tags: Tags,
    /// What the resource has under these keys.
    pub instead: Tags,
}

/// The tags of `wanted` that a resource does not have with that value; `None` where it has all. Tags that are not in `wanted` are not
/// compared. `is_same` says whether two keys are the same for the service.
#[must_use]
pub fn missing(wanted: &Tags, found: &Tags, is_same: fn(&str, &str) -> bool) -> Option<Missing> {
    let present = |key: &str| found.iter().find(|(other, _)| is_same(other, key));
    let copied = |(key, value): (&String, &String)| (key.clone(), value.clone());
    let lacks = |(key, value): &(&String, &String)| present(key).is_none_or(|(_, found)| found != *value);
    let tags: Tags = wanted.iter().filter(lacks).map(copied).collect();
    let instead = tags.keys().filter_map(|key| present(key)).map(copied).collect();
    (!tags.is_empty()).then_some(Missing { tags, instead })
}

impl Missing {
    /// What the resource has instead, as text.
    #[must_use]
    pub fn describe_instead(&self) -> Option<String> {
        (!self.instead.is_empty()).then(|| describe(&self.instead))
    }

    /// The tags as text.
    #[must_use]
    pub fn describe(&self) -> String {
        describe(&self.tags)
    }
}

fn describe(tags: &Tags) -> String {
    tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}
