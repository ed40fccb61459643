//! The roles that exist under a path, found by listing. Names only: `ListRoles` shows no tags, so ownership is not known
//! here.

use super::error::AwsError;
use super::iam::Iam;

/// Names of all roles under a path, all pages.
pub async fn roles_under(iam: &Iam, path: &str) -> Result<Vec<String>, AwsError> {
    let (mut names, mut next) = iam.role_names(path, None).await?;
    while next.is_some() {
        let (page, after) = iam.role_names(path, next).await?;
        names.extend(page);
        next = after;
    }
    Ok(names)
}
