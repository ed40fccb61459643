//! Parameter constraints that several resources share.

use aws_sim_api::Tags;

use crate::wire::ApiError;

/// A quota is reached.
pub(super) fn limit(quota: &str, value: usize) -> ApiError {
    ApiError::new(409, "LimitExceeded", format!("Cannot exceed quota for {quota}: {value}"))
}

pub(super) fn check_name(field: &str, name: &str, max: usize) -> Result<(), ApiError> {
    let valid = name.chars().all(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c));
    if valid && name.len() <= max {
        return Ok(());
    }
    Err(ApiError::validation(format!(
        "1 validation error detected: Value at '{field}' failed to satisfy constraint: Member must satisfy regular \
         expression pattern: [\\w+=,.@-]+ and have length less than or equal to {max}"
    )))
}

pub(super) fn check_path(path: &str) -> Result<(), ApiError> {
    if path.starts_with('/') && path.ends_with('/') && path.len() <= 512 {
        return Ok(());
    }
    Err(ApiError::validation(
        "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
    ))
}

pub(super) fn check_tags(tags: &Tags) -> Result<(), ApiError> {
    let fits =
        |(key, value): (&String, &String)| key.len() <= 128 && value.len() <= 256 && !key.starts_with("aws:");
    if tags.len() <= 50 && tags.iter().all(fits) {
        return Ok(());
    }
    Err(ApiError::validation("1 validation error detected: Value at 'tags' failed to satisfy constraint"))
}
