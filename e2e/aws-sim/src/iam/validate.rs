//! Tags and quotas of several resources.

use std::collections::BTreeSet;

use aws_sim_api::Tags;

use crate::wire::ApiError;

const QUOTA_TAGS: usize = 50;

/// A quota is reached.
pub(super) fn limit(quota: &str, value: usize) -> ApiError {
    ApiError::new(409, "LimitExceeded", format!("Cannot exceed quota for {quota}: {value}"))
}

/// The tags of a request. Keys differ by more than case, and `aws:` is AWS's.
pub(super) fn checked(tags: Vec<(String, String)>) -> Result<Tags, ApiError> {
    let invalid = |message: &str| Err(ApiError::new(400, "InvalidInput", message));
    let keys: BTreeSet<String> = tags.iter().map(|(key, _)| key.to_lowercase()).collect();
    if keys.len() < tags.len() {
        return invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.");
    }
    if keys.iter().any(|key| key.starts_with("aws:")) {
        return invalid("Caller is not allowed to modify tags with prefix aws:");
    }
    Ok(tags.into_iter().collect())
}

/// Puts tags over those that a resource has. One in another case replaces the one that is there.
pub(super) fn put_tags(present: &mut Tags, new: Tags) -> Result<(), ApiError> {
    let mut all = present.clone();
    all.retain(|key, _| !new.keys().any(|other| other.eq_ignore_ascii_case(key)));
    all.extend(new);
    if all.len() > QUOTA_TAGS {
        return Err(limit("TagsPerResource", QUOTA_TAGS));
    }
    *present = all;
    Ok(())
}
